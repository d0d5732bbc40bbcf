//! What one attachment wants for itself: addresses, ranges, a hardware address. Runtimes say it in three ways, of which the
//! last that says anything counts: `args.cni` of the configuration, `CNI_ARGS`, and `runtimeConfig` for a capability
//! (CNI conventions, "Well-known Capabilities" and "args in network config").

use std::net::IpAddr;

use berth_sys::netlink::link::Mac;
use serde_json::{Map, Value};

use crate::Error;
use crate::builtin::ipam::dns;
use crate::call::Call;
use crate::foreign::runtime_config;
use crate::limits::ADDRESSES_WISHED_MAX;
use crate::spec::fields::{Fields, list_at};

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Addresses, some with a prefix length.
    pub(crate) ips: Vec<Wish>,
    pub(crate) gateway: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    /// `ipRanges`, as it was given.
    pub(crate) ranges: Option<Value>,
    /// What the container shall resolve names by, as results have it.
    pub(crate) dns: Map<String, Value>,
}

/// An address that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) address: IpAddr,
    pub(crate) prefix: Option<u8>,
}

impl Wishes {
    /// Reads them; `config` is the plugin object.
    pub(crate) fn of(config: &Map<String, Value>, call: &Call<'_>) -> Result<Self, Error> {
        let mut wishes = Self::default();
        let top = Fields::top(config);
        if let Some(args) = top.object("args")?.map(|args| args.object("cni")).transpose()?.flatten() {
            wishes.read(&args)?;
        }
        for (key, value) in &call.attachment.args {
            let wrong =
                |problem: String| Error::Attachment { variable: "CNI_ARGS", problem: format!("{key}: {problem}") };
            let texts = || value.split(',').map(str::trim).filter(|text| !text.is_empty());
            match key.as_str() {
                "IP" => wishes.ips = texts().map(|text| wish(text).map_err(wrong)).collect::<Result<_, _>>()?,
                "GATEWAY" => {
                    let parsed = texts().map(|text| text.parse().map_err(|_| wrong(format!("{text:?} is no address"))));
                    wishes.gateway = parsed.collect::<Result<_, _>>()?;
                }
                "MAC" if !value.is_empty() => wishes.mac = Some(mac(value).map_err(wrong)?),
                _ => {}
            }
        }
        let offered = Value::Object(runtime_config(config, &call.attachment.runtime_config));
        let offered = Fields::at("runtimeConfig".to_owned(), &offered)?;
        wishes.read(&offered)?;
        if let Some(dns) = offered.object("dns")? {
            wishes.dns = dns::wished(&dns)?;
        }
        wishes.ranges = offered.map().get("ipRanges").filter(|ranges| !ranges.is_null()).cloned();
        Ok(wishes)
    }

    fn read(&mut self, fields: &Fields<'_>) -> Result<(), Error> {
        let mut ips = Vec::new();
        for (field, value) in fields.list("ips", ADDRESSES_WISHED_MAX)? {
            let problem = match value.as_str().map(wish) {
                Some(Ok(one)) => {
                    ips.push(one);
                    continue;
                }
                Some(Err(problem)) => problem,
                None => "must be text".to_owned(),
            };
            return Err(Error::Config { field, problem });
        }
        if !ips.is_empty() {
            self.ips = ips;
        }
        if let Some(text) = fields.text("mac")? {
            self.mac = Some(mac(text).map_err(|problem| fields.error("mac", problem))?);
        }
        Ok(())
    }
}

/// The lists of ranges that `ipRanges` holds, each with its place.
pub(crate) fn range_lists(ranges: &Value) -> Result<Vec<(String, &Value)>, Error> {
    list_at("runtimeConfig.ipRanges".to_owned(), ranges, crate::limits::RANGE_SETS_MAX)
}

fn wish(text: &str) -> Result<Wish, String> {
    let wrong = || format!("{text:?} is no address such as 10.0.0.2 or 10.0.0.2/24");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if prefix.is_some_and(|prefix| prefix > longest) { Err(wrong()) } else { Ok(Wish { address, prefix }) }
}

fn mac(text: &str) -> Result<Mac, String> {
    let wrong = || format!("{text:?} is no hardware address such as 0a:58:0a:00:00:02");
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    // The lowest bit says that it is the address of a group.
    if parts.next().is_some() || bytes[0] & 1 != 0 { Err(wrong()) } else { Ok(Mac(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attachment;
    use crate::{Dirs, site::Site};
    use serde_json::json;

    fn read(config: Value, args: &[(&str, &str)], runtime_config: Value) -> Result<Wishes, Error> {
        let attachment = Attachment {
            container_id: "a".into(),
            netns: "/n".into(),
            ifname: "eth0".into(),
            args: args.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            runtime_config: runtime_config.as_object().unwrap().clone(),
        };
        let dirs = Dirs { state: "/s".into(), bin: vec![] };
        let site = Site { network: "net", version: "1.1.0", dirs: &dirs, sockets: &Default::default() };
        Wishes::of(config.as_object().unwrap(), &Call::new(site, &attachment))
    }

    #[test]
    fn the_last_that_says_anything_counts() {
        let config = json!({"args": {"cni": {"ips": ["10.0.0.1"], "mac": "0a:00:00:00:00:01"}},
            "capabilities": {"ips": true, "ipRanges": true}});
        let ip = |wishes: &Wishes| wishes.ips[0].address.to_string();
        let none = json!({});
        assert_eq!(ip(&read(config.clone(), &[], none.clone()).unwrap()), "10.0.0.1");
        assert_eq!(ip(&read(config.clone(), &[("IP", "10.0.0.2/24")], none).unwrap()), "10.0.0.2");
        let offered = json!({"ips": ["10.0.0.3"], "ipRanges": [], "mac": "0a:00:00:00:00:03"});
        let all = read(config, &[("IP", "10.0.0.2"), ("GATEWAY", "10.0.0.9"), ("K8S_POD_NAME", "x")], offered).unwrap();
        assert_eq!((ip(&all), all.gateway.len(), all.ranges.is_some()), ("10.0.0.3".into(), 1, true));
        assert_eq!(all.mac.unwrap().to_string(), "0a:00:00:00:00:01", "it is not capable of the other");
    }

    #[test]
    fn nonsense_is_refused_by_its_place() {
        for (config, args, expected) in [
            (json!({"args": {"cni": {"ips": ["ten"]}}}), None, "args.cni.ips[0]: \"ten\" is no address"),
            (json!({"args": {"cni": {"ips": [7]}}}), None, "args.cni.ips[0]: must be text"),
            (json!({"args": {"cni": {"mac": "01:00:00:00:00:00"}}}), None, "args.cni.mac: "),
            (json!({}), Some(("IP", "10.0.0.1/33")), "CNI_ARGS: IP: \"10.0.0.1/33\" is no address"),
            (json!({}), Some(("GATEWAY", "x")), "CNI_ARGS: GATEWAY: \"x\" is no address"),
            (json!({}), Some(("MAC", "0a:00")), "CNI_ARGS: MAC: \"0a:00\" is no hardware address"),
        ] {
            let error = read(config, args.as_slice(), json!({})).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
