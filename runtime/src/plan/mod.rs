//! A plan: everything that a new process has to do until its program runs, decided and laid out before it is made, so
//! that it only walks the list. Printed, a step says what it does; that is how its failure is told.
//!
//! | file | its steps |
//! |---|---|
//! | `namespaces` | namespaces entered, host name, kernel parameters |
//! | `mounts` | the root file system and what is mounted in it |
//! | `options` | mount options by name |
//! | `devices` | device nodes, and which may be used |
//! | `cgroup` | the cgroup and its limits |
//! | `identity` | user, capabilities, limits, filter, program |

mod cgroup;
mod devices;
mod identity;
mod mounts;
mod namespaces;
mod options;
mod step;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::process::Program;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Process, Spec};

pub(crate) use cgroup::CgroupPlan;
pub(crate) use identity::Missing;
pub(crate) use mounts::MASK_SOURCE;
pub(crate) use step::{Content, Device, Identity, Mount, Step, Target};

use crate::Stdio;
use crate::error::Error;
use crate::seccomp::Filter;
use crate::spec;

/// What a new process has to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The namespaces that it is born into.
    pub(crate) namespaces: CloneFlags,
    /// The pid namespace to be born into, if it is another's.
    pub(crate) pid_namespace: Option<OwnedFd>,
    /// What it does at once.
    pub(crate) setup: Vec<Step>,
    /// What it does when it is started.
    pub(crate) finish: Vec<Step>,
    /// What it becomes.
    pub(crate) program: Program,
    /// The name of that, for errors.
    pub(crate) program_name: String,
    /// How many mount sources it opens.
    pub(crate) sources: usize,
    /// What could not be granted.
    pub(crate) warnings: Vec<String>,
}

/// The three streams; an absent one is the null device.
pub(crate) fn streams(stdio: Stdio) -> Result<[OwnedFd; 3], Error> {
    let null = || {
        let file = std::fs::File::options().read(true).write(true).open("/dev/null");
        file.map(OwnedFd::from).map_err(Error::file("open", "/dev/null"))
    };
    let one = |stream: Option<OwnedFd>| stream.map_or_else(null, Ok);
    Ok([one(stdio.stdin)?, one(stdio.stdout)?, one(stdio.stderr)?])
}

/// The plan of a container's first process.
pub(crate) fn init(
    spec: &Spec,
    bundle: &Path,
    cgroup: &CgroupPlan,
    filter: Option<Filter>,
    stdio: Stdio,
) -> Result<Plan, Error> {
    let linux = spec::linux(spec)?;
    let process = spec.process().as_ref().ok_or_else(|| Error::spec("process", "is missing"))?;
    spec::check_process(process)?;
    let joined = namespaces::plan(spec, linux)?;
    let mut setup = identity::score(process);
    setup.extend(joined.steps);
    let sources = mounts::plan(spec, &spec::rootfs(spec, bundle)?, &cgroup.cgroup, &mut setup)?;
    setup.extend([Step::NewSession, Step::Folder(folder(process)?, Missing::Make)]);
    setup.push(Step::Streams { streams: streams(stdio)?, owner: process.user().uid() });
    setup.push(Step::AwaitCgroup);
    setup.extend(joined.after_cgroup);
    let end = identity::plan(process, filter)?;
    Ok(Plan {
        namespaces: joined.born_into,
        pid_namespace: joined.pid_namespace,
        setup,
        finish: end.steps,
        program: end.program,
        program_name: end.program_name,
        sources,
        warnings: end.warnings,
    })
}

/// The plan of one more process in a container, whose init `pidfd` stands for.
pub(crate) fn exec(process: &Process, init: OwnedFd, filter: Option<Filter>, stdio: Stdio) -> Result<Plan, Error> {
    spec::check_process(process)?;
    let pid_namespace = init.as_fd().try_clone_to_owned().map_err(Error::Spawn)?;
    let mut setup = identity::score(process);
    setup.extend([Step::JoinContainer(init), Step::NewSession, Step::Folder(folder(process)?, Missing::Fail)]);
    setup.push(Step::Streams { streams: streams(stdio)?, owner: process.user().uid() });
    setup.push(Step::AwaitCgroup);
    let end = identity::plan(process, filter)?;
    Ok(Plan {
        namespaces: CloneFlags::empty(),
        pid_namespace: Some(pid_namespace),
        setup,
        finish: end.steps,
        program: end.program,
        program_name: end.program_name,
        sources: 0,
        warnings: end.warnings,
    })
}

fn folder(process: &Process) -> Result<Target, Error> {
    Ok(Target::new(spec::inside(process.cwd(), || "process.cwd".into())?, false))
}

impl Plan {
    /// The descriptors that the steps use.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = Vec::new();
        for step in self.setup.iter().chain(&self.finish) {
            match step {
                Step::JoinNamespace { namespace, .. } => all.push(namespace.as_fd()),
                Step::JoinContainer(init) => all.push(init.as_fd()),
                Step::Streams { streams, .. } => all.extend(streams.iter().map(AsFd::as_fd)),
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
