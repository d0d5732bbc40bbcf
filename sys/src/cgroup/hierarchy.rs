//! Where the controllers of this machine are: all in the unified hierarchy, each in one of its own, or some here and
//! some there.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use crate::mountinfo::{self, Mount};

/// Which interface a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of one or a few controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The controllers that every cgroup is made for: those that berth sets limits with, and those that others expect a
/// container to be in.
const WANTED: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "blkio", "freezer"];

/// Every controller that version 1 ever had: a hierarchy is mounted at their names.
const V1_CONTROLLERS: [&str; 15] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "debug",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// What the unified hierarchy can limit and berth may want enabled.
const ENABLED: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// The mounted hierarchies, the unified one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    all: Vec<Hierarchy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) root: PathBuf,
    pub(super) controllers: Vec<String>,
    pub(super) version: Version,
}

impl Hierarchy {
    /// What a cgroup here should have: on v2, huge pages only for who limits them.
    pub(super) fn controllers_for(&self, wanted: &[&str]) -> Vec<String> {
        let needed = |name: &&String| self.version == Version::V1 || *name != "hugetlb" || wanted.contains(&"hugetlb");
        self.controllers.iter().filter(needed).cloned().collect()
    }
}

impl Hierarchies {
    /// Those of this machine, found once: they do not change while it is up.
    pub fn of_machine() -> io::Result<&'static Self> {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        match FOUND.get() {
            Some(found) => Ok(found),
            None => Self::detect().map(|found| FOUND.get_or_init(|| found)),
        }
    }

    /// Those that the calling thread sees now.
    pub fn detect() -> io::Result<Self> {
        let mut found = match Self::at_the_usual_place() {
            Some(found) => found,
            None => Self::from_mounts(&mountinfo::read()?),
        };
        for hierarchy in found.all.iter_mut().filter(|hierarchy| hierarchy.version == Version::V2) {
            let controllers = fs::read_to_string(hierarchy.root.join("cgroup.controllers"))?;
            hierarchy.controllers = words(&controllers, ' ').filter(|word| ENABLED.contains(&word.as_str())).collect();
        }
        Ok(found)
    }

    /// Those below `/sys/fs/cgroup`, where every distribution has them: on a node with many pods the table of mounts is
    /// long, and the kernel writes it anew for each reader. `None` if there is anything unusual.
    fn at_the_usual_place() -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let unified = |root: &Path| Hierarchy { root: root.to_owned(), controllers: Vec::new(), version: Version::V2 };
        match statfs(root).ok()?.filesystem_type() {
            CGROUP2_SUPER_MAGIC => return Some(Self { all: vec![unified(root)] }),
            TMPFS_MAGIC => {}
            _ => return None,
        }
        let mut all = Vec::new();
        for entry in fs::read_dir(root).ok()?.flatten().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir())) {
            let path = entry.path();
            match statfs(&path).ok()?.filesystem_type() {
                CGROUP2_SUPER_MAGIC => all.push(unified(&path)),
                CGROUP_SUPER_MAGIC => {
                    let name = entry.file_name().into_string().ok()?;
                    let is_named = !name.split(',').all(|name| V1_CONTROLLERS.contains(&name));
                    let controllers = if is_named { vec![format!("name={name}")] } else { words(&name, ',').collect() };
                    all.push(Hierarchy { root: path, controllers, version: Version::V1 });
                }
                _ => {}
            }
        }
        all.sort_by_key(|hierarchy| (hierarchy.version == Version::V1, hierarchy.root.clone()));
        (!all.is_empty()).then_some(Self { all })
    }

    /// Whether a controller can be used at all.
    pub fn has(&self, controller: &str) -> bool {
        self.all.iter().any(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }

    /// The version of the hierarchy that has this controller.
    pub fn version(&self, controller: &str) -> Option<Version> {
        let has = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|name| name == controller);
        self.all.iter().find(has).map(|hierarchy| hierarchy.version)
    }

    /// Whether the machine has a unified hierarchy, with or without controllers.
    pub fn has_unified(&self) -> bool {
        self.all.iter().any(|hierarchy| hierarchy.version == Version::V2)
    }

    /// The hierarchies that a cgroup needs a folder in.
    pub(super) fn serving(&self, wanted: &[&str]) -> impl Iterator<Item = &Hierarchy> {
        let names: Vec<String> = WANTED.iter().chain(wanted).map(|name| (*name).to_owned()).collect();
        self.all.iter().filter(move |hierarchy| {
            hierarchy.version == Version::V2 || hierarchy.controllers.iter().any(|name| names.contains(name))
        })
    }

    fn from_mounts(mounts: &[Mount]) -> Self {
        let mut all: Vec<Hierarchy> = Vec::new();
        for mount in mounts {
            let hierarchy = match mount.kind.as_str() {
                "cgroup2" => Hierarchy { root: mount.target.clone(), controllers: Vec::new(), version: Version::V2 },
                "cgroup" => Hierarchy {
                    root: mount.target.clone(),
                    controllers: words(&mount.options, ',').filter(|word| is_controller(word)).collect(),
                    version: Version::V1,
                },
                _ => continue,
            };
            // The same hierarchy may be mounted more than once: the first one counts.
            let known =
                |other: &Hierarchy| other.version == hierarchy.version && other.controllers == hierarchy.controllers;
            if !all.iter().any(known) {
                all.push(hierarchy);
            }
        }
        all.sort_by_key(|hierarchy| hierarchy.version == Version::V1);
        Self { all }
    }
}

fn words(text: &str, separator: char) -> impl Iterator<Item = String> {
    text.trim().split(separator).filter(|word| !word.is_empty()).map(str::to_owned)
}

/// Among the options of a v1 mount stand its controllers. A hierarchy without any has a name for them, such as
/// `name=systemd`: it limits nothing, but other runtimes make cgroups there.
fn is_controller(option: &str) -> bool {
    !matches!(option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "favordynmods" | "all")
        && (!option.contains('=') || option.starts_with("name="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(text: &str, wanted: &[&str]) -> Vec<String> {
        let hierarchies = Hierarchies::from_mounts(&mountinfo::parse(text.as_bytes()));
        hierarchies.serving(wanted).map(|hierarchy| hierarchy.root.display().to_string()).collect()
    }

    const V1: &str = "1 0 0:1 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      2 0 0:2 / /c/memory rw - cgroup cgroup rw,memory\n\
                      3 0 0:3 / /c/freezer rw - cgroup cgroup rw,freezer\n\
                      4 0 0:4 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      5 0 0:5 / /c/cpuset rw - cgroup cgroup rw,cpuset\n";
    const V2: &str = "6 0 0:6 / /c/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn of_the_v1_hierarchies_those_count_that_are_wanted_by_all_or_by_one() {
        assert_eq!(roots(V1, &[]), ["/c/cpu,cpuacct", "/c/memory", "/c/freezer", "/c/cpuset"]);
        let more = format!("{V1}8 0 0:8 / /c/net_cls rw - cgroup cgroup rw,net_cls\n");
        assert_eq!(roots(&more, &[]).len(), 4);
        assert_eq!(roots(&more, &["net_cls"]).last().unwrap(), "/c/net_cls");
        assert_eq!(roots(V1, &["name=systemd"]).len(), 5);
    }

    #[test]
    fn in_a_mix_the_unified_one_comes_first() {
        assert_eq!(roots(&format!("{V1}{V2}"), &[])[0], "/c/unified");
    }

    #[test]
    fn the_unified_one_alone_and_mounted_twice_is_one() {
        assert_eq!(roots(&format!("{V2}7 0 0:6 / /elsewhere rw - cgroup2 none rw\n"), &[]), ["/c/unified"]);
    }
}
