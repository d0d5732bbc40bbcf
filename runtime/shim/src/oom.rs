//! Whether the kernel's OOM killer was at a container.

use std::error::Error;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_sys::cgroup::{Cgroup, Hierarchies, oom};

use crate::fault::chain;
use crate::note::note;

/// When to look again after a notice that came before the count: cgroup v1 tells when memory has run out, and counts
/// when the killer has chosen.
const LOOK_AGAIN: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// One container's cgroup under watch.
#[derive(Debug)]
pub(crate) struct Watch {
    cgroup: Cgroup,
    source: oom::Watch,
    told: u64,
    looks: usize,
    again: Option<Instant>,
}

impl Watch {
    /// Watches the cgroup of a container; `None` if its memory cannot be watched.
    pub(crate) fn begin(cgroup: Result<Cgroup, Box<dyn Error>>, container: &str) -> Option<Self> {
        let watch = cgroup.and_then(|cgroup| {
            let source = cgroup.watch_oom()?;
            Ok(Self { cgroup, source, told: 0, looks: 0, again: None })
        });
        watch
            .inspect_err(|error| {
                let error = chain(error.as_ref());
                note(format_args!("the OOM killer's work in {container} cannot be watched: {error}"));
            })
            .ok()
    }

    /// After the descriptor became readable: whether a process was killed that was not told of yet. `None` if there is
    /// nothing to watch any more.
    pub(crate) fn notice(&mut self) -> Option<bool> {
        self.source.clear().ok()?;
        self.looks = 0;
        self.look()
    }

    /// Looks at the count; as [`Self::notice`].
    pub(crate) fn look(&mut self) -> Option<bool> {
        let count = self.cgroup.oom_kill_count().ok()?;
        let fresh = count > self.told;
        self.told = count;
        self.again = if fresh { None } else { LOOK_AGAIN.get(self.looks).map(|pause| Instant::now() + *pause) };
        self.looks += 1;
        Some(fresh)
    }

    /// When to look again.
    pub(crate) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Whether any process was killed.
    pub(crate) fn any(&self) -> bool {
        self.told > 0
    }
}

/// The cgroup that a process is in.
pub(crate) fn cgroup_of(pid: i32) -> Result<Cgroup, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = memory_cgroup(&text).ok_or("its memory is counted nowhere")?;
    Ok(Cgroup::new(Hierarchies::of_machine()?, Path::new(path), &[])?)
}

/// The cgroup that a process' memory is counted in, by its `/proc/<pid>/cgroup` (cgroups(7)).
fn memory_cgroup(text: &str) -> Option<&str> {
    let mut unified = None;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => unified = Some(path),
            _ if controllers.split(',').any(|name| name == "memory") => return Some(path),
            _ => {}
        }
    }
    unified
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_in_its_own_hierarchy_or_in_the_unified_one() {
        assert_eq!(memory_cgroup("12:memory:/a\n4:cpu,cpuacct:/b:c\n0::/u\n"), Some("/a"));
        assert_eq!(memory_cgroup("4:cpu,cpuacct:/b\n0::/u:v\n"), Some("/u:v"));
        for nothing in ["", "4:cpu:/b", "garbage"] {
            assert_eq!(memory_cgroup(nothing), None);
        }
    }
}
