//! What a container sees where: the standard mounts, the pod's own files, and the volumes.

use std::path::Path;

use oci_spec::runtime::{Mount, MountBuilder};

use super::{Inputs, SpecError};
use crate::config::{self, Propagation};

/// All mounts in the order in which they are made.
pub(super) fn mounts(inputs: &Inputs<'_>) -> Result<Vec<Mount>, SpecError> {
    let privileged = inputs.container.security.privileged;
    let mut all = standard(inputs, privileged)?;
    let taken = |path: &str| inputs.container.mounts.iter().any(|mount| mount.container_path == Path::new(path));
    for (name, target) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname")]
    {
        if !taken(target) {
            all.push(bind(&inputs.pod_files.join(name), Path::new(target), "rprivate", false)?);
        }
    }
    for mount in &inputs.container.mounts {
        all.push(volume(mount)?);
    }
    Ok(all)
}

/// `rslave` or `rshared` for the container's root if a volume asks that mounts travel; private otherwise.
pub(super) fn rootfs_propagation(mounts: &[config::Mount]) -> Option<String> {
    let strongest =
        mounts.iter().map(|mount| mount.propagation).fold(Propagation::None, |strongest, one| match (strongest, one) {
            (Propagation::Bidirectional, _) | (_, Propagation::Bidirectional) => Propagation::Bidirectional,
            (Propagation::HostToContainer, _) | (_, Propagation::HostToContainer) => Propagation::HostToContainer,
            (Propagation::None, Propagation::None) => Propagation::None,
        });
    match strongest {
        Propagation::None => None,
        Propagation::HostToContainer => Some("rslave".to_owned()),
        Propagation::Bidirectional => Some("rshared".to_owned()),
    }
}

fn standard(inputs: &Inputs<'_>, privileged: bool) -> Result<Vec<Mount>, SpecError> {
    let writable = if privileged { "rw" } else { "ro" };
    let kernel = |target, kind, options: &[&str]| filesystem(target, kind, kind, options);
    let mut all = vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"])?,
        kernel("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        kernel("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])?,
        kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", writable])?,
        filesystem("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", writable])?,
    ];
    let shm = if inputs.sandbox.host_ipc { Path::new("/dev/shm").to_path_buf() } else { inputs.pod_files.join("shm") };
    all.push(bind(&shm, Path::new("/dev/shm"), "rprivate", false)?);
    Ok(all)
}

fn volume(mount: &config::Mount) -> Result<Mount, SpecError> {
    if !mount.container_path.is_absolute() {
        let path = mount.container_path.display().to_string();
        return Err(SpecError::RelativePath { field: "mountPath", path });
    }
    let propagation = match mount.propagation {
        Propagation::None => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    bind(&mount.host_path, &mount.container_path, propagation, mount.read_only)
}

fn bind(source: &Path, target: &Path, propagation: &str, read_only: bool) -> Result<Mount, SpecError> {
    let access = if read_only { "ro" } else { "rw" };
    let options = ["rbind", propagation, access].map(str::to_owned).to_vec();
    Ok(MountBuilder::default().source(source).destination(target).typ("bind").options(options).build()?)
}

fn filesystem(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, SpecError> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    Ok(MountBuilder::default().source(source).destination(target).typ(kind).options(options).build()?)
}
