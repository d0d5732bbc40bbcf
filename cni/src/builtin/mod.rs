//! The plugins of a list: those that are built in, by their type, and all others, which are programs.
//!
//! | type | what it does |
//! |---|---|
//! | [`bridge`] | interface, address, routes, masquerade ([`masquerade`]) |
//! | [`ipam`] | addresses, for `bridge` |
//! | [`portmap`] | ports of the host that lead to the pod |
//! | [`firewall`] | pods let through where others drop; who may begin to talk to them |
//! | [`bandwidth`] | how fast the pod may receive and send |
//! | [`loopback`] | `lo` |
//!
//! What several of them are made of: [`own_table`], one nft table that is ours alone.

pub(crate) mod bandwidth;
pub(crate) mod bridge;
pub(crate) mod firewall;
pub(crate) mod ipam;
pub(crate) mod loopback;
pub(crate) mod masquerade;
pub(crate) mod own_table;
pub(crate) mod portmap;
pub(crate) mod wishes;

use bandwidth::Bandwidth;
use bridge::Bridge;
use firewall::Firewall;
use ipam::Ipam;
use ipnetwork::IpNetwork;
use portmap::Portmap;
use serde_json::{Map, Value};
use wishes::Wishes;

use crate::Error;
use crate::call::Call;
use crate::foreign::Foreign;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;

/// A plugin and its configuration.
#[derive(Debug, Clone)]
pub(crate) enum Plugin {
    Bridge(Box<Bridge>),
    Loopback,
    Portmap(Portmap),
    Bandwidth(Bandwidth),
    Firewall(Firewall),
    /// Addresses alone, and the object of the plugin that they are for: no list has it, but a plugin's program can be it.
    Ipam(Ipam, Map<String, Value>),
    Foreign(Foreign),
}

impl Plugin {
    /// Parses one plugin object. `before` are those that stand before it in the list.
    pub(crate) fn parse(fields: &Fields<'_>, before: &[Plugin]) -> Result<Self, Error> {
        match fields.required("type")? {
            "bridge" => Ok(Self::Bridge(Box::new(Bridge::parse(fields)?))),
            "loopback" => Ok(Self::Loopback),
            "portmap" => {
                let (bridge, subnets) = Self::bridge_among(before);
                Ok(Self::Portmap(Portmap::parse(fields, bridge, subnets)?))
            }
            "firewall" => {
                let (bridge, subnets) = Self::bridge_among(before);
                Ok(Self::Firewall(Firewall::parse(fields, bridge, subnets)?))
            }
            "bandwidth" => Ok(Self::Bandwidth(Bandwidth::parse(fields)?)),
            _ => Self::foreign(fields, before),
        }
    }

    /// The name of the built-in bridge among plugins, and the subnets that it gives addresses of.
    fn bridge_among(plugins: &[Plugin]) -> (Option<String>, Vec<IpNetwork>) {
        let bridge = plugins.iter().find_map(|plugin| match plugin {
            Self::Bridge(bridge) => Some(bridge),
            _ => None,
        });
        bridge.map(|bridge| (Some(bridge.name.clone()), bridge.ipam.subnets())).unwrap_or_default()
    }

    /// Parses one plugin object as that of a program.
    pub(crate) fn foreign(fields: &Fields<'_>, _: &[Plugin]) -> Result<Self, Error> {
        Ok(Self::Foreign(Foreign::parse(fields.required("type")?, &fields.path("type"), fields)?))
    }

    /// Refuses what an attachment wants if that makes no sense, before anything is made. `result` stands for what ADD will
    /// give.
    pub(crate) fn understands(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        match self {
            Self::Bridge(bridge) => Wishes::of(&bridge.object, call).map(drop),
            Self::Ipam(_, object) => Wishes::of(object, call).map(drop),
            Self::Portmap(portmap) => portmap.elements(call.attachment, result).map(drop),
            Self::Bandwidth(bandwidth) => bandwidth.limits(call).map(drop),
            Self::Loopback | Self::Firewall(_) | Self::Foreign(_) => Ok(()),
        }
    }
}
