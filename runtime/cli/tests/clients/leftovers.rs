//! What a client leaves on the machine: taken away after each test, also after one that failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Unmounts all below `folder`, the last first.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|path| Path::new(path).starts_with(folder));
    for target in targets.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", target]).output();
    }
}

/// How long who is in a cgroup may take to end.
const DEADLINE: Duration = Duration::from_secs(10);

/// Removes the cgroup of this name, with those below, from every hierarchy.
pub(crate) fn remove_cgroup(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let end = Instant::now() + DEADLINE;
    for root in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        // podman's conmon is in one itself, and ends after its container.
        while !remove_tree(&root.join(name)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether nothing of it is left.
fn remove_tree(cgroup: &Path) -> bool {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path());
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}
