//! Extended attributes of a name in an open folder, or of an open file. A link is never followed: the attribute is its own.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::errno::Errno;

use crate::beneath::Folder;

/// The most bytes that the kernel keeps as one value (`XATTR_SIZE_MAX`), and as the list of all names.
pub const VALUE_BYTES_MAX: usize = 65536;

/// Sets an attribute of `name` in `folder`.
pub fn set(folder: &Folder, name: &OsStr, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    let (path, attribute) = (path_of(folder, name)?, c_string(attribute)?);
    // SAFETY: both strings are NUL-terminated and live until the call returns; the pointer and the length are those of
    // one slice, which the kernel only reads.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result)?;
    Ok(())
}

/// Sets an attribute of an open file (not of an `O_PATH` descriptor: `EBADF`).
pub fn set_file(file: impl AsFd, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    let attribute = c_string(attribute)?;
    // SAFETY: the descriptor is borrowed for the time of the call; string and slice are as in `set`.
    let result =
        unsafe { libc::fsetxattr(file.as_fd().as_raw_fd(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result)?;
    Ok(())
}

/// The value of an attribute of `name` in `folder`; `None` if it has no such attribute or its filesystem has none at all.
pub fn get(folder: &Folder, name: &OsStr, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let (path, attribute) = (path_of(folder, name)?, c_string(attribute)?);
    match read(|buffer| get_into(&path, &attribute, buffer)) {
        Err(Errno::ENODATA | Errno::ENOTSUP) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// The names of the attributes of `name` in `folder`.
pub fn list(folder: &Folder, name: &OsStr) -> io::Result<Vec<OsString>> {
    let path = path_of(folder, name)?;
    let names = match read(|buffer| list_into(&path, buffer)) {
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
}

/// The name by which `/proc` shows an open descriptor of this thread's process.
pub(crate) fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// There is no `setxattrat` before Linux 6.13: the folder's descriptor is named by way of `/proc`, and the last part is
/// looked up in just that folder, whatever is renamed meanwhile.
fn path_of(folder: &Folder, name: &OsStr) -> io::Result<CString> {
    if name.as_bytes().contains(&b'/') || name.is_empty() || name == "." || name == ".." {
        return Err(Errno::EINVAL.into());
    }
    c_string(descriptor_path(folder.as_fd()).join(name).as_os_str())
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Errno::EINVAL.into())
}

fn get_into(path: &CStr, attribute: &CStr, buffer: &mut [u8]) -> libc::ssize_t {
    // SAFETY: both strings are NUL-terminated; the kernel writes at most `buffer.len()` bytes at its start.
    unsafe { libc::lgetxattr(path.as_ptr(), attribute.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
}

fn list_into(path: &CStr, buffer: &mut [u8]) -> libc::ssize_t {
    // SAFETY: the string is NUL-terminated; the kernel writes at most `buffer.len()` bytes at the buffer's start.
    unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
}

/// Tries a small buffer, which nearly always does, and then the largest that can be needed.
fn read(call: impl Fn(&mut [u8]) -> libc::ssize_t) -> Result<Vec<u8>, Errno> {
    for size in [256, VALUE_BYTES_MAX] {
        let mut buffer = vec![0; size];
        match Errno::result(call(&mut buffer)) {
            Err(Errno::ERANGE) if size < VALUE_BYTES_MAX => {}
            Err(errno) => return Err(errno),
            Ok(length) => {
                buffer.truncate(usize::try_from(length).unwrap_or(0));
                return Ok(buffer);
            }
        }
    }
    Err(Errno::ERANGE)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::beneath::Root;

    #[test]
    fn what_is_set_is_listed_and_read() {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        let root = Root::open(Path::new(top.path())).unwrap();
        let (file, long) = (OsStr::new("file"), vec![7; 3000]);
        set(root.folder(), file, OsStr::new("user.long"), &long).unwrap();
        set_file(fs::File::open(top.path().join("file")).unwrap(), OsStr::new("user.empty"), b"").unwrap();
        assert_eq!(get(root.folder(), file, OsStr::new("user.long")).unwrap(), Some(long));
        assert_eq!(get(root.folder(), file, OsStr::new("user.empty")).unwrap(), Some(Vec::new()));
        assert_eq!(get(root.folder(), file, OsStr::new("user.none")).unwrap(), None);
        let mut names = list(root.folder(), file).unwrap();
        names.sort();
        assert_eq!(names, ["user.empty", "user.long"]);
        assert!(set(root.folder(), OsStr::new("../file"), OsStr::new("user.x"), b"").is_err());
    }
}
