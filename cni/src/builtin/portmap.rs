//! `portmap`: ports of the host that lead to ports of pods, as elements of maps in an nft table of the network's own.
//!
//! ```text
//! table inet berth-<network>-ports {
//!     map any4 { proto . port : pod address . pod port }           # every address of the host
//!     map one4 { host address . proto . port : … }                 # one address of the host (hostIP)
//!     map any6, map one6
//!     chain prerouting, chain output   → chain ports → dnat by the maps, if the destination is the host itself
//!     chain postrouting                → a pod that reaches itself or a neighbour through the host is masqueraded
//!     chain guard                      → 127.0.0.0/8 is not for what comes in over the bridge
//! }
//! ```

use std::net::IpAddr;

use berth_sys::nft::Nft;
use berth_sys::nft::batch::Batch;
use berth_sys::nft::rule::{
    Base as Header, Expr, Meta, Register, Rule, Verdict, destination_in, destination_local, destination_translated,
    source_in, version_is,
};
use berth_sys::nft::set::{Element, Field, Set, concat};
use berth_sys::nft::table::{Base, ChainKind, Family, Hook};
use ipnetwork::{IpNetwork, Ipv4Network};
use nix::errno::Errno;
use serde_json::{Map, Value};

use super::firewall::{self, Firewall};
use super::masquerade::ending;
use crate::Error;
use crate::attachment::Attachment;
use crate::cache::Cache;
use crate::call::Call;
use crate::foreign::runtime_config;
use crate::host::Host;
use crate::limits::PORT_MAPPINGS_MAX;
use crate::spec::fields::{Fields, list_at};
use crate::spec::result::AddResult;

const MAPS: [&str; 4] = ["any4", "one4", "any6", "one6"];
/// Before the kernel looks a connection up, so that only what a packet said itself is seen.
const PRIORITY_GUARD: i32 = -300;
const PRIORITY_DESTINATION: i32 = -100;
/// Before the masquerade of the whole network.
const PRIORITY_SOURCE: i32 = 99;

/// What the configuration says, and the network that it stands in.
#[derive(Debug, Clone)]
pub(crate) struct Portmap {
    config: Map<String, Value>,
    masquerade: bool,
    /// The bridge of the same list, if it is built in.
    bridge: Option<String>,
    subnets: Vec<IpNetwork>,
}

/// Elements by the map that they are for.
type Elements = [(&'static str, Vec<Element>); 4];

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    protocol: u8,
    host_ip: Option<IpAddr>,
    host_port: u16,
    pod_port: u16,
}

impl Portmap {
    pub(crate) fn parse(fields: &Fields<'_>, bridge: Option<String>, subnets: Vec<IpNetwork>) -> Result<Self, Error> {
        for option in ["conditionsV4", "conditionsV6", "externalSetMarkChain"] {
            if fields.map().get(option).is_some_and(|value| !value.is_null()) {
                return Err(fields.error(option, "is not supported by the built-in portmap"));
            }
        }
        let masquerade = fields.map().get("snat").is_none_or(Value::is_null) || fields.flag("snat")?;
        Ok(Self { config: fields.map().clone(), masquerade, bridge, subnets })
    }

    pub(crate) fn add(&self, call: &Call<'_>, previous: Option<AddResult>) -> Result<AddResult, Error> {
        let result = previous.unwrap_or_default();
        let elements = self.elements(call.attachment, &result)?;
        if elements.iter().all(|(_, elements)| elements.is_empty()) {
            return Ok(result);
        }
        let host = Host::new(call.dirs, call.network);
        let mut nft = Nft::open()?;
        let made = self.firewall(call.network, &result).ensure(&mut nft, &host)?;
        if made {
            self.refill(call, &mut nft)?;
        }
        if let Some(bridge) = &self.bridge {
            // So that the host reaches a pod from 127.0.0.1. The guard, which keeps pods from reaching back, stands now.
            host.set(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
        }
        let name = table_name(call.network);
        let batch = addition(&name, &elements);
        match nft.commit(batch) {
            Err(error) if matches!(error.errno(), Some(Errno::EEXIST | Errno::EBUSY)) => {
                Err(Error::HostPort { port: self.taken(&mut nft, &name, &elements)? })
            }
            other => other.map(|()| result).map_err(Error::from),
        }
    }

    /// Somebody flushed the table: what stood in it for those who are attached already is put back.
    fn refill(&self, call: &Call<'_>, nft: &mut Nft) -> Result<(), Error> {
        let name = table_name(call.network);
        for record in Cache::new(call.dirs, call.network).all()? {
            let elements = self.elements(&record.attachment, &record.result)?;
            match nft.commit(addition(&name, &elements)) {
                // Another thread was faster.
                Err(error) if matches!(error.errno(), Some(Errno::EEXIST | Errno::EBUSY)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// DEL: whatever leads to this attachment's addresses, which are its own until they are released after this.
    pub(crate) fn del(&self, call: &Call<'_>, addresses: &[IpAddr]) -> Result<(), Error> {
        self.delete_where(call.network, &|address| addresses.contains(&address))
    }

    pub(crate) fn check(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        let mut nft = Nft::open()?;
        let name = table_name(call.network);
        for (map, elements) in self.elements(call.attachment, result)? {
            if elements.is_empty() {
                continue;
            }
            let found = nft.elements(firewall::table(&name), map)?;
            if let Some(lost) = elements.iter().find(|element| !found.contains(element)) {
                return Err(call.mismatch(format!("host port {} does not lead to it", port_of(&lost.key))));
            }
        }
        Ok(())
    }

    /// Keeps only what leads to addresses that somebody has.
    pub(crate) fn gc(&self, network: &str, taken: &[IpAddr]) -> Result<(), Error> {
        self.delete_where(network, &|address| !taken.contains(&address))
    }

    pub(crate) fn remove(&self, network: &str) -> Result<(), Error> {
        firewall::remove(&mut Nft::open()?, &table_name(network))
    }

    fn delete_where(&self, network: &str, stale: &dyn Fn(IpAddr) -> bool) -> Result<(), Error> {
        let mut nft = Nft::open()?;
        let name = table_name(network);
        let mut batch = Batch::new();
        for map in MAPS {
            let mut elements = nft.elements(firewall::table(&name), map)?;
            elements.retain(|element| pod_address(map, element).is_some_and(stale));
            batch.delete_elements(firewall::table(&name), map, &elements);
        }
        match nft.commit(batch) {
            // Somebody flushed the table meanwhile.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// The elements that an attachment needs, by map.
    fn elements(&self, attachment: &Attachment, result: &AddResult) -> Result<Elements, Error> {
        let offered = runtime_config(&self.config, &attachment.runtime_config);
        let mut elements = MAPS.map(|map| (map, Vec::new()));
        let Some(list) = offered.get("portMappings") else { return Ok(elements) };
        let mappings = parse(list)?;
        for ip in result.ips.iter().map(|ip| ip.address.ip()) {
            for mapping in mappings.iter().filter(|mapping| mapping.reaches(&ip)) {
                let one = mapping.host_ip.filter(|host| !host.is_unspecified());
                let map = usize::from(ip.is_ipv6()) * 2 + usize::from(one.is_some());
                elements[map].1.push(mapping.element(one, &ip));
            }
        }
        Ok(elements)
    }

    /// The first of the wanted ports that is taken.
    fn taken(&self, nft: &mut Nft, name: &str, wanted: &[(&str, Vec<Element>)]) -> Result<String, Error> {
        for (map, wanted) in wanted {
            let found = nft.elements(firewall::table(name), map)?;
            if let Some(clash) = wanted.iter().find(|one| found.iter().any(|other| other.key == one.key)) {
                return Ok(port_of(&clash.key));
            }
        }
        // The same one twice in one request.
        let first = wanted.iter().find_map(|(_, elements)| elements.first());
        Ok(first.map(|element| port_of(&element.key)).unwrap_or_default())
    }

    fn firewall(&self, network: &str, result: &AddResult) -> Firewall {
        let own = || result.ips.iter().filter_map(|ip| IpNetwork::new(ip.address.network(), ip.address.prefix()).ok());
        let subnets: Vec<_> = if self.subnets.is_empty() { own().collect() } else { self.subnets.clone() };
        let rules = self.rules(&subnets);
        Firewall::new(table_name(network), &rules, |batch, table| {
            let base = |kind, hook, priority| Some(Base { kind, hook, priority });
            batch.add_chain(table, "ports", None);
            batch.add_chain(table, "prerouting", base(ChainKind::Nat, Hook::PreRouting, PRIORITY_DESTINATION));
            batch.add_chain(table, "output", base(ChainKind::Nat, Hook::Output, PRIORITY_DESTINATION));
            batch.add_chain(table, "postrouting", base(ChainKind::Nat, Hook::PostRouting, PRIORITY_SOURCE));
            batch.add_chain(table, "guard", base(ChainKind::Filter, Hook::PreRouting, PRIORITY_GUARD));
            for map in MAPS {
                let (key, value) = types(map);
                batch.add_set(table, &Set { name: map, key: &key, value: Some(&value) });
            }
            for (chain, rule) in &rules {
                batch.add_rule(table, chain, rule);
            }
        })
    }

    fn rules(&self, subnets: &[IpNetwork]) -> Vec<(&'static str, Rule)> {
        let jump = || Expr::Verdict(Verdict::Jump("ports".to_owned()));
        let local = || destination_local().to_vec();
        let mut rules = vec![
            ("prerouting", ending(local(), jump(), "for the host")),
            ("output", ending(local(), jump(), "from the host to itself")),
        ];
        // One address of the host goes before all of them.
        rules.extend(["one4", "any4", "one6", "any6"].map(|map| ("ports", translate(map))));
        let loopback = Ipv4Network::new([127, 0, 0, 0].into(), 8).map(IpNetwork::V4).ok();
        if self.masquerade {
            for subnet in subnets {
                let mut exprs = destination_translated().to_vec();
                exprs.extend(source_in(*subnet));
                exprs.extend(destination_in(*subnet));
                rules.push(("postrouting", ending(exprs, Expr::Masquerade, "to a neighbour through the host")));
            }
            if let Some(loopback) = loopback {
                let mut exprs = destination_translated().to_vec();
                exprs.extend(source_in(loopback));
                rules.push(("postrouting", ending(exprs, Expr::Masquerade, "from the host's loopback")));
            }
        }
        if let (Some(bridge), Some(loopback)) = (&self.bridge, loopback) {
            let mut name = bridge.clone().into_bytes();
            name.resize(nix::libc::IFNAMSIZ, 0);
            let mut exprs = vec![Expr::Meta(Meta::InputName, Register(0)), Expr::Equal(Register(0), name)];
            exprs.extend(destination_in(loopback));
            rules.push(("guard", ending(exprs, Expr::Verdict(Verdict::Drop), "pods do not reach the host's loopback")));
        }
        rules
    }
}

impl Mapping {
    /// Whether it applies to a pod's address.
    fn reaches(&self, pod: &IpAddr) -> bool {
        self.host_ip.is_none_or(|host| host.is_ipv4() == pod.is_ipv4())
    }

    fn element(&self, host: Option<IpAddr>, pod: &IpAddr) -> Element {
        let (host_port, pod_port) = (self.host_port.to_be_bytes(), self.pod_port.to_be_bytes());
        let mut key = host.map(|host| octets(&host)).unwrap_or_default();
        key.extend(concat([&[self.protocol][..], &host_port]));
        Element { key, value: Some(concat([&octets(pod)[..], &pod_port])) }
    }
}

/// A transaction that adds elements.
fn addition(name: &str, elements: &Elements) -> Batch {
    let mut batch = Batch::new();
    for (map, elements) in elements {
        batch.add_elements(firewall::table(name), map, elements);
    }
    batch
}

/// The types of a map's keys and values.
fn types(map: &str) -> (Vec<Field>, Vec<Field>) {
    let address = if map.ends_with('4') { Field::Ipv4 } else { Field::Ipv6 };
    let mut key = vec![Field::Protocol, Field::Port];
    if map.starts_with("one") {
        key.insert(0, address);
    }
    (key, vec![address, Field::Port])
}

/// The rule that looks a packet up in a map and sends it where the map says.
fn translate(map: &'static str) -> Rule {
    let v4 = map.ends_with('4');
    let (any, offset, length) = if v4 { (IpAddr::from([0; 4]), 16, 4) } else { (IpAddr::from([0; 16]), 24, 16) };
    let mut exprs = version_is(&any).to_vec();
    let mut register = 0;
    if map.starts_with("one") {
        exprs.push(Expr::Payload(Header::Network, offset, length, Register(0)));
        register = (length / 4) as u8;
    }
    exprs.push(Expr::Meta(Meta::Protocol, Register(register)));
    exprs.push(Expr::Payload(Header::Transport, 2, 2, Register(register + 1)));
    exprs.push(Expr::Map(map.to_owned(), Register(0), Register(0)));
    let family = if v4 { Family::Ip } else { Family::Ip6 };
    let port = Register((length / 4) as u8);
    ending(exprs, Expr::Dnat { family, address: Register(0), port }, "to the pod")
}

fn parse(list: &Value) -> Result<Vec<Mapping>, Error> {
    let mut mappings = Vec::new();
    for (path, value) in list_at("runtimeConfig.portMappings".to_owned(), list, PORT_MAPPINGS_MAX)? {
        let fields = Fields::at(path, value)?;
        let port = |field: &str| -> Result<u16, Error> {
            let number = fields.number(field)?.unwrap_or(0);
            u16::try_from(number).map_err(|_| fields.error(field, format!("{number} is no port: 1 to 65535")))
        };
        let (host_port, pod_port) = (port("hostPort")?, port("containerPort")?);
        if host_port == 0 {
            continue;
        }
        if pod_port == 0 {
            return Err(fields.error("containerPort", "is missing"));
        }
        let protocol = match fields.text("protocol")?.unwrap_or("tcp").to_ascii_lowercase().as_str() {
            "tcp" => nix::libc::IPPROTO_TCP,
            "udp" => nix::libc::IPPROTO_UDP,
            "sctp" => nix::libc::IPPROTO_SCTP,
            other => return Err(fields.error("protocol", format!("{other:?} is not known; use tcp, udp or sctp"))),
        } as u8;
        mappings.push(Mapping { protocol, host_ip: fields.parsed("hostIP")?, host_port, pod_port });
    }
    Ok(mappings)
}

/// The pod's address in an element.
fn pod_address(map: &str, element: &Element) -> Option<IpAddr> {
    let value = element.value.as_ref()?;
    if map.ends_with('4') {
        Some(IpAddr::from(<[u8; 4]>::try_from(value.get(..4)?).ok()?))
    } else {
        Some(IpAddr::from(<[u8; 16]>::try_from(value.get(..16)?).ok()?))
    }
}

/// An element's key as people write it: its last eight bytes are protocol and port.
fn port_of(key: &[u8]) -> String {
    let Some((address, [protocol, _, _, _, high, low, _, _])) = key.split_last_chunk::<8>() else {
        return String::new();
    };
    let protocol = match i32::from(*protocol) {
        nix::libc::IPPROTO_TCP => "tcp",
        nix::libc::IPPROTO_UDP => "udp",
        _ => "sctp",
    };
    let port = u16::from_be_bytes([*high, *low]);
    match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
        (Ok(address), _) => format!("{protocol} {}:{port}", IpAddr::from(address)),
        (_, Ok(address)) => format!("{protocol} [{}]:{port}", IpAddr::from(address)),
        _ => format!("{protocol} {port}"),
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn table_name(network: &str) -> String {
    format!("berth-{network}-ports")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mappings_are_read_as_kubernetes_writes_them() {
        let list = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
            {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "10.0.0.1"},
            {"hostPort": 0, "containerPort": 1},
        ]);
        let mappings = parse(&list).unwrap();
        assert_eq!(mappings.len(), 2);
        let element = mappings[1].element(mappings[1].host_ip, &"10.1.0.2".parse().unwrap());
        assert_eq!(port_of(&element.key), "udp 10.0.0.1:53");
        assert_eq!(pod_address("one4", &element), Some("10.1.0.2".parse().unwrap()));
        let error = parse(&json!([{"hostPort": 70000, "containerPort": 1}])).unwrap_err();
        assert!(error.to_string().contains("runtimeConfig.portMappings[0].hostPort: 70000 is no port"), "{error}");
    }
}
