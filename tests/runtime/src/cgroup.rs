//! A container's control group: its folders in every hierarchy, and their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::{Layout, layout};
use crate::until::PAUSE;

/// Where all hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// How long the processes of a group may take to die.
const REMOVAL_MAX: Duration = Duration::from_secs(10);

/// A control group by its path below every hierarchy's root.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// The group of this path; it need not exist. A path that leads out of the hierarchies is none: nothing is looked
    /// for, or removed, where an attack might have led.
    pub fn new(path: &str) -> Self {
        let leads_out = path.split('/').any(|part| part == "..");
        Self { path: if leads_out { String::new() } else { path.trim_matches('/').to_owned() } }
    }

    /// Its folder in the hierarchy of a controller of version 1, or in the one hierarchy of version 2.
    pub fn folder(&self, controller: &str) -> PathBuf {
        let root = Path::new(MOUNT);
        match layout() {
            Layout::Unified => root.join(&self.path),
            Layout::Legacy | Layout::Hybrid => root.join(controller).join(&self.path),
        }
    }

    /// Its folders that exist.
    pub fn folders(&self) -> Vec<PathBuf> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let candidates = match layout() {
            Layout::Unified => vec![Path::new(MOUNT).join(&self.path)],
            // Two names may be links to one hierarchy, `cpu` and `cpuacct`.
            Layout::Legacy | Layout::Hybrid => {
                let entries = fs::read_dir(MOUNT).unwrap().flatten();
                entries.filter(|entry| !entry.path().is_symlink()).map(|entry| entry.path().join(&self.path)).collect()
            }
        };
        candidates.into_iter().filter(|folder| folder.is_dir()).collect()
    }

    /// A file of a controller: the first of these names is version 1's, the second version 2's. Without the white space
    /// at its ends.
    #[track_caller]
    pub fn read(&self, controller: &str, v1: &str, v2: &str) -> String {
        let path = self.folder(controller).join(if layout() == Layout::Unified { v2 } else { v1 });
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    /// Whether a controller's file is there on this machine.
    pub fn has(&self, controller: &str, v1: &str, v2: &str) -> bool {
        self.folder(controller).join(if layout() == Layout::Unified { v2 } else { v1 }).exists()
    }

    /// The processes in it, and in groups below it.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        self.folders().iter().for_each(|folder| below(folder, &mut found));
        let read = |folder: &PathBuf| fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let mut all: Vec<i32> = found
            .iter()
            .flat_map(|folder| read(folder).lines().filter_map(|it| it.parse().ok()).collect::<Vec<_>>())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Ends whoever is in it and removes it, as well as it can: for the end of a test.
    pub(crate) fn remove(&self) {
        let mut all = Vec::new();
        self.folders().iter().for_each(|folder| below(folder, &mut all));
        for folder in &all {
            // What is frozen does not die.
            let _ = fs::write(folder.join("freezer.state"), "THAWED");
            let _ = fs::write(folder.join("cgroup.freeze"), "0");
        }
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // The test may have failed already: no second panic, and no longer a wait than the killed can need.
        let end = Instant::now() + REMOVAL_MAX;
        while !self.processes().is_empty() && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
        all.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// A folder and all below it, the deepest first.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            below(&entry.path(), found);
        }
    }
    found.push(folder.to_owned());
}
