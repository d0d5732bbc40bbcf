//! Removal of a whole tree that a stranger made: no link is followed, and its depth costs neither stack nor descriptors.
//! Several may remove one tree at the same time: what another was faster with is removed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};

use crate::beneath::Folder;

/// Folders that are open at once; what lies deeper is first brought up to the top.
const OPEN_MAX: usize = 64;
/// How often a folder that fills again while it is emptied is emptied again.
const REFILLS_MAX: usize = 1000;

/// Removes `name` from `parent`, and all that is below it.
pub(crate) fn remove(parent: &Folder, name: &OsStr) -> io::Result<()> {
    match parent.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {}
        // Some filesystems say EPERM for a folder.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        other => return other,
    }
    let mut brought_up = 0u64;
    for _ in 0..REFILLS_MAX {
        empty(parent, name, &mut brought_up)?;
        match parent.remove_folder(name) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => {}
            other => return gone(other),
        }
    }
    Err(Errno::ENOTEMPTY.into())
}

/// One folder on the way down: itself, open, and the folders in it that are still to be emptied.
struct Level {
    folder: Folder,
    name: OsString,
    folders: Vec<OsString>,
}

fn empty(parent: &Folder, name: &OsStr, brought_up: &mut u64) -> io::Result<()> {
    let mut levels: Vec<Level> = open_level(parent, name)?.into_iter().collect();
    while let Some(level) = levels.last_mut() {
        let Some(next) = level.folders.pop() else {
            let done = levels.pop();
            if let (Some(above), Some(done)) = (levels.last(), done) {
                match above.folder.remove_folder(&done.name) {
                    // It filled again: the next round empties it.
                    Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => {}
                    other => gone(other)?,
                }
            }
            continue;
        };
        if levels.len() < OPEN_MAX {
            let below = levels.last().map(|level| open_level(&level.folder, &next)).transpose()?;
            levels.extend(below.flatten());
        } else if let [top, .., deepest] = levels.as_mut_slice() {
            // A name of its own: the tree's other names are not ours to know.
            let name = OsString::from(format!(".removed-{}-{brought_up}", std::process::id()));
            *brought_up += 1;
            match renameat(&deepest.folder, next.as_os_str(), &top.folder, name.as_os_str()) {
                Err(Errno::ENOENT) => {}
                other => {
                    other?;
                    top.folders.push(name);
                }
            }
        }
    }
    Ok(())
}

/// Success if it is done, by whomever.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Opens a folder and removes what is in it and is no folder; `None` if it is not there.
fn open_level(parent: &Folder, name: &OsStr) -> io::Result<Option<Level>> {
    let opened = parent.open(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
    let (listing, folder) = match opened.and_then(|listing| Ok((listing, parent.folder(name)?))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut listing = Dir::from_fd(listing)?;
    let mut folders = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child == "." || child == ".." {
            continue;
        }
        match folder.remove_file(child) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EISDIR | libc::EPERM)) => {
                folders.push(child.to_owned());
            }
            other => gone(other)?,
        }
    }
    Ok(Some(Level { folder, name: name.to_owned(), folders }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::beneath::Root;

    #[test]
    fn a_tree_deeper_than_any_path_goes_and_its_links_are_not_followed() {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(top.path().join("kept"), "").unwrap();
        let root = Root::open(top.path()).unwrap();
        root.folder().make_folder(OsStr::new("tree"), Mode::from_bits_truncate(0o755)).unwrap();
        let mut folder = root.folder().folder(OsStr::new("tree")).unwrap();
        for _ in 0..3000 {
            folder.symlink(OsStr::new(top.path()), OsStr::new("link")).unwrap();
            folder.create(OsStr::new("file"), Mode::empty()).unwrap();
            folder.make_folder(OsStr::new("more"), Mode::from_bits_truncate(0o755)).unwrap();
            folder.make_folder(OsStr::new("down"), Mode::from_bits_truncate(0o755)).unwrap();
            folder = folder.folder(OsStr::new("down")).unwrap();
        }
        root.folder().remove_tree(OsStr::new("tree")).unwrap();
        root.folder().remove_tree(OsStr::new("tree")).unwrap();
        symlink("kept", top.path().join("link")).unwrap();
        root.folder().remove_tree(OsStr::new("link")).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }

    #[test]
    fn several_remove_one_tree_at_the_same_time() {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        for round in 0..20 {
            let deep = (0..80).map(|depth| format!("{depth}/")).collect::<String>();
            fs::create_dir_all(top.path().join("tree").join(deep)).unwrap();
            for file in 0..200 {
                fs::create_dir_all(top.path().join(format!("tree/{}/{file}", file % 7))).unwrap();
            }
            let remove = || Root::open(top.path()).unwrap().folder().remove_tree(OsStr::new("tree"));
            let outcomes = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(remove)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            assert!(outcomes.iter().all(Result::is_ok), "round {round}: {outcomes:?}");
            assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        }
    }
}
