//! Neighbours: which hardware address an address of a link's network has, and behind which machine a hardware address of a
//! vxlan is (its forwarding database, `bridge fdb`). Layouts after `linux/neighbour.h`.

use std::net::IpAddr;

use super::addr::{family, ip, octets};
use super::link::Mac;
use super::message::{Messages, attribute, u16_at, u32_at};
use super::{Changes, Error, Route};

/// Length of the fixed part of a message (`ndmsg`).
const FIXED_LEN: usize = 12;
const DESTINATION: u16 = 1;
const HARDWARE: u16 = 2;
const STATE_PERMANENT: u16 = 0x80;
/// The entry is the device's own, not that of a bridge which it is a port of.
const FLAG_SELF: u8 = 2;

/// A permanent entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// The link.
    pub link: u32,
    /// An address: of the neighbour itself, or of the machine behind which the hardware address is.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: Mac,
}

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Hardware addresses by address.
    Neighbours,
    /// Machines by hardware address, of a vxlan.
    Forwarding,
}

impl Changes {
    /// Adds a permanent entry, or replaces the one that is there.
    pub fn add_neighbour(&mut self, table: Table, entry: &Neighbour) {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.neighbour(libc::RTM_NEWNEIGH, flags, table, entry);
    }

    /// Deletes an entry.
    pub fn delete_neighbour(&mut self, table: Table, entry: &Neighbour) {
        self.neighbour(libc::RTM_DELNEIGH, libc::NLM_F_REQUEST | libc::NLM_F_ACK, table, entry);
    }

    fn neighbour(&mut self, kind: u16, flags: i32, table: Table, entry: &Neighbour) {
        let verb = if kind == libc::RTM_NEWNEIGH { "add" } else { "delete" };
        let what = format!("{verb} {} at {} on link {}", entry.address, entry.mac, entry.link);
        self.messages.push(what, kind, flags, |message| {
            let (family, flags) = match table {
                Table::Neighbours => (family(&entry.address), 0),
                Table::Forwarding => (libc::AF_BRIDGE as u8, FLAG_SELF),
            };
            message.fixed(&fixed(family, entry.link, flags));
            message.put(DESTINATION, &octets(&entry.address));
            message.put(HARDWARE, &entry.mac.0);
        });
    }
}

impl Route {
    /// The permanent entries of a link.
    pub fn neighbours(&mut self, table: Table, link: u32) -> Result<Vec<Neighbour>, Error> {
        let families: &[i32] = match table {
            Table::Neighbours => &[libc::AF_INET, libc::AF_INET6],
            Table::Forwarding => &[libc::AF_BRIDGE],
        };
        let mut found = Vec::new();
        for family in families {
            let mut request = Messages::new();
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            request.push(format!("read the neighbours of link {link}"), libc::RTM_GETNEIGH, flags, |message| {
                let mut fixed = [0; FIXED_LEN];
                fixed[0] = *family as u8;
                message.fixed(&fixed);
            });
            found.extend(self.socket.dump(&mut request, |message| parse(message.body, link))?);
        }
        Ok(found)
    }
}

fn fixed(family: u8, link: u32, flags: u8) -> [u8; FIXED_LEN] {
    let mut bytes = [0; FIXED_LEN];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&link.to_ne_bytes());
    bytes[8..10].copy_from_slice(&STATE_PERMANENT.to_ne_bytes());
    bytes[10] = flags;
    bytes
}

fn parse(body: &[u8], link: u32) -> Option<Neighbour> {
    let attributes = body.get(FIXED_LEN..)?;
    if u32_at(body, 4)? != link || u16_at(body, 8)? & STATE_PERMANENT == 0 {
        return None;
    }
    let address = attribute(attributes, DESTINATION).and_then(ip)?;
    let mac = attribute(attributes, HARDWARE)?.try_into().ok().map(Mac)?;
    Some(Neighbour { link, address, mac })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = Neighbour { link: 7, address: "192.0.2.1".parse().unwrap(), mac: Mac([2, 0, 0, 0, 0, 9]) };
        for table in [Table::Neighbours, Table::Forwarding] {
            let mut changes = Changes::new();
            changes.add_neighbour(table, &entry);
            let bytes = changes.messages.numbered(1).to_vec();
            let body = &bytes[super::super::message::HEADER_LEN..];
            assert_eq!(parse(body, 7), Some(entry));
            (0..body.len()).for_each(|end| _ = parse(&body[..end], 7));
        }
    }
}
