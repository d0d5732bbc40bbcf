//! What the containers of a pod share: namespaces, made and pinned, and with them host name, loopback, sysctls and the
//! init of a shared pid namespace; and the pod's cgroup.
//!
//! The shim itself stays where it is: a process that lives for so long is born into the new namespaces, furnishes them
//! and holds them until they are pinned. Nobody could come back from a user namespace.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_runtime::shim::cgroup;
use berth_runtime::shim::protocol::{NamespaceMode, SandboxSpec};
use berth_sys::daemon::{self, NOBODY};
use berth_sys::namespace::{self, Kind};
use berth_sys::process::{self, Birth, Child};
use berth_sys::undo::Undo;
use berth_sys::{caps, loopback, sysctl};
use nix::libc;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, getpid, sethostname};
use oci_spec::runtime::LinuxIdMapping;

use crate::fault::chain;
use crate::limits::INIT_END_TIME_MAX;
use crate::request::check_name;

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The specification asks for what there is not.
    #[error("sandbox.json: {field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    /// The kernel refused.
    #[error("{action}")]
    Refused { action: String, source: io::Error },
    /// A process in the new namespaces could not do its work.
    #[error("{action}: {message}")]
    Inside { action: &'static str, message: String },
    /// A namespace could not be pinned or opened.
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    /// The pod's cgroup could not be made.
    #[error("making the pod's cgroup")]
    Cgroup(#[from] cgroup::Error),
}

/// The living parts of a sandbox; the rest are files.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The init process of the shared pid namespace, until it ends.
    pub(crate) init: Option<i32>,
}

/// Makes what `spec` asks for, and pins the namespaces below `<dir>/ns`. On failure nothing is left.
pub(crate) fn make(dir: &Path, spec: &SandboxSpec) -> Result<Sandbox, Error> {
    check(spec)?;
    let mut undo = Undo::new();
    undo.push(|| drop(unmake(dir, spec, &mut Sandbox { init: None })));
    cgroup::make(dir, &spec.cgroup)?;
    let folder = dir.join("ns");
    DirBuilder::new().mode(0o700).create(&folder).map_err(refused(format!("making {}", folder.display())))?;
    let wanted = |(mode, kind)| (mode == NamespaceMode::New).then_some(kind);
    let modes = &spec.namespaces;
    if modes.user == NamespaceMode::New {
        let (users, groups) = (table(&spec.uid_mappings), table(&spec.gid_mappings));
        let made = namespace::new_user(&users, &groups).map_err(refused("making the user namespace".into()))?;
        let source = PathBuf::from(format!("/proc/self/fd/{}", made.as_raw_fd()));
        namespace::pin(&source, &folder.join(Kind::User.name()))?;
    }
    let shared = [(modes.net, Kind::Net), (modes.ipc, Kind::Ipc), (modes.uts, Kind::Uts)];
    let shared: Vec<Kind> = shared.into_iter().filter_map(wanted).collect();
    if !shared.is_empty() {
        make_shared(&shared, &folder, spec)?;
    }
    let init = (modes.pid == NamespaceMode::New).then(|| make_init(&shared, &folder, spec)).transpose()?;
    undo.dismiss();
    Ok(Sandbox { init })
}

/// Takes the namespaces' pins, their init process and the pod's cgroup away, and tells what could not be.
pub(crate) fn unmake(dir: &Path, spec: &SandboxSpec, sandbox: &mut Sandbox) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(init) = sandbox.init.take() {
        end_init(init);
    }
    let folder = dir.join("ns");
    for kind in [Kind::Net, Kind::Ipc, Kind::Uts, Kind::Pid, Kind::User] {
        if let Err(error) = namespace::unpin(&folder.join(kind.name())) {
            failures.push(chain(&error));
        }
    }
    if let Err(error) = fs::remove_dir(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        failures.push(format!("removing {}: {error}", folder.display()));
    }
    failures.extend(cgroup::end(dir, &spec.cgroup).err().map(|error| chain(&error)));
    failures
}

fn check(spec: &SandboxSpec) -> Result<(), Error> {
    let invalid = |field: &'static str| move |reason: String| Error::Invalid { field, reason };
    check_name("id", &spec.id).map_err(|fault| invalid("id")(fault.message))?;
    cgroup::check(&spec.cgroup).map_err(|error| invalid("cgroup")(chain(&error)))?;
    if spec.handler.as_ref().is_some_and(|handler| !handler.program.is_absolute()) {
        return Err(invalid("handler.program")("is no absolute path".into()));
    }
    let shares_pids = spec.namespaces.pid == NamespaceMode::New;
    for (field, mappings) in [("uidMappings", &spec.uid_mappings), ("gidMappings", &spec.gid_mappings)] {
        let is_mapped = |id: u32| {
            let inside = |it: &LinuxIdMapping| it.container_id() <= id && id - it.container_id() < it.size();
            mappings.iter().any(inside)
        };
        let reason = match spec.namespaces.user {
            NamespaceMode::New if !is_mapped(0) => "has no entry for 0",
            NamespaceMode::New if shares_pids && !is_mapped(NOBODY) => "has no entry for the init of the shared pids",
            NamespaceMode::New => continue,
            _ if mappings.is_empty() => continue,
            _ => "needs a new user namespace",
        };
        return Err(invalid(field)(reason.to_owned()));
    }
    let modes = [
        ("namespaces.user", spec.namespaces.user),
        ("namespaces.net", spec.namespaces.net),
        ("namespaces.ipc", spec.namespaces.ipc),
        ("namespaces.uts", spec.namespaces.uts),
    ];
    for (field, mode) in modes {
        if mode == NamespaceMode::Container {
            return Err(Error::Invalid { field, reason: "is shared by the containers of a pod: new or host".into() });
        }
    }
    for name in spec.sysctls.keys() {
        let reason = match sysctl::namespace(name) {
            _ if sysctl::path(name).is_none() => "is no name of a sysctl",
            Some(Kind::Net) if spec.namespaces.net != NamespaceMode::New => "would change the host's network",
            Some(Kind::Ipc) if spec.namespaces.ipc != NamespaceMode::New => "would change the host's IPC",
            Some(Kind::Uts) if spec.namespaces.uts != NamespaceMode::New => "would change the host's name",
            Some(_) => continue,
            None => "belongs to no namespace: it would change the host",
        };
        return Err(Error::Invalid { field: "sysctls", reason: format!("{name:?} {reason}") });
    }
    Ok(())
}

/// Makes the namespaces that are neither users' nor processes', furnishes and pins them.
fn make_shared(kinds: &[Kind], folder: &Path, spec: &SandboxSpec) -> Result<(), Error> {
    let namespaces = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    let entered = opened(&[], folder, spec)?;
    let has_users = !entered.is_empty();
    let shim = getpid();
    let holder = born(&entered, namespaces, "furnishing the new namespaces", &[], |mut failure| {
        if let Err(error) = furnish(shim, kinds, has_users, spec) {
            let _ = write!(failure, "{}", chain(&error));
            process::exit_now(1);
        }
        drop(failure);
        process::idle()
    })?;
    let pinned = kinds.iter().try_for_each(|kind| {
        let source = PathBuf::from(format!("/proc/{}/ns/{}", holder.pid, kind.name()));
        Ok(namespace::pin(&source, &folder.join(kind.name()))?)
    });
    process::kill_and_wait(&holder.pidfd).map_err(refused("ending the process that furnished them".into()))?;
    pinned
}

/// The whole work of a process that was born into new namespaces. With new users it has to become their root, to whom
/// the kernel parameters belong.
fn furnish(shim: Pid, kinds: &[Kind], has_users: bool, spec: &SandboxSpec) -> Result<(), Error> {
    let failed = |action: &str| {
        let action = action.to_owned();
        move |errno: nix::Error| refused(action)(errno.into())
    };
    if has_users {
        caps::set_ids(0, 0).map_err(failed("becoming root"))?;
    }
    // Taken back by the kernel with the change of the user.
    process::die_with(shim).map_err(failed("asking to end with the shim"))?;
    if kinds.contains(&Kind::Uts) {
        sethostname(&spec.hostname).map_err(failed(&format!("setting the host name {:?}", spec.hostname)))?;
    }
    if kinds.contains(&Kind::Net) {
        loopback::bring_up().map_err(failed("bringing lo up"))?;
    }
    for (name, value) in &spec.sysctls {
        sysctl::set(name, value).map_err(refused(format!("setting sysctl {name} to {value:?}")))?;
    }
    Ok(())
}

/// Makes the init of a new pid namespace, in the other namespaces of the sandbox, and pins the namespace.
fn make_init(shared: &[Kind], folder: &Path, spec: &SandboxSpec) -> Result<i32, Error> {
    let action = "making the init of the shared pid namespace";
    let (alive, parents_end) = io::pipe().map_err(refused(action.into()))?;
    let entered = opened(shared, folder, spec)?;
    let has_users = spec.namespaces.user == NamespaceMode::New;
    let needed = [alive.as_raw_fd(), parents_end.as_raw_fd()];
    let init = born(&entered, CloneFlags::CLONE_NEWPID, action, &needed, |mut failure| {
        if has_users && let Err(errno) = caps::set_ids(0, 0) {
            let _ = write!(failure, "becoming root: {errno}");
            process::exit_now(1);
        }
        daemon::become_init(alive, &parents_end, failure)
    })?;
    let namespace = PathBuf::from(format!("/proc/{}/ns/pid", init.pid));
    namespace::pin(&namespace, &folder.join(Kind::Pid.name())).inspect_err(|_| end_init(init.pid))?;
    Ok(init.pid)
}

/// A process in namespaces of the sandbox and in new ones, which does `work` and tells why if that fails.
fn born(
    entered: &[(CloneFlags, OwnedFd)],
    namespaces: CloneFlags,
    action: &'static str,
    needed: &[i32],
    work: impl FnOnce(PipeWriter) -> Infallible,
) -> Result<Child, Error> {
    let (mut failure, tell_failure) = io::pipe().map_err(refused(action.into()))?;
    let mut kept = [needed, &[tell_failure.as_raw_fd()]].concat();
    kept.sort_unstable();
    let birth = Birth { namespaces, entered_before: entered, kept: &kept, ..Birth::default() };
    let child = process::spawn(&birth, || {
        // Whoever waits for the shim's word or end must not have to wait for this process.
        let _ = process::close_all_but(&kept);
        work(tell_failure)
    })
    .map_err(refused(action.into()))?;
    let mut message = String::new();
    match failure.read_to_string(&mut message) {
        Ok(0) => return Ok(child),
        Ok(_) => {}
        Err(error) => message = error.to_string(),
    }
    let _ = process::kill_and_wait(&child.pidfd);
    Err(Error::Inside { action, message })
}

/// The sandbox's own namespaces of these kinds, and last its users'.
fn opened(kinds: &[Kind], folder: &Path, spec: &SandboxSpec) -> Result<Vec<(CloneFlags, OwnedFd)>, Error> {
    let user = (spec.namespaces.user == NamespaceMode::New).then_some(Kind::User);
    let open = |kind: Kind| Ok((kind.flag(), namespace::open(&folder.join(kind.name()))?));
    kinds.iter().copied().chain(user).map(open).collect()
}

/// Mappings as the kernel's files take them.
fn table(mappings: &[LinuxIdMapping]) -> String {
    let mut text = String::new();
    for mapping in mappings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {}", mapping.container_id(), mapping.host_id(), mapping.size());
    }
    text
}

/// Kills a pid namespace's init, and so all that is in it, and takes its status. One of them that the kernel cannot end
/// now keeps it, and the shim from waiting for ever.
fn end_init(init: i32) {
    let Ok(pidfd) = process::pidfd_open(init) else { return };
    let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
    if process::wait_for_end(&pidfd, INIT_END_TIME_MAX.as_millis() as u16).unwrap_or(false) {
        let _ = process::wait(&pidfd);
    }
}

fn refused(action: String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Refused { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_runtime::shim::protocol::{Handler, SandboxNamespaces};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            id: "s".into(),
            hostname: "h".into(),
            namespaces: SandboxNamespaces {
                user: NamespaceMode::Host,
                net: NamespaceMode::New,
                ipc: NamespaceMode::New,
                uts: NamespaceMode::New,
                pid: NamespaceMode::Container,
            },
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            cgroup: "/x".into(),
            sysctls: BTreeMap::new(),
            handler: None,
        }
    }

    #[test]
    fn a_sysctl_needs_a_namespace_of_its_own() {
        let spec = |net, name: &str| {
            let mut spec = spec();
            spec.namespaces.net = net;
            spec.sysctls.insert(name.to_owned(), "1".to_owned());
            spec
        };
        assert!(check(&spec(NamespaceMode::New, "net.ipv4.ip_forward")).is_ok());
        assert!(check(&spec(NamespaceMode::Host, "kernel.shm_rmid_forced")).is_ok());
        assert!(check(&spec(NamespaceMode::Host, "net.ipv4.ip_forward")).is_err());
        assert!(check(&spec(NamespaceMode::New, "vm.swappiness")).is_err());
        assert!(check(&spec(NamespaceMode::New, "net.../../../etc/passwd")).is_err());
        assert!(check(&spec(NamespaceMode::Container, "net.ipv4.ip_forward")).is_err());
    }

    fn mapping(first: u32, size: u32) -> Vec<LinuxIdMapping> {
        vec![serde_json::from_value(serde_json::json!({"containerID": first, "hostID": 1, "size": size})).unwrap()]
    }

    fn with_users(uid_mappings: Vec<LinuxIdMapping>, gid_mappings: Vec<LinuxIdMapping>) -> SandboxSpec {
        let mut spec = SandboxSpec { uid_mappings, gid_mappings, ..spec() };
        (spec.namespaces.user, spec.namespaces.pid) = (NamespaceMode::New, NamespaceMode::New);
        spec
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_field() {
        let mut namespaces = spec().namespaces;
        namespaces.ipc = NamespaceMode::Container;
        let handler = Some(Handler { program: "runc".into(), root: None, args: Vec::new(), secs_max: None });
        for (wrong, spec) in [
            ("id", SandboxSpec { id: "../s".into(), ..spec() }),
            ("cgroup", SandboxSpec { cgroup: "/".into(), ..spec() }),
            ("cgroup", SandboxSpec { cgroup: "/a/../../b".into(), ..spec() }),
            ("namespaces.ipc", SandboxSpec { namespaces, ..spec() }),
            ("uidMappings", SandboxSpec { uid_mappings: mapping(0, 1), ..spec() }),
            ("uidMappings", with_users(mapping(1, 65536), mapping(0, 65536))),
            ("gidMappings", with_users(mapping(0, 65536), Vec::new())),
            ("gidMappings", with_users(mapping(0, 65536), mapping(0, 65535))),
            ("handler.program", SandboxSpec { handler, ..spec() }),
        ] {
            assert!(matches!(check(&spec), Err(Error::Invalid { field, .. }) if field == wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_check_panic(id in any::<String>(), cgroup in any::<String>(), name in any::<String>()) {
            let sysctls = [(name, String::new())].into();
            let _ = check(&SandboxSpec { id, cgroup, sysctls, ..spec() });
        }
    }
}
