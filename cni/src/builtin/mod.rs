//! The plugins of a list: those that are built in, by their type, and all others, which are programs.
//!
//! | type | what it does |
//! |---|---|
//! | [`bridge`] | interface, address, routes, masquerade ([`masquerade`]) |
//! | [`host_local`] | addresses out of ranges ([`range`]), for `bridge` |
//! | [`portmap`] | ports of the host that lead to the pod |
//! | [`loopback`] | `lo` |

pub(crate) mod bridge;
pub(crate) mod firewall;
pub(crate) mod host_local;
pub(crate) mod loopback;
pub(crate) mod masquerade;
pub(crate) mod portmap;
pub(crate) mod range;

use bridge::Bridge;
use portmap::Portmap;

use crate::Error;
use crate::foreign::Foreign;
use crate::spec::fields::Fields;

/// A plugin and its configuration.
#[derive(Debug, Clone)]
pub(crate) enum Plugin {
    Bridge(Box<Bridge>),
    Loopback,
    Portmap(Portmap),
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
                let subnets = bridge.and_then(|bridge| bridge.host_local());
                let subnets = subnets.map(|ipam| ipam.subnets().collect()).unwrap_or_default();
                Ok(Self::Portmap(Portmap::parse(fields, bridge.map(|bridge| bridge.name.clone()), subnets)?))
            }
            kind => Ok(Self::Foreign(Foreign::parse(kind, &fields.path("type"), fields)?)),
        }
    }
}
