//! Ranges of addresses: what a `host-local` configuration says, checked, and the order in which addresses are tried.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::Error;
use crate::limits::{RANGE_SETS_MAX, RANGES_MAX};
use crate::spec::fields::{Fields, list_at};

/// Addresses of one subnet that may be given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The subnet that they are in; its prefix length is theirs.
    pub(crate) subnet: IpNetwork,
    pub(crate) gateway: IpAddr,
    first: u128,
    last: u128,
}

/// Ranges of which an interface gets one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet(pub(crate) Vec<Range>);

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let (first, last) = (range.address(range.first), range.address(range.last));
            write!(f, "{comma}{} ({first} to {last})", range.subnet)?;
        }
        Ok(())
    }
}

/// The `ranges` of an `ipam` object, or the single one that stands in it directly.
pub(crate) fn parse_sets(ipam: &Fields<'_>) -> Result<Vec<RangeSet>, Error> {
    let mut sets = Vec::new();
    if ipam.text("subnet")?.is_some() {
        sets.push(RangeSet(vec![Range::parse(ipam)?]));
    }
    sets.extend(parse_lists(ipam.list("ranges", RANGE_SETS_MAX)?)?);
    if sets.is_empty() {
        return Err(ipam.error("ranges", "is missing: host-local needs at least one range"));
    }
    check_overlaps(&sets, &ipam.path("ranges"))?;
    Ok(sets)
}

/// Sets of ranges, each a list with its place.
pub(crate) fn parse_lists(lists: Vec<(String, &Value)>) -> Result<Vec<RangeSet>, Error> {
    let mut sets = Vec::new();
    for (path, value) in lists {
        let mut ranges = Vec::new();
        for (path, value) in list_at(path.clone(), value, RANGES_MAX)? {
            let fields = Fields::at(path, value)?;
            let range = Range::parse(&fields)?;
            if let Some(other) =
                ranges.first().filter(|other: &&Range| other.subnet.is_ipv4() != range.subnet.is_ipv4())
            {
                let problem = format!("{} is not of the same IP version as {}", range.subnet, other.subnet);
                return Err(fields.error("subnet", problem));
            }
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Err(Error::Config { field: path, problem: "has no range".to_owned() });
        }
        sets.push(RangeSet(ranges));
    }
    Ok(sets)
}

/// Refuses sets of which two have an address in common.
pub(crate) fn check_overlaps(sets: &[RangeSet], field: &str) -> Result<(), Error> {
    let all: Vec<&Range> = sets.iter().flat_map(|set| &set.0).collect();
    for (index, range) in all.iter().enumerate() {
        if let Some(other) = all[..index].iter().find(|other| range.overlaps(other)) {
            let problem = format!("{} overlaps {}", range.subnet, other.subnet);
            return Err(Error::Config { field: field.to_owned(), problem });
        }
    }
    Ok(())
}

impl Range {
    fn parse(fields: &Fields<'_>) -> Result<Self, Error> {
        let subnet: IpNetwork =
            fields.parsed("subnet")?.ok_or_else(|| fields.error("subnet", "is missing, such as \"10.0.0.0/24\""))?;
        if subnet.ip() != subnet.network() {
            let problem =
                format!("{subnet} has bits of a host set; the network is {}/{}", subnet.network(), subnet.prefix());
            return Err(fields.error("subnet", problem));
        }
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return Err(
                fields.error("subnet", format!("{subnet} is too small: it has no room for a gateway and a pod"))
            );
        }
        let base = number(subnet.network());
        let top = base + ((1u128 << (bits - subnet.prefix()).min(127)) - 1);
        let usable = if subnet.is_ipv4() { (base + 1, top - 1) } else { (base + 1, top) };
        let inside = |field: &str, default: u128| -> Result<u128, Error> {
            match fields.parsed::<IpAddr>(field)? {
                None => Ok(default),
                Some(address) if subnet.contains(address) => Ok(number(address)),
                Some(address) => Err(fields.error(field, format!("{address} is not in {subnet}"))),
            }
        };
        let (first, last) = (inside("rangeStart", usable.0)?, inside("rangeEnd", usable.1)?);
        if first > last {
            return Err(fields.error("rangeEnd", "is below rangeStart"));
        }
        let gateway = match fields.parsed::<IpAddr>("gateway")? {
            Some(address) if address.is_ipv4() != subnet.is_ipv4() => {
                return Err(fields.error("gateway", format!("{address} is not of the same IP version as {subnet}")));
            }
            Some(address) => address,
            None => address(usable.0, subnet.is_ipv4()),
        };
        let (first, last) = (first.max(usable.0), last.min(usable.1));
        Ok(Self { subnet, gateway, first, last })
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.subnet.is_ipv4() == other.subnet.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    fn address(&self, number: u128) -> IpAddr {
        address(number, self.subnet.is_ipv4())
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.subnet.is_ipv4() && (self.first..=self.last).contains(&number(address))
    }
}

impl RangeSet {
    /// The range that an address can be given out of.
    pub(crate) fn holding(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address) && range.gateway != address)
    }

    /// Every address once, gateways left out, from the one behind `last` on and around: an address that was freed just
    /// now is the last to be given out again.
    pub(crate) fn behind(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let at = last.and_then(|last| Some((self.0.iter().position(|range| range.contains(last))?, number(last))));
        let (turn, split) = at.unwrap_or((0, 0));
        let rest = self.0.get(turn).map(|range| (range, range.first.max(split.saturating_add(1)), range.last));
        let others = self.0.iter().cycle().skip(turn + 1).take(self.0.len().saturating_sub(1));
        let begin = self.0.get(turn).map(|range| (range, range.first, range.last.min(split)));
        rest.into_iter()
            .chain(others.map(|range| (range, range.first, range.last)))
            .chain(begin)
            .flat_map(|(range, first, last)| (first..=last).map(move |number| (range.address(number), range)))
            .filter(|(address, range)| *address != range.gateway)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 { IpAddr::V4(Ipv4Addr::from(number as u32)) } else { IpAddr::V6(Ipv6Addr::from(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Vec<RangeSet>, Error> {
        parse_sets(&Fields::at("ipam".into(), &value)?)
    }

    fn order(value: Value, last: &str) -> String {
        let sets = parse(value).unwrap();
        let found: Vec<_> =
            sets[0].behind(last.parse().ok()).take(300).map(|(address, _)| address.to_string()).collect();
        found.join(" ")
    }

    #[test]
    fn addresses_come_round_robin_without_the_gateway() {
        let range = || json!({"ranges": [[{"subnet": "10.0.0.0/29"}]]});
        assert_eq!(order(range(), ""), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
        assert_eq!(order(range(), "10.0.0.4"), "10.0.0.5 10.0.0.6 10.0.0.2 10.0.0.3 10.0.0.4");
        assert_eq!(order(range(), "10.0.0.6"), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
        let one = json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.10"});
        assert_eq!(order(one.clone(), "10.9.9.9"), "10.0.0.9 10.0.0.10");
        let two = json!({"ranges": [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.1.0.0/30"}]]});
        assert_eq!(order(two.clone(), ""), "10.0.0.2 10.1.0.2");
        assert_eq!(order(two, "10.1.0.2"), "10.0.0.2 10.1.0.2");
        let six = json!({"subnet": "fd00::/126"});
        assert_eq!(order(six, ""), "fd00::2 fd00::3");
    }

    #[test]
    fn a_range_of_half_the_internet_begins_at_once() {
        let sets = parse(json!({"subnet": "::/0"})).unwrap();
        assert_eq!(sets[0].behind(None).next().unwrap().0, "::2".parse::<IpAddr>().unwrap());
        assert!(parse(json!({"subnet": "0.0.0.0/0"})).is_ok());
    }

    #[test]
    fn nonsense_is_refused_by_its_field() {
        for (value, expected) in [
            (json!({}), "ipam.ranges: is missing"),
            (json!({"subnet": "10.0.0.0"}), "ipam.subnet: 10.0.0.0/32 is too small"),
            (
                json!({"subnet": "10.0.0.1/24"}),
                "ipam.subnet: 10.0.0.1/24 has bits of a host set; the network is 10.0.0.0/24",
            ),
            (json!({"subnet": "ten"}), "ipam.subnet: \"ten\": "),
            (json!({"ranges": [[]]}), "ipam.ranges[0]: has no range"),
            (json!({"ranges": [{"subnet": "10.0.0.0/24"}]}), "ipam.ranges[0]: must be a list, but is an object"),
            (
                json!({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]]}),
                "ipam.ranges[0][0].rangeStart: ",
            ),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24", "gateway": "fd00::1"}]]}), "ipam.ranges[0][0].gateway: "),
            (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}), "ipam.ranges[0][1].subnet: "),
            (
                json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/16"}]]}),
                "ipam.ranges: 10.0.0.0/16 overlaps",
            ),
        ] {
            let error = parse(value).unwrap_err();
            assert_eq!(error.code(), 7);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
