//! What the containers of a pod share: namespaces, made and pinned, and with them host name, loopback, sysctls and the
//! init of a shared pid namespace.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_runtime::shim::protocol::{NamespaceMode, SandboxSpec};
use berth_sys::cgroup::{Cgroup, Hierarchies};
use berth_sys::daemon;
use berth_sys::namespace::{self, Kind};
use berth_sys::process::{self, Birth};
use berth_sys::undo::Undo;
use berth_sys::{loopback, sysctl};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;

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
    /// A namespace could not be pinned.
    #[error(transparent)]
    Pin(#[from] namespace::Error),
    /// The init of the pid namespace could not be made.
    #[error("making the init of the shared pid namespace: {message}")]
    Init { message: String },
}

/// The living parts of a sandbox; the rest are files.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The init process of the shared pid namespace, until it ends.
    pub(crate) init: Option<i32>,
}

/// Makes the namespaces that `spec` asks for and pins them below `<dir>/ns`. The caller, which has one thread, is where
/// it was before. On failure nothing is left.
pub(crate) fn make(dir: &Path, spec: &SandboxSpec) -> Result<Sandbox, Error> {
    check(spec)?;
    let folder = dir.join("ns");
    let shared: Vec<Kind> =
        [(spec.namespaces.net, Kind::Net), (spec.namespaces.ipc, Kind::Ipc), (spec.namespaces.uts, Kind::Uts)]
            .into_iter()
            .filter(|(mode, _)| *mode == NamespaceMode::New)
            .map(|(_, kind)| kind)
            .collect();
    let own_pids = spec.namespaces.pid == NamespaceMode::New;
    if shared.is_empty() && !own_pids {
        return Ok(Sandbox { init: None });
    }
    DirBuilder::new().mode(0o700).create(&folder).map_err(refused(format!("making {}", folder.display())))?;
    let mut undo = Undo::new();
    undo.push(|| drop(unmake(dir, &mut Sandbox { init: None })));
    let home = Home::remember(&shared)?;
    let made = enter_new(&shared, spec).and_then(|()| {
        for kind in &shared {
            pin(Path::new(&format!("/proc/self/ns/{}", kind.name())), &folder.join(kind.name()))?;
        }
        if own_pids { make_init(&folder).map(Some) } else { Ok(None) }
    });
    home.go_back()?;
    let init = made?;
    undo.dismiss();
    Ok(Sandbox { init })
}

/// Takes the namespaces' pins and init process away, and tells what could not be.
pub(crate) fn unmake(dir: &Path, sandbox: &mut Sandbox) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(init) = sandbox.init.take() {
        end_init(init);
    }
    let folder = dir.join("ns");
    for kind in [Kind::Net, Kind::Ipc, Kind::Uts, Kind::Pid] {
        if let Err(error) = namespace::unpin(&folder.join(kind.name())) {
            failures.push(chain(&error));
        }
    }
    if let Err(error) = fs::remove_dir(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        failures.push(format!("removing {}: {error}", folder.display()));
    }
    failures
}

fn check(spec: &SandboxSpec) -> Result<(), Error> {
    let invalid = |field: &'static str| move |reason: String| Error::Invalid { field, reason };
    check_name("id", &spec.id).map_err(|fault| invalid("id")(fault.message))?;
    // Made into no folder yet: found out only at the end, it could not be removed.
    let hierarchies = Hierarchies::of_machine().map_err(refused("looking for cgroup hierarchies".into()))?;
    Cgroup::new(hierarchies, Path::new(&spec.cgroup), &[]).map_err(|error| invalid("cgroup")(chain(&error)))?;
    if spec.handler.as_ref().is_some_and(|handler| !handler.program.is_absolute()) {
        return Err(invalid("handler.program")("is no absolute path".into()));
    }
    let modes = [
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

/// Moves this process into new namespaces and furnishes them.
fn enter_new(kinds: &[Kind], spec: &SandboxSpec) -> Result<(), Error> {
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    unshare(flags).map_err(|errno| refused("making new namespaces".into())(errno.into()))?;
    if kinds.contains(&Kind::Uts) {
        let action = format!("setting the host name {:?}", spec.hostname);
        sethostname(&spec.hostname).map_err(|errno| refused(action)(errno.into()))?;
    }
    if kinds.contains(&Kind::Net) {
        loopback::bring_up().map_err(|errno| refused("bringing lo up".into())(errno.into()))?;
    }
    for (name, value) in &spec.sysctls {
        sysctl::set(name, value).map_err(refused(format!("setting sysctl {name} to {value:?}")))?;
    }
    Ok(())
}

/// Makes the init of a new pid namespace, in the other namespaces that this process is in, and pins the namespace.
fn make_init(folder: &Path) -> Result<i32, Error> {
    let failed = |error: io::Error| Error::Init { message: error.to_string() };
    let (alive, parents_end) = io::pipe().map_err(failed)?;
    let (mut failure, tell_failure) = io::pipe().map_err(failed)?;
    let birth = Birth { namespaces: CloneFlags::CLONE_NEWPID, ..Birth::default() };
    let child = process::spawn(&birth, || daemon::become_init(alive, &parents_end, tell_failure)).map_err(failed)?;
    let mut message = String::new();
    let ready = match failure.read_to_string(&mut message) {
        Ok(0) => Ok(()),
        Ok(_) => Err(io::Error::other(message)),
        Err(error) => Err(error),
    };
    let namespace = PathBuf::from(format!("/proc/{}/ns/pid", child.pid));
    ready.map_err(failed).and_then(|()| pin(&namespace, &folder.join(Kind::Pid.name()))).inspect_err(|_| {
        end_init(child.pid);
    })?;
    Ok(child.pid)
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

fn pin(source: &Path, path: &Path) -> Result<(), Error> {
    Ok(namespace::pin(source, path)?)
}

fn refused(action: String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Refused { action, source }
}

/// The namespaces to come back to.
struct Home {
    namespaces: Vec<(PathBuf, File, CloneFlags)>,
}

impl Home {
    fn remember(kinds: &[Kind]) -> Result<Self, Error> {
        let namespaces = kinds.iter().map(|kind| {
            let path = PathBuf::from(format!("/proc/self/ns/{}", kind.name()));
            let file = File::open(&path).map_err(refused(format!("opening {}", path.display())))?;
            Ok((path, file, kind.flag()))
        });
        Ok(Self { namespaces: namespaces.collect::<Result<_, Error>>()? })
    }

    fn go_back(self) -> Result<(), Error> {
        for (path, file, flag) in self.namespaces {
            setns(file, flag).map_err(|errno| refused(format!("going back to {}", path.display()))(errno.into()))?;
        }
        Ok(())
    }
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
                net: NamespaceMode::New,
                ipc: NamespaceMode::New,
                uts: NamespaceMode::New,
                pid: NamespaceMode::Container,
            },
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
