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
//! | `terminal` | a terminal of its own |
//! | `identity` | streams, working directory, user, capabilities, labels |

mod enter;
mod identity;
mod root;
mod target;
mod terminal;

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use berth_sys::beneath::Root;
use berth_sys::cgroup::DOOR_KEY;
use berth_sys::seccomp::{Instruction, NEW_LISTENER};
use berth_sys::{namespace, process, schedule, seccomp, signal, socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::setns;
use nix::sys::stat::{Mode, umask};
use nix::unistd::write;

use crate::error::Error;
use crate::hooks::{self, Story};
use crate::plan::{FIRST_PRESERVED, Plan, Step};
use crate::sync::{self, Message};
use target::Parent;

/// How the process ends when it cannot go on; nobody should see it but in a process list.
const GAVE_UP: i32 = 255;

/// Whether the process waits between its two lists of steps.
pub(crate) enum Start {
    /// Until somebody connects here.
    When(OwnedFd),
    /// Until its maker has made a note of it.
    WhenNoted,
    /// No.
    AtOnce,
}

/// What the steps leave for one another.
struct Progress<'a> {
    /// The copies of the machine's mounts, by slot.
    sources: Vec<Option<OwnedFd>>,
    /// The root of the container, once it is attached.
    root: Option<Root>,
    parent: Parent<'a>,
    /// The attached mounts that hide a folder and a file.
    empty_folder: Option<OwnedFd>,
    null_device: Option<OwnedFd>,
    /// A folder of the image that the next mount begins with.
    copy_from: Option<OwnedFd>,
    /// Whether only the user may enter the working directory.
    folder_pending: bool,
    /// Of a hook that failed.
    story: Story,
    /// The opened file of each security label, by the order of their steps.
    labels: [Option<OwnedFd>; LABELS_MAX],
}

/// How many security labels a process may have: `AppArmor`'s and `SELinux`'.
const LABELS_MAX: usize = 2;

/// Everything that the new process needs, made by its parent.
pub(crate) struct Init<'a> {
    plan: &'a Plan,
    progress: Progress<'a>,
    start: Start,
    sync: OwnedFd,
    /// The numbers of the descriptors that it needs, in order; and those that it still needs when it waits.
    needed: Vec<i32>,
    needed_at_start: Vec<i32>,
}

impl<'a> Init<'a> {
    /// Lays everything out; `sync` is the new process' end of the conversation.
    pub(crate) fn new(plan: &'a Plan, start: Start, sync: OwnedFd) -> Result<Self, Error> {
        let copies = plan.sources.iter().map(|source| source.as_ref().map(OwnedFd::try_clone).transpose());
        let progress = Progress {
            sources: copies.collect::<Result<_, _>>().map_err(Error::Spawn)?,
            root: None,
            parent: Parent::default(),
            empty_folder: None,
            null_device: None,
            copy_from: None,
            folder_pending: false,
            story: Story::default(),
            labels: [const { None }; LABELS_MAX],
        };
        let mut needed: Vec<i32> = plan.descriptors().iter().map(AsRawFd::as_raw_fd).collect();
        needed.extend(progress.sources.iter().flatten().map(AsRawFd::as_raw_fd));
        needed.push(sync.as_raw_fd());
        let mut needed_at_start: Vec<i32> = plan.descriptors_at_start().iter().map(AsRawFd::as_raw_fd).collect();
        if let Start::When(listener) = &start {
            needed.push(listener.as_raw_fd());
            needed_at_start.push(listener.as_raw_fd());
        }
        // Room for those that it opens itself and keeps.
        needed_at_start.reserve(LABELS_MAX);
        needed.sort_unstable();
        Ok(Self { plan, progress, start, sync, needed, needed_at_start })
    }

    /// The numbers of the descriptors that it needs, in ascending order.
    pub(crate) fn needed(&self) -> &[i32] {
        &self.needed
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
        let execution = plan.setup.len() + plan.finish.len();
        self.walk(&plan.setup, 0, None);
        if plan.look_for_program
            && let Err(errno) = plan.program.look_for()
        {
            self.fail(execution, errno, None);
        }
        let connection = self.wait_for_start();
        self.walk(&plan.finish, plan.setup.len(), connection.as_ref());
        let errno = plan.program.execute();
        self.fail(execution, errno, connection.as_ref())
    }

    fn walk(&mut self, steps: &'a [Step], first: usize, connection: Option<&OwnedFd>) {
        let maker = connection.unwrap_or(&self.sync);
        for (number, step) in steps.iter().enumerate() {
            if let Err(errno) = self.progress.run(step, &self.plan.setup, maker) {
                self.fail(first + number, errno, connection);
            }
        }
    }

    /// Tells that it is set up, and waits until it shall go on; returns whom to tell of a failure from now on. Whether its
    /// maker lives is told by the conversation from here on: a maker that ends right after its last word must not take
    /// the process along.
    fn wait_for_start(&mut self) -> Option<OwnedFd> {
        let told = process::die_with_parent(false).and_then(|()| match &self.start {
            Start::AtOnce => sync::send(&self.sync, Message::Going),
            Start::When(_) | Start::WhenNoted => {
                sync::send(&self.sync, Message::Ready).and_then(|()| sync::await_go_on(&self.sync))
            }
        });
        if told.is_err() {
            process::exit_now(GAVE_UP);
        }
        let Start::When(listener) = &self.start else { return None };
        // It may wait for long, and needs no more than to hear of it.
        self.needed_at_start.extend(self.progress.labels.iter().flatten().map(AsRawFd::as_raw_fd));
        self.needed_at_start.sort_unstable();
        if process::close_all_but(&self.needed_at_start).is_err() {
            process::exit_now(GAVE_UP);
        }
        loop {
            let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, PollTimeout::NONE);
            if let Ok(connection) = socket::accept(listener.as_fd())
                && let Ok(connection) = process::lift(connection, self.plan.first_free)
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
        let _ = sync::send_with_words(connection.unwrap_or(&self.sync), message, self.progress.story.bytes());
        process::exit_now(GAVE_UP)
    }
}

impl<'a> Progress<'a> {
    fn run(&mut self, step: &'a Step, setup: &[Step], maker: &OwnedFd) -> nix::Result<()> {
        match step {
            Step::BecomeRoot { mapped } => enter::become_root(*mapped, maker),
            Step::OomScore(score) => enter::set_oom_score(score),
            Step::OpenLabel { files, proc, .. } => self.open_label(files, *proc),
            Step::Keyring(name) => enter::join_keyring(name),
            Step::JoinNamespace { kind, namespace, .. } => enter::once(namespace, |it| setns(it, kind.flag())),
            Step::JoinContainer { init, kinds } => enter::once(init, |it| setns(it, *kinds)),
            Step::JoinCgroup { door, .. } => enter::once(door, |it| write(it, DOOR_KEY).map(drop)),
            Step::AwaitCgroup => sync::await_go_on(maker),
            Step::EnterCgroup { tasks } => enter::write(tasks, DOOR_KEY),
            Step::Loopback => berth_sys::loopback::bring_up(),
            Step::NewCgroupNamespace => nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP),
            Step::NewTimeNamespace { offsets } => namespace::enter_new_time(offsets.as_bytes()),
            Step::Parameter { path, value } => enter::write(path, value.as_bytes()),
            Step::HostName(name) => nix::unistd::sethostname(name),
            Step::DomainName(name) => process::set_domain_name(name),
            Step::AwaitHooks => sync::send(maker, Message::Hooks).and_then(|()| sync::await_go_on(maker)),
            Step::Hooks { hooks, input } => hooks::run(hooks, input, &mut self.story),
            Step::Source { slot, path, reach } => self.open_source(*slot, path, *reach),
            Step::Detach => root::detach(),
            Step::Root { slot, path, propagation } => self.attach_root(*slot, path, *propagation),
            Step::CopyUp(target) => self.hold(target),
            Step::Mount(mount) => self.mount(mount),
            Step::Device(device) => {
                let root = self.root.as_ref().ok_or(Errno::EINVAL)?;
                target::make_device(root, &mut self.parent, device)
            }
            Step::Link { at, to } => {
                let root = self.root.as_ref().ok_or(Errno::EINVAL)?;
                target::make_link(root, &mut self.parent, at, to)
            }
            Step::Mask(path) => self.mask(path),
            Step::ReadOnly(path) => root::make_read_only(self.root()?, path),
            Step::Seal(path) => root::seal(self.root()?, path),
            Step::ReadOnlyRoot => root::seal(self.root()?, std::path::Path::new("")),
            Step::Pivot => berth_sys::mount::pivot(self.root()?.folder()),
            Step::MoveRoot => berth_sys::mount::move_over(self.root()?.folder()),
            Step::RootPropagation(propagation) => root::set_propagation(self.root()?, *propagation),
            Step::NewSession => nix::unistd::setsid().map(drop),
            Step::Folder(folder, missing) => self.change_folder(folder, *missing),
            Step::Terminal { size, owner, is_console } => self.make_terminal(*size, *owner, *is_console, maker),
            Step::Streams { streams, owner } => identity::set_streams(streams, *owner),
            Step::Affinity { processors, .. } => schedule::set_affinity(processors),
            Step::Scheduler(scheduler) => schedule::set_scheduler(scheduler),
            Step::IoPriority { class, level } => schedule::set_io_priority(*class, *level),
            Step::Personality(persona) => schedule::set_personality(*persona),
            Step::MemoryPolicy { mode, nodes } => schedule::set_memory_policy(*mode, nodes.as_ref()),
            Step::Limit { resource, soft, hard, .. } => {
                berth_sys::rlimit::set_as_far_as_allowed(*resource, *soft, *hard)
            }
            Step::DropCapabilities(set) => berth_sys::caps::drop_bounding(*set),
            Step::Become(identity) => identity::become_user(identity),
            Step::FolderAsUser(path) => self.change_folder_as_user(path),
            Step::NoNewPrivileges => seccomp::set_no_new_privileges(),
            Step::Filter { program, flags } => load_filter(program, *flags, maker),
            Step::Clean { preserved } => clean(preserved),
            Step::WriteLabels => self.write_labels(setup),
        }
    }

    fn root(&self) -> nix::Result<&Root> {
        self.root.as_ref().ok_or(Errno::EINVAL)
    }
}

fn clean(preserved: &[OwnedFd]) -> nix::Result<()> {
    signal::reset()?;
    process::place(preserved, FIRST_PRESERVED)?;
    process::close_on_exec_from(FIRST_PRESERVED as u32 + preserved.len() as u32)
}

/// Steps that a process takes for one that it makes.
pub(crate) fn run_before(steps: &[Step]) -> nix::Result<()> {
    steps.iter().try_for_each(|step| match step {
        Step::OomScore(score) => enter::set_oom_score(score),
        Step::Affinity { processors, .. } => schedule::set_affinity(processors),
        Step::JoinCgroup { door, .. } => enter::once(door, |it| write(it, DOOR_KEY).map(drop)),
        _ => Err(Errno::ENOSYS),
    })
}

/// Loads a filter, and gives its listener, if it has one, to the maker.
fn load_filter(program: &[Instruction], flags: u32, maker: &OwnedFd) -> nix::Result<()> {
    let number = seccomp::load(program, flags)?;
    if flags & NEW_LISTENER == 0 {
        return Ok(());
    }
    sync::send(maker, Message::Listener { number }).and_then(|()| sync::await_go_on(maker))
}

/// The errno of an error that came from the kernel.
fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
