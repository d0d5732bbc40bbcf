//! What a `bridge` configuration says, checked.

use berth_sys::netlink::link::NAME_BYTES_MAX;
use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::Error;
use crate::builtin::ipam::{Ipam, dns};
use crate::host::Host;
use crate::limits::RANGES_MAX;
use crate::site::Site;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;

/// The reference plugin's name for a bridge that has none.
const BRIDGE_DEFAULT: &str = "cni0";
/// What the kernel allows for a veth.
const MTU_MAX: u32 = 65535;
const MTU_MIN: u32 = 68;
/// The smallest MTU over which IPv6 can be spoken (RFC 8200).
const MTU_MIN_V6: u32 = 1280;
/// Options of the reference plugin that change what a network does and that are not built in.
const NOT_BUILT_IN: &[&str] = &["vlan", "vlanTrunk", "disableContainerInterface"];

/// A bridge and how pods are attached to it.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    /// The link's name.
    pub(crate) name: String,
    /// Whether the bridge has the gateways' addresses.
    pub(super) is_gateway: bool,
    /// Whether the pods' default routes lead there.
    pub(super) is_default_gateway: bool,
    pub(super) masquerade: bool,
    /// Where pods are seen as themselves though they are masqueraded elsewhere: other nodes' pods.
    pub(super) inside: Vec<IpNetwork>,
    pub(super) hairpin: bool,
    /// Whether pods reach the host and the outside, but not each other.
    pub(super) isolated: bool,
    /// Whether the bridge takes in what is for others: another way to hairpin.
    pub(super) promiscuous: bool,
    /// Whether the bridge's addresses make room for the gateways.
    pub(super) forces_address: bool,
    /// Whether addresses of version 6 wait until it is known that nobody else has them.
    pub(super) probes: bool,
    /// Whether frames from a pod must have the pod's own hardware address.
    pub(super) checks_source: bool,
    pub(super) mtu: Option<u32>,
    pub(crate) ipam: Ipam,
    /// Name servers, if the plugin object tells them.
    pub(super) dns: Map<String, Value>,
    /// The whole plugin object.
    pub(crate) object: Map<String, Value>,
}

impl Bridge {
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self, Error> {
        if let Some(option) = NOT_BUILT_IN.iter().find(|option| fields.map().get(**option).is_some_and(is_on)) {
            return Err(fields.error(option, "is not supported by the built-in bridge"));
        }
        // Both words mean the same packets; they are always translated by nftables.
        if let Some(other) = fields.text("ipMasqBackend")?.filter(|word| !matches!(*word, "iptables" | "nftables")) {
            return Err(fields.error("ipMasqBackend", format!("{other:?} is not known; use \"nftables\"")));
        }
        let (hairpin, promiscuous) = (fields.flag("hairpinMode")?, fields.flag("promiscMode")?);
        if hairpin && promiscuous {
            return Err(fields.error("promiscMode", "cannot be set together with hairpinMode"));
        }
        let ipam = Ipam::parse(fields)?;
        let is_default_gateway = fields.flag("isDefaultGateway")?;
        Ok(Self {
            name: name(fields)?,
            is_gateway: fields.flag("isGateway")? || is_default_gateway,
            is_default_gateway,
            masquerade: fields.flag("ipMasq")?,
            inside: inside(fields)?,
            hairpin,
            isolated: fields.flag("portIsolation")?,
            promiscuous,
            forces_address: fields.flag("forceAddress")?,
            probes: fields.flag("enabledad")?,
            checks_source: fields.flag("macspoofchk")?,
            mtu: mtu(fields, &ipam)?,
            ipam,
            dns: dns::parse(fields)?,
            object: fields.map().clone(),
        })
    }

    /// The subnets that are masqueraded: all of the configuration, or those that addresses were given of.
    pub(super) fn subnets(&self, site: Site<'_>, result: &AddResult) -> Result<Vec<IpNetwork>, Error> {
        let subnets = self.ipam.subnets();
        if subnets.is_empty() { Host::new(site).learn(&result.subnets()) } else { Ok(subnets) }
    }

    /// The addresses that the bridge has.
    pub(super) fn gateways(&self, result: &AddResult) -> Vec<IpNetwork> {
        if !self.is_gateway {
            return Vec::new();
        }
        let gateways = result.ips.iter().filter_map(|ip| IpNetwork::new(ip.gateway?, ip.address.prefix()).ok());
        gateways.collect()
    }
}

fn name(fields: &Fields<'_>) -> Result<String, Error> {
    let name = fields.text("bridge")?.unwrap_or(BRIDGE_DEFAULT);
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.len() > NAME_BYTES_MAX || name.contains(forbidden) || name == "." || name == ".." {
        let problem =
            format!("{name:?} is no name for a link: at most {NAME_BYTES_MAX} bytes without '/', ':', spaces");
        return Err(fields.error("bridge", problem));
    }
    Ok(name.to_owned())
}

fn mtu(fields: &Fields<'_>, ipam: &Ipam) -> Result<Option<u32>, Error> {
    let v6 = ipam.subnets().iter().any(IpNetwork::is_ipv6);
    let least = if v6 { MTU_MIN_V6 } else { MTU_MIN };
    match fields.number("mtu")? {
        None | Some(0) => Ok(None),
        Some(mtu) if (least..=MTU_MAX).contains(&mtu) => Ok(Some(mtu)),
        Some(mtu) => Err(fields.error("mtu", format!("{mtu} is not between {least} and {MTU_MAX}"))),
    }
}

/// `nonMasqueradeCIDRs`, as ip-masq-agent calls it; the reference plugin has nothing like it.
fn inside(fields: &Fields<'_>) -> Result<Vec<IpNetwork>, Error> {
    let list = fields.list("nonMasqueradeCIDRs", RANGES_MAX)?;
    let parse = |(field, value): (String, &Value)| {
        let parsed = value.as_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| Error::Config { field, problem: format!("{value} is no network such as \"10.0.0.0/8\"") })
    };
    list.into_iter().map(parse).collect()
}

/// Whether an option asks for something.
fn is_on(value: &Value) -> bool {
    !(value.is_null() || *value == false || *value == 0 || value.as_array().is_some_and(Vec::is_empty))
}
