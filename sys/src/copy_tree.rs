//! A folder's content copied into another, for a child between `clone3` and `execve`: nothing here allocates.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use crate::beneath::read_link_into;

/// How deep folders may lie in one another.
const DEPTH_MAX: usize = 40;

/// Copies what is in `from` into `to`, with owners, modes and times; of special files the nodes, of links the links.
/// Extended attributes are left behind. `EEXIST` for what is in `to` already, `ELOOP` if it lies too deep.
pub fn copy_tree(from: impl AsFd, to: impl AsFd) -> nix::Result<()> {
    copy_folder(from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd(), DEPTH_MAX)
}

/// Descriptors by number: the callers above hold them for the length of the call.
fn copy_folder(from: i32, to: i32, depth: usize) -> nix::Result<()> {
    let (from, to) = (reopen(from)?, reopen(to)?);
    if depth == 0 {
        return Err(Errno::ELOOP);
    }
    let mut entries = Entries::new(&from);
    while entries.fill()? {
        while let Some(name) = entries.next() {
            copy_entry(&from, &to, name, depth)?;
        }
    }
    Ok(())
}

fn reopen(folder: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the callers hold this descriptor open for the length of the call.
    let folder = unsafe { std::os::fd::BorrowedFd::borrow_raw(folder) };
    openat(folder, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> nix::Result<()> {
    let status = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(status.st_mode & 0o7777);
    let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let inside = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let (from, to) = (openat(from, name, inside, Mode::empty())?, openat(to, name, inside, Mode::empty())?);
            copy_folder(from.as_raw_fd(), to.as_raw_fd(), depth - 1)?;
        }
        SFlag::S_IFREG => copy_file(from, to, name)?,
        SFlag::S_IFLNK => copy_link(from, to, name)?,
        _ => mknodat(to, name, kind, mode, status.st_rdev)?,
    }
    dress(to, name, &status, kind, mode)
}

fn dress(to: &OwnedFd, name: &CStr, status: &FileStat, kind: SFlag, mode: Mode) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
    fchownat(to, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind != SFlag::S_IFLNK {
        // It was just made by this process in a file system that nobody else sees: no link can have taken its place.
        nix::sys::stat::fchmodat(to, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    }
    let accessed = TimeSpec::new(status.st_atime, status.st_atime_nsec);
    let modified = TimeSpec::new(status.st_mtime, status.st_mtime_nsec);
    utimensat(to, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> nix::Result<()> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let (from, to) = (openat(from, name, read, Mode::empty())?, openat(to, name, write, Mode::S_IRWXU)?);
    const CHUNK: usize = 1 << 30;
    while nix::sys::sendfile::sendfile(&to, &from, None, CHUNK)? > 0 {}
    Ok(())
}

fn copy_link(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> nix::Result<()> {
    let mut target = [0_u8; libc::PATH_MAX as usize];
    // At least one byte stays zero, which ends the string.
    read_link_into(from, name, &mut target)?;
    // SAFETY: both strings are terminated and outlive the call, which only reads them.
    Errno::result(unsafe { libc::symlinkat(target.as_ptr().cast(), to.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// The names in a folder, a buffer full at a time.
struct Entries<'a> {
    folder: &'a OwnedFd,
    buffer: Buffer,
    filled: usize,
    at: usize,
}

/// Aligned as the kernel lays out `struct linux_dirent64`.
#[repr(align(8))]
struct Buffer([u8; 4096]);

/// Where in an entry its length and its name are (getdents(2)).
const LENGTH_AT: usize = 16;
const NAME_AT: usize = 19;

impl<'a> Entries<'a> {
    fn new(folder: &'a OwnedFd) -> Self {
        Self { folder, buffer: Buffer([0; 4096]), filled: 0, at: 0 }
    }

    /// Reads more; whether there was any.
    fn fill(&mut self) -> nix::Result<bool> {
        let bytes = &mut self.buffer.0;
        // SAFETY: the kernel writes at most as many bytes as are given.
        let filled =
            unsafe { libc::syscall(libc::SYS_getdents64, self.folder.as_raw_fd(), bytes.as_mut_ptr(), bytes.len()) };
        self.filled = Errno::result(filled)? as usize;
        self.at = 0;
        Ok(self.filled > 0)
    }

    /// The next name that was read, without the folder's own two.
    fn next(&mut self) -> Option<&CStr> {
        loop {
            let entry = self.buffer.0.get(self.at..self.filled).filter(|rest| rest.len() > NAME_AT)?;
            let length = usize::from(u16::from_ne_bytes([entry[LENGTH_AT], entry[LENGTH_AT + 1]]));
            let name_at = self.at + NAME_AT;
            self.at += length.max(NAME_AT + 1);
            let name = CStr::from_bytes_until_nul(self.buffer.0.get(name_at..self.filled)?).ok()?;
            if name != c"." && name != c".." {
                // Looked up again: the borrow checker cannot see that the loop is left here.
                return CStr::from_bytes_until_nul(self.buffer.0.get(name_at..self.filled)?).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn everything_arrives_with_its_mode_and_time() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("a/b")).unwrap();
        fs::write(from.path().join("a/b/file"), "content").unwrap();
        fs::set_permissions(from.path().join("a/b/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("b/file", from.path().join("a/link")).unwrap();
        (0..300).for_each(|number| fs::write(from.path().join(format!("many-{number}")), "x").unwrap());
        copy_tree(File::open(from.path()).unwrap(), File::open(to.path()).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("a/link")).unwrap(), "content");
        let (old, new) = (from.path().join("a/b/file"), to.path().join("a/b/file"));
        let (old, new) = (old.metadata().unwrap(), new.metadata().unwrap());
        assert_eq!((new.mode(), new.mtime_nsec()), (old.mode(), old.mtime_nsec()));
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 301);
    }

    #[test]
    fn what_lies_too_deep_is_an_error() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join(["d"; DEPTH_MAX + 1].join("/"))).unwrap();
        let result = copy_tree(File::open(from.path()).unwrap(), File::open(to.path()).unwrap());
        assert_eq!(result, Err(Errno::ELOOP));
    }
}
