//! Who the process becomes: limits, user, capabilities, filter; and the program that it executes.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::process::Program;
use berth_sys::seccomp::NEW_LISTENER;
use berth_sys::{caps, rlimit};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Capabilities, Process};

use super::{Identity, Step};
use crate::error::Error;
use crate::limits::{MACHINE_PATH_BYTES_MAX, PATH_FOLDERS_MAX};
use crate::seccomp::Filter;

/// Where programs are sought if the environment has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The umask of a process that names none (runtime spec, config.md#posix-platform-user).
const UMASK: u32 = 0o022;

/// What to do about a working directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make it, with the folders above.
    Make,
    /// Fail.
    Fail,
}

/// The last steps of a process, and what it becomes.
#[derive(Debug)]
pub(super) struct End {
    /// What is done before the process waits for its start: a filter with a listener, which is handed over while the
    /// container is made.
    pub(super) early: Vec<Step>,
    pub(super) steps: Vec<Step>,
    pub(super) program: Program,
    pub(super) program_name: String,
    pub(super) warnings: Vec<String>,
}

/// The one thing that has to be done while the machine's /proc is still in sight.
pub(super) fn score(process: &Process) -> Vec<Step> {
    process.oom_score_adj().map(|score| Step::OomScore(score.to_string())).into_iter().collect()
}

pub(super) fn plan(
    (process, more): (&Process, Vec<String>),
    filter: Option<Filter>,
    preserved: Vec<OwnedFd>,
    hooks: Option<Step>,
) -> Result<End, Error> {
    let user = process.user();
    let mut warnings = Vec::new();
    let mut steps = limits(process)?;
    let own = caps::bounding().map_err(Error::file("read capabilities of", "this process"))?;
    let mut granted = |list: &Option<Capabilities>| grant(list, own, &mut warnings);
    let sets = process.capabilities().clone().unwrap_or_default();
    let sets = if process.capabilities().is_some() { Some(sets) } else { None };
    let [bounding, effective, permitted, inheritable, ambient] = match &sets {
        Some(sets) => {
            [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()].map(&mut granted)
        }
        None => [caps::Set::default(); 5],
    };
    let no_new_privileges = process.no_new_privileges() == Some(true);
    let has_listener = filter.as_ref().is_some_and(|filter| filter.flags & NEW_LISTENER != 0);
    let filter = filter.map(|Filter { program, flags }| Step::Filter { program, flags });
    let mut early = Vec::new();
    let mut late = None;
    if has_listener {
        early.extend(no_new_privileges.then_some(Step::NoNewPrivileges));
        early.extend(filter);
    } else if no_new_privileges {
        late = filter;
    } else {
        // Without no-new-privileges only CAP_SYS_ADMIN may load a filter: before it is dropped.
        steps.extend(filter);
    }
    steps.push(Step::DropCapabilities(own.without(bounding)));
    steps.push(Step::Become(Box::new(Identity {
        user: user.uid(),
        group: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: Mode::from_bits_truncate(user.umask().unwrap_or(UMASK)),
        // What is effective must be permitted, and what is ambient both permitted and inheritable.
        effective: effective.and(permitted),
        permitted,
        inheritable,
        ambient: ambient.and(permitted).and(inheritable),
    })));
    steps.push(Step::FolderAsUser(PathBuf::from(process.cwd())));
    steps.extend(hooks);
    steps.extend(no_new_privileges.then_some(Step::NoNewPrivileges));
    steps.push(Step::WriteLabels);
    steps.push(Step::Clean { preserved });
    steps.extend(late);
    let (program, program_name) = program(process, more)?;
    Ok(End { early, steps, program, program_name, warnings })
}

/// The resource limits, each of them once.
pub(super) fn limits(process: &Process) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for (number, limit) in process.rlimits().iter().flatten().enumerate() {
        let name = limit.typ().to_string();
        let field = || format!("process.rlimits[{number}]");
        let resource = rlimit::named(&name).ok_or_else(|| Error::spec(field(), format!("{name} is no limit")))?;
        if limit.soft() > limit.hard() {
            return Err(Error::spec(
                field(),
                format!("the soft limit {} is above the hard one {}", limit.soft(), limit.hard()),
            ));
        }
        let twice = |step: &Step| matches!(step, Step::Limit { resource: known, .. } if *known == resource);
        if steps.iter().any(twice) {
            return Err(Error::spec(field(), format!("{name} is listed twice")));
        }
        steps.push(Step::Limit { name, resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(steps)
}

/// What of a set this process can grant at all. The rest is a warning: an unprivileged berth can still run containers
/// that ask for all capabilities (runtime spec, config.md#linux-process).
fn grant(list: &Option<Capabilities>, own: caps::Set, warnings: &mut Vec<String>) -> caps::Set {
    let named = list.iter().flatten().filter_map(|name| caps::Set::named(&::caps::to_canonical(&name.to_string())));
    let wanted = named.fold(caps::Set::default(), caps::Set::or);
    for name in wanted.without(own).names() {
        let warning = format!("{name} cannot be granted: this process does not have it");
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    wanted.and(own)
}

/// The program with its arguments and environment, to which more is added.
pub(super) fn program(process: &Process, more: Vec<String>) -> Result<(Program, String), Error> {
    let arguments = process.args().as_deref().unwrap_or_default();
    let name = arguments.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::spec("process.args", "names no program"))?;
    if name.len() > MACHINE_PATH_BYTES_MAX {
        return Err(Error::spec("process.args[0]", "is too long"));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(more);
    let candidates = if name.contains('/') {
        vec![name.clone()]
    } else {
        let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH);
        if path.split(':').nth(PATH_FOLDERS_MAX).is_some() {
            return Err(Error::spec("process.env", format!("PATH has more than {PATH_FOLDERS_MAX} folders")));
        }
        path.split(':')
            .map(|folder| if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") })
            .collect()
    };
    let text = |list: &[String], field: &str| {
        let one =
            |it: &String| CString::new(it.as_str()).map_err(|_| Error::spec(field, format!("{it:?} has a zero byte")));
        list.iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let program = Program::new(
        text(&candidates, "process.args")?,
        text(arguments, "process.args")?,
        text(&environment, "process.env")?,
    );
    Ok((program, name.clone()))
}
