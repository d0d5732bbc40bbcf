//! Limits, and which devices may be touched.

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::SpecError;
use crate::config::Resources;

/// The `linux.resources` of a container.
pub(super) fn resources(wanted: &Resources, privileged: bool) -> Result<LinuxResources, SpecError> {
    let mut cpu = LinuxCpuBuilder::default().build()?;
    cpu.set_shares(wanted.cpu_shares);
    cpu.set_quota(wanted.cpu_quota_us);
    cpu.set_period(wanted.cpu_period_us);
    let mut memory = LinuxMemoryBuilder::default().build()?;
    memory.set_limit(wanted.memory_bytes);
    // Memory and swap together may be no more than memory alone: a limit is a limit.
    memory.set_swap(wanted.memory_bytes);
    let mut all =
        LinuxResourcesBuilder::default().cpu(cpu).memory(memory).devices(device_rules(privileged)?).build()?;
    if let Some(limit) = wanted.pids {
        all.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build()?));
    }
    Ok(all)
}

/// Deny everything, let every node be made, and open what every container has (OCI runtime spec, "Default Devices",
/// and its terminals).
fn device_rules(privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    if privileged {
        return Ok(vec![LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build()?]);
    }
    let mut rules = vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?];
    for kind in [LinuxDeviceType::C, LinuxDeviceType::B] {
        rules.push(LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access("m").build()?);
    }
    const OPEN: [(i64, Option<i64>); 8] = [
        (1, Some(3)), // null
        (1, Some(5)), // zero
        (1, Some(7)), // full
        (1, Some(8)), // random
        (1, Some(9)), // urandom
        (5, Some(0)), // tty
        (5, Some(2)), // ptmx
        (136, None),  // pts
    ];
    for (major, minor) in OPEN {
        let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(LinuxDeviceType::C).major(major).access("rwm");
        let rule = if let Some(minor) = minor { rule.minor(minor) } else { rule };
        rules.push(rule.build()?);
    }
    Ok(rules)
}
