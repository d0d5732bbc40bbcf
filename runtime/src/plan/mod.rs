//! A plan: everything that a new process has to do until its program runs, decided and laid out before it is made, so
//! that it only walks the list. Printed, a step says what it does; that is how its failure is told.
//!
//! | file | its steps |
//! |---|---|
//! | `namespaces` | namespaces entered, host name, kernel parameters |
//! | `users` | the ids of a user namespace |
//! | `mounts`, `entry` | the root file system and what is mounted in it |
//! | `options` | mount options by name |
//! | `devices` | device nodes, and which may be used |
//! | `cgroup` | the cgroup and its limits |
//! | `schedule` | processors, priorities, labels |
//! | `identity` | user, capabilities, limits, filter, program |
//!
//! `check` has no steps: it tells whether they could be planned.

mod cgroup;
mod check;
mod devices;
mod entry;
mod identity;
mod mounts;
mod namespaces;
mod options;
mod schedule;
mod step;
mod users;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_sys::cgroup::Cgroup;
use berth_sys::process::{self, Program};
use berth_sys::pty::Size;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Hooks, Mount as MountSpec, Process, Spec};

pub(crate) use cgroup::{CgroupPlan, limits, unified};
pub(crate) use check::check;
pub(crate) use devices::policy as device_policy;
pub(crate) use identity::Missing;
pub(crate) use mounts::MASK_SOURCE;
pub(crate) use options::MOUNT_OPTIONS;
pub(crate) use step::{Content, Device, Identity, Mount, Proc, Step, Target};
pub(crate) use users::Users;
use users::{UserNamespace, Wanted};

use crate::error::Error;
use crate::home;
use crate::hooks::{self, Input};
use crate::limits::{ANSWER_DEADLINE, PRESERVED_MAX, STEPS_MAX};
use crate::seccomp::Filter;
use crate::spec;
use crate::{Launch, Stdio};

/// The number of the first descriptor that is preserved.
pub(crate) const FIRST_PRESERVED: i32 = 3;

/// What a new process has to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The namespaces that it is born into.
    pub(crate) namespaces: CloneFlags,
    /// The pid namespace to be born into, if it is another's.
    pub(crate) pid_namespace: Option<OwnedFd>,
    /// Those to enter before it is born.
    pub(crate) entered_before: Vec<(CloneFlags, OwnedFd)>,
    /// What is done with that, for the process to inherit.
    pub(crate) before: Vec<Step>,
    /// What its maker writes into its new user namespace.
    pub(crate) users: Option<Users>,
    /// What it does at once.
    pub(crate) setup: Vec<Step>,
    /// What it does when it is started.
    pub(crate) finish: Vec<Step>,
    /// What it becomes.
    pub(crate) program: Program,
    /// The name of that, for errors.
    pub(crate) program_name: String,
    /// The mount sources, by slot: those that its maker opened. The others it opens itself.
    pub(crate) sources: Vec<Option<OwnedFd>>,
    /// Where its maker writes what the hooks that it runs shall read: before it mounts, and when it is started.
    pub(crate) hook_inputs: Vec<Input>,
    /// The first number that is free of the descriptors that its program finds.
    pub(crate) first_free: i32,
    /// Whether to look for the program before telling that everything is set up.
    pub(crate) look_for_program: bool,
    /// What could not be granted.
    pub(crate) warnings: Vec<String>,
}

impl Plan {
    /// How long its maker waits for the process to tell something.
    pub(crate) fn patience(&self) -> Duration {
        let hooks = self.setup.iter().chain(&self.finish).map(|step| match step {
            Step::Hooks { hooks, .. } => hooks::time_max(hooks),
            _ => Duration::ZERO,
        });
        ANSWER_DEADLINE + hooks.sum::<Duration>()
    }
}

/// When the cgroup of a container is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    /// Before its first process: that has no right to the machine's files, or hooks want to see it.
    Before,
    /// While the first process makes its mounts: two things that the kernel takes long for, side by side.
    Meanwhile,
}

/// When the cgroup of this container can be made.
pub(crate) fn when_cgroup_is_made(spec: &Spec) -> Result<Making, Error> {
    let linux = spec::linux(spec)?;
    let has_users = spec::namespace_flags(spec)?.contains(CloneFlags::CLONE_NEWUSER);
    let has_hooks = spec.hooks().as_ref().is_some_and(|hooks| *hooks != Hooks::default());
    let is_cgroup = |mount: &MountSpec| mount.typ().as_deref().is_some_and(|kind| kind.starts_with("cgroup"));
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let hidden = [linux.masked_paths(), linux.readonly_paths()].into_iter().flat_map(|list| list.iter().flatten());
    // The cgroup's own mount comes last then: what is to be in it, or over it, must come after that.
    let is_in_the_way = |number: usize, place: &Path| {
        let others = mounts.iter().enumerate().filter(|(_, mount)| !is_cgroup(mount));
        let mut others = others.map(|(other, mount)| (other, mount.destination().as_path()));
        others.any(|(other, path)| path.starts_with(place) || other > number && place.starts_with(path))
            || hidden.clone().any(|path| Path::new(path).starts_with(place))
    };
    let places = mounts.iter().enumerate().filter(|(_, mount)| is_cgroup(mount));
    let mut places = places.map(|(number, mount)| (number, mount.destination().as_path()));
    let can_wait = !has_users && !has_hooks && !places.any(|(number, place)| is_in_the_way(number, place));
    Ok(if can_wait { Making::Meanwhile } else { Making::Before })
}

/// The plan of a container's first process.
pub(crate) fn init(
    (spec, id): (&Spec, &str),
    (bundle, rootfs): (&Path, &Path),
    (cgroup, making): (&CgroupPlan, Making),
    filter: Option<Filter>,
    mut launch: Launch,
) -> Result<Plan, Error> {
    let linux = spec::linux(spec)?;
    let process = spec::process(spec)?;
    let kept = preserved(&mut launch)?;
    let stdio = std::mem::take(&mut launch.stdio);
    let first_free = FIRST_PRESERVED + kept.len() as i32;
    let users = Wanted::of(linux)?.open()?;
    let joined = namespaces::plan(spec, linux, &users)?;
    let mut hook_inputs = Vec::new();
    // What /proc of the machine is needed for, while the process still is the machine's root.
    let mut setup = identity::score(process);
    setup.extend(schedule::labels(process, Proc::Machine));
    setup.extend(joined.before_users);
    if users.is_own() {
        setup.push(Step::BecomeRoot { mapped: matches!(users, UserNamespace::New(_)) });
    }
    setup.extend(launch.new_keyring.then(|| Step::Keyring(keyring_name(id))));
    setup.extend(joined.steps);
    // Hooks look for the container by the cgroup of its process. Without them it is entered last: what it costs to make
    // the container is not charged to it.
    let has_hooks = spec.hooks().is_some();
    if making == Making::Before && has_hooks {
        setup.extend(into(&cgroup.cgroup)?);
    }
    let (late_hooks, start_hooks) = plan_hooks(spec, &mut setup, &mut hook_inputs)?;
    let root_change = if launch.pivot { Step::Pivot } else { Step::MoveRoot };
    let mounted = mounts::plan(spec, (bundle, rootfs), (&cgroup.cgroup, making), &users)?;
    setup.extend(mounted.steps);
    setup.extend(late_hooks);
    setup.push(root_change);
    setup.extend(mounted.after_root);
    setup.push(Step::NewSession);
    setup.push(streams(process, stdio, true)?);
    setup.push(Step::Folder(folder(process)?, Missing::Make));
    if making == Making::Before && !has_hooks {
        setup.extend(into(&cgroup.cgroup)?);
    }
    setup.extend(joined.after_cgroup);
    setup.extend(schedule::after_cgroup(process, true)?);
    setup.extend(schedule::of_container(linux)?);
    let home = home::before_mounts(spec, process, (bundle, rootfs));
    let more = home.into_iter().map(|home| format!("HOME={home}")).chain(launch.environment).collect();
    let end = identity::plan((process, more), filter, kept, start_hooks)?;
    setup.extend(end.early);
    // Failures are told by the number of the step.
    if setup.len() + end.steps.len() > STEPS_MAX {
        return Err(Error::spec("config.json", format!("takes more than {STEPS_MAX} steps")));
    }
    Ok(Plan {
        namespaces: joined.born_into,
        pid_namespace: joined.pid_namespace,
        entered_before: joined.entered_before,
        before: Vec::new(),
        users: match users {
            UserNamespace::New(users) => Some(users),
            UserNamespace::Machine | UserNamespace::Joined(..) => None,
        },
        setup,
        finish: end.steps,
        program: end.program,
        program_name: end.program_name,
        sources: mounted.sources,
        hook_inputs,
        first_free,
        look_for_program: launch.look_for_program,
        warnings: end.warnings,
    })
}

/// A container that one more process joins.
pub(crate) struct Host<'a> {
    /// A pidfd of its init.
    pub(crate) init: OwnedFd,
    /// The kinds of its namespaces.
    pub(crate) kinds: CloneFlags,
    /// Whether its processes may look into others.
    pub(crate) curious: bool,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) filter: Option<Filter>,
    /// Of the user that the process becomes, if its environment has none.
    pub(crate) home: Option<String>,
}

/// The plan of one more process in a container.
pub(crate) fn exec(process: &Process, host: Host<'_>, mut launch: Launch) -> Result<Plan, Error> {
    let kept = preserved(&mut launch)?;
    let stdio = std::mem::take(&mut launch.stdio);
    let first_free = FIRST_PRESERVED + kept.len() as i32;
    let pid_namespace = host.kinds.contains(CloneFlags::CLONE_NEWPID);
    let pid_namespace =
        pid_namespace.then(|| host.init.as_fd().try_clone_to_owned()).transpose().map_err(Error::Spawn)?;
    let kinds = host.kinds.difference(CloneFlags::CLONE_NEWPID);
    let mut setup = identity::score(process);
    setup.extend(schedule::before_cgroup(process)?);
    setup.extend(into(host.cgroup)?);
    let (mut entered_before, mut before) = (Vec::new(), Vec::new());
    if host.curious {
        // From its first instant it is seen by processes that may look into it: it must not be on the machine then,
        // nor have anything of it (CVE-2016-9962).
        entered_before.push((kinds, host.init));
        std::mem::swap(&mut setup, &mut before);
        setup.extend(schedule::labels(process, Proc::Own));
    } else {
        setup.extend(schedule::labels(process, Proc::Machine));
        setup.push(Step::JoinContainer { init: host.init, kinds });
    }
    setup.extend(kinds.contains(CloneFlags::CLONE_NEWUSER).then_some(Step::BecomeRoot { mapped: false }));
    setup.push(Step::NewSession);
    setup.push(streams(process, stdio, false)?);
    setup.push(Step::Folder(folder(process)?, Missing::Fail));
    setup.extend(schedule::after_cgroup(process, false)?);
    let more = host.home.into_iter().map(|home| format!("HOME={home}")).chain(launch.environment).collect();
    let end = identity::plan((process, more), host.filter, kept, None)?;
    setup.extend(end.early);
    Ok(Plan {
        namespaces: CloneFlags::empty(),
        pid_namespace,
        entered_before,
        before,
        users: None,
        setup,
        finish: end.steps,
        program: end.program,
        program_name: end.program_name,
        sources: Vec::new(),
        hook_inputs: Vec::new(),
        first_free,
        look_for_program: false,
        warnings: end.warnings,
    })
}

/// The hooks that the process has its maker run, and those that it runs itself: before the root changes, and when it is
/// started.
fn plan_hooks(
    spec: &Spec,
    setup: &mut Vec<Step>,
    inputs: &mut Vec<Input>,
) -> Result<(Option<Step>, Option<Step>), Error> {
    let Some(hooks) = spec.hooks() else { return Ok((None, None)) };
    let late = hooks::ready(hooks.create_container(), "createContainer")?;
    let start = hooks::ready(hooks.start_container(), "startContainer")?;
    if hooks::has_early(hooks) || !late.is_empty() || !start.is_empty() {
        setup.push(Step::AwaitHooks);
    }
    let mut step = |hooks: Vec<hooks::Ready>| -> Result<Option<Step>, Error> {
        let input = Input::new()?;
        let descriptor = input.descriptor()?;
        inputs.push(input);
        Ok((!hooks.is_empty()).then_some(Step::Hooks { hooks, input: descriptor }))
    };
    Ok((step(late)?, step(start)?))
}

/// The ways into the cgroup's v1 folders; into the unified one the process is born.
fn into(cgroup: &Cgroup) -> Result<Vec<Step>, Error> {
    Ok(cgroup.open_doors()?.into_iter().map(|(path, door)| Step::JoinCgroup { path, door }).collect())
}

/// The descriptors that the program finds beside its standard streams, out of the way of the numbers that they get.
fn preserved(launch: &mut Launch) -> Result<Vec<OwnedFd>, Error> {
    let kept = std::mem::take(&mut launch.preserved);
    if kept.len() > PRESERVED_MAX {
        return Err(Error::spec("preserved descriptors", format!("are more than {PRESERVED_MAX}")));
    }
    let end = FIRST_PRESERVED + kept.len() as i32;
    let lift = |fd| process::lift(fd, end).map_err(|errno| Error::file("keep", "a descriptor")(errno.into()));
    kept.into_iter().map(lift).collect()
}

/// Its standard streams: a terminal, or those that it was given.
fn streams(process: &Process, stdio: Stdio, is_first: bool) -> Result<Step, Error> {
    let owner = process.user().uid();
    if process.terminal() == Some(true) {
        let length = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
        let size = process.console_size().map(|it| Size { rows: length(it.height()), columns: length(it.width()) });
        return Ok(Step::Terminal { size, owner, is_console: is_first });
    }
    Ok(Step::Streams { streams: opened(stdio)?, owner })
}

/// The three streams; an absent one is the null device.
fn opened(stdio: Stdio) -> Result<[OwnedFd; 3], Error> {
    let null = || {
        let file = std::fs::File::options().read(true).write(true).open("/dev/null");
        file.map(OwnedFd::from).map_err(Error::file("open", "/dev/null"))
    };
    let one = |stream: Option<OwnedFd>| stream.map_or_else(null, Ok);
    Ok([one(stdio.stdin)?, one(stdio.stdout)?, one(stdio.stderr)?])
}

/// As runc names them, by the container.
fn keyring_name(id: &str) -> std::ffi::CString {
    std::ffi::CString::new(format!("_ses.{id}")).unwrap_or_default()
}

fn folder(process: &Process) -> Result<Target, Error> {
    Ok(Target::new(spec::inside(process.cwd(), || "process.cwd".into())?, false))
}

impl Plan {
    /// The descriptors that the steps use.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all: Vec<_> = self.sources.iter().flatten().map(AsFd::as_fd).collect();
        for step in self.setup.iter().chain(&self.finish) {
            match step {
                Step::JoinNamespace { namespace, .. } => all.push(namespace.as_fd()),
                Step::JoinContainer { init, .. } => all.push(init.as_fd()),
                Step::JoinCgroup { door, .. } => all.push(door.as_fd()),
                Step::Streams { streams, .. } => all.extend(streams.iter().map(AsFd::as_fd)),
                Step::Clean { preserved } => all.extend(preserved.iter().map(AsFd::as_fd)),
                Step::Hooks { input, .. } => all.push(input.as_fd()),
                _ => {}
            }
        }
        all
    }

    /// The descriptors that the process still needs while it waits for its start, and after.
    pub(crate) fn descriptors_at_start(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = Vec::new();
        for step in &self.finish {
            match step {
                Step::Hooks { input, .. } => all.push(input.as_fd()),
                Step::Clean { preserved } => all.extend(preserved.iter().map(AsFd::as_fd)),
                _ => {}
            }
        }
        all
    }

    /// What the failed step was doing; `None` if all steps were done and the program could not be executed.
    pub(crate) fn step(&self, number: u16) -> Option<&Step> {
        self.setup.iter().chain(&self.finish).nth(number.into())
    }
}
