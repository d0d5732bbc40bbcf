//! The OOM killer's work in a cgroup: how often, a descriptor that tells when, and both as one tally of its victims.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Cgroup, Error, Version, read};

/// When to look again after a notice that came before the count: v1 tells when memory has run out, and counts when the
/// killer has chosen; v2 tells of more than that.
const LOOK_AGAIN: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// Readable when something about memory changed: then ask [`Cgroup::oom_kill_count`].
///
/// v1 tells of an OOM only (and of the cgroup's removal), v2 of every change of `memory.events`.
#[derive(Debug)]
pub struct Watch(Source);

#[derive(Debug)]
enum Source {
    /// v1: `cgroup.event_control` ties an eventfd to `memory.oom_control`.
    Event(EventFd),
    /// v2: the kernel marks `memory.events` as modified.
    Modified(Inotify),
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::Event(event) => event.as_fd(),
            Source::Modified(inotify) => inotify.as_fd(),
        }
    }
}

impl Watch {
    /// Takes what made it readable; never waits.
    pub fn clear(&self) -> std::io::Result<()> {
        let result = match &self.0 {
            Source::Event(event) => event.read().map(drop),
            Source::Modified(inotify) => inotify.read_events().map(drop),
        };
        match result {
            Ok(()) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The OOM killer's victims in a cgroup, told of once. Readable as a [`Watch`]: then take notice.
#[derive(Debug)]
pub struct Tally {
    cgroup: Cgroup,
    watch: Watch,
    told: u64,
    looks: usize,
    again: Option<Instant>,
}

impl Tally {
    /// Watches a cgroup. Victims that it has already are news to the first look.
    pub fn begin(cgroup: Cgroup) -> Result<Self, Error> {
        let watch = cgroup.watch_oom()?;
        Ok(Self { cgroup, watch, told: 0, looks: 0, again: None })
    }

    /// After it became readable: whether there are victims that were not told of yet. An error when there is nothing to
    /// watch any more.
    pub fn notice(&mut self) -> Result<bool, Error> {
        self.watch.clear().map_err(Error::file("watch", self.cgroup.path()))?;
        self.looks = 0;
        self.look()
    }

    /// Looks at the count; as [`Self::notice`].
    pub fn look(&mut self) -> Result<bool, Error> {
        self.again = None;
        let count = self.cgroup.oom_kill_count()?;
        let is_fresh = count > self.told;
        self.told = count;
        if !is_fresh {
            self.again = LOOK_AGAIN.get(self.looks).map(|pause| Instant::now() + *pause);
            self.looks += 1;
        }
        Ok(is_fresh)
    }

    /// When to look again though it is not readable.
    pub fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Whether there are any victims.
    pub fn any(&self) -> bool {
        self.told > 0
    }
}

impl AsFd for Tally {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl Cgroup {
    /// Begins to watch for the OOM killer.
    pub fn watch_oom(&self) -> Result<Watch, Error> {
        let (folder, version) = self.memory()?;
        match version {
            Version::V1 => {
                let (control, listen) = (folder.join("memory.oom_control"), folder.join("cgroup.event_control"));
                let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                    .map_err(|errno| Error::file("watch", &control)(errno.into()))?;
                let file = File::open(&control).map_err(Error::file("open", &control))?;
                let line = format!("{} {}", event.as_fd().as_raw_fd(), file.as_raw_fd());
                OpenOptions::new()
                    .write(true)
                    .open(&listen)
                    .and_then(|mut listen| listen.write_all(line.as_bytes()))
                    .map_err(Error::file("register at", &listen))?;
                Ok(Watch(Source::Event(event)))
            }
            Version::V2 => {
                let events = folder.join("memory.events");
                let watch = || {
                    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                    inotify.add_watch(&events, AddWatchFlags::IN_MODIFY)?;
                    Ok(inotify)
                };
                let inotify = watch().map_err(|errno: Errno| Error::file("watch", &events)(errno.into()))?;
                Ok(Watch(Source::Modified(inotify)))
            }
        }
    }

    /// How many processes the OOM killer has taken from this cgroup (v2: and below it).
    pub fn oom_kill_count(&self) -> Result<u64, Error> {
        let (folder, version) = self.memory()?;
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = read(&folder.join(file))?;
        Ok(count(&text))
    }

    fn memory(&self) -> Result<(&std::path::Path, Version), Error> {
        self.folder("memory").ok_or_else(|| Error::NoController { controller: "memory".to_owned() })
    }
}

fn count(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_either_version_s_file() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(count("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(count(""), 0);
    }
}
