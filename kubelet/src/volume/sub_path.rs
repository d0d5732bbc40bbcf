//! A part of a volume, found without leaving the volume, and bound to a place of ours so that nobody can swap it for
//! something else between the look and the mount (CVE-2017-1002101, CVE-2021-25741).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use berth_sys::beneath::Root;
use berth_sys::mountinfo;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::VolumeError;
use super::recipe::stays_inside;

/// Makes `target` show what is at `sub_path` in the volume; a folder is made there if nothing is.
pub(super) fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<(), VolumeError> {
    let sub_path = Path::new(sub_path);
    if !stays_inside(sub_path) {
        let message = format!("subPath {:?} must be relative and without \"..\"", sub_path.display());
        return Err(VolumeError::Spec { message });
    }
    let whole = volume.join(sub_path);
    let found = open(volume, sub_path).map_err(VolumeError::file("open", &whole))?;
    let is_folder = fstat(&found)
        .map(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
        .map_err(|errno| VolumeError::file("look at", &whole)(errno.into()))?;
    prepare(target, is_folder).map_err(VolumeError::file("make", target))?;
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).map_err(
        |errno| VolumeError::Mount {
            what: whole.display().to_string(),
            path: target.to_owned(),
            message: errno.desc().to_owned(),
        },
    )
}

fn open(volume: &Path, sub_path: &Path) -> std::io::Result<OwnedFd> {
    let root = Root::open(volume)?;
    match root.open_file(sub_path, OFlag::O_PATH, Mode::empty()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            root.create_folders(sub_path, Mode::from_bits_truncate(0o750))?;
            root.open_file(sub_path, OFlag::O_PATH, Mode::empty())
        }
        other => other,
    }
}

/// Makes what is mounted on; what an earlier run of the container had mounted there goes.
fn prepare(target: &Path, is_folder: bool) -> std::io::Result<()> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    if target.exists() && mountinfo::is_mounted(&fs::canonicalize(target)?)? {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match fs::metadata(target) {
        Ok(meta) if meta.is_dir() == is_folder => return Ok(()),
        // Both are empty: what was mounted there is gone.
        Ok(meta) if meta.is_dir() => fs::remove_dir(target)?,
        Ok(_) => fs::remove_file(target)?,
        Err(_) => {}
    }
    if is_folder { fs::create_dir(target) } else { fs::File::create(target).map(drop) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, outside) = (folder.path().join("volume"), folder.path().join("outside"));
        fs::create_dir_all(volume.join("real")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, volume.join("absolute")).unwrap();
        symlink("../outside", volume.join("relative")).unwrap();
        symlink("real", volume.join("inner")).unwrap();
        for link in ["absolute", "relative", "absolute/new", "relative/new"] {
            assert!(open(&volume, Path::new(link)).is_err(), "{link}");
        }
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        open(&volume, Path::new("inner/new")).unwrap();
        assert!(volume.join("real/new").is_dir());
        open(&volume, Path::new("made/for/it")).unwrap();
        assert!(volume.join("made/for/it").is_dir());
        for bad in ["../outside", "/etc", "", "a/../../b"] {
            assert!(bind(&volume, bad, &folder.path().join("target")).is_err(), "{bad:?}");
        }
    }
}
