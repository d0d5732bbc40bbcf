//! Cleaning up after a shim that died: everything that it kept is below its sandbox's directory, by which it is found.

use std::fs;
use std::io;
use std::path::Path;

use berth_sys::cgroup::{Cgroup, Hierarchies};
use berth_sys::namespace;

use super::client::{Error, living};
use super::protocol::SandboxSpec;
use crate::Runtime;

/// The controllers in whose hierarchies somebody may have made the pod's cgroup, beyond those that berth limits.
const CONTROLLERS: [&str; 6] = ["blkio", "cpuset", "freezer", "hugetlb", "net_cls", "rdma"];

/// Removes what a dead shim left: the containers' processes, cgroups and runtime state, the pinned namespaces, and `dir`
/// with all that is in it; read the exit records before. Goes on at errors and returns all of them. Success if it is
/// gone already.
pub fn reap_dead(dir: &Path) -> Result<(), Error> {
    if let Some(pid) = living(dir)? {
        return Err(Error::Alive { dir: dir.into(), pid });
    }
    let mut failures = Vec::new();
    let runtime = Runtime::new(dir.join("runtime"));
    for container in names(&dir.join("runtime"), &mut failures) {
        if let Err(error) = runtime.delete(&container) {
            failures.push(format!("container {container}: {}", chain(&error)));
        }
    }
    let pins = dir.join("ns");
    for name in names(&pins, &mut failures) {
        if let Err(error) = namespace::unpin(&pins.join(name)) {
            failures.push(chain(&error));
        }
    }
    // A shim that died while it made a container may have left it without a state.
    if let Ok(content) = fs::read(dir.join("sandbox.json")) {
        match serde_json::from_slice::<SandboxSpec>(&content) {
            Ok(spec) => failures.extend(end_cgroup(&spec.cgroup).err()),
            Err(error) => failures.push(format!("reading sandbox.json: {error}")),
        }
    }
    // What is still mounted or running must be found again: the directory goes last, and only after all of it.
    if failures.is_empty() {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => failures.push(error.to_string()),
            _ => return Ok(()),
        }
    }
    Err(Error::Leftovers { dir: dir.into(), failures })
}

/// Kills what runs in the pod's cgroup and below, and removes it; success if it is gone.
pub fn end_cgroup(path: &str) -> Result<(), String> {
    let hierarchies = Hierarchies::of_machine().map_err(|error| error.to_string())?;
    let result = Cgroup::new(hierarchies, Path::new(path), &CONTROLLERS)
        .and_then(|cgroup| if cgroup.exists() { cgroup.kill().and_then(|()| cgroup.remove()) } else { Ok(()) });
    result.map_err(|error| chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn names(folder: &Path, failures: &mut Vec<String>) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            failures.push(format!("listing {}: {error}", folder.display()));
            return Vec::new();
        }
        Ok(entries) => entries,
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
