//! Namespaces: made, pinned to files so that they outlive every process in them, opened, and entered for one call.
//!
//! A pinned namespace is a bind mount of the kernel's `nsfs` file: `pin_new(&[Kind::Net], "/run/x")` gives `/run/x/net`,
//! which `ip netns`-like tools, a container's `config.json` and [`open`] can name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{panic, thread};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use crate::process;

/// What nix has no name for yet.
const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// The kinds of namespaces that berth handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Mount points.
    Mount,
    /// Host and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network devices, addresses, routes, sockets' names.
    Net,
    /// Process ids.
    Pid,
    /// The root of what a process sees of the cgroup tree.
    Cgroup,
    /// User and group ids, and what is permitted.
    User,
    /// The clocks since boot.
    Time,
}

impl Kind {
    /// The name below `/proc/<pid>/ns`, and of the file that [`pin_new`] makes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Time => "time",
        }
    }

    /// The flag that `clone3`, `unshare` and `setns` take.
    pub const fn flag(self) -> CloneFlags {
        match self {
            Self::Mount => CloneFlags::CLONE_NEWNS,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Pid => CloneFlags::CLONE_NEWPID,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            Self::User => CloneFlags::CLONE_NEWUSER,
            Self::Time => CLONE_NEWTIME,
        }
    }
}

/// What can go wrong with a namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel made none.
    #[error("cannot make new namespaces ({kinds})")]
    Make {
        /// Which were asked for.
        kinds: String,
        /// Why not.
        source: io::Error,
    },
    /// A namespace could not be bound to its file.
    #[error("cannot pin a namespace at {path}")]
    Pin {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A pin could not be taken away.
    #[error("cannot remove the namespace pinned at {path}")]
    Unpin {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No namespace could be opened there.
    #[error("cannot open the namespace {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error("cannot enter the {kind} namespace")]
    Enter {
        /// [`Kind::name`].
        kind: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// No thread could be started to do the work in.
    #[error("cannot start a thread to change namespaces in")]
    Thread(#[source] io::Error),
}

/// Makes new namespaces and pins each at `<folder>/<name>`. The caller stays where it is. On failure nothing is left.
///
/// [`Kind::Mount`] cannot be pinned below a folder that it contains itself, and [`Kind::Pid`] lives only while it has
/// an init process: the first is refused, for the second [`pin`] the `ns/pid` of that init.
pub fn pin_new(kinds: &[Kind], folder: &Path) -> Result<(), Error> {
    let names = || kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    if kinds.iter().any(|kind| matches!(kind, Kind::Mount | Kind::Pid)) {
        return Err(Error::Make { kinds: names(), source: Errno::EINVAL.into() });
    }
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    on_scratch_thread(|| {
        unshare(flags).map_err(|errno| Error::Make { kinds: names(), source: errno.into() })?;
        for (done, kind) in kinds.iter().enumerate() {
            let source = PathBuf::from(format!("/proc/thread-self/ns/{}", kind.name()));
            if let Err(error) = pin(&source, &folder.join(kind.name())) {
                for kind in &kinds[..done] {
                    let _ = unpin(&folder.join(kind.name()));
                }
                return Err(error);
            }
        }
        Ok(())
    })?
}

/// Pins the namespace that `source` names (such as `/proc/<pid>/ns/pid`) at `path`, a file that is made for it.
pub fn pin(source: &Path, path: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Pin { path: path.to_owned(), source };
    OpenOptions::new().write(true).create_new(true).mode(0o444).open(path).map_err(failed)?;
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| {
        let _ = fs::remove_file(path);
        failed(errno.into())
    })
}

/// Takes a pin away; the namespace ends with its last process. One that is gone is success.
pub fn unpin(path: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Unpin { path: path.to_owned(), source };
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // EINVAL: a file, but nothing mounted on it: the leftover of a crash between the two steps of `pin`.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => crate::file::remove(path).map_err(failed),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Opens a namespace by its path. A path that is no namespace is refused when it is entered.
pub fn open(path: &Path) -> Result<OwnedFd, Error> {
    match File::open(path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(Error::Open { path: path.to_owned(), source }),
    }
}

/// Writes the mappings of a new user namespace that this process is the first of: lines of the first id inside, the
/// first outside and how many.
pub fn map_users(pid: i32, users: &str, groups: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), users)?;
    fs::write(format!("/proc/{pid}/gid_map"), groups)
}

/// A user namespace with these mappings that no process is in: what mounts are mapped by.
pub fn new_user(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let child = process::spawn_idle(CloneFlags::CLONE_NEWUSER)?;
    let made = map_users(child.pid, users, groups)
        .and_then(|()| File::open(format!("/proc/{}/ns/user", child.pid)))
        .map(OwnedFd::from);
    process::kill_and_wait(&child.pidfd)?;
    made
}

/// Gives the calling process a time namespace of its own, whose clocks run ahead of the machine's by these lines of clock
/// name, seconds and nanoseconds (time_namespaces(7)). Allocates nothing; for a process of one thread.
pub fn enter_new_time(offsets: &[u8]) -> nix::Result<()> {
    let open = |path, flags| nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty());
    unshare(CLONE_NEWTIME)?;
    if !offsets.is_empty() {
        let file = open(c"/proc/self/timens_offsets", OFlag::O_WRONLY)?;
        nix::unistd::write(&file, offsets)?;
    }
    // It is for children up to here: enter it too.
    setns(open(c"/proc/self/ns/time_for_children", OFlag::O_RDONLY)?, CLONE_NEWTIME)
}

/// Runs `work` inside another network namespace, on a thread of its own; sockets that it makes belong to that
/// namespace for ever.
pub fn in_netns<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let namespace = namespace.as_fd();
    on_scratch_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Enter { kind: Kind::Net.name(), source: errno.into() })?;
        Ok(work())
    })?
}

/// Runs `work` on a thread that ends with it, so that what it changes about its thread touches nobody else.
fn on_scratch_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work).map_err(Error::Thread)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}
