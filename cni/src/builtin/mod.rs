//! The plugins of a list: those that are built in, by their type, and all others, which are programs.
//!
//! | type | what it does |
//! |---|---|
//! | [`bridge`] | interface, address, routes, masquerade ([`masquerade`]) |
//! | [`ipam`] | addresses, for `bridge` |
//! | [`portmap`] | ports of the host that lead to the pod |
//! | [`bandwidth`] | how fast the pod may receive and send |
//! | [`loopback`] | `lo` |

pub(crate) mod bandwidth;
pub(crate) mod bridge;

pub(crate) mod ipam;
pub(crate) mod loopback;
pub(crate) mod masquerade;
pub(crate) mod own_table;
pub(crate) mod portmap;
pub(crate) mod wishes;

use bandwidth::Bandwidth;
use bridge::Bridge;
use ipam::Ipam;
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
                let bridge = before.iter().find_map(|plugin| match plugin {
                    Self::Bridge(bridge) => Some(bridge),
                    _ => None,
                });
                let subnets = bridge.map(|bridge| bridge.ipam.subnets()).unwrap_or_default();
                Ok(Self::Portmap(Portmap::parse(fields, bridge.map(|bridge| bridge.name.clone()), subnets)?))
            }
            "bandwidth" => Ok(Self::Bandwidth(Bandwidth::parse(fields)?)),
            _ => Self::foreign(fields, before),
        }
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
            Self::Loopback | Self::Foreign(_) => Ok(()),
        }
    }
}
