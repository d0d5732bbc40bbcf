//! What ADD gives (CNI specification, section "Success").

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;

/// What ADD gave. Fields that are not known here are kept as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddResult {
    /// The version of the specification that the result follows.
    pub cni_version: String,
    /// What was made: the host's interfaces, and with a `sandbox` the container's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses of the attachment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// Routes inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name servers, as the plugin wants them.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub dns: Map<String, Value>,
    /// All else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl AddResult {
    /// As a version of the specification has it: before 1.0.0 each address told its IP version.
    pub fn in_version(&self, version: &str) -> Result<Value, Error> {
        let failed = |source| Error::Decode { what: "the result".to_owned(), source };
        let mut value = serde_json::to_value(self).map_err(failed)?;
        value["cniVersion"] = version.into();
        if version.starts_with("0.") {
            let ips = value.get_mut("ips").and_then(Value::as_array_mut);
            for (ip, known) in ips.into_iter().flatten().zip(&self.ips) {
                ip["version"] = if known.address.is_ipv4() { "4" } else { "6" }.into();
            }
        }
        Ok(value)
    }

    /// The addresses of the attachment, without their prefix lengths.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ips.iter().map(|ip| ip.address.ip())
    }

    /// The subnets that they are in.
    pub(crate) fn subnets(&self) -> Vec<IpNetwork> {
        let subnet = |ip: &IpConfig| IpNetwork::new(ip.address.network(), ip.address.prefix()).ok();
        self.ips.iter().filter_map(subnet).collect()
    }
}

/// An interface that was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of the network namespace that it is in; empty for the host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// All else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An address of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Address and prefix length.
    pub address: IpNetwork,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into the result's interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u32>,
}

/// A route inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNetwork,
    /// The next router; the gateway of the address of the same version, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// All else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_kept() {
        let text = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","pciID":"x","sandbox":"/n"}],
            "ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1","interface":0}],
            "routes":[{"dst":"0.0.0.0/0","mtu":1400}],"dns":{"nameservers":["1.1.1.1"]},"vendor":{"a":1}}"#;
        let result: AddResult = serde_json::from_str(text).unwrap();
        assert_eq!(result.ips[0].address, "10.0.0.2/24".parse().unwrap());
        let back: Value = serde_json::to_value(&result).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn old_plugins_are_told_the_version_of_addresses() {
        let result: AddResult =
            serde_json::from_value(serde_json::json!({"ips": [{"address": "10.0.0.2/24"}]})).unwrap();
        assert_eq!(result.in_version("0.4.0").unwrap()["ips"][0]["version"], "4");
        assert_eq!(result.in_version("1.0.0").unwrap()["ips"][0].get("version"), None);
    }
}
