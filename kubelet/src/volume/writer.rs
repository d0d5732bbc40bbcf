//! Writes a volume's files so that a reader sees all of the old or all of the new ones, never a mixture.
//!
//! ```text
//! volume/key            -> ..data/key          links that stay
//! volume/..data         -> ..<version>         the one link that is replaced, by rename
//! volume/..<version>/key                       the files
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::VolumeError;
use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_next";
const FOLDER_MODE: u32 = 0o755;
/// What a group that owns the volume may do beside what the mode says.
const GROUP_READS: u32 = 0o040;

/// Brings the files of a volume up to date. If they are already, nothing is touched.
pub(crate) fn write(volume: &Path, payload: &Payload, group: Option<u32>) -> Result<(), VolumeError> {
    make_folder(volume).map_err(VolumeError::file("make", volume))?;
    if let Some(group) = group {
        chown(volume, None, Some(group)).map_err(VolumeError::file("give away", volume))?;
    }
    let data = volume.join(DATA);
    let current = fs::read_link(&data).ok();
    if current.as_ref().is_some_and(|current| holds(&volume.join(current), payload, group)) {
        return link_keys(volume, payload);
    }
    let version = volume.join(new_version());
    let written = write_version(&version, payload, group).and_then(|()| switch(volume, &version));
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&version);
        return Err(VolumeError::file("write", volume)(error));
    }
    link_keys(volume, payload)?;
    remove_others(volume, &version).map_err(VolumeError::file("clean up", volume))
}

/// A name that sorts by time and was not used before.
fn new_version() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("..{}.{:09}", since.as_secs(), since.subsec_nanos())
}

fn write_version(version: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().mode(FOLDER_MODE).create(version)?;
    for (path, file) in &payload.files {
        let path = version.join(path);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        out.write_all(&file.content)?;
        if group.is_some() {
            chown(&path, None, group)?;
        }
        // After the owner, and whatever the umask is.
        out.set_permissions(fs::Permissions::from_mode(effective(file.mode, group)))?;
    }
    Ok(())
}

fn effective(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | GROUP_READS } else { mode }
}

fn switch(volume: &Path, version: &Path) -> io::Result<()> {
    let next = volume.join(DATA_NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(version.file_name().unwrap_or_default(), &next)?;
    fs::rename(&next, volume.join(DATA))
}

/// Makes a link for each name at the top, and removes those that lead nowhere any more.
fn link_keys(volume: &Path, payload: &Payload) -> Result<(), VolumeError> {
    let tops: BTreeSet<OsString> = payload.files.keys().filter_map(|path| top(path)).collect();
    for name in &tops {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(VolumeError::file("make", &link))?;
        }
    }
    let entries = fs::read_dir(volume).map_err(VolumeError::file("read", volume))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(b"..");
        if !ours && !tops.contains(&name) {
            fs::remove_file(entry.path()).map_err(VolumeError::file("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn top(path: &Path) -> Option<OsString> {
    path.components().next().map(|part| part.as_os_str().to_owned())
}

fn remove_others(volume: &Path, version: &Path) -> io::Result<()> {
    for entry in fs::read_dir(volume)?.flatten() {
        let stale = entry.file_name().as_encoded_bytes().starts_with(b"..") && entry.path() != version;
        if stale && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a version holds exactly these files.
fn holds(version: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let same = |path: &PathBuf, file: &super::payload::File| {
        let path = version.join(path);
        let mode = fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o7777);
        mode.is_ok_and(|mode| mode == effective(file.mode, group)) && fs::read(&path).is_ok_and(|is| is == file.content)
    };
    payload.files.iter().all(|(path, file)| same(path, file)) && count_files(version) == Some(payload.files.len())
}

fn count_files(folder: &Path) -> Option<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).ok()?.flatten() {
        count += if entry.file_type().ok()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Some(count)
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o640 };
        Payload { files: files.iter().map(|(path, text)| (PathBuf::from(path), file(text))).collect() }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.filter(|name| !name.starts_with("..")).collect();
        names.sort();
        names
    }

    fn versions(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        write(&volume, &payload(&[("a", "1"), ("b", "2"), ("sub/c", "3")]), None).unwrap();
        assert_eq!(names(&volume), ["a", "b", "sub"]);
        assert_eq!(fs::read_to_string(volume.join("sub/c")).unwrap(), "3");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);

        write(&volume, &payload(&[("a", "9"), ("d", "4")]), None).unwrap();
        assert_eq!(names(&volume), ["a", "d"]);
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "9");
        assert_eq!(versions(&volume), 1);
    }

    #[test]
    fn what_is_the_same_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &payload(&[("a", "1")]), None).unwrap();
        let before = fs::read_link(folder.path().join(DATA)).unwrap();
        write(folder.path(), &payload(&[("a", "1")]), None).unwrap();
        assert_eq!(fs::read_link(folder.path().join(DATA)).unwrap(), before);
        write(folder.path(), &payload(&[]), None).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn what_a_crash_left_is_cleaned_up() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("..1.000000000/x")).unwrap();
        symlink("..gone", folder.path().join(DATA_NEXT)).unwrap();
        symlink("..gone", folder.path().join(DATA)).unwrap();
        write(folder.path(), &payload(&[("a", "1")]), None).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "1");
        assert_eq!(versions(folder.path()), 1);
    }
}
