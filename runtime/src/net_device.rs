//! Network devices moved into a container (runtime spec, config-linux.md#netdevices): with their addresses, and up.

use std::fs::File;
use std::os::fd::AsFd;

use berth_sys::namespace;
use berth_sys::netlink::{Changes, Route};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::Error;
use crate::spec;

/// The longest name of a device (`IFNAMSIZ` with its closing zero).
const NAME_BYTES_MAX: usize = 15;

/// Moves every device that the specification names into the network namespace of the container's first process.
pub(crate) fn move_all(spec: &Spec, pid: i32) -> Result<(), Error> {
    let linux = spec::linux(spec)?;
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else { return Ok(()) };
    let own = linux.namespaces().iter().flatten().find(|it| it.typ() == LinuxNamespaceType::Network);
    let path = match own {
        None => return Err(Error::spec("linux.netDevices", "need a network namespace in linux.namespaces")),
        Some(it) => it.path().clone().unwrap_or_else(|| format!("/proc/{pid}/ns/net").into()),
    };
    let target = File::open(&path).map_err(Error::file("open", &path))?;
    let mut devices: Vec<_> = devices.iter().collect();
    devices.sort_by_key(|(name, _)| name.as_str());
    for (name, device) in devices {
        let field = || format!("linux.netDevices.{name}");
        let new_name = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        for one in [name.as_str(), new_name] {
            let plain = !one.is_empty()
                && one.len() <= NAME_BYTES_MAX
                && !one.contains(['/', ':'])
                && one != "."
                && one != "..";
            if !plain || one.contains(char::is_whitespace) {
                return Err(Error::spec(field(), format!("{one:?} is no name of a network device")));
            }
        }
        move_one(name, new_name, &target)
            .map_err(|source| Error::Setup { step: format!("move the network device {name}"), source })?;
    }
    Ok(())
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
