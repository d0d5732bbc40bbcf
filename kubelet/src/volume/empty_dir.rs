//! Empty folders, on disk or in memory. What is there already is left as it is: its mode and owner may be the
//! container's own work by now.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
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
    let mode = if group.is_some() { MODE_OF_GROUP } else { MODE };
    match dir {
        EmptyDir::Disk => on_disk(path, mode, group),
        EmptyDir::Memory { bytes_max } => {
            let size = bytes_max.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
            let owner = group.map(|group| format!(",gid={group}")).unwrap_or_default();
            make_folders(path)?;
            tmpfs(path, &format!("mode={mode:o}{owner}{size}"))
        }
    }
}

/// Makes a folder that is in memory and that only the writer's modes open.
pub(super) fn make_private_tmpfs(path: &Path) -> Result<(), VolumeError> {
    make_folders(path)?;
    tmpfs(path, "mode=0755")
}

/// The folder gets its name when it is ready: a crash leaves none that is half made.
fn on_disk(path: &Path, mode: u32, group: Option<u32>) -> Result<(), VolumeError> {
    if path.is_dir() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Volumes are DNS labels: none begins with a dot.
    let new = path.with_file_name(format!(".new-{name}"));
    make_folders(&new)?;
    if group.is_some() {
        chown(&new, None, group).map_err(VolumeError::file("give away", &new))?;
    }
    // After the owner, and whatever the umask is.
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(VolumeError::file("open up", &new))?;
    fs::rename(&new, path).map_err(VolumeError::file("name", path))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_did_to_its_folder_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volumes/data");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        make(&path, &EmptyDir::Disk, None).unwrap();
        assert_eq!(mode(), 0o777);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        make(&path, &EmptyDir::Disk, None).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_crash_leaves_no_folder_that_is_half_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::create_dir(folder.path().join(".new-data")).unwrap();
        make(&path, &EmptyDir::Disk, None).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
