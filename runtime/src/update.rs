//! Limits changed while a container runs.

use berth_sys::cgroup::{Cgroup, Hierarchies, Version};
use oci_spec::runtime::LinuxResources;

use crate::Runtime;
use crate::error::Error;
use crate::plan;
use crate::state::{Folder, Status};

impl Runtime {
    pub(crate) fn update_container(&self, id: &str, resources: &LinuxResources) -> Result<(), Error> {
        let devices = resources.devices().as_deref().filter(|rules| !rules.is_empty());
        let devices = devices.map(plan::device_policy).transpose()?;
        let folder = Folder::of(&self.root, id)?;
        let _lock = folder.lock(id)?;
        let mut record = folder.load(id)?;
        let status = folder.status(&record)?;
        if matches!(status, Status::Creating | Status::Stopped) {
            return Err(Error::WrongState { id: id.to_owned(), status, wanted: "running" });
        }
        let mut limits = plan::limits(resources)?;
        let cgroup = record.cgroup()?;
        if limits.cpu_quota_us.is_none() && limits.cpu_period_us.is_some() {
            limits.cpu_quota_us = quota_now(&cgroup);
        }
        if resources.memory().as_ref().is_some_and(|memory| memory.check_before_update() == Some(true)) {
            check_memory(&cgroup, limits.memory_bytes)?;
        }
        // A hierarchy that nothing needed up to now.
        let has = |name: &&'static str| record.controllers.iter().any(|known| known == name);
        let fresh: Vec<_> = limits.controllers().into_iter().filter(|name| !has(name)).collect();
        let cgroup = if fresh.is_empty() {
            cgroup
        } else {
            let hierarchies = Hierarchies::of_machine().map_err(Error::file("read", "/proc/self/mountinfo"))?;
            record.controllers.extend(fresh.iter().map(|name| (*name).to_owned()));
            let names: Vec<&str> = record.controllers.iter().map(String::as_str).collect();
            let wider = Cgroup::new(hierarchies, &record.cgroup, &names)?;
            folder.save(&record)?;
            wider.join_missing()?;
            wider
        };
        cgroup.set(&limits)?;
        devices.map_or(Ok(()), |policy| cgroup.set_devices(&policy))?;
        for (file, value) in plan::unified(resources)? {
            cgroup.set_unified(&file, &value)?;
        }
        Ok(())
    }
}

/// The quota that a v2 cgroup has: a new period is written together with it.
fn quota_now(cgroup: &Cgroup) -> Option<i64> {
    let (folder, Version::V2) = cgroup.folder("cpu")? else { return None };
    let text = std::fs::read_to_string(folder.join("cpu.max")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Refuses a limit below what is in use: the OOM killer would come at once.
fn check_memory(cgroup: &Cgroup, limit: Option<i64>) -> Result<(), Error> {
    let (Some(limit), Some((folder, version))) = (limit.filter(|&limit| limit > 0), cgroup.folder("memory")) else {
        return Ok(());
    };
    let path = folder.join(match version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    });
    let used = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    match used.trim().parse::<i64>() {
        Ok(used) if used > limit => {
            Err(Error::spec("memory.limit", format!("{limit} is below the {used} bytes in use")))
        }
        _ => Ok(()),
    }
}
