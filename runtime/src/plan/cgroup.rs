//! The container's cgroup, its limits and its devices.

use std::path::{Path, PathBuf};

use berth_sys::cgroup::{Cgroup, Hierarchies, HugepageLimit, Limits, device::Policy};
use oci_spec::runtime::{LinuxResources, Spec};

use super::devices;
use crate::error::Error;
use crate::spec;

/// A cgroup to make, and what to write into it.
#[derive(Debug)]
pub(crate) struct CgroupPlan {
    pub(crate) cgroup: Cgroup,
    pub(crate) controllers: Vec<&'static str>,
    limits: Limits,
    devices: Policy,
    unified: Vec<(String, String)>,
}

impl CgroupPlan {
    /// Reads what the spec says; a container that names no cgroup gets one of its own name below the root.
    pub(crate) fn new(spec: &Spec, id: &str) -> Result<Self, Error> {
        let linux = spec::linux(spec)?;
        let path = linux.cgroups_path().clone().unwrap_or_else(|| Path::new("/").join(id));
        let resources = linux.resources().clone().unwrap_or_default();
        spec::refuse_resources(&resources)?;
        let limits = limits(&resources)?;
        let controllers = limits.controllers();
        let hierarchies =
            Hierarchies::of_machine().map_err(Error::file("read", PathBuf::from("/proc/self/mountinfo")))?;
        let cgroup = Cgroup::new(hierarchies, &path, &controllers)?;
        let devices = devices::policy(resources.devices().as_deref().unwrap_or_default())?;
        let mut unified: Vec<_> = resources.unified().clone().unwrap_or_default().into_iter().collect();
        unified.sort();
        Ok(Self { cgroup, controllers, limits, devices, unified })
    }

    /// Two containers in one cgroup would share their limits, and the end of either would be the end of both.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        if self.cgroup.processes()?.is_empty() {
            return Ok(());
        }
        Err(Error::CgroupInUse { path: self.cgroup.path().to_owned() })
    }

    /// Makes the cgroup and writes everything.
    pub(crate) fn apply(&self) -> Result<(), Error> {
        self.cgroup.make()?;
        self.cgroup.set(&self.limits)?;
        self.cgroup.set_devices(&self.devices)?;
        for (file, value) in &self.unified {
            self.cgroup.set_unified(file, value)?;
        }
        Ok(())
    }
}

/// The OCI's limits as the cgroup's.
fn limits(resources: &LinuxResources) -> Result<Limits, Error> {
    let mut limits = Limits::default();
    if let Some(cpu) = resources.cpu() {
        limits.cpu_shares = cpu.shares();
        limits.cpu_quota_us = cpu.quota();
        limits.cpu_period_us = cpu.period();
        limits.cpu_burst_us = cpu.burst();
        limits.cpu_idle = cpu.idle().map(|idle| idle != 0);
        limits.cpuset_cpus = cpu.cpus().clone().filter(|list| !list.is_empty());
        limits.cpuset_mems = cpu.mems().clone().filter(|list| !list.is_empty());
    }
    if let Some(memory) = resources.memory() {
        limits.memory_bytes = memory.limit();
        limits.memory_swap_bytes = memory.swap();
        limits.memory_reservation_bytes = memory.reservation();
    }
    limits.pids = resources.pids().as_ref().map(|pids| pids.limit());
    for (number, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{number}]");
        let size = limit.page_size();
        if !size.chars().all(|c| c.is_ascii_alphanumeric()) || size.is_empty() {
            return Err(Error::spec(format!("{field}.pageSize"), format!("{size:?} is no size")));
        }
        let bytes = u64::try_from(limit.limit())
            .map_err(|_| Error::spec(format!("{field}.limit"), format!("{} is negative", limit.limit())))?;
        limits.hugepages.push(HugepageLimit { size: size.clone(), bytes });
    }
    Ok(limits)
}
