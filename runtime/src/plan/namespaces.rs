//! Namespaces: which are made by `clone3`, which are entered, and what is set inside of them.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::namespace::{self, Kind};
use berth_sys::sysctl;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::Step;
use crate::error::Error;

/// How a process comes by its namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    pub(super) born_into: CloneFlags,
    pub(super) pid_namespace: Option<OwnedFd>,
    pub(super) steps: Vec<Step>,
    /// What makes no sense before the process is in its cgroup.
    pub(super) after_cgroup: Option<Step>,
}

/// Host names are at most this long (`__NEW_UTS_LEN`).
const HOST_NAME_BYTES_MAX: usize = 64;

pub(super) fn plan(spec: &Spec, linux: &Linux) -> Result<Namespaces, Error> {
    let mut plan =
        Namespaces { born_into: CloneFlags::empty(), pid_namespace: None, steps: Vec::new(), after_cgroup: None };
    let mut has = Vec::new();
    for it in linux.namespaces().iter().flatten() {
        let kind = kind(it.typ())?;
        has.push(kind);
        match (kind, it.path()) {
            (Kind::Mount, Some(_)) => return Err(Error::unsupported("linux.namespaces: mount with a path")),
            // Its root is where the process is when it is made.
            (Kind::Cgroup, None) => plan.after_cgroup = Some(Step::NewCgroupNamespace),
            (_, None) => plan.born_into |= kind.flag(),
            (Kind::Pid, Some(path)) => plan.pid_namespace = Some(open(path)?),
            (_, Some(path)) => {
                plan.steps.push(Step::JoinNamespace { kind, path: path.clone(), namespace: open(path)? });
            }
        }
    }
    plan.steps.extend(parameters(linux, &has)?);
    plan.steps.extend(names(spec, &has)?);
    Ok(plan)
}

fn open(path: &PathBuf) -> Result<OwnedFd, Error> {
    namespace::open(path).map_err(|error| Error::file("open the namespace", path)(std::io::Error::other(error)))
}

fn kind(kind: LinuxNamespaceType) -> Result<Kind, Error> {
    Ok(match kind {
        LinuxNamespaceType::Mount => Kind::Mount,
        LinuxNamespaceType::Cgroup => Kind::Cgroup,
        LinuxNamespaceType::Uts => Kind::Uts,
        LinuxNamespaceType::Ipc => Kind::Ipc,
        LinuxNamespaceType::Pid => Kind::Pid,
        LinuxNamespaceType::Network => Kind::Net,
        LinuxNamespaceType::User | LinuxNamespaceType::Time => {
            return Err(Error::unsupported(format!("linux.namespaces: {kind}")));
        }
    })
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
            Ok(Step::Parameter { path, value: value.clone() })
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
        let text = CString::new(name.as_str()).ok().filter(|_| name.len() <= HOST_NAME_BYTES_MAX);
        let text = text.ok_or_else(|| Error::spec(field, format!("is longer than {HOST_NAME_BYTES_MAX} bytes")))?;
        steps.push(if field == "hostname" { Step::HostName(name.clone()) } else { Step::DomainName(text) });
    }
    Ok(steps)
}
