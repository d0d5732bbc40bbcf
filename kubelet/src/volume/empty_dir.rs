//! Empty folders, on disk or in memory.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use berth_sys::mountinfo;
use nix::mount::{MsFlags, mount};

use super::VolumeError;
use super::recipe::EmptyDir;

/// Everybody in the pod may use it, whoever they run as.
const MODE: u32 = 0o777;
/// With an owning group: what is made inside belongs to it too.
const MODE_OF_GROUP: u32 = 0o2777;

/// Makes an empty folder; one that is there keeps what is in it.
pub(super) fn make(path: &Path, dir: &EmptyDir, group: Option<u32>) -> Result<(), VolumeError> {
    make_folders(path)?;
    if let EmptyDir::Memory { bytes_max } = dir {
        let size = bytes_max.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
        tmpfs(path, &format!("mode=0777{size}"))?;
    }
    let wanted = if group.is_some() { MODE_OF_GROUP } else { MODE };
    let meta = fs::metadata(path).map_err(VolumeError::file("look at", path))?;
    if let Some(group) = group.filter(|&group| meta.gid() != group) {
        chown(path, None, Some(group)).map_err(VolumeError::file("give away", path))?;
    }
    if meta.mode() & 0o7777 != wanted || group.is_some() {
        let mode = fs::Permissions::from_mode(wanted);
        fs::set_permissions(path, mode).map_err(VolumeError::file("open up", path))?;
    }
    Ok(())
}

/// Makes a folder that is in memory and that only the writer's modes open.
pub(super) fn make_private_tmpfs(path: &Path) -> Result<(), VolumeError> {
    make_folders(path)?;
    tmpfs(path, "mode=0755")
}

fn make_folders(path: &Path) -> Result<(), VolumeError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(VolumeError::file("make", path))
}

fn tmpfs(path: &Path, options: &str) -> Result<(), VolumeError> {
    let failed = |message: String| VolumeError::Mount { what: "tmpfs".to_owned(), path: path.to_owned(), message };
    let real = fs::canonicalize(path).map_err(VolumeError::file("look at", path))?;
    if mountinfo::is_mounted(&real).map_err(|error| failed(error.to_string()))? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(|errno| failed(errno.desc().to_owned()))
}
