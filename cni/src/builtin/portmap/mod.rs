//! `portmap`: ports of the host that lead to ports of pods, as elements of maps in an nft table of the network's own.
//!
//! Here are the verbs; [`mapping`] is what they are told, [`table`] is the table around the maps.

mod mapping;
mod table;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use berth_sys::conntrack::{Conntrack, Which};
use berth_sys::nft::Nft;
use berth_sys::nft::batch::Batch;
use berth_sys::nft::set::Element;
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::libc::IPPROTO_UDP;
use serde_json::{Map, Value};

use self::mapping::{Mapping, port_of};
use self::table::{MAPS, map_of, table_name};
use super::bridge::bridge_of;
use super::own_table;
use crate::Error;
use crate::attachment::{Attachment, Owner};
use crate::cache::{Cache, Record};
use crate::call::Call;
use crate::foreign::runtime_config;
use crate::host::Host;
use crate::site::Site;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;

/// Elements by the map that they are for.
pub(super) type Elements = Vec<(&'static str, Vec<Element>)>;

/// What the configuration says, and the network that it stands in.
#[derive(Debug, Clone)]
pub(crate) struct Portmap {
    config: Map<String, Value>,
    masquerade: bool,
    /// The bridge of the same list, if it is built in.
    bridge: Option<String>,
    subnets: Vec<IpNetwork>,
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
        if elements.iter().any(|(_, elements)| !elements.is_empty()) {
            call.site.nft(|nft| self.forward(nft, call.site, &result, &elements))?;
            forget(self.pairs(call.attachment, &result)?.iter().filter_map(|(mapping, pod)| mapping.older(pod)))?;
        }
        Ok(result)
    }

    fn forward(&self, nft: &mut Nft, site: Site<'_>, result: &AddResult, elements: &Elements) -> Result<(), Error> {
        let bridge = bridge_of(self.bridge.as_deref(), result)?;
        if self.own_table(site, result, bridge.as_deref())?.ensure(nft, site)? {
            self.refill(nft, site)?;
        }
        route_localnet(site, bridge.as_deref())?;
        match nft.commit(addition(site, elements)) {
            Err(error) if is_taken(&error) => Err(Error::HostPort { port: taken(nft, site, elements)? }),
            other => Ok(other?),
        }
    }

    /// The table is new, or has lost elements: what had stood in it for those who are attached already is put back. Streams
    /// that began while it was not there would go past the pods for ever.
    fn refill(&self, nft: &mut Nft, site: Site<'_>) -> Result<(), Error> {
        let found = standing(nft, site)?;
        for record in Cache::new(site).all()? {
            let elements = missing(&found, &self.elements(&record.attachment, &record.result)?);
            if elements.is_empty() {
                continue;
            }
            match nft.commit(addition(site, &elements)) {
                // Another thread was faster.
                Err(error) if is_taken(&error) => {}
                other => other?,
            }
            let pairs = self.pairs(&record.attachment, &record.result)?;
            forget(pairs.iter().filter_map(|(mapping, pod)| mapping.older(pod)))?;
        }
        Ok(())
    }

    /// What goes with the bridge, for those who are attached.
    pub(crate) fn repair_links(&self, site: Site<'_>, records: &[Record]) -> Result<(), Error> {
        let Some(record) = self.first_with_ports(records) else { return Ok(()) };
        let bridge = bridge_of(self.bridge.as_deref(), &record.result)?;
        // Not before the guard: without it, pods would reach the host's loopback.
        let table = self.own_table(site, &record.result, bridge.as_deref())?;
        if site.nft(|nft| table.stands_whole(nft))? { route_localnet(site, bridge.as_deref()) } else { Ok(()) }
    }

    /// Whether the table, or the elements in it of any who is attached, are not there.
    pub(crate) fn lacks(&self, site: Site<'_>, records: &[Record]) -> Result<bool, Error> {
        let Some(record) = self.first_with_ports(records) else { return Ok(false) };
        let bridge = bridge_of(self.bridge.as_deref(), &record.result)?;
        let table = self.own_table(site, &record.result, bridge.as_deref())?;
        site.nft(|nft| {
            if !table.stands_whole(nft)? {
                return Ok(true);
            }
            let found = standing(nft, site)?;
            for record in records {
                if !missing(&found, &self.elements(&record.attachment, &record.result)?).is_empty() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// The table and the elements of those who are attached, if anybody has one. Nobody may come or go meanwhile: what is put
    /// back for one who goes would stay.
    pub(crate) fn repair_table(&self, site: Site<'_>, records: &[Record]) -> Result<(), Error> {
        let Some(record) = self.first_with_ports(records) else { return Ok(()) };
        let bridge = bridge_of(self.bridge.as_deref(), &record.result)?;
        let table = self.own_table(site, &record.result, bridge.as_deref())?;
        site.nft(|nft| {
            table.ensure_whole(nft, site)?;
            self.refill(nft, site)
        })?;
        route_localnet(site, bridge.as_deref())
    }

    fn first_with_ports<'a>(&self, records: &'a [Record]) -> Option<&'a Record> {
        records.iter().find(|record| self.offered(&record.attachment).is_some())
    }

    /// DEL: takes away what is marked as this attachment's. `result` is what ADD gave, if it came to its end.
    pub(crate) fn del(&self, call: &Call<'_>, result: Option<&AddResult>) -> Result<(), Error> {
        if result.is_some() && self.offered(call.attachment).is_none() {
            return Ok(());
        }
        let owner = call.owner().host_name();
        call.site.nft(|nft| delete_where(nft, call.site, &|of| of == owner))?;
        let Some(result) = result else { return Ok(()) };
        forget(self.pairs(call.attachment, result)?.iter().filter_map(|(mapping, pod)| mapping.led(*pod)))
    }

    pub(crate) fn check(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        let elements = self.elements(call.attachment, result)?;
        if elements.iter().all(|(_, elements)| elements.is_empty()) {
            return Ok(());
        }
        let bridge = bridge_of(self.bridge.as_deref(), result)?;
        let table = self.own_table(call.site, result, bridge.as_deref())?;
        if !call.site.nft(|nft| table.stands_whole(nft))? {
            return Err(call.mismatch(format!("the nft table {} is gone or changed", table.name)));
        }
        for (map, elements) in elements {
            if elements.is_empty() {
                continue;
            }
            let name = table_name(call.site.network);
            let found = call.site.nft(|nft| Ok(nft.elements(own_table::table(&name), map)?))?;
            if let Some(lost) = elements.iter().find(|element| !found.contains(element)) {
                return Err(call.mismatch(format!("host port {} does not lead to it", port_of(&lost.key))));
            }
        }
        Ok(())
    }

    /// Keeps only what belongs to the valid.
    pub(crate) fn gc(&self, site: Site<'_>, valid: &HashSet<Owner>) -> Result<(), Error> {
        let names: HashSet<String> = valid.iter().map(Owner::host_name).collect();
        site.nft(|nft| delete_where(nft, site, &|owner| !names.contains(owner)))
    }

    pub(crate) fn remove(&self, site: Site<'_>) -> Result<(), Error> {
        site.nft(|nft| own_table::remove(nft, &table_name(site.network)))
    }

    /// What the runtime wants forwarded.
    fn offered(&self, attachment: &Attachment) -> Option<Value> {
        runtime_config(&self.config, &attachment.runtime_config).remove("portMappings")
    }

    /// The elements that an attachment needs.
    pub(super) fn elements(&self, attachment: &Attachment, result: &AddResult) -> Result<Elements, Error> {
        let mut elements: Elements = MAPS.map(|map| (map, Vec::new())).into();
        let owner = attachment.owner().host_name();
        for (mapping, pod) in self.pairs(attachment, result)? {
            elements[map_of(&pod, mapping.one_address().is_some())].1.push(mapping.element(&pod, &owner));
        }
        Ok(elements)
    }

    /// Each mapping with each address of the pod that it applies to.
    fn pairs(&self, attachment: &Attachment, result: &AddResult) -> Result<Vec<(Mapping, IpAddr)>, Error> {
        let Some(list) = self.offered(attachment) else { return Ok(Vec::new()) };
        let mut pairs = Vec::new();
        for mapping in mapping::parse(&list)? {
            pairs.extend(result.addresses().filter(|pod| mapping.reaches(pod)).map(|pod| (mapping.clone(), pod)));
        }
        Ok(pairs)
    }
}

/// So that the host reaches a pod from 127.0.0.1. The guard, which keeps pods from reaching back, must stand; the setting
/// goes with the bridge.
fn route_localnet(site: Site<'_>, bridge: Option<&str>) -> Result<(), Error> {
    let Some(bridge) = bridge else { return Ok(()) };
    Host::new(site).set(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")
}

/// Lets the kernel forget connections of UDP; the next packet of each begins a new one.
fn forget(connections: impl Iterator<Item = Which>) -> Result<(), Error> {
    let mut conntrack = None;
    for which in connections {
        let open = match conntrack.take() {
            Some(open) => open,
            None => Conntrack::open()?,
        };
        conntrack.insert(open).forget(IPPROTO_UDP as u8, which)?;
    }
    Ok(())
}

/// The elements that there are, by their maps and keys.
fn standing(nft: &mut Nft, site: Site<'_>) -> Result<HashMap<&'static str, HashSet<Vec<u8>>>, Error> {
    let name = table_name(site.network);
    let mut found = HashMap::new();
    for map in MAPS {
        let elements = nft.elements(own_table::table(&name), map)?;
        found.insert(map, elements.into_iter().map(|element| element.key).collect());
    }
    Ok(found)
}

/// Those of the wanted elements whose keys are not there.
fn missing(found: &HashMap<&'static str, HashSet<Vec<u8>>>, wanted: &Elements) -> Elements {
    let stands = |map: &str, element: &Element| found.get(map).is_some_and(|keys| keys.contains(&element.key));
    let left = wanted.iter().map(|(map, elements)| {
        let left = elements.iter().filter(|element| !stands(map, element)).cloned().collect::<Vec<_>>();
        (*map, left)
    });
    left.filter(|(_, elements)| !elements.is_empty()).collect()
}

/// A transaction that adds elements.
fn addition(site: Site<'_>, elements: &Elements) -> Batch {
    let name = table_name(site.network);
    let mut batch = Batch::new();
    for (map, elements) in elements {
        batch.add_elements(own_table::table(&name), map, elements);
    }
    batch
}

fn delete_where(nft: &mut Nft, site: Site<'_>, stale: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    own_table::delete_elements(nft, own_table::table(&table_name(site.network)), &MAPS, stale)
}

fn is_taken(error: &berth_sys::netlink::Error) -> bool {
    matches!(error.errno(), Some(Errno::EEXIST | Errno::EBUSY))
}

/// The first of the wanted ports that is taken.
fn taken(nft: &mut Nft, site: Site<'_>, wanted: &Elements) -> Result<String, Error> {
    let name = table_name(site.network);
    for (map, wanted) in wanted {
        let found = nft.elements(own_table::table(&name), map)?;
        if let Some(clash) = wanted.iter().find(|one| found.iter().any(|other| other.key == one.key)) {
            return Ok(port_of(&clash.key));
        }
    }
    // The same one twice in one request.
    let first = wanted.iter().find_map(|(_, elements)| elements.first());
    Ok(first.map(|element| port_of(&element.key)).unwrap_or_default())
}
