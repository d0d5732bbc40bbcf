//! Limits, and which devices may be touched.

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder,
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

/// Nothing but what the runtime opens for every container: making nodes, the default devices, terminals (OCI runtime spec,
/// config-linux.md#default-devices).
fn device_rules(privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    Ok(vec![LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm").build()?])
}
