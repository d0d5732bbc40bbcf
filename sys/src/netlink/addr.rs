//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::message::{Messages, attribute};
use super::{Changes, Error, Route};

/// Length of the fixed part of an address message (`ifaddrmsg`).
const FIXED_LEN: usize = 8;

impl Changes {
    /// Gives a link an address. An address of version 6 is usable at once: whoever gives it out knows that it is free,
    /// so the kernel does not probe for another owner. One that is there already is left.
    pub fn add_address(&mut self, link: u32, address: IpNetwork) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.address(format!("give address {address} to link {link}"), libc::RTM_NEWADDR, flags, link, address);
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, link: u32, address: IpNetwork) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.address(format!("take address {address} from link {link}"), libc::RTM_DELADDR, flags, link, address);
    }

    fn address(&mut self, what: String, kind: u16, flags: i32, link: u32, address: IpNetwork) {
        self.messages.push(what, kind, flags, |message| {
            let no_probe = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
            let [a, b, c, d] = link.to_ne_bytes();
            message.fixed(&[family(&address.ip()), address.prefix(), no_probe, libc::RT_SCOPE_UNIVERSE, a, b, c, d]);
            let bytes = octets(&address.ip());
            message.put(libc::IFA_LOCAL, &bytes);
            message.put(libc::IFA_ADDRESS, &bytes);
            if let (IpNetwork::V4(network), true) = (address, address.prefix() < 31) {
                message.put(libc::IFA_BROADCAST, &network.broadcast().octets());
            }
        });
    }
}

impl Route {
    /// The addresses of a link, those that the kernel made of its hardware address included.
    pub fn addresses(&mut self, link: u32) -> Result<Vec<IpNetwork>, Error> {
        let all = self.read_addresses(link)?;
        Ok(all.into_iter().filter(|(of, _)| *of == link).map(|(_, address)| address).collect())
    }

    /// The addresses of all links, each with the link's number.
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, IpNetwork)>, Error> {
        self.read_addresses(0)
    }

    fn read_addresses(&mut self, link: u32) -> Result<Vec<(u32, IpNetwork)>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let what =
            if link == 0 { "read all addresses".to_owned() } else { format!("read the addresses of link {link}") };
        request.push(what, libc::RTM_GETADDR, flags, |message| {
            let [a, b, c, d] = link.to_ne_bytes();
            message.fixed(&[libc::AF_UNSPEC as u8, 0, 0, 0, a, b, c, d]);
        });
        self.socket.dump(&mut request, |message| parse(message.body))
    }
}

fn parse(body: &[u8]) -> Option<(u32, IpNetwork)> {
    let attributes = body.get(FIXED_LEN..)?;
    let (prefix, link) = (*body.get(1)?, super::message::u32_at(body, 4)?);
    let value = attribute(attributes, libc::IFA_LOCAL).or_else(|| attribute(attributes, libc::IFA_ADDRESS))?;
    Some((link, IpNetwork::new(ip(value)?, prefix).ok()?))
}

/// The kernel's number of an address's family.
pub(super) fn family(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// An address as the kernel takes it.
pub(crate) fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address as the kernel gives it.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}
