//! The container's cgroup, its limits and its devices.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::{BlockIo, Cgroup, Device, Hierarchies, HugepageLimit, Limits, device::Policy};
use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice, Spec};

use super::devices;
use crate::Settings;
use crate::error::Error;
use crate::limits::{MACHINE_PATH_BYTES_MAX, PATH_BYTES_MAX};
use crate::spec;

/// A cgroup to make, and what to write into it.
#[derive(Debug)]
pub(crate) struct CgroupPlan {
    pub(crate) cgroup: Cgroup,
    pub(crate) controllers: Vec<&'static str>,
    content: Content,
}

/// What is written into a container's cgroup.
#[derive(Debug)]
pub(super) struct Content {
    limits: Limits,
    devices: Policy,
    unified: Vec<(String, String)>,
}

impl Content {
    /// Reads what the spec says.
    pub(super) fn of(resources: &LinuxResources) -> Result<Self, Error> {
        Ok(Self {
            limits: limits(resources)?,
            devices: devices::policy(resources.devices().as_deref().unwrap_or_default())?,
            unified: unified(resources)?,
        })
    }
}

impl CgroupPlan {
    /// Reads what the spec says; a container that names no cgroup gets one of its own name below the root.
    pub(crate) fn new(spec: &Spec, id: &str, settings: Settings) -> Result<Self, Error> {
        let linux = spec::linux(spec)?;
        let path = path(linux.cgroups_path().as_deref(), id, settings)?;
        let content = Content::of(&linux.resources().clone().unwrap_or_default())?;
        let controllers = content.limits.controllers();
        let hierarchies =
            Hierarchies::of_machine().map_err(Error::file("read", PathBuf::from("/proc/self/mountinfo")))?;
        let cgroup = Cgroup::new(hierarchies, &path, &controllers)?;
        Ok(Self { cgroup, controllers, content })
    }

    /// Two containers in one cgroup would share their limits, and the end of either would be the end of both.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        // A frozen one would stop its first process half way.
        if self.cgroup.all_processes()?.is_empty() && !self.cgroup.is_frozen()? {
            return Ok(());
        }
        Err(Error::CgroupInUse { path: self.cgroup.path().to_owned() })
    }

    /// Makes the cgroup and writes everything.
    pub(crate) fn apply(&self) -> Result<(), Error> {
        self.cgroup.make()?;
        self.cgroup.set(&self.content.limits)?;
        self.cgroup.set_devices(&self.content.devices)?;
        for (file, value) in &self.content.unified {
            self.cgroup.set_unified(file, value)?;
        }
        Ok(())
    }
}

/// The files of the unified hierarchy that the spec names, in order.
pub(crate) fn unified(resources: &LinuxResources) -> Result<Vec<(String, String)>, Error> {
    let mut files: Vec<_> = resources.unified().clone().unwrap_or_default().into_iter().collect();
    files.sort();
    match files.iter().find(|(name, _)| name.contains(['/', '\0']) || matches!(name.as_str(), "" | "." | "..")) {
        Some((name, _)) => {
            Err(Error::spec(format!("linux.resources.unified.{name}"), "is no name of a file of the cgroup"))
        }
        None => Ok(files),
    }
}

/// The cgroup's path below each hierarchy. One that is relative is below the root, as every runtime takes it.
pub(super) fn path(given: Option<&Path>, id: &str, settings: Settings) -> Result<PathBuf, Error> {
    let field = "linux.cgroupsPath";
    let text = given.map(|given| given.to_str().ok_or_else(|| Error::spec(field, "is not text"))).transpose()?;
    // Of a slice's name each dash is a folder whose name is all before it: a long one would be very many bytes.
    if text.is_some_and(|text| text.len() > PATH_BYTES_MAX) {
        return Err(Error::spec(field, "is too long"));
    }
    let path = match text {
        None if settings.systemd_cgroup => systemd_path("", "berth", id),
        None => Ok(Path::new("/").join(id)),
        Some(text) if settings.systemd_cgroup => match text.split(':').collect::<Vec<_>>().as_slice() {
            [slice, prefix, name] => systemd_path(slice, prefix, name),
            _ => Err(Error::spec(field, format!("{text:?} is not slice:prefix:name, as systemd's are"))),
        },
        Some(text) => Ok(Path::new("/").join(text)),
    }?;
    let is_part = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.iter().any(|byte| b"\0\n".contains(byte));
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MACHINE_PATH_BYTES_MAX || !bytes[1..].split(|byte| *byte == b'/').all(is_part) {
        let reason = format!("{} is too long, or has empty, `.` or `..` parts", path.display());
        return Err(Error::spec(field, reason));
    }
    Ok(path)
}

/// Where systemd keeps a scope: each dash in a slice's name is a level of folders (systemd.slice(5)).
fn systemd_path(slice: &str, prefix: &str, name: &str) -> Result<PathBuf, Error> {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.contains('/'));
    let stem = stem.ok_or_else(|| Error::spec("linux.cgroupsPath", format!("{slice:?} is no slice")))?;
    let mut path = PathBuf::from("/");
    if stem != "-" {
        let mut above = String::new();
        for part in stem.split('-') {
            if part.is_empty() {
                return Err(Error::spec("linux.cgroupsPath", format!("{slice:?} has an empty part")));
            }
            above.push_str(part);
            path.push(format!("{above}.slice"));
            above.push('-');
        }
    }
    let unit = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    path.push(if unit.ends_with(".slice") { unit } else { format!("{unit}.scope") });
    Ok(path)
}

/// The OCI's limits as the cgroup's.
pub(crate) fn limits(resources: &LinuxResources) -> Result<Limits, Error> {
    let mut limits = Limits::default();
    if let Some(cpu) = resources.cpu() {
        limits.cpu_shares = cpu.shares();
        limits.cpu_quota_us = cpu.quota();
        limits.cpu_period_us = cpu.period();
        limits.cpu_burst_us = cpu.burst();
        limits.cpu_idle = cpu.idle().map(|idle| idle != 0);
        limits.cpu_realtime_runtime_us = cpu.realtime_runtime();
        limits.cpu_realtime_period_us = cpu.realtime_period();
        limits.cpuset_cpus = cpu.cpus().clone().filter(|list| !list.is_empty());
        limits.cpuset_mems = cpu.mems().clone().filter(|list| !list.is_empty());
    }
    if let Some(memory) = resources.memory() {
        limits.memory_bytes = memory.limit();
        limits.memory_swap_bytes = memory.swap();
        limits.memory_reservation_bytes = memory.reservation();
        limits.memory_swappiness = memory.swappiness();
        limits.oom_waits = memory.disable_oom_killer().filter(|&disable| disable);
        limits.memory_tcp_bytes = memory.kernel_tcp();
    }
    limits.pids = resources.pids().as_ref().map(|pids| pids.limit());
    limits.hugepages = hugepages(resources)?;
    if let Some(block) = resources.block_io() {
        limits.block_io = block_io(block);
    }
    if let Some(network) = resources.network() {
        limits.net_class = network.class_id();
        let priorities = network.priorities().iter().flatten();
        limits.net_priorities = priorities.map(|it| (it.name().clone(), it.priority())).collect();
    }
    let rdma = resources.rdma().iter().flatten();
    limits.rdma = rdma.map(|(name, it)| (name.clone(), it.hca_handles(), it.hca_objects())).collect();
    limits.rdma.sort();
    Ok(limits)
}

fn hugepages(resources: &LinuxResources) -> Result<Vec<HugepageLimit>, Error> {
    let mut limits = Vec::new();
    for (number, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{number}]");
        let size = limit.page_size();
        if !size.chars().all(|c| c.is_ascii_alphanumeric()) || size.is_empty() {
            return Err(Error::spec(format!("{field}.pageSize"), format!("{size:?} is no size")));
        }
        let bytes = u64::try_from(limit.limit())
            .map_err(|_| Error::spec(format!("{field}.limit"), format!("{} is negative", limit.limit())))?;
        limits.push(HugepageLimit { size: size.clone(), bytes });
    }
    Ok(limits)
}

fn block_io(block: &LinuxBlockIo) -> BlockIo {
    let weights = block.weight_device().iter().flatten();
    let of = |weight: fn(&LinuxWeightDevice) -> Option<u16>| {
        let device = |it: &LinuxWeightDevice| Some((Device(it.major(), it.minor()), weight(it)?));
        weights.clone().filter_map(device).collect()
    };
    let rates = |list: &Option<Vec<LinuxThrottleDevice>>| {
        list.iter().flatten().map(|it| (Device(it.major(), it.minor()), it.rate())).collect()
    };
    BlockIo {
        weight: block.weight(),
        leaf_weight: block.leaf_weight(),
        device_weights: of(|it| it.weight()),
        device_leaf_weights: of(|it| it.leaf_weight()),
        read_bytes: rates(block.throttle_read_bps_device()),
        write_bytes: rates(block.throttle_write_bps_device()),
        reads: rates(block.throttle_read_iops_device()),
        writes: rates(block.throttle_write_iops_device()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_folders_in_folders() {
        let check = |given: &str, expected: Option<&str>| {
            let path = path(Some(Path::new(given)), "id", Settings { systemd_cgroup: true });
            assert_eq!(path.ok().as_deref(), expected.map(Path::new), "{given}");
        };
        check("system.slice:runc:a", Some("/system.slice/runc-a.scope"));
        check("kubepods-burstable.slice:berth:a", Some("/kubepods.slice/kubepods-burstable.slice/berth-a.scope"));
        check("-.slice::a.slice", Some("/a.slice"));
        check(":p:a", Some("/system.slice/p-a.scope"));
        for bad in ["", "/a", "a:b", "x:y:z", "a--b.slice:y:z", "a/b.slice:y:z"] {
            check(bad, None);
        }
    }
}
