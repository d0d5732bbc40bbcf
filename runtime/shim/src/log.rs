//! A container's log file in the CRI format, and its rotation.
//!
//! Only whole lines reach the file: what a full disk took half of is taken back. The container never waits for a disk
//! that refuses, only for one that is slow; what could not be written is counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Instant;

use berth_runtime::shim::protocol::LogSpec;
use jiff::Timestamp;
use nix::libc;

use crate::limits::{LOG_BATCH_BYTES_MAX, LOG_RETRY_TIME};
use crate::line::Tag;
use crate::note::note;

/// Which of a container's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    spec: LogSpec,
    file: Option<File>,
    size: u64,
    lost: u64,
    batch: Vec<u8>,
    retry_at: Instant,
}

impl Log {
    /// Opens a log, which may have lines already.
    pub(crate) fn open(spec: LogSpec) -> io::Result<Self> {
        let mut log = Self { spec, file: None, size: 0, lost: 0, batch: Vec::new(), retry_at: Instant::now() };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file that has the log's name now. On failure the output is lost until it can be opened.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        self.retry_at = Instant::now() + LOG_RETRY_TIME;
        // An old file may have been replaced by a pipe or a link to somewhere: only a file of the very name will do.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file =
            OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(&self.spec.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the log's path is no regular file"));
        }
        self.size = metadata.len();
        self.file = Some(file);
        Ok(())
    }

    /// Bytes of output that could not be logged.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds one line, given in two parts. It is written with the next [`Self::flush`] at the latest.
    pub(crate) fn add(&mut self, stamp: &str, stream: Stream, tag: Tag, head: &[u8], tail: &[u8]) {
        let stream = match stream {
            Stream::Stdout => " stdout ",
            Stream::Stderr => " stderr ",
        };
        let tag = match tag {
            Tag::Full => "F ",
            Tag::Partial => "P ",
        };
        let bytes = stamp.len() + stream.len() + tag.len() + head.len() + tail.len() + 1;
        if self.batch.len() + bytes > LOG_BATCH_BYTES_MAX {
            self.flush();
        }
        if self.is_full(bytes) {
            self.flush();
            self.rotate();
        }
        for part in [stamp.as_bytes(), stream.as_bytes(), tag.as_bytes(), head, tail, b"\n"] {
            self.batch.extend_from_slice(part);
        }
    }

    /// Writes what was added, and frees its room.
    pub(crate) fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        if self.file.is_none() && Instant::now() >= self.retry_at {
            let _ = self.reopen();
        }
        let written = match &mut self.file {
            Some(file) => write_whole(file, &batch),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match written {
            Ok(()) => self.size += batch.len() as u64,
            Err(error) => {
                if self.lost == 0 {
                    note(format_args!("losing output for {}: {error}", self.spec.path.display()));
                }
                self.lost += batch.len() as u64;
            }
        }
    }

    /// Whether the file would grow beyond its limit. A file without lines takes any line.
    fn is_full(&self, bytes: usize) -> bool {
        let size = self.size + self.batch.len() as u64;
        self.file.is_some() && self.spec.max_bytes > 0 && size > 0 && size + bytes as u64 > self.spec.max_bytes
    }

    /// Moves the file out of the way and opens a new one. If that fails, the old one goes on for another while.
    fn rotate(&mut self) {
        let old = self.rotated_name(Timestamp::now());
        if let Err(error) = fs::rename(&self.spec.path, &old) {
            note(format_args!("rotating {}: {error}", self.spec.path.display()));
            self.size = 0;
            // Somebody may have moved it: then its name is free.
            if error.kind() != io::ErrorKind::NotFound {
                return;
            }
        }
        if let Err(error) = self.reopen() {
            note(format_args!("opening {} anew: {error}", self.spec.path.display()));
        }
        self.drop_oldest();
    }

    fn rotated_name(&self, now: Timestamp) -> PathBuf {
        let mut name = self.spec.path.clone().into_os_string();
        name.push(format!(".{}", now.strftime("%Y%m%d-%H%M%S.%9f")));
        name.into()
    }

    /// Removes the oldest rotated files, those beyond the limit; their names sort by time.
    fn drop_oldest(&self) {
        let (Some(folder), Some(name)) = (self.spec.path.parent(), self.spec.path.file_name()) else { return };
        let mut prefix = name.as_encoded_bytes().to_vec();
        prefix.push(b'.');
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut old: Vec<_> = entries
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name.as_encoded_bytes().starts_with(&prefix))
            .collect();
        old.sort();
        let keep = (self.spec.max_files as usize).saturating_sub(1);
        for name in old.iter().take(old.len().saturating_sub(keep)) {
            let _ = fs::remove_file(folder.join(name));
        }
    }
}

/// Writes all of `batch`, or leaves the file as it was.
fn write_whole(file: &mut File, batch: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < batch.len() {
        let error = match file.write(&batch[written..]) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                written += count;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        if written > 0
            && let Ok(metadata) = file.metadata()
        {
            let _ = file.set_len(metadata.len().saturating_sub(written as u64));
        }
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn log(path: &Path, max_bytes: u64, max_files: u32) -> Log {
        Log::open(LogSpec { path: path.into(), max_bytes, max_files }).unwrap()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn lines_have_stamp_stream_and_tag() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = log(&path, 0, 0);
        log.add("T", Stream::Stdout, Tag::Full, b"he", b"llo");
        log.add("T", Stream::Stderr, Tag::Partial, b"", b"");
        log.flush();
        assert_eq!(fs::read_to_string(&path).unwrap(), "T stdout F hello\nT stderr P \n");
    }

    #[test]
    fn rotation_keeps_every_line_whole_and_the_newest_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::write(folder.path().join("0.logs"), "a stranger").unwrap();
        let mut log = log(&path, 100, 3);
        for number in 0..100 {
            log.add("T", Stream::Stdout, Tag::Full, format!("line {number}").as_bytes(), b"");
        }
        log.flush();
        let mut files = files(folder.path());
        assert_eq!(files.pop().unwrap().file_name().unwrap(), "0.logs");
        assert_eq!(files.len(), 3);
        // The current file sorts first by name, and comes last in time.
        files.rotate_left(1);
        let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 100));
        let expected: String = (100 - text.lines().count()..100).map(|n| format!("T stdout F line {n}\n")).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn a_line_longer_than_the_limit_gets_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = log(&path, 10, 9);
        for text in ["a long first line", "a long second line"] {
            log.add("T", Stream::Stdout, Tag::Full, text.as_bytes(), b"");
        }
        log.flush();
        assert_eq!(files(folder.path()).len(), 2);
    }

    #[test]
    fn a_refusing_disk_costs_lines_but_tears_none() {
        let device = Log::open(LogSpec { path: "/dev/null".into(), max_bytes: 0, max_files: 0 });
        assert_eq!(device.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = log(&path, 0, 0);
        log.file = Some(File::open(&path).unwrap());
        log.add("T", Stream::Stdout, Tag::Full, b"lost", b"");
        log.flush();
        assert_eq!(log.lost(), "T stdout F lost\n".len() as u64);
        log.reopen().unwrap();
        log.add("T", Stream::Stdout, Tag::Full, b"kept", b"");
        log.flush();
        assert_eq!(fs::read_to_string(&path).unwrap(), "T stdout F kept\n");
    }
}
