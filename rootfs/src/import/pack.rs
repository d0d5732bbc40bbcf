//! A folder as a tar stream: what a plain root filesystem needs to become a layer. The same folder gives the same bytes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use berth_sys::beneath::Folder;
use berth_sys::xattr;
use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};
use tar::{EntryType, Header};

use crate::limits::DEPTH_MAX;
use crate::unpack::is_allowed;

/// The largest owner that a header's own field holds.
const OWNER_MAX: u32 = 0o7_777_777;
/// What a header's own fields hold of a name and of a link's target.
const NAME_BYTES_MAX: usize = 100;

/// Writes `folder` as a tar archive. Other filesystems mounted in it are left out, sockets and devices too.
pub(crate) fn pack(folder: &Folder, out: impl Write) -> io::Result<()> {
    let device = nix::sys::stat::fstat(folder)?.st_dev;
    let mut packer = Packer { out: tar::Builder::new(out), device, links: HashMap::new() };
    let status = nix::sys::stat::fstat(folder)?;
    packer.head(EntryType::Directory, b"./", &status, b"", Vec::new())?;
    packer.folder(folder, &[], 0)?;
    packer.out.into_inner()?.flush()
}

struct Packer<W: Write> {
    out: tar::Builder<W>,
    device: u64,
    /// Names already written of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, folder: &Folder, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(refused(path, "it lies too deep"));
        }
        for name in sorted_names(folder)? {
            let path = [path, if path.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat();
            if name.as_bytes().starts_with(b".wh.") {
                return Err(refused(&path, "images cannot hold names that begin with .wh."));
            }
            self.entry(folder, &name, &path, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, folder: &Folder, name: &OsStr, path: &[u8], depth: usize) -> io::Result<()> {
        let status = folder.status(name)?;
        let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
        let is_folder = kind == SFlag::S_IFDIR;
        if !is_folder && status.st_nlink > 1 {
            let file = (status.st_dev, status.st_ino);
            if let Some(first) = self.links.get(&file).cloned() {
                return self.head(EntryType::Link, path, &status, &first, Vec::new());
            }
            self.links.insert(file, path.to_vec());
        }
        match kind {
            SFlag::S_IFDIR => {
                let attributes = attributes(folder, name)?;
                self.head(EntryType::Directory, &[path, b"/"].concat(), &status, b"", attributes)?;
                if status.st_dev != self.device {
                    return Ok(());
                }
                self.folder(&folder.folder(name)?, path, depth + 1)
            }
            SFlag::S_IFREG => {
                let file = File::from(folder.open(name, OFlag::O_RDONLY)?);
                self.head(EntryType::Regular, path, &status, b"", attributes(folder, name)?)?;
                self.data(file, path, status.st_size.unsigned_abs())
            }
            SFlag::S_IFLNK => {
                let target = folder.read_link(name)?.into_os_string().into_vec();
                self.head(EntryType::Symlink, path, &status, &target, attributes(folder, name)?)
            }
            SFlag::S_IFIFO => self.head(EntryType::Fifo, path, &status, b"", Vec::new()),
            _ => {
                tracing::warn!(path = %String::from_utf8_lossy(path), "leaving out a device or socket");
                Ok(())
            }
        }
    }

    /// Writes a header, and before it a PAX one with all that does not fit.
    fn head(
        &mut self,
        kind: EntryType,
        path: &[u8],
        status: &FileStat,
        target: &[u8],
        attributes: Vec<(String, Vec<u8>)>,
    ) -> io::Result<()> {
        let mut header = Header::new_ustar();
        let mut extra = attributes;
        let mut text = |key: &str, value: &[u8]| extra.push((key.to_owned(), value.to_vec()));
        if path.len() > NAME_BYTES_MAX {
            text("path", path);
        }
        if target.len() > NAME_BYTES_MAX {
            text("linkpath", target);
        }
        if status.st_mtime_nsec != 0 || status.st_mtime < 0 {
            text("mtime", time(status.st_mtime, status.st_mtime_nsec).as_bytes());
        }
        for (key, owner) in [("uid", status.st_uid), ("gid", status.st_gid)] {
            if owner > OWNER_MAX {
                text(key, owner.to_string().as_bytes());
            }
        }
        if !extra.is_empty() {
            self.out.append_pax_extensions(extra.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        }
        let old = header.as_old_mut();
        copy(&mut old.name, path);
        copy(&mut old.linkname, target);
        header.set_entry_type(kind);
        header.set_mode(status.st_mode & 0o7777);
        header.set_uid(u64::from(status.st_uid.min(OWNER_MAX)));
        header.set_gid(u64::from(status.st_gid.min(OWNER_MAX)));
        header.set_mtime(u64::try_from(status.st_mtime).unwrap_or(0));
        let has_data = kind == EntryType::Regular;
        header.set_size(if has_data { status.st_size.unsigned_abs() } else { 0 });
        header.set_cksum();
        self.out.get_mut().write_all(header.as_bytes())
    }

    /// Writes exactly the bytes that the header told, whatever becomes of the file meanwhile.
    fn data(&mut self, file: File, path: &[u8], size: u64) -> io::Result<()> {
        let mut file = file.take(size);
        if io::copy(&mut file, self.out.get_mut())? != size {
            return Err(refused(path, "it became shorter while it was read"));
        }
        let rest = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
        self.out.get_mut().write_all([0; 512].get(..rest).unwrap_or_default())
    }
}

fn sorted_names(folder: &Folder) -> io::Result<Vec<OsString>> {
    // `.` of a folder opened as a place only.
    let readable = nix::fcntl::openat(
        folder,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(readable)?.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn attributes(folder: &Folder, name: &OsStr) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for attribute in xattr::list(folder, name)?.into_iter().filter(|name| is_allowed(name.as_bytes())) {
        if let (Some(value), Some(key)) = (xattr::get(folder, name, &attribute)?, attribute.to_str()) {
            attributes.push((format!("SCHILY.xattr.{key}"), value));
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// Decimal seconds; the kernel counts nanoseconds forwards, also before 1970.
fn time(seconds: i64, nanoseconds: i64) -> String {
    match (seconds, nanoseconds) {
        (..0, 1..) => {
            let (seconds, nanoseconds) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
            format!("-{seconds}.{nanoseconds:09}")
        }
        (_, 0) => seconds.to_string(),
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

fn copy(field: &mut [u8], text: &[u8]) {
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
}

fn refused(path: &[u8], why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", String::from_utf8_lossy(path)))
}
