//! `config.json` read, and refused where it asks for what this runtime does not do: nothing is ignored in silence.

use std::path::{Path, PathBuf};

use berth_sys::file;
use berth_sys::namespace::Kind;
use nix::sched::CloneFlags;
use oci_spec::runtime::{
    Capability, Linux, LinuxDeviceCgroup, LinuxNamespaceType, LinuxResources, Process, Root, Spec,
};

use crate::document;
use crate::error::Error;
use crate::hooks;
use crate::limits::{CONFIG_BYTES_MAX, LIST_MAX, PATH_BYTES_MAX};
use crate::repair;

/// Reads the `config.json` of a bundle.
pub(crate) fn load(bundle: &Path) -> Result<Spec, Error> {
    parse(&text(bundle)?)
}

/// The text of a bundle's `config.json`.
pub(crate) fn text(bundle: &Path) -> Result<Vec<u8>, Error> {
    let path = bundle.join("config.json");
    match file::read_limited(&path, CONFIG_BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Err(too_large()),
        other => other.map_err(Error::file("read", &path)),
    }
}

/// Reads the text of a `config.json`, and refuses what is too much or makes no sense as a whole.
pub(crate) fn parse(text: &[u8]) -> Result<Spec, Error> {
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(too_large());
    }
    let spec = document::read_mended(text, "config.json", repair::container)?;
    check(&spec)?;
    Ok(spec)
}

fn too_large() -> Error {
    Error::spec("config.json", format!("is larger than {CONFIG_BYTES_MAX} bytes"))
}

/// What is said of the root file system.
pub(crate) fn root(spec: &Spec) -> Result<&Root, Error> {
    spec.root().as_ref().ok_or_else(|| Error::spec("root", "is missing"))
}

/// The first process.
pub(crate) fn process(spec: &Spec) -> Result<&Process, Error> {
    spec.process().as_ref().ok_or_else(|| Error::spec("process", "is missing"))
}

/// The root file system, made absolute.
pub(crate) fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf, Error> {
    let path = bundle.join(root(spec)?.path());
    let absolute = path.canonicalize().map_err(Error::file("find the root file system", &path))?;
    if absolute == Path::new("/") {
        return Err(Error::spec("root.path", "is the machine's own root"));
    }
    Ok(absolute)
}

/// The Linux part.
pub(crate) fn linux(spec: &Spec) -> Result<&Linux, Error> {
    spec.linux().as_ref().ok_or_else(|| Error::spec("linux", "is missing"))
}

/// A path with its `.` and `..` parts taken out, from the root on.
pub(crate) fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// A path inside the container: absolute, without `..` parts, and not too long.
pub(crate) fn inside(path: &Path, field: impl FnOnce() -> String) -> Result<PathBuf, Error> {
    use std::path::Component::{CurDir, Normal, ParentDir, Prefix, RootDir};
    let mut plain = PathBuf::from("/");
    let reason = if !path.is_absolute() {
        "is not an absolute path"
    } else if path.as_os_str().len() > PATH_BYTES_MAX {
        "is too long"
    } else if path.as_os_str().as_encoded_bytes().contains(&0) {
        "has a zero byte"
    } else if path.components().any(|part| part == ParentDir) {
        "has a `..` part"
    } else {
        plain.extend(path.components().filter(|part| match part {
            Normal(_) => true,
            RootDir | CurDir | ParentDir | Prefix(_) => false,
        }));
        return Ok(plain);
    };
    Err(Error::spec(field(), format!("{} {reason}", path.display())))
}

/// The namespaces that a container has other than the machine's, as flags.
pub(crate) fn namespace_flags(spec: &Spec) -> Result<CloneFlags, Error> {
    let all = linux(spec)?.namespaces().iter().flatten();
    Ok(all.fold(CloneFlags::empty(), |flags, it| flags | kind(it.typ()).flag()))
}

/// Whether a process, or one that it makes, may look into others (capabilities(7), `CAP_SYS_PTRACE`).
pub(crate) fn is_curious(process: &Process) -> bool {
    let sets = process.capabilities().iter();
    let mut granted = sets.flat_map(|sets| [sets.bounding(), sets.permitted()]).flatten();
    granted.any(|set| set.contains(&Capability::SysPtrace))
}

/// Whether a container's processes are seen by those of others, who may look into them.
pub(crate) fn has_neighbours(spec: &Spec) -> bool {
    let linux = spec.linux().iter();
    let mut namespaces = linux.flat_map(|linux| linux.namespaces().iter().flatten());
    namespaces.any(|it| it.typ() == LinuxNamespaceType::Pid && it.path().is_some())
}

/// The kernel's kind of a namespace.
pub(crate) fn kind(kind: LinuxNamespaceType) -> Kind {
    match kind {
        LinuxNamespaceType::Mount => Kind::Mount,
        LinuxNamespaceType::Cgroup => Kind::Cgroup,
        LinuxNamespaceType::Uts => Kind::Uts,
        LinuxNamespaceType::Ipc => Kind::Ipc,
        LinuxNamespaceType::Pid => Kind::Pid,
        LinuxNamespaceType::Network => Kind::Net,
        LinuxNamespaceType::User => Kind::User,
        LinuxNamespaceType::Time => Kind::Time,
    }
}

/// Refuses what makes no sense as a whole, or is too much.
fn check(spec: &Spec) -> Result<(), Error> {
    let version = spec.version();
    if version.split('.').next() != Some("1") {
        return Err(Error::spec("ociVersion", format!("{version:?} is none of 1.x")));
    }
    let linux = linux(spec)?;
    refuse(&[("linux.intelRdt", linux.intel_rdt().is_some())])?;
    spec.hooks().as_ref().map_or(Ok(()), hooks::check)?;
    let kinds: Vec<LinuxNamespaceType> = linux.namespaces().iter().flatten().map(|it| it.typ()).collect();
    for (position, kind) in kinds.iter().enumerate() {
        if kinds[..position].contains(kind) {
            return Err(Error::spec("linux.namespaces", format!("{kind} is listed twice")));
        }
    }
    if !kinds.contains(&LinuxNamespaceType::Mount) {
        return Err(Error::spec(
            "linux.namespaces",
            "has no mount namespace: the container would mount on the machine",
        ));
    }
    for (field, length) in [
        ("mounts", spec.mounts().as_ref().map_or(0, Vec::len)),
        ("linux.devices", linux.devices().as_ref().map_or(0, Vec::len)),
        ("linux.maskedPaths", linux.masked_paths().as_ref().map_or(0, Vec::len)),
        ("linux.readonlyPaths", linux.readonly_paths().as_ref().map_or(0, Vec::len)),
        ("linux.resources.devices", linux.resources().as_ref().and_then(device_rules).map_or(0, Vec::len)),
        ("linux.sysctl", linux.sysctl().as_ref().map_or(0, |all| all.len())),
        ("linux.netDevices", linux.net_devices().as_ref().map_or(0, |all| all.len())),
    ] {
        if length > LIST_MAX {
            return Err(Error::spec(field, format!("has {length} entries, more than {LIST_MAX}")));
        }
    }
    Ok(())
}

fn device_rules(resources: &LinuxResources) -> Option<&Vec<LinuxDeviceCgroup>> {
    resources.devices().as_ref()
}

fn refuse(fields: &[(&str, bool)]) -> Result<(), Error> {
    match fields.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(Error::unsupported(*field)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_inside_are_absolute_and_plain() {
        let check = |path: &str| inside(Path::new(path), || "f".into()).map(|path| path.display().to_string()).ok();
        assert_eq!(check("/a/./b//c/").as_deref(), Some("/a/b/c"));
        assert_eq!(check("/").as_deref(), Some("/"));
        for bad in ["", "a", "/a/../b", "/..", "/a\0", &format!("/{}", "x".repeat(PATH_BYTES_MAX))] {
            assert_eq!(check(bad), None, "{bad:?}");
        }
    }
}
