//! Routes of the main table.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::addr::{family, ip, octets};
use super::message::{Messages, attribute, u32_at};
use super::{Changes, Error, Route};

/// Length of the fixed part of a route message (`rtmsg`).
const FIXED_LEN: usize = 12;
/// `RTNH_F_ONLINK`
const ONLINK: u32 = 4;

/// A way to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Way {
    /// Where to; prefix length 0 is the default route.
    pub to: IpNetwork,
    /// The next router; `None` if the network is on the link itself.
    pub via: Option<IpAddr>,
    /// The link that it leaves through.
    pub link: u32,
}

/// A way, and what else its owner has told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owned {
    /// Where to, and how.
    pub way: Way,
    /// Who made it (`rtm_protocol`): 4 is a person with ip(8), numbers from 4 on are for user space to agree on.
    pub protocol: u8,
    /// The address that this machine itself speaks with, if not the kernel's choice.
    pub source: Option<IpAddr>,
    /// Whether the next router counts as reachable on the link, whatever the link's addresses say.
    pub onlink: bool,
}

impl Changes {
    /// Adds a route, or replaces the one to the same network.
    pub fn add_route(&mut self, way: &Way) {
        let route = Owned { way: *way, protocol: libc::RTPROT_STATIC, source: None, onlink: false };
        self.new_route(libc::NLM_F_REPLACE, &route);
    }

    /// Adds a route with an owner; refused with `EEXIST` if there is one to the same network, whoever's that is.
    pub fn add_owned_route(&mut self, route: &Owned) {
        self.new_route(libc::NLM_F_EXCL, route);
    }

    fn new_route(&mut self, flag: i32, route: &Owned) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | flag;
        self.route(format!("add route to {}", route.way.to), libc::RTM_NEWROUTE, flags, route);
    }

    /// Deletes a route.
    pub fn delete_route(&mut self, way: &Way) {
        self.delete_owned_route(&Owned { way: *way, protocol: libc::RTPROT_STATIC, source: None, onlink: false });
    }

    /// As [`Self::delete_route`]; one of another owner stays.
    pub fn delete_owned_route(&mut self, route: &Owned) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.route(format!("delete route to {}", route.way.to), libc::RTM_DELROUTE, flags, route);
    }

    fn route(&mut self, what: String, kind: u16, flags: i32, route: &Owned) {
        let way = &route.way;
        let to = way.to.network();
        let scope = if way.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        self.messages.push(what, kind, flags, |message| {
            let mut fixed = [0; FIXED_LEN];
            fixed[0] = family(&to);
            fixed[1] = way.to.prefix();
            fixed[4] = libc::RT_TABLE_MAIN;
            fixed[5] = route.protocol;
            fixed[6] = scope;
            fixed[7] = libc::RTN_UNICAST;
            let onlink = if route.onlink { ONLINK } else { 0 };
            fixed[8..12].copy_from_slice(&onlink.to_ne_bytes());
            message.fixed(&fixed);
            if let Some(source) = &route.source {
                message.put(libc::RTA_PREFSRC, &octets(source));
            }
            if way.to.prefix() > 0 {
                message.put(libc::RTA_DST, &octets(&to));
            }
            if let Some(via) = &way.via {
                message.put(libc::RTA_GATEWAY, &octets(via));
            }
            message.put_u32(libc::RTA_OIF, way.link);
        });
    }
}

impl Route {
    /// The unicast routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Way>, Error> {
        Ok(self.owned_routes()?.into_iter().map(|route| route.way).collect())
    }

    /// The unicast routes of the main table, with their owners.
    pub fn owned_routes(&mut self) -> Result<Vec<Owned>, Error> {
        let mut routes = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut request = Messages::new();
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            request.push("read the routes", libc::RTM_GETROUTE, flags, |message| {
                let mut fixed = [0; FIXED_LEN];
                fixed[0] = family as u8;
                message.fixed(&fixed);
            });
            routes.extend(self.socket.dump(&mut request, |message| parse(message.body))?);
        }
        Ok(routes)
    }
}

fn parse(body: &[u8]) -> Option<Owned> {
    let attributes = body.get(FIXED_LEN..)?;
    if body[4] != libc::RT_TABLE_MAIN || body[7] != libc::RTN_UNICAST {
        return None;
    }
    let unspecified: IpAddr = match i32::from(body[0]) {
        libc::AF_INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let to = match attribute(attributes, libc::RTA_DST) {
        Some(value) => ip(value)?,
        None => unspecified,
    };
    let way = Way {
        to: IpNetwork::new(to, body[1]).ok()?,
        via: attribute(attributes, libc::RTA_GATEWAY).and_then(ip),
        link: attribute(attributes, libc::RTA_OIF).and_then(|value| u32_at(value, 0))?,
    };
    let source = attribute(attributes, libc::RTA_PREFSRC).and_then(ip);
    Some(Owned { way, protocol: body[5], source, onlink: u32_at(body, 8)? & ONLINK != 0 })
}
