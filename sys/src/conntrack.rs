//! The kernel's memory of connections (conntrack), by ctnetlink: forgetting those that a translation of addresses has
//! made wrong. A stream of UDP has no end that the kernel could see: what began before a port was forwarded, or was
//! forwarded to a pod that is gone, would go the old way for as long as somebody sends.
//!
//! Numbers are those of `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::IpAddr;

use nix::errno::Errno;

use crate::netlink::Error;
use crate::netlink::addr::octets;
use crate::netlink::message::{Attributes, Messages, Received, attribute};
use crate::netlink::socket::{Protocol, Socket};

/// Length of the fixed part of a message (`nfgenmsg`).
const FIXED_LEN: usize = 4;
const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP4_SOURCE: u16 = 1;
const IP4_DESTINATION: u16 = 2;
const IP6_SOURCE: u16 = 3;
const IP6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// Bits of a filter: which parts of a tuple count.
const BY_SOURCE: u32 = 1;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Connections that are forgotten in one call of the kernel.
const DELETIONS_PER_CALL: usize = 256;

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that were begun to a port, of one address or of any.
    BegunTo {
        /// The address; unspecified for any of its IP version.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Those that are answered from a port of an address, whatever they were begun to.
    AnsweredFrom {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
}

/// Who leaves out the connections that are not meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    /// The kernel: what is not meant costs nothing to tell.
    ByKernel,
    /// This process, which is told all.
    Here,
}

/// A conversation with the kernel about connections.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens one for the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Forgets connections of a protocol, such as `IPPROTO_UDP`, and tells how many there were. A kernel that keeps no
    /// connections has none. Those that do not match are not told by the kernel, however many they are.
    pub fn forget(&mut self, protocol: u8, which: Which) -> Result<usize, Error> {
        let family = which.family();
        let found = match self.find(protocol, which, Chosen::ByKernel) {
            // A kernel that cannot filter by these parts; or one without the subsystem, which says the same.
            Err(error) if error.errno() == Some(Errno::EINVAL) => self.find(protocol, which, Chosen::Here),
            found => found,
        };
        let found = match found {
            Err(error) if error.errno().is_some_and(is_absence) => return Ok(0),
            found => found?,
        };
        for chunk in found.chunks(DELETIONS_PER_CALL) {
            self.delete(family, chunk)?;
        }
        Ok(found.len())
    }

    fn find(&mut self, protocol: u8, which: Which, chosen: Chosen) -> Result<Vec<Connection>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request.push("read the kernel's connections", GET, flags, |message| {
            message.fixed(&fixed(which.family()));
            if chosen == Chosen::ByKernel {
                which.write(message, protocol);
            }
        });
        self.socket.dump(&mut request, |message| parse(message, protocol, which))
    }

    fn delete(&mut self, family: u8, chunk: &[Connection]) -> Result<(), Error> {
        let mut deletions = Messages::new();
        for connection in chunk {
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
            deletions.push("forget a connection", DELETE, flags, |message| {
                message.fixed(&fixed(family));
                message.put(TUPLE_ORIGINAL | libc::NLA_F_NESTED as u16, &connection.original);
                if let Some(id) = &connection.id {
                    message.put(ID, id);
                }
                if let Some(zone) = &connection.zone {
                    message.put(ZONE, zone);
                }
            });
        }
        match self.socket.acknowledged(&mut deletions) {
            // It ended by itself.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }
}

/// What a connection is deleted by, as the kernel told it.
#[derive(Debug)]
struct Connection {
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

impl Which {
    fn address(&self) -> IpAddr {
        match self {
            Self::BegunTo { address, .. } | Self::AnsweredFrom { address, .. } => *address,
        }
    }

    fn family(&self) -> u8 {
        if self.address().is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
    }

    /// The part of the request that lets the kernel choose.
    fn write(&self, message: &mut Attributes<'_>, protocol: u8) {
        let v4 = self.address().is_ipv4();
        let (tuple, side, ip, port_kind, port, by) = match self {
            Self::BegunTo { address, port } => {
                let by_address = if address.is_unspecified() { 0 } else { BY_DESTINATION };
                let ip = if v4 { IP4_DESTINATION } else { IP6_DESTINATION };
                let by = BY_PROTOCOL | BY_DESTINATION_PORT | by_address;
                (TUPLE_ORIGINAL, FILTER_ORIGINAL, ip, PROTOCOL_DESTINATION_PORT, port, by)
            }
            Self::AnsweredFrom { port, .. } => {
                let ip = if v4 { IP4_SOURCE } else { IP6_SOURCE };
                let by = BY_PROTOCOL | BY_SOURCE_PORT | BY_SOURCE;
                (TUPLE_REPLY, FILTER_REPLY, ip, PROTOCOL_SOURCE_PORT, port, by)
            }
        };
        message.nest(tuple, |tuple| {
            tuple.nest(TUPLE_IP, |addresses| addresses.put(ip, &octets(&self.address())));
            tuple.nest(TUPLE_PROTOCOL, |parts| {
                parts.put(PROTOCOL_NUMBER, &[protocol]);
                parts.put(port_kind, &port.to_be_bytes());
            });
        });
        message.nest(FILTER, |filter| filter.put_u32(side, by));
    }

    /// Whether a connection is one of these: a kernel may not know the filter.
    fn holds(&self, protocol: u8, original: &[u8], reply: &[u8]) -> bool {
        let (tuple, ip_kinds, port_kind, port) = match self {
            Self::BegunTo { port, .. } => {
                (original, [IP4_DESTINATION, IP6_DESTINATION], PROTOCOL_DESTINATION_PORT, port)
            }
            Self::AnsweredFrom { port, .. } => (reply, [IP4_SOURCE, IP6_SOURCE], PROTOCOL_SOURCE_PORT, port),
        };
        let (Some(ip), Some(parts)) = (attribute(tuple, TUPLE_IP), attribute(tuple, TUPLE_PROTOCOL)) else {
            return false;
        };
        let wanted = self.address();
        let found = attribute(ip, ip_kinds[usize::from(wanted.is_ipv6())]);
        let by_address = found.is_some_and(|found| wanted.is_unspecified() || found == octets(&wanted));
        by_address
            && attribute(parts, PROTOCOL_NUMBER) == Some(&[protocol])
            && attribute(parts, port_kind) == Some(&port.to_be_bytes())
    }
}

/// Whether a refusal of the simplest request says that the kernel keeps no connections, or does not tell of them:
/// `EINVAL` is its answer about a subsystem that is not there (`nfnetlink_rcv_msg`).
fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::EOPNOTSUPP | Errno::ENOENT | Errno::EINVAL)
}

fn fixed(family: u8) -> [u8; FIXED_LEN] {
    [family, 0, 0, 0]
}

fn parse(message: Received<'_>, protocol: u8, which: Which) -> Option<Connection> {
    let attributes = message.body.get(FIXED_LEN..)?;
    let (original, reply) = (attribute(attributes, TUPLE_ORIGINAL)?, attribute(attributes, TUPLE_REPLY)?);
    let copy = |kind| attribute(attributes, kind).map(<[u8]>::to_vec);
    which.holds(protocol, original, reply).then(|| Connection {
        original: original.to_vec(),
        id: copy(ID),
        zone: copy(ZONE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kernel_without_the_subsystem_says_so() {
        /// A subsystem that no kernel has (`NFNL_SUBSYS_COUNT` and above).
        const NO_SUBSYSTEM: u16 = 200 << 8;
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request.push("ask nobody", NO_SUBSYSTEM | 1, flags, |message| message.fixed(&fixed(libc::AF_INET as u8)));
        let error = socket.answers(&mut request, |_| {}).unwrap_err();
        assert!(error.errno().is_some_and(is_absence), "{error}");
    }

    proptest! {
        #[test]
        fn reading_never_panics(body: Vec<u8>, port: u16) {
            let message = Received { kind: GET, flags: 0, sequence: 0, body: &body };
            let address = IpAddr::from([0; 16]);
            let _ = parse(message, 17, Which::BegunTo { address, port });
            let _ = parse(message, 17, Which::AnsweredFrom { address, port });
        }
    }
}
