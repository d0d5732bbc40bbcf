//! The files that a container's log is made of: `<path>`, and beside it the older parts `<path>.<UTC time>`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::line::{Splitter, parse};

/// How many parts are read.
const PARTS_MAX: usize = 1000;
/// How often a log is opened that is rotated meanwhile.
const OPEN_TRIES_MAX: usize = 5;
const READ_BYTES: usize = 64 << 10;

/// One open part.
#[derive(Debug)]
pub(super) struct Part {
    pub file: File,
    pub inode: u64,
}

/// Opens all parts, the oldest first.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<Part>> {
    for _ in 0..OPEN_TRIES_MAX {
        let names = names(path)?;
        let parts: io::Result<Vec<Part>> = names.iter().map(|name| open(name)).collect();
        let is_whole =
            |parts: &Vec<Part>| inodes(path).is_ok_and(|now| now == parts.iter().map(|p| p.inode).collect::<Vec<_>>());
        match parts {
            // Nothing was renamed between reading the names and opening the files.
            Ok(parts) if is_whole(&parts) => return Ok(parts),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // A log that turns faster than it can be opened: what is newest is what counts.
    open(path).map(|part| vec![part])
}

/// The part that follows the one with this inode; `None` if that is the newest.
pub(super) fn open_after(path: &Path, inode: u64) -> io::Result<Option<Part>> {
    let mut parts = open_all(path)?;
    match parts.iter().position(|part| part.inode == inode) {
        Some(at) if at + 1 < parts.len() => Ok(Some(parts.swap_remove(at + 1))),
        Some(_) => Ok(None),
        // It was the oldest and is gone: all that is left is newer.
        None if parts.is_empty() => Ok(None),
        None => Ok(Some(parts.swap_remove(0))),
    }
}

/// Whether the newest part is another than the one with this inode.
pub(super) fn is_rotated(path: &Path, inode: u64) -> bool {
    fs::metadata(path).is_ok_and(|now| now.ino() != inode)
}

fn open(path: &Path) -> io::Result<Part> {
    let file = File::open(path)?;
    let inode = file.metadata()?.ino();
    Ok(Part { file, inode })
}

fn inodes(path: &Path) -> io::Result<Vec<u64>> {
    names(path)?.iter().map(|name| fs::metadata(name).map(|metadata| metadata.ino())).collect()
}

/// The parts' names, the oldest first: times in names sort as text.
fn names(path: &Path) -> io::Result<Vec<PathBuf>> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "a log without a name");
    let folder = path.parent().ok_or_else(no_name)?;
    let prefix = format!("{}.", path.file_name().ok_or_else(no_name)?.to_string_lossy());
    let mut older: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.strip_prefix(&prefix).is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    older.sort();
    older.drain(..older.len().saturating_sub(PARTS_MAX));
    older.push(path.to_owned());
    Ok(older)
}

/// Places the parts so that the container's last `lines` lines are what is left to read, and drops those that are read.
pub(super) fn skip_to_tail(parts: &mut Vec<Part>, lines: u64) -> io::Result<()> {
    let mut wanted = lines;
    for index in (0..parts.len()).rev() {
        let Some(part) = parts.get_mut(index) else { continue };
        let (start, found) = tail_start(&mut part.file, wanted)?;
        part.file.seek(SeekFrom::Start(start))?;
        wanted = wanted.saturating_sub(found);
        if wanted == 0 {
            parts.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

/// Where the last `wanted` lines of a file start, and how many of them there are.
fn tail_start(file: &mut File, wanted: u64) -> io::Result<(u64, u64)> {
    if wanted == 0 {
        return Ok((file.metadata()?.len(), 0));
    }
    let kept_max = usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut starts = VecDeque::new();
    let (mut offset, mut start, mut is_mid_line) = (0_u64, 0_u64, false);
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; READ_BYTES];
    file.seek(SeekFrom::Start(0))?;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        splitter.push(buffer.get(..count).unwrap_or_default());
        while let Some(raw) = splitter.next_line() {
            if !is_mid_line {
                start = offset;
            }
            offset += u64::try_from(raw.len()).unwrap_or(0) + 1;
            match parse(raw) {
                Some(line) if line.is_part => is_mid_line = true,
                Some(_) => {
                    is_mid_line = false;
                    starts.push_back(start);
                }
                None => is_mid_line = false,
            }
            if starts.len() > kept_max {
                starts.pop_front();
            }
        }
    }
    let found = u64::try_from(starts.len()).unwrap_or(u64::MAX);
    Ok((starts.front().copied().filter(|_| found == wanted).unwrap_or(0), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tag: &str, text: &str) -> String {
        format!("2026-01-01T00:00:00Z stdout {tag} {text}\n")
    }

    fn tail(old: &str, new: &str, lines: u64) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::write(&path, new).unwrap();
        fs::write(folder.path().join("0.log.20260101-000000"), old).unwrap();
        fs::write(folder.path().join("0.log.gz"), "no part").unwrap();
        fs::write(folder.path().join("1.log"), "another").unwrap();
        let mut parts = open_all(&path).unwrap();
        assert_eq!(parts.len(), 2);
        skip_to_tail(&mut parts, lines).unwrap();
        let mut text = String::new();
        for part in &mut parts {
            part.file.read_to_string(&mut text).unwrap();
        }
        text.replace("2026-01-01T00:00:00Z stdout ", "").replace('\n', " ")
    }

    #[test]
    fn the_tail_goes_back_through_the_parts() {
        let old = [line("F", "a"), line("F", "b")].concat();
        let new = [line("P", "c"), line("P", "c"), line("F", "c"), line("F", "d")].concat();
        for (lines, expected) in [
            (0, ""),
            (1, "F d "),
            (2, "P c P c F c F d "),
            (3, "F b P c P c F c F d "),
            (4, "F a F b P c P c F c F d "),
            (u64::MAX, "F a F b P c P c F c F d "),
        ] {
            assert_eq!(tail(&old, &new, lines), expected, "{lines}");
        }
    }

    #[test]
    fn the_next_part_is_found_also_when_this_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::write(&path, "1").unwrap();
        let first = open_all(&path).unwrap().remove(0);
        assert!(!is_rotated(&path, first.inode) && open_after(&path, first.inode).unwrap().is_none());
        fs::rename(&path, folder.path().join("0.log.20260101-000000")).unwrap();
        fs::write(&path, "2").unwrap();
        assert!(is_rotated(&path, first.inode));
        let second = open_after(&path, first.inode).unwrap().unwrap();
        fs::remove_file(folder.path().join("0.log.20260101-000000")).unwrap();
        assert_eq!(open_after(&path, first.inode).unwrap().unwrap().inode, second.inode);
        assert!(open_after(&path, second.inode).unwrap().is_none());
    }
}
