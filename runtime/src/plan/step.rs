//! The steps of a plan: complete data, so that who walks it has nothing to decide and nothing to allocate.

use std::ffi::{CString, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::caps;
use berth_sys::mount::{Attributes, Reach};
use berth_sys::namespace::Kind;
use berth_sys::pty::Size;
use berth_sys::schedule::{NumberSet, Scheduler};
use berth_sys::seccomp::Instruction;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, SFlag};

use super::identity::Missing;
use crate::hooks::Ready;

/// Whose `/proc` tells the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proc {
    /// The machine's, while it is in sight.
    Machine,
    /// None but one of its own: the container's may have been mounted over (CVE-2025-52881).
    Own,
}

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Become more or less likely to be taken by the OOM killer; who may not become less goes on.
    OomScore(String),
    /// Become root of the user namespace, once its maker has mapped its users, if it is new.
    BecomeRoot { mapped: bool },
    /// Open a file below `/proc/self/attr` for a label that [`Step::WriteLabels`] writes.
    OpenLabel { files: &'static [&'static str], label: String, proc: Proc },
    /// Get a session keyring of its own.
    Keyring(CString),
    /// Let its maker run hooks, now that the namespaces are there.
    AwaitHooks,
    /// Run hooks, with this file as their input.
    Hooks { hooks: Vec<Ready>, input: OwnedFd },
    /// Wait until the cgroup is there, which its maker makes meanwhile.
    AwaitCgroup,
    /// Enter a cgroup of a v1 hierarchy by its `tasks` file on the machine.
    EnterCgroup { tasks: CString },
    /// Enter a cgroup of a v1 hierarchy by its opened door.
    JoinCgroup { path: PathBuf, door: OwnedFd },
    /// Make a time namespace and enter it.
    NewTimeNamespace { offsets: String },
    /// Enter a namespace by its descriptor.
    JoinNamespace { kind: Kind, path: PathBuf, namespace: OwnedFd },
    /// Enter these namespaces of the process behind this pidfd; a pid namespace one is born into.
    JoinContainer { init: OwnedFd, kinds: CloneFlags },
    /// Bring the loopback device of a new network namespace up.
    Loopback,
    /// Make the present cgroups the root of what can be seen.
    NewCgroupNamespace,
    /// Write a kernel parameter.
    Parameter { path: CString, value: String },
    /// Name the host.
    HostName(String),
    /// Name its NIS domain.
    DomainName(CString),
    /// Copy what is mounted at a path of the machine, into a slot for later.
    Source { slot: usize, path: CString, reach: Reach },
    /// Cut every mount off from the machine's.
    Detach,
    /// Attach the copy of the root file system over itself: the root of all that follows.
    Root { slot: usize, path: CString, propagation: u64 },
    /// Mount something in the root.
    Mount(Box<Mount>),
    /// Make a device node.
    Device(Box<Device>),
    /// Make a symbolic link, unless something is there.
    Link { at: Target, to: CString },
    /// Hide a path: a folder behind an empty one, anything else behind the null device. One that is not there is hidden.
    Mask(PathBuf),
    /// Make a path read-only. One that is not there is.
    ReadOnly(PathBuf),
    /// Make what is mounted at a path read-only, now that all is in it.
    Seal(PathBuf),
    /// Make the root file system itself read-only.
    ReadOnlyRoot,
    /// Make the root the root.
    Pivot,
    /// Move the root over the machine's, where that cannot be left.
    MoveRoot,
    /// Change the propagation of the root, and of what is below.
    RootPropagation(u64),
    /// Fill a new file system with what the image has at its place.
    CopyUp(Target),
    /// Lead a new session.
    NewSession,
    /// Change to a folder.
    Folder(Target, Missing),
    /// Take these as standard streams; give them to this user.
    Streams { streams: [OwnedFd; 3], owner: u32 },
    /// Make a terminal in the container, tell its master, and take it as standard streams; give it to this user.
    Terminal { size: Option<Size>, owner: u32, is_console: bool },
    /// Run on these processors.
    Affinity { processors: NumberSet, list: String },
    /// Take on a scheduling policy.
    Scheduler(Scheduler),
    /// Take on an I/O priority.
    IoPriority { class: u16, level: u16 },
    /// Take on an execution domain.
    Personality(u32),
    /// Take memory by a policy.
    MemoryPolicy { mode: i32, nodes: Option<NumberSet> },
    /// Set a resource limit.
    Limit { name: String, resource: u32, soft: u64, hard: u64 },
    /// Drop these capabilities for good.
    DropCapabilities(caps::Set),
    /// Become somebody.
    Become(Box<Identity>),
    /// Go to the folder that root could not enter, now as the user.
    FolderAsUser(PathBuf),
    /// Never gain privileges again.
    NoNewPrivileges,
    /// Filter system calls.
    Filter { program: Vec<Instruction>, flags: u32 },
    /// Set signals back, and let no descriptor pass into the program but these, from 3 on.
    Clean { preserved: Vec<OwnedFd> },
    /// Take on the labels with the program.
    WriteLabels,
}

/// A place in the container's root, with the folders to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Absolute in the container.
    pub(crate) path: PathBuf,
    /// Its own name.
    pub(crate) name: OsString,
    /// Whether a symbolic link on the way is an error, not a way.
    pub(crate) no_links: bool,
}

/// A mount to make.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) target: Target,
    pub(crate) content: Content,
    /// For the mount itself.
    pub(crate) attributes: Attributes,
    /// For it and all below it: the OCI's recursive options, and propagation.
    pub(crate) recursive: Attributes,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum Content {
    /// The copy in this slot.
    Copy { slot: usize },
    /// A new file system.
    New {
        kind: CString,
        options: Vec<(CString, Option<CString>)>,
        attributes: u64,
        /// Whether its root has the mode of the folder that it covers.
        inherits_mode: bool,
    },
}

/// A device node to make.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) target: Target,
    pub(crate) kind: SFlag,
    pub(crate) number: u64,
    pub(crate) mode: Mode,
    pub(crate) owner: (u32, u32),
}

/// Who to become.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: Mode,
    pub(crate) effective: caps::Set,
    pub(crate) permitted: caps::Set,
    pub(crate) inheritable: caps::Set,
    pub(crate) ambient: caps::Set,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OomScore(score) => write!(f, "set oom_score_adj to {score}"),
            Self::BecomeRoot { .. } => write!(f, "become root of the user namespace"),
            Self::OpenLabel { label, .. } => write!(f, "prepare the security label {label:?}"),
            Self::Keyring(_) => write!(f, "make a session keyring"),
            Self::AwaitHooks => write!(f, "wait for the hooks"),
            Self::Hooks { hooks, .. } => {
                let names: Vec<&str> = hooks.iter().map(|hook| hook.name.as_str()).collect();
                write!(f, "run the hooks {}", names.join(", "))
            }
            Self::AwaitCgroup => write!(f, "wait for the cgroup"),
            Self::EnterCgroup { tasks } => write!(f, "enter the cgroup by {}", tasks.to_string_lossy()),
            Self::JoinCgroup { path, .. } => write!(f, "enter the cgroup {}", path.display()),
            Self::NewTimeNamespace { offsets } => {
                write!(f, "make a time namespace with the offsets {:?}", offsets.trim())
            }
            Self::JoinNamespace { kind, path, .. } => {
                write!(f, "enter the {} namespace {}", kind.name(), path.display())
            }
            Self::JoinContainer { .. } => write!(f, "enter the container's namespaces"),
            Self::Loopback => write!(f, "bring the loopback device up"),
            Self::NewCgroupNamespace => write!(f, "make a cgroup namespace"),
            Self::Parameter { path, value } => write!(f, "write {value:?} to {}", path.to_string_lossy()),
            Self::HostName(name) => write!(f, "set the host name to {name:?}"),
            Self::DomainName(name) => write!(f, "set the domain name to {name:?}"),
            Self::Source { path, .. } => write!(f, "open the mount source {}", path.to_string_lossy()),
            Self::Detach => write!(f, "make the machine's mounts private"),
            Self::Root { path, .. } => write!(f, "mount the root file system {}", path.to_string_lossy()),
            Self::Mount(mount) => mount.fmt(f),
            Self::Device(device) => write!(f, "make the device {}", device.target.path.display()),
            Self::Link { at, .. } => write!(f, "make the link {}", at.path.display()),
            Self::Mask(path) => write!(f, "mask {}", path.display()),
            Self::ReadOnly(path) | Self::Seal(path) => write!(f, "make {} read-only", path.display()),
            Self::ReadOnlyRoot => write!(f, "make the root file system read-only"),
            Self::Pivot | Self::MoveRoot => write!(f, "change the root"),
            Self::RootPropagation(_) => write!(f, "set the root's propagation"),
            Self::CopyUp(target) => write!(f, "copy what the image has at {}", target.path.display()),
            Self::NewSession => write!(f, "make a session"),
            Self::Folder(Target { path, .. }, _) | Self::FolderAsUser(path) => {
                write!(f, "change to the working directory {}", path.display())
            }
            Self::Streams { .. } => write!(f, "set up the standard streams"),
            Self::Terminal { .. } => write!(f, "make the terminal"),
            Self::Affinity { list, .. } => write!(f, "run on the processors {list}"),
            Self::Scheduler(_) => write!(f, "set the scheduler"),
            Self::IoPriority { class, level } => write!(f, "set the I/O priority to class {class}, level {level}"),
            Self::Personality(persona) => write!(f, "set the personality to {persona:#x}"),
            Self::MemoryPolicy { .. } => write!(f, "set the memory policy"),
            Self::Limit { name, soft, hard, .. } => write!(f, "set {name} to {soft}, at most {hard}"),
            Self::DropCapabilities(_) => write!(f, "drop capabilities"),
            Self::Become(identity) => write!(f, "become user {}, group {}", identity.user, identity.group),
            Self::NoNewPrivileges => write!(f, "give up new privileges"),
            Self::Filter { program, .. } => write!(f, "load the seccomp filter of {} instructions", program.len()),
            Self::Clean { .. } => write!(f, "reset signals and descriptors"),
            Self::WriteLabels => write!(f, "take on the security labels"),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.content {
            Content::Copy { .. } => "bind".into(),
            Content::New { kind, .. } => kind.to_string_lossy(),
        };
        write!(f, "mount {what} on {}", self.target.path.display())
    }
}
