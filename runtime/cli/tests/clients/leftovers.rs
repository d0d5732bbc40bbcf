//! What a client leaves on the machine: taken away after each test, also after one that failed.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Unmounts all below `folder`, the last first.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|path| Path::new(path).starts_with(folder));
    for target in targets.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", target]).output();
    }
}

/// Removes the cgroup of this name, with those below, from every hierarchy.
pub(crate) fn remove_cgroup(name: &str) {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        remove_tree(&hierarchy.path().join(name));
    }
    remove_tree(&Path::new("/sys/fs/cgroup").join(name));
}

fn remove_tree(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
