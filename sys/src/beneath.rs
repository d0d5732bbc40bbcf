//! Paths of somebody else's tree: the only way to follow a container's or an image's path.
//!
//! [`Root`] walks a path with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`: links, absolute ones too, and `..` stay
//! below the root, as if it were the process's own. What changes the tree is done by [`Folder`], one open folder, with the
//! `*at` calls on a single name: there is no path left in which anybody could swap a link, and a link that is itself the
//! name is never followed.
//!
//! Of both, what a new process needs for its root file system allocates nothing, however long a path is.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::tree;

/// How often a walk is tried again when the kernel saw a rename during a `..` (`EAGAIN`).
const RACES_MAX: usize = 128;

/// The longest name in any file system (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// The top of a tree whose paths stay below it.
#[derive(Debug)]
pub struct Root(Folder);

impl Root {
    /// The tree below `path`, which is the caller's own and is followed as any path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(Folder(nix::fcntl::open(path, flags, Mode::empty())?)))
    }

    /// The tree below an open folder.
    pub fn from_folder(folder: Folder) -> Self {
        Self(folder)
    }

    /// The top folder itself.
    pub fn folder(&self) -> &Folder {
        &self.0
    }

    /// Opens `path` below the root, following links within it; with `O_NOFOLLOW`, not the last one. `mode` counts with
    /// `O_CREAT` alone. Allocates nothing.
    pub fn open_file(&self, path: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mut room = [0; libc::PATH_MAX as usize];
        let path = terminated(path.as_os_str(), &mut room)?;
        for _ in 0..RACES_MAX {
            match openat2(&self.0, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// A folder below the root, following links within it. Allocates nothing.
    pub fn open_folder(&self, path: &Path) -> io::Result<Folder> {
        self.open_file(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).map(Folder)
    }

    /// The folder that holds `path`, and the name in it; links in all but the last part are followed. The last part need
    /// not be there, but it must be a name.
    pub fn parent<'p>(&self, path: &'p Path) -> io::Result<(Folder, &'p OsStr)> {
        let name = leaf_of(path)?;
        Ok((self.open_folder(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Makes the folders of `path` that are missing, with `mode` as the umask leaves it, and opens the last. A link that
    /// leads nowhere is an error: what it names is not made.
    pub fn create_folders(&self, path: &Path, mode: Mode) -> io::Result<Folder> {
        match self.open_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut walked = PathBuf::new();
        let mut folder = self.open_folder(Path::new(""))?;
        for part in path.components() {
            let name = match part {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir | Component::Normal(_) => part.as_os_str(),
            };
            walked.push(name);
            folder = match self.open_folder(&walked) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match folder.make_folder(name, mode) {
                        // Another made it just now, or it is a link to nowhere, which the next line refuses.
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        other => other?,
                    }
                    folder.folder(name)?
                }
                other => other?,
            };
        }
        Ok(folder)
    }

    /// Opens the file `path`, made empty with `mode` if it is not there, and the folders to it with 0755: a place to
    /// mount a file on.
    pub fn create_file(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        match self.open_file(path, OFlag::O_PATH, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let name = leaf_of(path)?;
        let folder = self.create_folders(path.parent().unwrap_or(Path::new("")), Mode::from_bits_truncate(0o755))?;
        Ok(folder.create(name, mode)?.into())
    }
}

/// One open folder. Every name given to it is a single part of a path (`EINVAL` otherwise), and links are not followed.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl From<OwnedFd> for Folder {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Folder> for OwnedFd {
    fn from(folder: Folder) -> Self {
        folder.0
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Folder {
    /// A folder in this one; `ENOTDIR` for anything else, a link too.
    pub fn folder(&self, name: &OsStr) -> io::Result<Folder> {
        self.open(name, OFlag::O_PATH | OFlag::O_DIRECTORY).map(Folder)
    }

    /// The folder that this one is in now, wherever that is: whoever can move this one leads the caller where he likes.
    pub fn above(&self) -> io::Result<Folder> {
        Ok(Folder(openat(self, "..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// Where it is now, as this process sees it; an error if it has no name any more, or `/proc` is not there.
    pub fn place(&self) -> io::Result<PathBuf> {
        let place = std::fs::read_link(crate::xattr::descriptor_path(self.as_fd()))?;
        if fstat(self)?.st_nlink == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(place) }
    }

    /// What is in it.
    pub fn list(&self) -> io::Result<Dir> {
        let again = openat(self, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Dir::from_fd(again)?)
    }

    /// Device and inode: what tells it from all other folders.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let status = fstat(self)?;
        Ok((status.st_dev, status.st_ino))
    }

    /// Opens what `name` is, itself: `ELOOP` for a link, unless with `O_PATH`.
    pub fn open(&self, name: &OsStr, flags: OFlag) -> io::Result<OwnedFd> {
        Ok(openat(self, leaf(name)?, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Makes a regular file that was not there, open for writing.
    pub fn create(&self, name: &OsStr, mode: Mode) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(openat(self, leaf(name)?, flags, mode)?))
    }

    /// Makes a folder.
    pub fn make_folder(&self, name: &OsStr, mode: Mode) -> io::Result<()> {
        Ok(mkdirat(self, leaf(name)?, mode)?)
    }

    /// Makes a symbolic link that says `target`, whatever that is.
    pub fn symlink(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        let mut room = [0; libc::PATH_MAX as usize];
        Ok(symlinkat(terminated(target, &mut room)?, self, leaf(name)?)?)
    }

    /// Makes `name` another name of `other`'s `other_name`; if that is a symbolic link, of the link itself.
    pub fn link(&self, name: &OsStr, other: &Folder, other_name: &OsStr) -> io::Result<()> {
        Ok(linkat(other, leaf(other_name)?, self, leaf(name)?, LinkatFlags::empty())?)
    }

    /// Makes a device, fifo or socket.
    pub fn make_node(&self, name: &OsStr, kind: SFlag, mode: Mode, device: u64) -> io::Result<()> {
        Ok(mknodat(self, leaf(name)?, kind, mode, device)?)
    }

    /// What `name` is, itself.
    pub fn status(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(self, leaf(name)?, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Where a symbolic link points.
    pub fn read_link(&self, name: &OsStr) -> io::Result<PathBuf> {
        Ok(readlinkat(self, leaf(name)?)?.into())
    }

    /// As [`Self::read_link`] without allocating: how many bytes of `target` it fills. `ENAMETOOLONG` if it has no room.
    pub fn read_link_into(&self, name: &OsStr, target: &mut [u8]) -> io::Result<usize> {
        Ok(leaf(name)?.with_nix_path(|name| read_link_into(&self.0, name, target))??)
    }

    /// Gives `name` itself to an owner. The kernel takes set-user-ID bits and file capabilities off: set them after.
    pub fn set_owner(&self, name: &OsStr, uid: Uid, gid: Gid) -> io::Result<()> {
        Ok(fchownat(self, leaf(name)?, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Sets the mode of what `name` is; `ENOTSUP` or `ELOOP` for a symbolic link, which has none.
    pub fn set_mode(&self, name: &OsStr, mode: Mode) -> io::Result<()> {
        // fchmodat(2) follows links and fchmodat2(2) is younger than our kernel floor: go through a descriptor of the
        // thing itself, whose entry in /proc names it whatever happens to the folder meanwhile.
        let file = self.open(name, OFlag::O_PATH)?;
        let kind = fstat(&file)?.st_mode & SFlag::S_IFMT.bits();
        if kind == SFlag::S_IFLNK.bits() {
            return Err(Errno::ELOOP.into());
        }
        let path = crate::xattr::descriptor_path(file.as_fd());
        Ok(nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, &path, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?)
    }

    /// Sets the times of access and of change of `name` itself.
    pub fn set_times(&self, name: &OsStr, accessed: TimeSpec, modified: TimeSpec) -> io::Result<()> {
        Ok(utimensat(self, leaf(name)?, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
    }

    /// Removes what is no folder.
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(self, leaf(name)?, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(self, leaf(name)?, UnlinkatFlags::RemoveDir)?)
    }

    /// Removes `name` and, if it is a folder, all that is in it, however deep. What is gone is removed already.
    pub fn remove_tree(&self, name: &OsStr) -> io::Result<()> {
        tree::remove(self, leaf(name)?)
    }
}

/// A path as the kernel takes it, on the stack: nix allocates for a long one, which a child between `clone3` and `execve`
/// must not.
fn terminated<'a>(path: &OsStr, room: &'a mut [u8; libc::PATH_MAX as usize]) -> nix::Result<&'a CStr> {
    let bytes = path.as_bytes();
    // The last byte stays zero.
    let text = room[..libc::PATH_MAX as usize - 1].get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?;
    text.copy_from_slice(bytes);
    CStr::from_bytes_with_nul(&room[..=bytes.len()]).map_err(|_| Errno::EINVAL)
}

/// Reads where the link `name` in a folder points. Allocates nothing; how many bytes of `target` it fills, which are fewer
/// than there are. `ENAMETOOLONG` if it has no room.
pub(crate) fn read_link_into(folder: &OwnedFd, name: &CStr, target: &mut [u8]) -> nix::Result<usize> {
    let room = target.len();
    // SAFETY: the kernel reads the terminated name and writes at most `room` bytes into `target`.
    let length = unsafe { libc::readlinkat(folder.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), room) };
    let length = Errno::result(length)? as usize;
    if length < room { Ok(length) } else { Err(Errno::ENAMETOOLONG) }
}

/// `name`, if it is one part of a path and not `.` or `..`. Longer than a name can be it is refused before anybody lays it
/// out for the kernel, which would allocate.
fn leaf(name: &OsStr) -> io::Result<&OsStr> {
    match name.as_bytes() {
        bytes if bytes.len() > NAME_BYTES_MAX => Err(Errno::ENAMETOOLONG.into()),
        b"" | b"." | b".." => Err(Errno::EINVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::EINVAL.into()),
        _ => Ok(name),
    }
}

fn leaf_of(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(|| Errno::EINVAL.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_dots_stay_below_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let top = outside.path().join("root");
        fs::create_dir_all(top.join("etc")).unwrap();
        fs::write(outside.path().join("passwd"), "outside").unwrap();
        fs::write(top.join("etc/passwd"), "inside").unwrap();
        symlink("/etc", top.join("absolute")).unwrap();
        symlink("../../../../etc", top.join("dots")).unwrap();
        let root = Root::open(&top).unwrap();
        for path in ["etc/passwd", "/etc/passwd", "absolute/passwd", "dots/passwd", "../../etc/passwd"] {
            let file = root.open_file(Path::new(path), OFlag::O_RDONLY, Mode::empty()).unwrap();
            assert_eq!(io::read_to_string(File::from(file)).unwrap(), "inside", "{path}");
        }
        assert!(root.open_folder(Path::new("../passwd")).is_err());
    }

    #[test]
    fn folders_are_made_through_links_that_lead_somewhere() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("run")).unwrap();
        symlink("/run", top.path().join("var-run")).unwrap();
        symlink("/nowhere", top.path().join("lost")).unwrap();
        let root = Root::open(top.path()).unwrap();
        root.create_folders(Path::new("/var-run/a/b"), Mode::from_bits_truncate(0o755)).unwrap();
        assert!(top.path().join("run/a/b").is_dir());
        assert!(root.create_folders(Path::new("lost/a"), Mode::from_bits_truncate(0o755)).is_err());
        assert!(!top.path().join("nowhere").exists());
        root.create_file(Path::new("var-run/c/file"), Mode::from_bits_truncate(0o644)).unwrap();
        assert!(top.path().join("run/c/file").is_file());
    }

    #[test]
    fn a_name_is_one_part_and_is_not_followed() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "kept").unwrap();
        symlink("file", top.path().join("link")).unwrap();
        let root = Root::open(top.path()).unwrap();
        let folder = root.folder();
        for name in ["", ".", "..", "a/b", "/a"] {
            assert!(folder.make_folder(OsStr::new(name), Mode::empty()).is_err(), "{name:?}");
        }
        assert!(folder.create(OsStr::new("link"), Mode::empty()).is_err());
        assert!(folder.set_mode(OsStr::new("link"), Mode::empty()).is_err());
        folder.set_mode(OsStr::new("file"), Mode::from_bits_truncate(0o600)).unwrap();
        folder.remove_file(OsStr::new("link")).unwrap();
        assert_eq!(fs::read_to_string(top.path().join("file")).unwrap(), "kept");
    }
}
