//! Device nodes, and which devices may be used (runtime spec, config-linux.md#devices and #default-devices).

use std::path::{Path, PathBuf};

use berth_sys::cgroup::device::{Access, Kind, Policy, Rule};
use nix::sys::stat::{Mode, SFlag, makedev};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};

use super::mounts::Mounts;
use super::{Device, Step, Target};
use crate::error::Error;
use crate::spec;

/// What every container has: name below `/dev` and minor number; the major one.
const DEFAULT: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links that every container has below `/dev`.
const LINKS: [(&str, &std::ffi::CStr); 5] = [
    ("fd", c"/proc/self/fd"),
    ("stdin", c"/proc/self/fd/0"),
    ("stdout", c"/proc/self/fd/1"),
    ("stderr", c"/proc/self/fd/2"),
    ("core", c"/proc/kcore"),
];

/// Every mode bit but the kind.
const MODE: u32 = 0o7777;

pub(super) fn plan(spec: &Spec, linux: &Linux, into: &mut Mounts<'_>) -> Result<(), Error> {
    let dev = Path::new("/dev");
    let mounts = || spec.mounts().iter().flatten();
    let is_bind = |options: &Option<Vec<String>>| options.iter().flatten().any(|it| it == "bind" || it == "rbind");
    if mounts().any(|mount| mount.destination() == dev && is_bind(mount.options())) {
        // The machine's own devices: they are there, and not ours to change.
        return Ok(());
    }
    let named: Vec<&LinuxDevice> = linux.devices().iter().flatten().collect();
    for (name, major, minor) in DEFAULT {
        let path = dev.join(name);
        if named.iter().any(|device| *device.path() == path) {
            // As the configuration says.
        } else if into.has_users() {
            into.bind_device(&path, path.clone())?;
        } else {
            let node = node(path, SFlag::S_IFCHR, makedev(major, minor), 0o666, (0, 0));
            into.step(Step::Device(Box::new(node)));
        }
    }
    for (device, node) in named.into_iter().zip(nodes(linux)?) {
        if into.has_users() {
            into.bind_device(device.path(), node.target.path)?;
        } else {
            into.step(Step::Device(Box::new(node)));
        }
    }
    let has_pts = mounts().any(|mount| mount.destination() == Path::new("/dev/pts"));
    let ptmx = has_pts.then_some(("ptmx", c"pts/ptmx"));
    for (name, to) in LINKS.into_iter().chain(ptmx) {
        into.step(Step::Link { at: Target::new(dev.join(name), false), to: to.to_owned() });
    }
    Ok(())
}

/// The nodes that the specification names, in its order.
pub(super) fn nodes(linux: &Linux) -> Result<Vec<Device>, Error> {
    let named = linux.devices().iter().flatten().enumerate();
    named.map(|(number, device)| named_node(device, &format!("linux.devices[{number}]"))).collect()
}

fn named_node(device: &LinuxDevice, field: &str) -> Result<Device, Error> {
    let path = spec::inside(device.path(), || format!("{field}.path"))?;
    let kind = match device.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => return Err(Error::spec(format!("{field}.type"), "is no kind of device")),
    };
    let number = |number: i64, name: &str| {
        u32::try_from(number)
            .map_err(|_| Error::spec(format!("{field}.{name}"), format!("{number} is no device number")))
    };
    let id = makedev(number(device.major(), "major")?.into(), number(device.minor(), "minor")?.into());
    let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    Ok(node(path, kind, id, device.file_mode().unwrap_or(0o666), owner))
}

fn node(path: PathBuf, kind: SFlag, number: u64, mode: u32, owner: (u32, u32)) -> Device {
    let mode = Mode::from_bits_truncate(mode & MODE);
    Device { target: Target::new(path, false), kind, number, mode, owner }
}

/// Which devices a container may use: what its rules say, and always making nodes, the default devices and terminals.
pub(crate) fn policy(rules: &[LinuxDeviceCgroup]) -> Result<Policy, Error> {
    let mut all = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        all.push(parse(rule, &format!("linux.resources.devices[{number}]"))?);
    }
    let allow = |kind, major, minor, access| Rule { allow: true, kind: Some(kind), major, minor, access };
    let make = Access::parse("m").unwrap_or(Access::ALL);
    all.extend([Kind::Char, Kind::Block].map(|kind| allow(kind, None, None, make)));
    all.extend(DEFAULT.map(|(_, major, minor)| allow(Kind::Char, Some(major as u32), Some(minor as u32), Access::ALL)));
    // Pseudo-terminals and their multiplexer.
    all.push(allow(Kind::Char, Some(136), None, Access::ALL));
    all.push(allow(Kind::Char, Some(5), Some(2), Access::ALL));
    Policy::new(all).map_err(|number| {
        let field = format!("linux.resources.devices[{number}]");
        Error::spec(field, "takes a device out of a wider rule before it, which no kernel can be told")
    })
}

fn parse(rule: &LinuxDeviceCgroup, field: &str) -> Result<Rule, Error> {
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Char),
        LinuxDeviceType::P => return Err(Error::spec(format!("{field}.type"), "a pipe needs no rule")),
    };
    // Negative numbers stand for any, as absent ones do.
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let letters = rule.access().as_deref().filter(|letters| !letters.is_empty()).unwrap_or("rwm");
    let access = Access::parse(letters)
        .ok_or_else(|| Error::spec(format!("{field}.access"), format!("{letters:?} has other letters than r, w, m")))?;
    Ok(Rule { allow: rule.allow(), kind, major: number(rule.major()), minor: number(rule.minor()), access })
}
