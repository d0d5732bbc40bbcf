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

use crate::entry::{Batch, Head};
use crate::limits::LOG_RETRY_TIME;
use crate::line::Tag;
use crate::note::note;

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    spec: LogSpec,
    file: Option<File>,
    size: u64,
    lost: u64,
    retry_at: Instant,
}

impl Log {
    /// Opens a log, which may have lines already.
    pub(crate) fn open(spec: LogSpec) -> io::Result<Self> {
        let mut log = Self { spec, file: None, size: 0, lost: 0, retry_at: Instant::now() };
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

    /// Adds one line, whose text comes in two parts, to those in `batch`. It is written with the next [`Self::flush`] at
    /// the latest.
    pub(crate) fn add(&mut self, batch: &mut Batch<'_>, head: Head, tag: Tag, first: &[u8], second: &[u8]) {
        let bytes = Batch::entry_bytes(first.len() + second.len());
        if !batch.has_room(bytes) {
            self.flush(batch);
        }
        if self.is_full(batch.bytes().len(), bytes) {
            self.flush(batch);
            self.rotate();
        }
        batch.push(head, tag, first, second);
    }

    /// Writes what was added.
    pub(crate) fn flush(&mut self, batch: &mut Batch<'_>) {
        let lines = batch.bytes();
        if lines.is_empty() {
            return;
        }
        if self.file.is_none() && Instant::now() >= self.retry_at {
            let _ = self.reopen();
        }
        let (written, refused) = match &mut self.file {
            Some(file) => write_lines(file, lines),
            None => (0, Some(io::ErrorKind::NotFound.into())),
        };
        self.size += written as u64;
        if let Some(error) = refused {
            if self.lost == 0 {
                note(format_args!("losing output for {}: {error}", self.spec.path.display()));
            }
            self.lost += (lines.len() - written) as u64;
        }
        batch.clear();
    }

    /// Whether the file would grow beyond its limit. A file without lines takes any line.
    fn is_full(&self, waiting: usize, more: usize) -> bool {
        let size = self.size + waiting as u64;
        self.file.is_some() && self.spec.max_bytes > 0 && size > 0 && size + more as u64 > self.spec.max_bytes
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

/// Writes as many of the lines as the disk takes, whole ones only: how many bytes, and why not all.
fn write_lines(file: &mut File, lines: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < lines.len() {
        let error = match file.write(&lines[written..]) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                written += count;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let whole = memchr::memrchr(b'\n', &lines[..written]).map_or(0, |end| end + 1);
        if whole < written
            && let Ok(metadata) = file.metadata()
        {
            let _ = file.set_len(metadata.len().saturating_sub((written - whole) as u64));
        }
        return (whole, Some(error));
    }
    (written, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Stream;
    use std::path::Path;

    fn log(path: &Path, max_bytes: u64, max_files: u32) -> Log {
        Log::open(LogSpec { path: path.into(), max_bytes, max_files }).unwrap()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Logs full lines.
    fn add<'a>(log: &mut Log, lines: impl IntoIterator<Item = &'a str>) {
        let mut room = [0; 256];
        let mut batch = Batch::new(&mut room);
        let head = Head::new(Timestamp::UNIX_EPOCH, Stream::Stdout);
        for line in lines {
            let (first, second) = line.split_at(line.len() / 2);
            log.add(&mut batch, head, Tag::Full, first.as_bytes(), second.as_bytes());
        }
        log.flush(&mut batch);
    }

    fn entry(line: &str) -> String {
        format!("1970-01-01T00:00:00.000000000Z stdout F {line}\n")
    }

    #[test]
    fn rotation_keeps_every_line_whole_and_the_newest_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::write(folder.path().join("0.logs"), "a stranger").unwrap();
        let mut log = log(&path, 400, 3);
        let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        for some in lines.chunks(7) {
            add(&mut log, some.iter().map(String::as_str));
        }
        let mut files = files(folder.path());
        assert_eq!(files.pop().unwrap().file_name().unwrap(), "0.logs");
        assert_eq!(files.len(), 3);
        // The current file sorts first by name, and comes last in time.
        files.rotate_left(1);
        let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 400));
        let expected: String = lines[100 - text.lines().count()..].iter().map(|line| entry(line)).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn a_line_longer_than_the_limit_gets_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = log(&path, 10, 9);
        add(&mut log, ["a long first line", "a long second line"]);
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
        add(&mut log, ["lost"]);
        assert_eq!(log.lost(), entry("lost").len() as u64);
        log.reopen().unwrap();
        add(&mut log, ["kept"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), entry("kept"));
    }
}
