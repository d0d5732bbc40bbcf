//! A container's mounts: its volumes and its termination log.

use std::path::{Path, PathBuf};

use berth_engine::config::{Mount, Propagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::ConfigFault;
use crate::volume::Place;

/// Where a container writes its last words if it says nothing else.
const TERMINATION_PATH_DEFAULT: &str = "/dev/termination-log";

/// The mounts, parents before their children. `place` gives the path on the host of each volume mount, sub-path
/// followed; `termination_log` is the file for the container's last words.
pub(crate) fn mounts(
    container: &Container,
    place: impl Fn(usize, &VolumeMount) -> Option<Place>,
    termination_log: &Path,
) -> Result<Vec<Mount>, ConfigFault> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let place = place(index, mount)
            .ok_or_else(|| ConfigFault { message: format!("volume {:?} is not mounted", mount.name) })?;
        mounts.push(Mount {
            host_path: place.path,
            container_path: PathBuf::from(&mount.mount_path),
            read_only: place.read_only || mount.read_only == Some(true),
            propagation: propagation(container, mount)?,
        });
    }
    let path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    let path = Path::new(path.unwrap_or(TERMINATION_PATH_DEFAULT));
    if !mounts.iter().any(|mount| mount.container_path == path) {
        mounts.push(Mount {
            host_path: termination_log.to_owned(),
            container_path: path.to_owned(),
            read_only: false,
            propagation: Propagation::None,
        });
    }
    mounts.sort_by_key(|mount| mount.container_path.components().count());
    Ok(mounts)
}

fn propagation(container: &Container, mount: &VolumeMount) -> Result<Propagation, ConfigFault> {
    let privileged = container.security_context.as_ref().and_then(|own| own.privileged) == Some(true);
    match mount.mount_propagation.as_deref() {
        None | Some("None") => Ok(Propagation::None),
        Some("HostToContainer") => Ok(Propagation::HostToContainer),
        Some("Bidirectional") if privileged => Ok(Propagation::Bidirectional),
        Some("Bidirectional") => {
            let field = format!("volumeMounts[{}].mountPropagation", mount.name);
            Err(ConfigFault::field(container, &field, "Bidirectional is for privileged containers only"))
        }
        Some(_) => {
            let field = format!("volumeMounts[{}].mountPropagation", mount.name);
            Err(ConfigFault::field(container, &field, "must be None, HostToContainer or Bidirectional"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parents_come_before_their_children() {
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "volumeMounts": [
                { "name": "b", "mountPath": "/a/b/c", "readOnly": true },
                { "name": "a", "mountPath": "/a" },
            ],
        }))
        .unwrap();
        let path = |mount: &VolumeMount| PathBuf::from("/v").join(&mount.name);
        let place = |_, mount: &VolumeMount| Some(Place { path: path(mount), read_only: false });
        let mounts = mounts(&container, place, Path::new("/t")).unwrap();
        let paths: Vec<_> = mounts.iter().map(|mount| mount.container_path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/a", "/dev/termination-log", "/a/b/c"]);
        assert!(mounts[2].read_only && !mounts[0].read_only);
    }
}
