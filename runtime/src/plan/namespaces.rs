//! Namespaces: which are made by `clone3`, which are entered, and what is set inside of them.

use std::ffi::CString;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::namespace::{self, Kind};
use berth_sys::sysctl;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, Spec};

use super::users::UserNamespace;
use super::{Step, entry};
use crate::error::Error;
use crate::spec;

/// How a process comes by its namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    pub(super) born_into: CloneFlags,
    pub(super) pid_namespace: Option<OwnedFd>,
    /// With a user namespace in play, the others have to be entered while the process still is the machine's root.
    pub(super) entered_before: Vec<(CloneFlags, OwnedFd)>,
    /// What only the machine's root can write, whom the process is until it is that of a user namespace.
    pub(super) before_users: Option<Step>,
    pub(super) steps: Vec<Step>,
    /// What makes no sense before the process is in its cgroup.
    pub(super) after_cgroup: Option<Step>,
}

/// Host names are at most this long (`__NEW_UTS_LEN`).
const HOST_NAME_BYTES_MAX: usize = 64;

pub(super) fn plan(spec: &Spec, linux: &Linux, users: &UserNamespace) -> Result<Namespaces, Error> {
    let mut plan = Namespaces {
        born_into: CloneFlags::empty(),
        pid_namespace: None,
        entered_before: Vec::new(),
        before_users: None,
        steps: Vec::new(),
        after_cgroup: None,
    };
    let inside = inside(spec, linux)?;
    for it in linux.namespaces().iter().flatten() {
        let kind = spec::kind(it.typ());
        match (kind, it.path()) {
            (Kind::User, None) => plan.born_into |= kind.flag(),
            (Kind::User, Some(_)) => {}
            // Its root is where the process is when it is made.
            (Kind::Cgroup, None) => plan.after_cgroup = Some(Step::NewCgroupNamespace),
            // Its clocks are set before somebody is in it.
            (Kind::Time, None) => {
                plan.before_users = Some(Step::NewTimeNamespace { offsets: inside.offsets.clone() });
            }
            (Kind::Net, None) => {
                plan.born_into |= kind.flag();
                plan.steps.push(Step::Loopback);
            }
            (_, None) => plan.born_into |= kind.flag(),
            (Kind::Pid, Some(path)) => plan.pid_namespace = Some(open(path)?),
            (_, Some(path)) if users.is_own() => plan.entered_before.push((kind.flag(), open(path)?)),
            (_, Some(path)) => {
                plan.steps.push(Step::JoinNamespace { kind, path: path.clone(), namespace: open(path)? });
            }
        }
    }
    if let UserNamespace::Joined(path, namespace) = users {
        let namespace = namespace.try_clone().map_err(Error::file("open the namespace", path))?;
        plan.entered_before.push((CloneFlags::CLONE_NEWUSER, namespace));
    }
    plan.steps.extend(inside.steps);
    Ok(plan)
}

/// What is set inside of namespaces.
pub(super) struct Inside {
    /// The clocks of a new time namespace.
    offsets: String,
    /// Kernel parameters and names.
    steps: Vec<Step>,
}

/// Reads what the specification wants to be set, each in a namespace that the container has.
pub(super) fn inside(spec: &Spec, linux: &Linux) -> Result<Inside, Error> {
    let has: Vec<Kind> = linux.namespaces().iter().flatten().map(|it| spec::kind(it.typ())).collect();
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !has.contains(&Kind::Time) {
        return Err(Error::spec("linux.timeOffsets", "needs a time namespace in linux.namespaces"));
    }
    let mut steps = parameters(linux, &has)?;
    steps.extend(names(spec, &has)?);
    Ok(Inside { offsets: offsets(linux)?, steps })
}

fn open(path: &PathBuf) -> Result<OwnedFd, Error> {
    namespace::open(path).map_err(|error| Error::file("open the namespace", path)(std::io::Error::other(error)))
}

/// Lines for `/proc/self/timens_offsets` (time_namespaces(7)).
fn offsets(linux: &Linux) -> Result<String, Error> {
    let mut clocks: Vec<_> = linux.time_offsets().iter().flatten().collect();
    clocks.sort_by_key(|(clock, _)| clock.as_str());
    let mut text = String::new();
    for (clock, offset) in clocks {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::spec(format!("linux.timeOffsets.{clock}"), "is neither monotonic nor boottime"));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{clock} {seconds} {nanoseconds}");
    }
    Ok(text)
}

fn parameters(linux: &Linux, has: &[Kind]) -> Result<Vec<Step>, Error> {
    let mut all: Vec<_> = linux.sysctl().iter().flatten().collect();
    all.sort();
    all.into_iter()
        .map(|(name, value)| {
            let field = format!("linux.sysctl.{name}");
            let kind = sysctl::namespace(name).ok_or_else(|| Error::spec(&field, "belongs to the whole machine"))?;
            if !has.contains(&kind) {
                let reason = format!("needs a {} namespace, or it would change the machine's", kind.name());
                return Err(Error::spec(&field, reason));
            }
            let path = sysctl::path(name).ok_or_else(|| Error::spec(&field, "is no name of a kernel parameter"))?;
            Ok(Step::Parameter { path: entry::text(&path, &field)?, value: value.clone() })
        })
        .collect()
}

fn names(spec: &Spec, has: &[Kind]) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
        if !has.contains(&Kind::Uts) {
            return Err(Error::spec(field, "needs a uts namespace, or it would change the machine's"));
        }
        if name.len() > HOST_NAME_BYTES_MAX {
            return Err(Error::spec(field, format!("is longer than {HOST_NAME_BYTES_MAX} bytes")));
        }
        let text = CString::new(name.as_str()).map_err(|_| Error::spec(field, "has a zero byte"))?;
        steps.push(if field == "hostname" { Step::HostName(name.clone()) } else { Step::DomainName(text) });
    }
    Ok(steps)
}
