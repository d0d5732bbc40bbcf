//! `bandwidth`: how fast a pod may receive and send, as Kubernetes' annotations `kubernetes.io/ingress-bandwidth` and
//! `kubernetes.io/egress-bandwidth` want it.
//!
//! ```text
//!   host ── tbf ──▶ veth ──▶ pod          what the pod receives waits on the host's end of its pair
//!   host ◀── tbf ── ifb ◀── veth ◀── pod  what it sends is redirected to an ifb, and waits there
//! ```
//!
//! Both stand outside of the pod, whose root could lift a limit inside. The ifb has a name that follows from the
//! network's and the attachment's, so that DEL and GC find it without being told. To take it apart the kernel waits until
//! no processor uses it, and DEL with it: tens of milliseconds where it is else done in less than one. Moving the ifb into
//! a namespace that ends takes as long. An attachment without a limit costs nothing.

use std::collections::HashSet;

use berth_sys::netlink::link::Link;
use berth_sys::netlink::tc::Rate;
use berth_sys::netlink::{Changes, Route as Netlink};
use nix::errno::Errno;
use serde_json::{Map, Value};

use super::bridge::delete_links;
use crate::Error;
use crate::attachment::{Owner, is_ifb_of};
use crate::call::Call;
use crate::foreign::runtime_config;
use crate::site::Site;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;

/// How long a packet may wait: what fits into no burst and not into this is dropped.
const LATENCY_MS: u64 = 25;
/// A frame is longer than the packet in it: an Ethernet header, and a VLAN's tag.
const FRAME_BYTES: u32 = 18;
/// Options of newer reference plugins that change what is limited.
const NOT_BUILT_IN: &[&str] = &["shapedSubnets", "unshapedSubnets"];

/// What the configuration says; what an attachment wants for itself comes before it.
#[derive(Debug, Clone)]
pub(crate) struct Bandwidth {
    config: Map<String, Value>,
    limits: Limits,
}

/// The limits of one attachment, as seen by the pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    received: Option<Limit>,
    sent: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    bytes_per_second: u64,
    burst_bytes: u32,
}

impl Bandwidth {
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self, Error> {
        Ok(Self { config: fields.map().clone(), limits: Limits::parse(fields)? })
    }

    /// What an attachment is limited to.
    pub(super) fn limits(&self, call: &Call<'_>) -> Result<Limits, Error> {
        match runtime_config(&self.config, &call.attachment.runtime_config).get("bandwidth") {
            None | Some(Value::Null) => Ok(self.limits),
            Some(value) => Limits::parse(&Fields::at("runtimeConfig.bandwidth".to_owned(), value)?),
        }
    }

    pub(crate) fn add(&self, call: &Call<'_>, previous: Option<AddResult>) -> Result<AddResult, Error> {
        let limits = self.limits(call)?;
        if limits != Limits::default() {
            self.limit(call, &limits)?;
        }
        Ok(previous.unwrap_or_default())
    }

    fn limit(&self, call: &Call<'_>, limits: &Limits) -> Result<(), Error> {
        let mut outside = Netlink::open()?;
        let veth = hosts_end(call, &mut outside)?;
        let mut changes = Changes::new();
        if let Some(limit) = limits.received {
            changes.limit_rate(veth.index, &limit.rate(veth.mtu));
        }
        if let Some(limit) = limits.sent {
            let ifb = make_ifb(&mut outside, &call.owner().ifb_name(call.site.network), veth.mtu)?;
            changes.limit_rate(ifb.index, &limit.rate(veth.mtu));
            changes.redirect_received(veth.index, ifb.index);
        }
        Ok(outside.apply(changes)?)
    }

    /// DEL. Only an attachment that is known to have been made completely and without a limit has no ifb for sure.
    pub(crate) fn del(&self, call: &Call<'_>, complete: bool) -> Result<(), Error> {
        if complete && self.limits(call).is_ok_and(|limits| limits.sent.is_none()) {
            return Ok(());
        }
        Ok(delete_links(&mut Netlink::open()?, &[call.owner().ifb_name(call.site.network)])?)
    }

    pub(crate) fn check(&self, call: &Call<'_>) -> Result<(), Error> {
        let limits = self.limits(call)?;
        if limits == Limits::default() {
            return Ok(());
        }
        let mut outside = Netlink::open()?;
        let veth = hosts_end(call, &mut outside)?;
        let mut holds = |link: &Link, limit: &Limit| -> Result<(), Error> {
            let (found, wanted) = (outside.rate(link.index)?, limit.rate(veth.mtu));
            if found.is_some_and(|found| is_same(&found, &wanted)) {
                return Ok(());
            }
            Err(call.mismatch(format!("the rate of {} is not limited as it should be", link.name)))
        };
        if let Some(limit) = &limits.received {
            holds(&veth, limit)?;
        }
        if let Some(limit) = &limits.sent {
            let name = call.owner().ifb_name(call.site.network);
            let ifb = Netlink::open()?.link(&name)?.ok_or_else(|| call.mismatch(format!("{name} is gone")))?;
            holds(&ifb, limit)?;
            if outside.redirection(veth.index)? != Some(ifb.index) {
                return Err(call.mismatch(format!("what it sends does not go by {name}")));
            }
        }
        Ok(())
    }

    /// Deletes the network's ifbs of everybody who is not among the valid.
    pub(crate) fn gc(&self, site: Site<'_>, valid: &HashSet<Owner>) -> Result<(), Error> {
        let mut outside = Netlink::open()?;
        let names: HashSet<String> = valid.iter().map(|owner| owner.ifb_name(site.network)).collect();
        let ours = outside.links_of("ifb")?.into_iter().map(|link| link.name);
        let stale: Vec<_> = ours.filter(|name| is_ifb_of(site.network, name) && !names.contains(name)).collect();
        Ok(delete_links(&mut outside, &stale)?)
    }
}

impl Limits {
    /// Reads the four fields; both of a pair or none.
    fn parse(fields: &Fields<'_>) -> Result<Self, Error> {
        if let Some(option) = NOT_BUILT_IN.iter().find(|option| fields.map().get(**option).is_some_and(is_told)) {
            return Err(fields.error(option, "is not supported by the built-in bandwidth"));
        }
        let limit = |rate: &str, burst: &str| -> Result<Option<Limit>, Error> {
            match (fields.big_number(rate)?.unwrap_or(0), fields.big_number(burst)?.unwrap_or(0)) {
                (0, 0) => Ok(None),
                (0, _) => Err(fields.error(rate, format!("is missing, and {burst} is not"))),
                (_, 0) => Err(fields.error(burst, format!("is missing, and {rate} is not"))),
                (1..8, _) => Err(fields.error(rate, "is less than a byte in a second")),
                (bits, burst_bits) => {
                    let burst_bytes = u32::try_from(burst_bits / 8)
                        .map_err(|_| fields.error(burst, format!("{burst_bits} is more than 4 GiB")))?;
                    Ok(Some(Limit { bytes_per_second: bits / 8, burst_bytes }))
                }
            }
        };
        Ok(Self { received: limit("ingressRate", "ingressBurst")?, sent: limit("egressRate", "egressBurst")? })
    }
}

impl Limit {
    /// For a link of this MTU: a burst that no packet fits into would stop it.
    fn rate(&self, mtu: u32) -> Rate {
        let burst_bytes = self.burst_bytes.max(mtu.saturating_add(FRAME_BYTES));
        let waiting = self.bytes_per_second.saturating_mul(LATENCY_MS) / 1000 + u64::from(burst_bytes);
        let limit_bytes = u32::try_from(waiting).unwrap_or(u32::MAX);
        Rate { bytes_per_second: self.bytes_per_second, burst_bytes, limit_bytes }
    }
}

/// Whether the kernel's limit is the wanted one; it keeps the burst in ticks, less exactly than in bytes.
fn is_same(found: &Rate, wanted: &Rate) -> bool {
    let near = wanted.burst_bytes / 64 + u32::try_from(wanted.bytes_per_second >> 20).unwrap_or(u32::MAX) + 8;
    found.bytes_per_second == wanted.bytes_per_second && found.burst_bytes.abs_diff(wanted.burst_bytes) <= near
}

fn is_told(value: &Value) -> bool {
    !(value.is_null() || value.as_array().is_some_and(Vec::is_empty))
}

/// The host's end of the pair whose other end is the attachment's interface, whoever made it.
fn hosts_end(call: &Call<'_>, outside: &mut Netlink) -> Result<Link, Error> {
    let name = &call.attachment.ifname;
    let gone = || call.mismatch(format!("{name} has no other end on the host: only a veth pair's rate can be limited"));
    let inside = call.inside()?.link(name)?.filter(|link| link.kind == "veth").ok_or_else(gone)?;
    let link = outside.link_at(inside.peer.ok_or_else(gone)?)?.ok_or_else(gone)?;
    // Every namespace counts its links from 1: only one that leads back is the other end, and no stranger's.
    let leads_back = link.peer == Some(inside.index)
        && link.peer_netns.is_some()
        && link.peer_netns == outside.netns_number(call.netns()?)?;
    if link.kind == "veth" && leads_back { Ok(link) } else { Err(gone()) }
}

/// The ifb; one that is left of an attachment that was killed is as good as a new one.
fn make_ifb(outside: &mut Netlink, name: &str, mtu: u32) -> Result<Link, Error> {
    let mut changes = Changes::new();
    changes.create_ifb(name, mtu);
    match outside.apply(changes) {
        Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
        _ => {}
    }
    outside.link(name)?.filter(|link| link.kind == "ifb").ok_or_else(|| {
        let problem = format!("{name} is the name of another link on the host, which is no ifb");
        Error::Attachment { variable: "CNI_CONTAINERID", problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Limits, Error> {
        Bandwidth::parse(&Fields::at("plugins[2]".into(), &value).unwrap()).map(|bandwidth| bandwidth.limits)
    }

    #[test]
    fn limits_are_told_in_bits_and_kept_in_bytes() {
        let limits = parse(json!({"ingressRate": 8_000_000, "ingressBurst": 16_000})).unwrap();
        let limit = limits.received.unwrap();
        assert_eq!(limit, Limit { bytes_per_second: 1_000_000, burst_bytes: 2000 });
        assert_eq!(limit.rate(1500).limit_bytes, 27_000);
        assert_eq!(limit.rate(9000).burst_bytes, 9018, "a packet has to fit");
        assert_eq!(parse(json!({"egressRate": 0, "egressBurst": 0})).unwrap(), Limits::default());
        // What kubelet gives with a rate.
        assert!(parse(json!({"egressRate": 1_000_000_000_000u64, "egressBurst": i32::MAX})).is_ok());
    }

    #[test]
    fn nonsense_is_refused_by_its_field() {
        for (value, expected) in [
            (json!({"ingressRate": 8000}), "plugins[2].ingressBurst: is missing, and ingressRate is not"),
            (json!({"egressBurst": 8000}), "plugins[2].egressRate: is missing, and egressBurst is not"),
            (json!({"egressRate": 7, "egressBurst": 8000}), "plugins[2].egressRate: is less than a byte"),
            (json!({"egressRate": -8, "egressBurst": 8000}), "plugins[2].egressRate: must be a whole number"),
            (json!({"egressRate": 8, "egressBurst": u64::MAX}), "plugins[2].egressBurst: 18446744073709551615 is more"),
            (json!({"shapedSubnets": ["10.0.0.0/8"]}), "plugins[2].shapedSubnets: is not supported"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.code() == 7 && error.to_string().contains(expected), "{error}");
        }
    }
}
