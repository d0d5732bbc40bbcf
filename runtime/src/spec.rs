//! `config.json` read, and refused where it asks for what this runtime does not do: nothing is ignored in silence.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Process, Spec};

use crate::error::Error;
use crate::limits::{CONFIG_BYTES_MAX, LIST_MAX, PATH_BYTES_MAX};

/// Reads the `config.json` of a bundle.
pub(crate) fn load(bundle: &Path) -> Result<Spec, Error> {
    let path = bundle.join("config.json");
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(Error::file("read", &path))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Error::spec("config.json", format!("is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| Error::spec("config.json", error.to_string()))?;
    refuse_unsupported(&spec)?;
    Ok(spec)
}

/// The root file system, made absolute.
pub(crate) fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf, Error> {
    let root = spec.root().as_ref().ok_or_else(|| Error::spec("root", "is missing"))?;
    let path = bundle.join(root.path());
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

/// Refuses fields of a process that this runtime does not act upon.
pub(crate) fn check_process(process: &Process) -> Result<(), Error> {
    refuse(&[
        ("process.terminal", process.terminal() == Some(true)),
        ("process.apparmorProfile", process.apparmor_profile().as_ref().is_some_and(|profile| !profile.is_empty())),
        ("process.selinuxLabel", process.selinux_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
        ("process.user.username", process.user().username().as_ref().is_some_and(|name| !name.is_empty())),
    ])
}

fn refuse_unsupported(spec: &Spec) -> Result<(), Error> {
    let linux = linux(spec)?;
    let kinds: Vec<LinuxNamespaceType> = linux.namespaces().iter().flatten().map(|it| it.typ()).collect();
    refuse(&[
        ("hooks", spec.hooks().is_some()),
        ("linux.namespaces: user", kinds.contains(&LinuxNamespaceType::User)),
        ("linux.namespaces: time", kinds.contains(&LinuxNamespaceType::Time)),
        ("linux.uidMappings", linux.uid_mappings().as_ref().is_some_and(|list| !list.is_empty())),
        ("linux.gidMappings", linux.gid_mappings().as_ref().is_some_and(|list| !list.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())),
    ])?;
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
    ] {
        if length > LIST_MAX {
            return Err(Error::spec(field, format!("has {length} entries, more than {LIST_MAX}")));
        }
    }
    linux.resources().as_ref().map_or(Ok(()), refuse_resources)
}

/// Refuses limits that this runtime does not set.
pub(crate) fn refuse_resources(resources: &LinuxResources) -> Result<(), Error> {
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    refuse(&[
        ("linux.resources.blockIO", resources.block_io().is_some()),
        ("linux.resources.network", resources.network().is_some()),
        ("linux.resources.rdma", resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty())),
        ("linux.resources.memory.swappiness", memory.is_some_and(|it| it.swappiness().is_some())),
        ("linux.resources.memory.disableOOMKiller", memory.is_some_and(|it| it.disable_oom_killer() == Some(true))),
        ("linux.resources.memory.kernelTCP", memory.is_some_and(|it| it.kernel_tcp().is_some_and(|bytes| bytes > 0))),
        ("linux.resources.cpu.realtimeRuntime", cpu.is_some_and(|it| it.realtime_runtime().is_some_and(|us| us != 0))),
        ("linux.resources.cpu.realtimePeriod", cpu.is_some_and(|it| it.realtime_period().is_some_and(|us| us != 0))),
    ])
}

/// Refuses limits that can only be set when a container is created.
pub(crate) fn refuse_in_update(resources: &LinuxResources) -> Result<(), Error> {
    let cpu = resources.cpu().as_ref();
    refuse(&[
        ("devices", resources.devices().as_ref().is_some_and(|rules| !rules.is_empty())),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty())),
        ("unified", resources.unified().as_ref().is_some_and(|files| !files.is_empty())),
        ("cpu.burst", cpu.is_some_and(|it| it.burst().is_some())),
        ("cpu.idle", cpu.is_some_and(|it| it.idle().is_some())),
    ])
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
