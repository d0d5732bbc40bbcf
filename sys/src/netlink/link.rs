//! Links: bridges, veth pairs, and what the kernel tells about a link.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::addr::{ip, octets};
use super::message::{Attributes, Messages, attribute, text, u32_at};
use super::{Changes, Error, Route};

/// Longest name of a link, without the zero byte (`IFNAMSIZ` - 1).
pub const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

/// Attributes that the C library's header does not name (`linux/if_link.h`, `linux/veth.h`).
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const BRIDGE_PORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const VXLAN_ID: u16 = 1;
const VXLAN_LINK: u16 = 3;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;

/// Length of the fixed part of a link message (`ifinfomsg`).
const FIXED_LEN: usize = 16;

const NEW: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const CHANGE: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A link as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`; empty for hardware and the loopback.
    pub kind: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether somebody has set it up.
    pub up: bool,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// If it is a vxlan, which.
    pub tunnel: Option<Tunnel>,
    /// The number of the other end of a veth pair, in the other end's network namespace.
    pub peer: Option<u32>,
    /// That namespace, if it is another one, by its number in this one ([`Route::netns_number`]).
    pub peer_netns: Option<u32>,
    /// Whether, as a port of a bridge, it gets back what it sent itself.
    pub hairpin: bool,
    /// Whether, as a port of a bridge, it reaches only ports that are not like this.
    pub isolated: bool,
    /// Whether somebody has it take in what is for others.
    pub promiscuous: bool,
    /// The group that its maker has put it into; 0 is everybody's.
    pub group: u32,
}

/// A bridge to make.
#[derive(Debug, Clone, Copy)]
pub struct NewBridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address: set, so that it does not change with the ports.
    pub mac: Option<Mac>,
    /// Its MTU, or the kernel's default.
    pub mtu: Option<u32>,
}

/// A vxlan to make (RFC 7348).
#[derive(Debug, Clone, Copy)]
pub struct NewVxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u32,
    /// What it is.
    pub tunnel: Tunnel,
}

/// What makes a vxlan this one and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Its network's number.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// This machine's address.
    pub local: IpAddr,
    /// The link that has it.
    pub link: u32,
}

/// A veth pair to make: one end here, as a port of a bridge and up; the other made straight in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct NewVeth<'a> {
    /// Name of the end that stays here.
    pub name: &'a str,
    /// Its hardware address, or one that the kernel picks.
    pub mac: Option<Mac>,
    /// The group that it is put into.
    pub group: u32,
    /// The bridge that it becomes a port of.
    pub master: Option<u32>,
    /// MTU of both ends, or the kernel's default.
    pub mtu: Option<u32>,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Hardware address of the other end, or one that the kernel picks.
    pub peer_mac: Option<Mac>,
    /// The network namespace of the other end.
    pub peer_netns: BorrowedFd<'a>,
}

impl Changes {
    /// Makes a bridge and sets it up; refused with `EEXIST` if the name is taken.
    pub fn create_bridge(&mut self, bridge: &NewBridge<'_>) {
        self.messages.push(format!("create bridge {}", bridge.name), libc::RTM_NEWLINK, NEW, |message| {
            message.fixed(&fixed(0, libc::IFF_UP as u32));
            names(message, bridge.name, bridge.mac, bridge.mtu);
            message.nest(libc::IFLA_LINKINFO, |info| info.put_str(libc::IFLA_INFO_KIND, "bridge"));
        });
    }

    /// Makes a vxlan that learns nothing, with only what its table of forwarding says, and sets it up; refused with `EEXIST` if
    /// the name is taken or another vxlan has the same number and port.
    pub fn create_vxlan(&mut self, vxlan: &NewVxlan<'_>) {
        self.messages.push(format!("create vxlan {}", vxlan.name), libc::RTM_NEWLINK, NEW, |message| {
            message.fixed(&fixed(0, libc::IFF_UP as u32));
            names(message, vxlan.name, Some(vxlan.mac), Some(vxlan.mtu));
            message.nest(libc::IFLA_LINKINFO, |info| {
                info.put_str(libc::IFLA_INFO_KIND, "vxlan");
                info.nest(libc::IFLA_INFO_DATA, |data| {
                    data.put_u32(VXLAN_ID, vxlan.tunnel.vni);
                    data.put_u32(VXLAN_LINK, vxlan.tunnel.link);
                    let local = if vxlan.tunnel.local.is_ipv4() { VXLAN_LOCAL } else { VXLAN_LOCAL6 };
                    data.put(local, &octets(&vxlan.tunnel.local));
                    data.put(VXLAN_LEARNING, &[0]);
                    data.put(VXLAN_PORT, &vxlan.tunnel.port.to_be_bytes());
                });
            });
        });
    }

    /// Makes an ifb, by which others redirect what they receive, and sets it up; refused with `EEXIST` if the name is taken.
    pub fn create_ifb(&mut self, name: &str, mtu: u32) {
        self.messages.push(format!("create ifb {name}"), libc::RTM_NEWLINK, NEW, |message| {
            message.fixed(&fixed(0, libc::IFF_UP as u32));
            names(message, name, None, Some(mtu));
            message.nest(libc::IFLA_LINKINFO, |info| info.put_str(libc::IFLA_INFO_KIND, "ifb"));
        });
    }

    /// Makes a veth pair; refused with `EEXIST` if a name is taken. The end in the other namespace stays down: the
    /// kernel cannot set it up before the pair is complete.
    pub fn create_veth(&mut self, veth: &NewVeth<'_>) {
        self.messages.push(format!("create veth {}", veth.name), libc::RTM_NEWLINK, NEW, |message| {
            message.fixed(&fixed(0, libc::IFF_UP as u32));
            names(message, veth.name, veth.mac, veth.mtu);
            message.put_u32(libc::IFLA_GROUP, veth.group);
            if let Some(master) = veth.master {
                message.put_u32(libc::IFLA_MASTER, master);
            }
            message.nest(libc::IFLA_LINKINFO, |info| {
                info.put_str(libc::IFLA_INFO_KIND, "veth");
                info.nest(libc::IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        peer.fixed(&fixed(0, 0));
                        names(peer, veth.peer_name, veth.peer_mac, veth.mtu);
                        peer.put_u32(libc::IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd() as u32);
                    });
                });
            });
        });
    }

    /// Lets a port of a bridge get back what it sent itself: a pod that reaches itself through a translated address.
    pub fn hairpin(&mut self, port: &str) {
        self.set_of_port(format!("set hairpin mode of {port}"), port, BRIDGE_PORT_HAIRPIN);
    }

    /// Lets a port of a bridge reach only those ports that are not isolated, and the machine itself.
    pub fn isolate(&mut self, port: &str) {
        self.set_of_port(format!("isolate {port}"), port, BRIDGE_PORT_ISOLATED);
    }

    fn set_of_port(&mut self, what: String, port: &str, setting: u16) {
        self.messages.push(what, libc::RTM_NEWLINK, CHANGE, |message| {
            message.fixed(&fixed(0, 0));
            message.put_str(libc::IFLA_IFNAME, port);
            message.nest(libc::IFLA_LINKINFO, |info| {
                info.put_str(INFO_SLAVE_KIND, "bridge");
                info.nest(INFO_SLAVE_DATA, |data| data.put(setting, &[1]));
            });
        });
    }

    /// Makes a link a port of a bridge.
    pub fn set_master(&mut self, index: u32, bridge: u32) {
        self.messages.push(format!("make link {index} a port of {bridge}"), libc::RTM_NEWLINK, CHANGE, |message| {
            message.fixed(&fixed(index, 0));
            message.put_u32(libc::IFLA_MASTER, bridge);
        });
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) {
        self.messages.push(format!("set link {index} up"), libc::RTM_NEWLINK, CHANGE, |message| {
            message.fixed(&fixed(index, libc::IFF_UP as u32));
        });
    }

    /// Lets a link take in what is for others too.
    pub fn set_promiscuous(&mut self, index: u32) {
        self.messages.push(format!("set link {index} promiscuous"), libc::RTM_NEWLINK, CHANGE, |message| {
            message.fixed(&fixed(index, libc::IFF_PROMISC as u32));
        });
    }

    /// Moves a link into another network namespace, under a name that is free there. It arrives down and without
    /// addresses.
    pub fn move_link(&mut self, index: u32, name: &str, netns: BorrowedFd<'_>) {
        self.messages.push(format!("move link {index} as {name}"), libc::RTM_NEWLINK, CHANGE, |message| {
            message.fixed(&fixed(index, 0));
            message.put_str(libc::IFLA_IFNAME, name);
            message.put_u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
        });
    }

    /// Deletes a link; the other end of a veth pair goes with it. The kernel takes tens of milliseconds for this.
    pub fn delete_link(&mut self, name: &str) {
        self.messages.push(format!("delete link {name}"), libc::RTM_DELLINK, CHANGE, |message| {
            message.fixed(&fixed(0, 0));
            message.put_str(libc::IFLA_IFNAME, name);
        });
    }
}

impl Route {
    /// The link of this name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Ok(None);
        }
        self.one(format!("read link {name}"), |message| {
            message.fixed(&fixed(0, 0));
            message.put_str(libc::IFLA_IFNAME, name);
        })
    }

    /// The link of this number, if there is one.
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.one(format!("read link {index}"), |message| message.fixed(&fixed(index, 0)))
    }

    fn one(&mut self, what: String, build: impl FnOnce(&mut Attributes<'_>)) -> Result<Option<Link>, Error> {
        let mut request = Messages::new();
        request.push(what, libc::RTM_GETLINK, CHANGE, build);
        let mut found = None;
        match self.socket.answers(&mut request, |message| found = parse(message.body)) {
            Err(error) if error.errno() == Some(nix::errno::Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// The links of a kind, such as `ifb`.
    pub fn links_of(&mut self, kind: &str) -> Result<Vec<Link>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request.push(format!("read the links of kind {kind}"), libc::RTM_GETLINK, flags, |message| {
            message.fixed(&fixed(0, 0));
            message.nest(libc::IFLA_LINKINFO, |info| info.put_str(libc::IFLA_INFO_KIND, kind));
        });
        self.socket.dump(&mut request, |message| parse(message.body).filter(|link| link.kind == kind))
    }

    /// The ports of a bridge.
    pub fn ports(&mut self, bridge: u32) -> Result<Vec<Link>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request.push("read the ports of a bridge", libc::RTM_GETLINK, flags, |message| {
            message.fixed(&fixed(0, 0));
            message.put_u32(libc::IFLA_MASTER, bridge);
        });
        self.socket.dump(&mut request, |message| parse(message.body).filter(|link| link.master == Some(bridge)))
    }
}

fn fixed(index: u32, flags: u32) -> [u8; FIXED_LEN] {
    let mut bytes = [0; FIXED_LEN];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn names(message: &mut Attributes<'_>, name: &str, mac: Option<Mac>, mtu: Option<u32>) {
    message.put_str(libc::IFLA_IFNAME, name);
    if let Some(mac) = mac {
        message.put(libc::IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = mtu {
        message.put_u32(libc::IFLA_MTU, mtu);
    }
}

fn parse(body: &[u8]) -> Option<Link> {
    let attributes = body.get(FIXED_LEN..)?;
    let number = |kind| attribute(attributes, kind).and_then(|value| u32_at(value, 0));
    let info = attribute(attributes, libc::IFLA_LINKINFO);
    let of_port = |setting| {
        let value = info.and_then(|info| attribute(attribute(info, INFO_SLAVE_DATA)?, setting));
        value.is_some_and(|value| value == [1])
    };
    let flags = u32_at(body, 8)?;
    Some(Link {
        index: u32_at(body, 4)?,
        name: attribute(attributes, libc::IFLA_IFNAME).map(text)?,
        kind: info.and_then(|info| attribute(info, libc::IFLA_INFO_KIND)).map(text).unwrap_or_default(),
        mac: attribute(attributes, libc::IFLA_ADDRESS).and_then(|value| value.try_into().ok()).map(Mac),
        mtu: number(libc::IFLA_MTU).unwrap_or(0),
        up: flags & libc::IFF_UP as u32 != 0,
        master: number(libc::IFLA_MASTER),
        tunnel: info.and_then(|info| tunnel(attribute(info, libc::IFLA_INFO_DATA)?)),
        peer: number(libc::IFLA_LINK),
        peer_netns: number(libc::IFLA_LINK_NETNSID),
        hairpin: of_port(BRIDGE_PORT_HAIRPIN),
        isolated: of_port(BRIDGE_PORT_ISOLATED),
        promiscuous: flags & libc::IFF_PROMISC as u32 != 0,
        group: number(libc::IFLA_GROUP).unwrap_or(0),
    })
}

fn tunnel(data: &[u8]) -> Option<Tunnel> {
    let number = |kind| attribute(data, kind).and_then(|value| u32_at(value, 0));
    let port = attribute(data, VXLAN_PORT)?;
    Some(Tunnel {
        vni: number(VXLAN_ID)?,
        port: u16::from_be_bytes(port.try_into().ok()?),
        local: attribute(data, VXLAN_LOCAL).or_else(|| attribute(data, VXLAN_LOCAL6)).and_then(ip)?,
        link: number(VXLAN_LINK)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_prints_as_people_write_it() {
        assert_eq!(Mac([10, 88, 10, 0, 0, 255]).to_string(), "0a:58:0a:00:00:ff");
    }

    #[test]
    fn half_a_link_is_none() {
        for length in 0..40 {
            assert_eq!(parse(&vec![0; length]), None);
        }
    }
}
