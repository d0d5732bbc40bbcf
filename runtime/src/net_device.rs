//! Network devices moved into a container (runtime spec, config-linux.md#netdevices): with their addresses, and up.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use berth_sys::namespace;
use berth_sys::netlink::{Changes, Route};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::error::Error;
use crate::spec;

/// The longest name of a device (`IFNAMSIZ` with its closing zero).
const NAME_BYTES_MAX: usize = 15;

/// Moves every device that the specification names into the network namespace of the container's first process.
pub(crate) fn move_all(spec: &Spec, pid: i32) -> Result<(), Error> {
    let Some(moves) = moves(spec::linux(spec)?)? else { return Ok(()) };
    let path = moves.namespace.cloned().unwrap_or_else(|| format!("/proc/{pid}/ns/net").into());
    let target = File::open(&path).map_err(Error::file("open", &path))?;
    for (name, new_name) in moves.names {
        move_one(name, new_name, &target)
            .map_err(|source| Error::Setup { step: format!("move the network device {name}"), source })?;
    }
    Ok(())
}

/// What is to be moved where.
pub(crate) struct Moves<'a> {
    /// The path of the network namespace; `None` for the container's own.
    namespace: Option<&'a PathBuf>,
    /// The name of each device here and there, in order.
    names: Vec<(&'a str, &'a str)>,
}

/// Reads what the specification says; `None` if it names no devices.
pub(crate) fn moves(linux: &Linux) -> Result<Option<Moves<'_>>, Error> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else { return Ok(None) };
    let own = linux.namespaces().iter().flatten().find(|it| it.typ() == LinuxNamespaceType::Network);
    let own = own.ok_or_else(|| Error::spec("linux.netDevices", "need a network namespace in linux.namespaces"))?;
    let mut names = Vec::new();
    for (name, device) in devices {
        let new_name = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        if let Some(wrong) = [name.as_str(), new_name].into_iter().find(|name| !is_name(name)) {
            let reason = format!("{wrong:?} is no name of a network device");
            return Err(Error::spec(format!("linux.netDevices.{name}"), reason));
        }
        names.push((name.as_str(), new_name));
    }
    names.sort_unstable();
    Ok(Some(Moves { namespace: own.path().as_ref(), names }))
}

/// As the kernel's `dev_valid_name`; and no zero byte, by which its own end.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !"/:\0".contains(c);
    !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain)
}

fn move_one(name: &str, new_name: &str, target: &File) -> std::io::Result<()> {
    fn other(error: impl std::error::Error + Send + Sync + 'static) -> std::io::Error {
        std::io::Error::other(error)
    }
    let mut here = Route::open().map_err(other)?;
    let link = here.link(name).map_err(other)?.ok_or(std::io::ErrorKind::NotFound)?;
    let addresses = here.addresses(link.index).map_err(other)?;
    let mut changes = Changes::new();
    changes.move_link(link.index, new_name, target.as_fd());
    here.apply(changes).map_err(other)?;
    let arrive = || {
        let mut there = Route::open()?;
        let Some(link) = there.link(new_name)? else { return Ok(()) };
        let mut changes = Changes::new();
        addresses.iter().for_each(|address| changes.add_address(link.index, *address));
        changes.set_up(link.index);
        there.apply(changes)
    };
    namespace::in_netns(target, arrive).map_err(other)?.map_err(other)
}
