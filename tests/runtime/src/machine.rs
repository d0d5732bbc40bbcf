//! The machine that the tests run on: what its kernel lacks, and mounts that tests make on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::runtime::{runtime, skip};

/// Whether a test has to end here because this machine cannot do what it needs; says so if it is.
pub fn misses(missing: bool, what: &str) -> bool {
    if missing {
        skip("this machine", what);
    }
    missing
}

/// How the control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy of version 2.
    Unified,
    /// Hierarchies of version 1 alone.
    Legacy,
    /// Hierarchies of version 1, and one of version 2 beside them.
    Hybrid,
}

/// This machine's layout of control groups.
pub fn layout() -> Layout {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Layout::Unified
    } else if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        Layout::Hybrid
    } else {
        Layout::Legacy
    }
}

/// Words of shell for a new mount namespace in which a runtime finds a layout that it knows; nothing if it knows this
/// machine's.
///
/// crun refuses the hybrid layout. It gets the hierarchies of version 1 on a folder tree of its own, mounted over the
/// machine's; nothing is unmounted, and the rest of the machine's mounts stay what they are, shared ones too.
pub(crate) fn view_of_cgroups() -> &'static str {
    static VIEW: OnceLock<&str> = OnceLock::new();
    VIEW.get_or_init(|| {
        if runtime().name != "crun" || layout() != Layout::Hybrid {
            return "";
        }
        "cd /sys/fs/cgroup
         mount --make-rprivate /sys/fs/cgroup
         mount -t tmpfs -o mode=755 cgroup unified
         for name in *; do
             [ $name != unified ] || continue
             mkdir unified/$name
             mount --bind $name unified/$name
         done
         mount --rbind unified /sys/fs/cgroup
         cd \"$OLDPWD\""
    })
}

/// Whether this process has a capability, by its number.
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("every kernel tells it");
    u64::from_str_radix(set.trim(), 16).unwrap() >> number & 1 == 1
}

/// A folder of the machine with a file system of its own, for as long as this lives.
#[derive(Debug)]
pub struct Mounted {
    /// Where it is.
    pub path: PathBuf,
}

impl Mounted {
    /// An empty file system in memory.
    #[track_caller]
    pub fn tmpfs(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let mounted = Self { path: path.to_owned() };
        mounted.change(MsFlags::MS_PRIVATE);
        mounted
    }

    /// Another sight of a folder.
    #[track_caller]
    pub fn bind(source: &Path, path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Self { path: path.to_owned() }
    }

    /// Changes the propagation of the mount.
    #[track_caller]
    pub fn change(&self, propagation: MsFlags) {
        mount(None::<&str>, &self.path, None::<&str>, propagation, None::<&str>).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// A network device of the machine, one end of a pair that is gone with this.
#[derive(Debug)]
pub struct NetDevice {
    /// Its name.
    pub name: String,
}

impl NetDevice {
    /// A new device; none, and the test says so, if the machine has no such pairs.
    pub fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // A device's name has no more than 15 bytes.
        let own = std::process::id() % 1_000_000;
        let name = format!("st{own}n{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let peer = format!("{name}p");
        let made = Command::new("ip").args(["link", "add", &name, "type", "veth", "peer", "name", &peer]).output();
        let made = made.is_ok_and(|output| output.status.success());
        (!misses(!made, "ip(8), or pairs of network devices in the kernel")).then_some(Self { name })
    }
}

impl Drop for NetDevice {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &format!("{}p", self.name)]).output();
    }
}

/// Unmounts what a test left in its folder, so that the folder can be removed.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    // The last mounted first: it may be on top of another.
    for target in targets.into_iter().rev().filter(|target| Path::new(target).starts_with(folder)) {
        let _ = umount2(target, MntFlags::MNT_DETACH);
    }
}
