//! Port mappings as the runtime gives them, and the elements of maps that they become.

use std::net::IpAddr;

use berth_sys::conntrack::Which;
use berth_sys::nft::set::{Element, concat};
use nix::libc::{IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP};
use serde_json::Value;

use crate::Error;
use crate::limits::PORT_MAPPINGS_MAX;
use crate::spec::fields::{Fields, list_at};

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    protocol: u8,
    host_ip: Option<IpAddr>,
    host_port: u16,
    pod_port: u16,
}

impl Mapping {
    /// Whether it applies to a pod's address.
    pub(super) fn reaches(&self, pod: &IpAddr) -> bool {
        self.host_ip.is_none_or(|host| host.is_ipv4() == pod.is_ipv4())
    }

    /// The only address of the host that counts; `None` if all do.
    pub(super) fn one_address(&self) -> Option<IpAddr> {
        self.host_ip.filter(|host| !host.is_unspecified())
    }

    /// The connections that were begun before it and would go the old way for ever, if its protocol has any: those to a
    /// port of the host, on the side of a pod's IP version.
    pub(super) fn older(&self, pod: &IpAddr) -> Option<Which> {
        let any = if pod.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let address = self.one_address().unwrap_or(any);
        self.is_endless().then_some(Which::BegunTo { address, port: self.host_port })
    }

    /// The connections that it sent to a pod, if its protocol has any that do not end.
    pub(super) fn led(&self, pod: IpAddr) -> Option<Which> {
        self.is_endless().then_some(Which::AnsweredFrom { address: pod, port: self.pod_port })
    }

    fn is_endless(&self) -> bool {
        i32::from(self.protocol) == IPPROTO_UDP
    }

    /// The element of the map that leads to a pod, marked with its owner.
    pub(super) fn element(&self, pod: &IpAddr, owner: &str) -> Element {
        let (host_port, pod_port) = (self.host_port.to_be_bytes(), self.pod_port.to_be_bytes());
        let mut key = self.one_address().map(|host| octets(&host)).unwrap_or_default();
        key.extend(concat([&[self.protocol][..], &host_port]));
        Element { key, value: Some(concat([&octets(pod)[..], &pod_port])), comment: owner.to_owned() }
    }
}

/// Reads `runtimeConfig.portMappings`. Entries without a port of the host are for nobody.
pub(super) fn parse(list: &Value) -> Result<Vec<Mapping>, Error> {
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
            "tcp" => IPPROTO_TCP,
            "udp" => IPPROTO_UDP,
            "sctp" => IPPROTO_SCTP,
            other => return Err(fields.error("protocol", format!("{other:?} is not known; use tcp, udp or sctp"))),
        } as u8;
        mappings.push(Mapping { protocol, host_ip: fields.parsed("hostIP")?, host_port, pod_port });
    }
    Ok(mappings)
}

/// An element's key as people write it: its last eight bytes are protocol and port.
pub(super) fn port_of(key: &[u8]) -> String {
    let Some((address, [protocol, _, _, _, high, low, _, _])) = key.split_last_chunk::<8>() else {
        return String::new();
    };
    let protocol = match i32::from(*protocol) {
        IPPROTO_TCP => "tcp",
        IPPROTO_UDP => "udp",
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
        let element = mappings[1].element(&"10.1.0.2".parse().unwrap(), "berth0");
        assert_eq!(port_of(&element.key), "udp 10.0.0.1:53");
        assert_eq!(element.value.unwrap(), [10, 1, 0, 2, 20, 233, 0, 0]);
        let error = parse(&json!([{"hostPort": 70000, "containerPort": 1}])).unwrap_err();
        assert!(error.to_string().contains("runtimeConfig.portMappings[0].hostPort: 70000 is no port"), "{error}");
    }
}
