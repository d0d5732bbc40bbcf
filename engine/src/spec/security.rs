//! What a container's process may do: capabilities, hidden and read-only parts of `/proc` and `/sys`, devices.

use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::str::FromStr;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxDevice, LinuxDeviceBuilder,
    LinuxDeviceType,
};

use super::SpecError;
use crate::config::Security;

/// What a container has that asks for nothing: the set that containerd and docker agreed on.
const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Every capability at its bit (`linux/capability.h`).
const BY_BIT: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The capability sets of a container's process. Those that nobody here can give (`bounding`) are left out: a container
/// cannot have more than the machine. Inheritable and ambient stay empty (CVE-2022-29162).
pub(super) fn capabilities(security: &Security, uid: u32, bounding: u64) -> Result<LinuxCapabilities, SpecError> {
    let possible: Capabilities =
        BY_BIT.iter().enumerate().filter(|(bit, _)| bounding >> bit & 1 == 1).map(|(_, &one)| one).collect();
    let wanted = if security.privileged { possible.clone() } else { asked_for(security, &possible)? };
    let bound: Capabilities = wanted.intersection(&possible).copied().collect();
    let held = if uid == 0 { bound.clone() } else { HashSet::new() };
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(bound)
        .permitted(held.clone())
        .effective(held)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?)
}

/// The defaults without what is dropped, with what is added; `ALL` stands for every one, and an added one wins.
fn asked_for(security: &Security, possible: &Capabilities) -> Result<Capabilities, SpecError> {
    let mut set: Capabilities = DEFAULT_CAPABILITIES.into_iter().collect();
    if security.add_capabilities.iter().any(|name| is_all(name)) {
        set = possible.clone();
    }
    if security.drop_capabilities.iter().any(|name| is_all(name)) {
        set.clear();
    }
    for name in security.drop_capabilities.iter().filter(|name| !is_all(name)) {
        set.remove(&parse(name)?);
    }
    for name in security.add_capabilities.iter().filter(|name| !is_all(name)) {
        set.insert(parse(name)?);
    }
    Ok(set)
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all")
}

fn parse(name: &str) -> Result<Capability, SpecError> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    Capability::from_str(plain).map_err(|_| SpecError::Capability { name: name.to_owned() })
}

/// What is hidden: it would tell about, or change, the machine.
pub(super) fn masked_paths() -> Vec<String> {
    [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What can be read only.
pub(super) fn readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).to_vec()
}

/// The machine's device nodes directly below `/dev`, for a privileged container. One that vanishes meanwhile is left
/// out.
pub(super) fn host_devices() -> Vec<LinuxDevice> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    entries.flatten().filter_map(|entry| device(&entry)).collect()
}

fn device(entry: &std::fs::DirEntry) -> Option<LinuxDevice> {
    let metadata = entry.path().symlink_metadata().ok()?;
    let kind = match metadata.file_type() {
        file if file.is_char_device() => LinuxDeviceType::C,
        file if file.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let number = metadata.rdev();
    LinuxDeviceBuilder::default()
        .path(entry.path())
        .typ(kind)
        .major(i64::try_from(nix::sys::stat::major(number)).ok()?)
        .minor(i64::try_from(nix::sys::stat::minor(number)).ok()?)
        .file_mode(metadata.mode() & 0o777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .ok()
}
