//! The end of a cgroup: everything inside killed, its folders removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::freeze::{FROZEN, events_say};
use super::{Cgroup, Error, Version, is_gone, processes_in, write};
use crate::process::{pidfd_open, pidfd_send_signal};

/// How long killing or removing waits for the kernel before it gives up.
pub const END_DEADLINE: Duration = Duration::from_secs(10);

/// How deep a container may nest cgroups of its own before we refuse to follow.
const DEPTH_MAX: usize = 64;

/// The first and the longest pause between two looks at something that the kernel tells nobody of.
const PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

impl Cgroup {
    /// Sends a signal to every process in this cgroup and below. One that ends meanwhile is no error; one that is
    /// born meanwhile may be missed, but by [`Cgroup::kill`].
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let Some((_, folder, _)) = self.folders().next() else { return Ok(()) };
        for folder in tree(folder)? {
            for pid in processes_in(&folder)? {
                // By pidfd, so that a pid that was given to somebody else meanwhile is only hit if it was already
                // reused when it was opened: then it is looked up again in the cgroup.
                let Ok(pidfd) = pidfd_open(pid) else { continue };
                if processes_in(&folder)?.contains(&pid) {
                    let _ = pidfd_send_signal(&pidfd, signal);
                }
            }
        }
        Ok(())
    }

    /// Kills every process in this cgroup and below, frozen ones and those born meanwhile too; waits until none is
    /// left, at most [`END_DEADLINE`].
    pub fn kill(&self) -> Result<(), Error> {
        match self.unified() {
            Some(folder) if folder.join("cgroup.kill").exists() => {
                tolerate_gone(write(&folder.join("cgroup.kill"), "1"))?;
                // A v1 freezer around the container, ours or anybody's, would keep the dead from dying.
                self.thaw_v1()?;
            }
            _ => {
                self.ask_v1_freezer(FROZEN)?;
                let signalled = self.signal(libc::SIGKILL);
                self.thaw_v1()?;
                signalled?;
            }
        }
        self.wait_until_empty()
    }

    /// Removes the folders if nobody and nothing is in them, without waiting; whether all are gone.
    pub fn remove_if_empty(&self) -> Result<bool, Error> {
        for (_, folder, _) in self.folders() {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(false),
                Err(error) => return Err(Error::file("remove", folder)(error)),
            }
        }
        Ok(true)
    }

    /// Removes the folders, with those that were made inside; waits for the kernel to let go of them, at most
    /// [`END_DEADLINE`]. What is gone is removed. Every folder is tried; the first error is told.
    pub fn remove(&self) -> Result<(), Error> {
        self.remove_some(|_| true)
    }

    /// As [`Self::remove`], but only the folders that are wanted.
    pub fn remove_some(&self, wanted: impl Fn(&Path) -> bool) -> Result<(), Error> {
        let folders = self.folders().filter(|(_, folder, _)| wanted(folder));
        let results: Vec<_> = folders.map(|(_, folder, _)| remove_tree(folder)).collect();
        results.into_iter().collect()
    }

    fn wait_until_empty(&self) -> Result<(), Error> {
        let Some((_, folder, version)) = self.folders().next() else { return Ok(()) };
        let empty = || match version {
            Version::V2 => is_unpopulated(folder),
            Version::V1 => Ok(tree(folder)?
                .iter()
                .map(|folder| processes_in(folder))
                .collect::<Result<Vec<_>, _>>()?
                .concat()
                .is_empty()),
        };
        wait_for(folder, || {
            // Who was forking while the list was read is caught by the next round.
            if version == Version::V1 {
                self.signal(libc::SIGKILL)?;
            }
            empty()
        })
    }
}

fn is_unpopulated(folder: &Path) -> Result<bool, Error> {
    Ok(events_say(folder, "populated 0")?.unwrap_or(true))
}

fn remove_tree(folder: &Path) -> Result<(), Error> {
    wait_for(folder, || match fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        // Processes, or folders, or the kernel has not quite done with either.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            for inner in tree(folder)?.iter().skip(1).rev() {
                let _ = fs::remove_dir(inner);
            }
            Ok(false)
        }
        Err(error) => Err(Error::file("remove", folder)(error)),
    })
}

/// The folder and all below it, parents first; empty if it is gone.
pub(super) fn tree(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(Error::file("list", &folder)(error)),
        };
        if depth >= DEPTH_MAX {
            return Err(Error::file("follow", &folder)(io::ErrorKind::QuotaExceeded.into()));
        }
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            open.push((entry.path(), depth + 1));
        }
        found.push(folder);
    }
    Ok(found)
}

pub(super) fn tolerate_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::File { source, .. }) if is_gone(&source) => Ok(()),
        other => other,
    }
}

pub(super) fn wait_for(folder: &Path, mut done: impl FnMut() -> Result<bool, Error>) -> Result<(), Error> {
    let began = Instant::now();
    let mut pause = PAUSE.0;
    while !done()? {
        if began.elapsed() > END_DEADLINE {
            return Err(Error::Busy { path: folder.to_owned(), seconds: END_DEADLINE.as_secs() });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
    Ok(())
}
