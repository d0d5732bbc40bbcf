//! The new process, from `clone3` to `execve`: one loop over the steps of its plan.
//!
//! It is a copy of a process that may have had many threads, and has one: it must not allocate and take no lock. All
//! that it needs lies ready in the plan; failures are told by the number of the step.
//!
//! | file | its steps |
//! |---|---|
//! | `enter` | cgroup, namespaces, names, kernel parameters |
//! | `root` | the root file system and what hides in it |
//! | `target` | places in the root, found and made without leaving it |
//! | `identity` | session, streams, limits, user, capabilities |

mod enter;
mod identity;
mod root;
mod target;

use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd};

use berth_sys::beneath::Root;
use berth_sys::{process, seccomp, signal, socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use std::os::fd::AsFd;

use crate::plan::{Plan, Step};
use crate::sync::{self, Message};

/// How the process ends when it cannot go on; nobody should see it but in a process list.
const GAVE_UP: i32 = 255;

/// Whether the process waits between its two lists of steps.
pub(crate) enum Start {
    /// Until somebody connects here.
    When(OwnedFd),
    /// No.
    AtOnce,
}

/// What the steps leave for one another.
struct Progress {
    /// The copies of the machine's mounts, by slot.
    sources: Vec<Option<OwnedFd>>,
    /// The root of the container, once it is attached.
    root: Option<Root>,
    /// The attached mounts that hide a folder and a file.
    empty_folder: Option<OwnedFd>,
    null_device: Option<OwnedFd>,
    /// Whether only the user may enter the working directory.
    folder_pending: bool,
}

/// Everything that the new process needs, made by its parent.
pub(crate) struct Init<'a> {
    plan: &'a Plan,
    progress: Progress,
    start: Start,
    sync: OwnedFd,
    /// The numbers of the descriptors that it needs, in order.
    needed: Vec<i32>,
}

impl<'a> Init<'a> {
    /// Lays everything out; `sync` is the new process' end of the conversation.
    pub(crate) fn new(plan: &'a Plan, start: Start, sync: OwnedFd) -> Self {
        let sources = (0..plan.sources).map(|_| None).collect();
        let progress = Progress { sources, root: None, empty_folder: None, null_device: None, folder_pending: false };
        let mut needed: Vec<i32> = plan.descriptors().iter().map(AsRawFd::as_raw_fd).collect();
        needed.push(sync.as_raw_fd());
        if let Start::When(listener) = &start {
            needed.push(listener.as_raw_fd());
        }
        needed.sort_unstable();
        Self { plan, progress, start, sync, needed }
    }

    /// The new process' whole life before its program.
    pub(crate) fn run(mut self) -> Infallible {
        // Nobody shall wait for it to close what was the parent's; the other end of `sync`, once that is the parent's
        // alone, tells of its death.
        if process::close_all_but(&self.needed).is_err() {
            process::exit_now(GAVE_UP);
        }
        if process::die_with_parent(true).is_err() || self.parent_is_gone() {
            process::exit_now(GAVE_UP);
        }
        // Nobody in the container may look into a process that still holds what is the machine's.
        let _ = nix::sys::prctl::set_dumpable(false);
        umask(Mode::empty());
        let plan = self.plan;
        self.walk(&plan.setup, 0, None);
        let connection = self.wait_for_start();
        self.walk(&plan.finish, plan.setup.len(), connection.as_ref());
        let errno = plan.program.execute();
        self.fail(plan.setup.len() + plan.finish.len(), errno, connection.as_ref())
    }

    fn walk(&mut self, steps: &[Step], first: usize, connection: Option<&OwnedFd>) {
        for (number, step) in steps.iter().enumerate() {
            if let Err(errno) = self.progress.run(step, &self.sync) {
                self.fail(first + number, errno, connection);
            }
        }
    }

    /// Tells that it is set up, and waits until it shall go on; returns whom to tell of a failure from now on.
    fn wait_for_start(&self) -> Option<OwnedFd> {
        let told = match &self.start {
            Start::AtOnce => sync::send(&self.sync, Message::Going),
            Start::When(_) => sync::send(&self.sync, Message::Ready).and_then(|()| match sync::receive(&self.sync)? {
                Some(Message::Keep) => Ok(()),
                _ => Err(Errno::EPIPE),
            }),
        };
        if told.is_err() || process::die_with_parent(false).is_err() {
            process::exit_now(GAVE_UP);
        }
        let Start::When(listener) = &self.start else { return None };
        // It may wait for long, and needs no more than to hear of it.
        if process::close_all_but(&[listener.as_raw_fd()]).is_err() {
            process::exit_now(GAVE_UP);
        }
        loop {
            let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, PollTimeout::NONE);
            if let Ok(connection) = socket::accept(listener.as_fd())
                && sync::send(&connection, Message::Going).is_ok()
            {
                return Some(connection);
            }
        }
    }

    fn parent_is_gone(&self) -> bool {
        let mut ends = [PollFd::new(self.sync.as_fd(), PollFlags::empty())];
        let _ = poll(&mut ends, PollTimeout::ZERO);
        ends[0].revents().is_none_or(|seen| seen.contains(PollFlags::POLLHUP))
    }

    fn fail(&self, step: usize, errno: Errno, connection: Option<&OwnedFd>) -> ! {
        let message = Message::Failed { step: step as u16, errno: errno as i32 };
        let _ = sync::send(connection.unwrap_or(&self.sync), message);
        process::exit_now(GAVE_UP)
    }
}

impl Progress {
    fn run(&mut self, step: &Step, sync: &OwnedFd) -> nix::Result<()> {
        match step {
            Step::OomScore(score) => enter::set_oom_score(score),
            Step::AwaitCgroup => enter::await_cgroup(sync),
            Step::JoinNamespace { kind, namespace, .. } => nix::sched::setns(namespace, kind.flag()),
            Step::JoinContainer(init) => enter::join_container(init),
            Step::NewCgroupNamespace => nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP),
            Step::Parameter { path, value } => enter::write(path, value.as_bytes()),
            Step::HostName(name) => nix::unistd::sethostname(name),
            Step::DomainName(name) => process::set_domain_name(name),
            Step::Source { slot, path, reach } => self.open_source(*slot, path, *reach),
            Step::Detach => root::detach(),
            Step::Root { slot, path, propagation } => self.attach_root(*slot, path, *propagation),
            Step::Mount(mount) => self.mount(mount),
            Step::Device(device) => target::make_device(self.root()?, device),
            Step::Link { at, to } => target::make_link(self.root()?, at, to),
            Step::Mask(path) => self.mask(path),
            Step::ReadOnly(path) => root::make_read_only(self.root()?, path),
            Step::Seal(path) => root::seal(self.root()?, path),
            Step::ReadOnlyRoot => root::seal(self.root()?, std::path::Path::new("")),
            Step::Pivot => berth_sys::mount::pivot(self.root()?.folder()),
            Step::NewSession => nix::unistd::setsid().map(drop),
            Step::Folder(folder, missing) => self.change_folder(folder, *missing),
            Step::Streams { streams, owner } => identity::set_streams(streams, *owner),
            Step::Limit { resource, soft, hard, .. } => {
                berth_sys::rlimit::set_as_far_as_allowed(*resource, *soft, *hard)
            }
            Step::DropCapabilities(set) => berth_sys::caps::drop_bounding(*set),
            Step::Become(identity) => identity::become_user(identity),
            Step::FolderAsUser(path) => self.change_folder_as_user(path),
            Step::NoNewPrivileges => seccomp::set_no_new_privileges(),
            Step::Filter { program, flags } => seccomp::load(program, *flags),
            Step::Clean => signal::reset().and_then(|()| process::close_on_exec_from(3)),
        }
    }

    fn root(&self) -> nix::Result<&Root> {
        self.root.as_ref().ok_or(Errno::EINVAL)
    }
}

/// The errno of an error that came from the kernel.
fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
