//! `static`: addresses that stand in the configuration, or that the attachment wants itself.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::dns;
use super::host_local::routes;
use crate::Error;
use crate::builtin::wishes::Wishes;
use crate::limits::ADDRESSES_WISHED_MAX;
use crate::spec::fields::Fields;
use crate::spec::result::{AddResult, IpConfig, Route};

/// What the configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    ips: Vec<IpConfig>,
    routes: Vec<Route>,
    dns: Map<String, Value>,
    /// The field of the addresses.
    field: String,
}

impl Fixed {
    pub(crate) fn parse(ipam: &Fields<'_>) -> Result<Self, Error> {
        let mut ips = Vec::new();
        for (path, value) in ipam.list("addresses", ADDRESSES_WISHED_MAX)? {
            let fields = Fields::at(path, value)?;
            let address: IpNetwork = with_prefix(&fields)?;
            let gateway: Option<IpAddr> = fields.parsed("gateway")?;
            if gateway.is_some_and(|gateway| gateway.is_ipv4() != address.is_ipv4()) {
                return Err(fields.error("gateway", format!("is not of the same IP version as {address}")));
            }
            ips.push(IpConfig { address, gateway, interface: None });
        }
        Ok(Self { ips, routes: routes(ipam)?, dns: dns::parse(ipam)?, field: ipam.path("addresses") })
    }

    pub(crate) fn add(&self, wishes: &Wishes) -> Result<AddResult, Error> {
        let mut ips = self.ips.clone();
        if !wishes.ips.is_empty() {
            ips = wishes.ips.iter().map(|wish| self.wished(wish, wishes)).collect::<Result<_, _>>()?;
        }
        if ips.is_empty() {
            let problem = "is empty, and the attachment wants no address itself".to_owned();
            return Err(Error::Config { field: self.field.clone(), problem });
        }
        Ok(AddResult { ips, routes: self.routes.clone(), dns: self.dns.clone(), ..AddResult::default() })
    }

    fn wished(&self, wish: &super::super::wishes::Wish, wishes: &Wishes) -> Result<IpConfig, Error> {
        let wrong =
            |problem: &str| Error::Config { field: self.field.clone(), problem: format!("{} {problem}", wish.address) };
        let prefix = wish.prefix.ok_or_else(|| wrong("is wanted without the length of its prefix"))?;
        let address = IpNetwork::new(wish.address, prefix).map_err(|_| wrong("has a prefix that is too long"))?;
        let known = self.ips.iter().find(|ip| ip.address == address).and_then(|ip| ip.gateway);
        let gateway = wishes.gateway.iter().find(|gateway| address.contains(**gateway)).copied();
        Ok(IpConfig { address, gateway: gateway.or(known), interface: None })
    }
}

fn with_prefix(fields: &Fields<'_>) -> Result<IpNetwork, Error> {
    let text = fields.required("address")?;
    if !text.contains('/') {
        return Err(fields.error("address", format!("{text:?} has no prefix length, such as \"10.0.0.2/24\"")));
    }
    fields.parsed("address")?.ok_or_else(|| fields.error("address", "is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::wishes::Wish;
    use serde_json::json;

    fn parse(value: Value) -> Result<Fixed, Error> {
        Fixed::parse(&Fields::at("ipam".into(), &value)?)
    }

    #[test]
    fn addresses_are_those_of_the_configuration_or_of_the_attachment() {
        let fixed = parse(json!({"addresses": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.0.0.1"]}}))
        .unwrap();
        let result = fixed.add(&Wishes::default()).unwrap();
        assert_eq!(
            serde_json::to_value(&result.ips).unwrap(),
            json!([{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}])
        );
        assert_eq!((result.routes.len(), result.dns.len()), (1, 1));
        let wish = |address: &str, prefix| Wish { address: address.parse().unwrap(), prefix };
        let gateway = vec!["10.1.0.1".parse().unwrap()];
        let wishes = Wishes { ips: vec![wish("10.1.0.5", Some(16))], gateway, ..Wishes::default() };
        let ips = serde_json::to_value(fixed.add(&wishes).unwrap().ips).unwrap();
        assert_eq!(ips, json!([{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}]));
        let bare = Wishes { ips: vec![wish("10.1.0.5", None)], ..Wishes::default() };
        assert!(fixed.add(&bare).unwrap_err().to_string().contains("without the length"));
    }

    #[test]
    fn nonsense_is_refused_by_its_field() {
        for (value, expected) in [
            (json!({"addresses": [{}]}), "ipam.addresses[0].address: is missing"),
            (json!({"addresses": [{"address": "10.0.0.2"}]}), "ipam.addresses[0].address: \"10.0.0.2\" has no prefix"),
            (json!({"addresses": [{"address": "10.0.0.2/24", "gateway": "fd00::1"}]}), "ipam.addresses[0].gateway: "),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.code() == 7 && error.to_string().contains(expected), "{error}");
        }
        let none = parse(json!({})).unwrap().add(&Wishes::default()).unwrap_err();
        assert!(none.to_string().contains("ipam.addresses: is empty"), "{none}");
    }
}
