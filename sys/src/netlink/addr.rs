//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::message::{Messages, attribute};
use super::{Changes, Error, Route};

/// Length of the fixed part of an address message (`ifaddrmsg`).
const FIXED_LEN: usize = 8;

/// Whether an address of version 6 has another owner on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It is not known yet.
    Going,
    /// It has.
    Taken,
}

impl Changes {
    /// Gives a link an address. An address of version 6 is usable at once: whoever gives it out knows that it is free,
    /// so the kernel does not probe for another owner. One that is there already is left.
    pub fn add_address(&mut self, link: u32, address: IpNetwork) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let no_probe = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        let what = format!("give address {address} to link {link}");
        self.address(what, libc::RTM_NEWADDR, flags, link, address, no_probe);
    }

    /// As [`Self::add_address`], but the kernel asks on the link first whether an address of version 6 has another owner
    /// (RFC 4862): [`Route::probes`] tells.
    pub fn add_probed_address(&mut self, link: u32, address: IpNetwork) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let what = format!("give address {address} to link {link}, if it is free");
        self.address(what, libc::RTM_NEWADDR, flags, link, address, 0);
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, link: u32, address: IpNetwork) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.address(format!("take address {address} from link {link}"), libc::RTM_DELADDR, flags, link, address, 0);
    }

    fn address(&mut self, what: String, kind: u16, flags: i32, link: u32, address: IpNetwork, of_address: u8) {
        self.messages.push(what, kind, flags, |message| {
            let [a, b, c, d] = link.to_ne_bytes();
            message.fixed(&[family(&address.ip()), address.prefix(), of_address, libc::RT_SCOPE_UNIVERSE, a, b, c, d]);
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
        let all = self.read_addresses(link, parse)?;
        Ok(all.into_iter().filter(|(of, _)| *of == link).map(|(_, address)| address).collect())
    }

    /// The addresses of a link that are not usable yet or will never be.
    pub fn probes(&mut self, link: u32) -> Result<Vec<(IpAddr, Probe)>, Error> {
        let all = self.read_addresses(link, |body| {
            let flags = u32::from(*body.get(2)?);
            let probe = match () {
                () if flags & libc::IFA_F_DADFAILED != 0 => Probe::Taken,
                () if flags & libc::IFA_F_TENTATIVE != 0 => Probe::Going,
                () => return None,
            };
            parse(body).map(|(of, address)| (of, address.ip(), probe))
        })?;
        Ok(all.into_iter().filter(|(of, ..)| *of == link).map(|(_, address, probe)| (address, probe)).collect())
    }

    /// The addresses of all links, each with the link's number.
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, IpNetwork)>, Error> {
        self.read_addresses(0, parse)
    }

    fn read_addresses<T>(&mut self, link: u32, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Error> {
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
