//! Where the program starts and who it is.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::beneath::{Folder, Root};
use berth_sys::mount::new_mount;
use berth_sys::{caps, process};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, umask};
use nix::unistd::{Uid, chdir, fchown, mkdir};

use super::Progress;
use crate::plan::{Identity, Missing, Proc, Step, Target};

impl Progress<'_> {
    /// Goes to the working directory, as root; where root may not go (a network file system that does not trust it),
    /// the user tries again.
    pub(super) fn change_folder(&mut self, folder: &Target, missing: Missing) -> nix::Result<()> {
        let changed = match chdir(folder.path.as_path()) {
            Err(Errno::ENOENT) if missing == Missing::Make => {
                make_folders(folder)?;
                chdir(folder.path.as_path())
            }
            other => other,
        };
        match changed {
            Err(Errno::EACCES) => {
                self.folder_pending = true;
                Ok(())
            }
            other => other.and_then(|()| check_inside()),
        }
    }

    /// Opens the first of these files that is there: newer kernels have one for each security module.
    pub(super) fn open_label(&mut self, files: &[&str], proc: Proc) -> nix::Result<()> {
        let slot = self.labels.iter_mut().find(|slot| slot.is_none()).ok_or(Errno::ENOBUFS)?;
        let own = match proc {
            Proc::Machine => None,
            Proc::Own => Some(Root::from_folder(Folder::from(new_mount(c"proc", [], 0)?))),
        };
        for file in files {
            let opened = match &own {
                None => open(*file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()),
                Some(root) => {
                    let file = Path::new(file.strip_prefix("/proc/").unwrap_or(file));
                    root.open_file(file, OFlag::O_WRONLY, Mode::empty()).map_err(super::errno)
                }
            };
            match opened {
                Err(Errno::ENOENT) => {}
                other => {
                    *slot = Some(other?);
                    return Ok(());
                }
            }
        }
        Err(Errno::ENOENT)
    }

    /// Writes the labels to their files, which were opened in the same order.
    pub(super) fn write_labels(&mut self, steps: &[Step]) -> nix::Result<()> {
        let labels = steps.iter().filter_map(|step| match step {
            Step::OpenLabel { label, .. } => Some(label),
            _ => None,
        });
        for (label, file) in labels.zip(self.labels.iter().flatten()) {
            nix::unistd::write(file, label.as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn change_folder_as_user(&mut self, path: &Path) -> nix::Result<()> {
        if !self.folder_pending {
            return Ok(());
        }
        chdir(path).and_then(|()| check_inside())
    }
}

/// A working directory such as `/proc/self/fd/7` could lead out of the container.
fn check_inside() -> nix::Result<()> {
    if process::is_working_directory_inside()? { Ok(()) } else { Err(Errno::EXDEV) }
}

fn make_folders(folder: &Target) -> nix::Result<()> {
    for path in folder.above().map(|(path, _)| path).chain([folder.path.as_path()]) {
        match mkdir(path, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Takes the standard streams, and gives them to the user: a program that is not root opens `/dev/stdout` again.
pub(super) fn set_streams(streams: &[OwnedFd; 3], owner: u32) -> nix::Result<()> {
    for (number, stream) in (0..).zip(streams) {
        let status = fstat(stream)?;
        let is_null = status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && status.st_rdev == makedev(1, 3);
        if !is_null {
            // A read-only file system or a socket may refuse: then the program lives without it.
            let _ = fchown(stream, Some(Uid::from_raw(owner)), None);
        }
        process::set_standard_stream(stream, number)?;
    }
    Ok(())
}

/// Takes on groups, user, capabilities and umask.
pub(super) fn become_user(identity: &Identity) -> nix::Result<()> {
    caps::keep_across_ids()?;
    caps::set_groups(&identity.groups)?;
    caps::set_ids(identity.user, identity.group)?;
    caps::set(identity.effective, identity.permitted, identity.inheritable)?;
    caps::set_ambient(identity.ambient)?;
    umask(identity.umask);
    Ok(())
}
