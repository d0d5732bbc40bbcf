//! Limits changed while a container runs, by `cgroups-rs` and its controllers.
//!
//! `create` sets the same limits by `berth_sys::cgroup`: there the time counts (a `cgroups-rs` handle reads the table
//! of mounts), a hierarchy that nothing needs is left out, and machines may have controllers of both versions. Its
//! controllers are asked one by one here, because its `apply` does not tell when a memory limit was refused.

use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::error::Error as CgroupsError;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue, hierarchies};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use crate::Runtime;
use crate::error::Error;
use crate::spec;
use crate::state::Folder;

impl Runtime {
    pub(crate) fn update_container(&self, id: &str, resources: &LinuxResources) -> Result<(), Error> {
        spec::refuse_resources(resources)?;
        spec::refuse_in_update(resources)?;
        let record = Folder::of(&self.root, id)?.load(id)?;
        let path = record.cgroup.strip_prefix("/").unwrap_or(&record.cgroup);
        let cgroup = Cgroup::load(hierarchies::auto(), path);
        if let Some(cpu) = resources.cpu() {
            set_cpu(&cgroup, cpu)?;
        }
        if let Some(memory) = resources.memory() {
            set_memory(&cgroup, memory)?;
        }
        if let Some(pids) = resources.pids() {
            let limit = if pids.limit() > 0 { MaxValue::Value(pids.limit()) } else { MaxValue::Max };
            let controller: &PidController = controller(cgroup.controller_of(), "pids")?;
            controller.set_pid_max(limit).map_err(refused("pids.limit"))?;
        }
        Ok(())
    }
}

fn set_cpu(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), Error> {
    let controller_of_cpu: &CpuController = controller(cgroup.controller_of(), "cpu")?;
    if let Some(shares) = cpu.shares().filter(|&shares| shares > 0) {
        let value = if cgroup.v2() { berth_sys::cgroup::weight_of_shares(shares) } else { shares };
        controller_of_cpu.set_shares(value).map_err(refused("cpu.shares"))?;
    }
    if cpu.quota().is_some() || cpu.period().is_some() {
        let quota = cpu.quota().filter(|&quota| quota != 0);
        controller_of_cpu.set_cfs_quota_and_period(quota, cpu.period()).map_err(refused("cpu.quota"))?;
    }
    if cpu.cpus().is_none() && cpu.mems().is_none() {
        return Ok(());
    }
    let sets: &CpuSetController = controller(cgroup.controller_of(), "cpuset")?;
    if let Some(cpus) = cpu.cpus() {
        sets.set_cpus(cpus).map_err(refused("cpu.cpus"))?;
    }
    if let Some(mems) = cpu.mems() {
        sets.set_mems(mems).map_err(refused("cpu.mems"))?;
    }
    Ok(())
}

fn set_memory(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<(), Error> {
    let controller: &MemController = controller(cgroup.controller_of(), "memory")?;
    let (limit, both) = (memory.limit().filter(|&it| it != 0), memory.swap().filter(|&it| it != 0));
    let set_limit = || limit.map_or(Ok(()), |limit| controller.set_limit(limit));
    let set_both = || both.map_or(Ok(()), |both| controller.set_memswap_limit(swap_value(cgroup.v2(), both, limit)));
    // On v1 memory may never exceed memory and swap: which has to move first depends on the way.
    if set_limit().is_err() {
        set_both().map_err(refused("memory.swap"))?;
        set_limit().map_err(refused("memory.limit"))?;
    }
    set_both().map_err(refused("memory.swap"))?;
    match memory.reservation() {
        Some(bytes) => controller.set_soft_limit(bytes).map_err(refused("memory.reservation")),
        None => Ok(()),
    }
}

/// v2 counts swap apart from memory.
fn swap_value(v2: bool, both: i64, limit: Option<i64>) -> i64 {
    match limit {
        Some(limit) if v2 && both > 0 && limit > 0 => both.saturating_sub(limit).max(0),
        _ => both,
    }
}

fn controller<'a, T>(found: Option<&'a T>, name: &str) -> Result<&'a T, Error> {
    found.ok_or_else(|| berth_sys::cgroup::Error::NoController { controller: name.to_owned() }.into())
}

fn refused(field: &'static str) -> impl FnOnce(CgroupsError) -> Error {
    move |error| Error::Setup { step: format!("change the limit {field}"), source: std::io::Error::other(error) }
}
