//! The files of an OCI layout or a docker archive, in a folder or in a tar, by name.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_sys::beneath::Root;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::digest::Digest;
use crate::error::Error;
use crate::limits::ARCHIVE_ENTRIES_MAX;
use crate::unpack::parts;
use crate::unpack::tar::{Archive, Kind};

/// Where the files are.
pub(crate) enum Members {
    Folder { path: PathBuf, root: Root },
    Tar { path: PathBuf, file: Arc<File>, places: HashMap<Vec<u8>, Member> },
}

/// One file in a tar.
pub(crate) enum Member {
    Data {
        at: u64,
        size: u64,
    },
    /// Another name of one: older docker archives link equal layers.
    Link(Vec<u8>),
}

/// An open file of known size.
pub(crate) struct Opened {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) size: u64,
}

impl Members {
    /// Lists a tar without reading its data; `None` for one with so many entries, or such ones, that it is a filesystem.
    pub(crate) fn of_tar(path: &Path, file: File) -> Result<Option<Self>, Error> {
        let file = Arc::new(file);
        let mut archive = Archive::new(&*file);
        let mut places = HashMap::new();
        // What is wrong with a filesystem's archive is told when it is unpacked.
        while let Ok(Some(entry)) = archive.next() {
            if places.len() >= ARCHIVE_ENTRIES_MAX || entry.pieces.is_some() {
                return Ok(None);
            }
            let (reader, rest) = archive.pass_over();
            let at = reader.stream_position().map_err(Error::file("read", path))?;
            let step = i64::try_from(rest).unwrap_or(i64::MAX);
            reader.seek(SeekFrom::Current(step)).map_err(Error::file("read", path))?;
            let Ok(name) = parts(&entry.path) else { return Ok(None) };
            let member = match entry.kind {
                Kind::File => Member::Data { at, size: entry.stored },
                Kind::SymbolicLink => Member::Link(link_target(&name, &entry.target)),
                Kind::HardLink => Member::Link(link_target(&[], &entry.target)),
                Kind::Folder | Kind::Fifo | Kind::Device(..) => continue,
            };
            places.insert(name.join(&b'/'), member);
        }
        Ok(Some(Self::Tar { path: path.to_owned(), file, places }))
    }

    /// For messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Folder { path, .. } | Self::Tar { path, .. } => path,
        }
    }

    pub(crate) fn open(&self, name: &str) -> Result<Opened, Error> {
        let missing =
            || Error::Import { path: self.path().to_owned(), why: format!("there is no file {name:?} in it") };
        match self {
            Self::Folder { path, root } => {
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
                let file = match root.open_file(Path::new(name), flags, Mode::empty()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                    other => File::from(other.map_err(Error::file("open", path.join(name)))?),
                };
                let status = file.metadata().map_err(Error::file("open", path.join(name)))?;
                if !status.is_file() {
                    return Err(missing());
                }
                Ok(Opened { reader: Box::new(file), size: status.len() })
            }
            Self::Tar { file, places, .. } => {
                let named = |name: &[u8]| places.get(name);
                let member = match named(name.as_bytes()) {
                    Some(Member::Link(target)) => named(target),
                    other => other,
                };
                match member {
                    Some(Member::Data { at, size }) => {
                        let reader = Section { file: Arc::clone(file), at: *at, left: *size };
                        Ok(Opened { reader: Box::new(reader), size: *size })
                    }
                    _ => Err(missing()),
                }
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// A whole small file.
    pub(crate) fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let opened = self.open(name)?;
        if opened.size > bytes_max {
            let why = format!("{name:?} in it is larger than {bytes_max} bytes");
            return Err(Error::Import { path: self.path().to_owned(), why });
        }
        let mut bytes = Vec::new();
        let path = self.path().join(name);
        opened.reader.take(bytes_max).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
        Ok(bytes)
    }

    /// A whole small file that has a digest.
    pub(crate) fn read_verified(&self, name: &str, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let bytes = self.read(name, bytes_max)?;
        match digest.matches(&bytes) {
            true => Ok(bytes),
            false => Err(Error::Mismatch {
                what: format!("{name:?} in {}", self.path().display()),
                expected: digest.to_string(),
                got: Digest::of(&bytes).to_string(),
            }),
        }
    }
}

/// Where a link in an archive leads, as a path from its top; nowhere if it leads out.
fn link_target(name: &[&[u8]], target: &[u8]) -> Vec<u8> {
    let above = name.split_last().map(|(_, above)| above).unwrap_or_default();
    let mut walked: Vec<&[u8]> = if target.starts_with(b"/") { Vec::new() } else { above.to_vec() };
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(walked.pop()),
            part => walked.push(part),
        }
    }
    walked.join(&b'/')
}

/// A part of a file, read by place: several at the same time.
struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Whether a folder holds an entry of this name, itself, whatever it is.
pub(crate) fn folder_has(folder: &Root, name: &str) -> bool {
    folder.folder().status(OsStr::from_bytes(name.as_bytes())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_within_the_archive() {
        assert_eq!(link_target(&[b"a", b"layer.tar"], b"../b/layer.tar"), b"b/layer.tar");
        assert_eq!(link_target(&[b"a"], b"../../../etc/passwd"), b"etc/passwd");
        assert_eq!(link_target(&[], b"/b/layer.tar"), b"b/layer.tar");
    }
}
