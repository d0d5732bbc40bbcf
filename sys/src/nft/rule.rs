//! Rules: a list of expressions, each of which loads, compares or decides. A comparison that fails ends its rule.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::batch::Batch;
use super::table::Table;
use super::{Nft, body, encode, header, if_absent, kind};
use crate::netlink::Error;
use crate::netlink::message::{Attributes, Messages, attribute};

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ITEM: u16 = 1;
/// Bit of a connection's status: its destination was translated (`IPS_DST_NAT`).
const STATUS_DNAT: u32 = 1 << 5;
/// Bits of a connection's state: established, or brought about by one that is (`NF_CT_STATE_BIT`).
const STATE_GOES_ON: u32 = 1 << 1 | 1 << 2;
/// `ETH_P_IP` and `ETH_P_IPV6`.
const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// Longest comment that nft shows.
const COMMENT_BYTES_MAX: usize = 127;

/// A four-byte register, 0 to 15; longer values take the next ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    pub(super) fn number(self) -> u32 {
        libc::NFT_REG32_00 as u32 + u32::from(self.0.min(15))
    }
}

/// What is known about a packet besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    /// IPv4 or IPv6, one byte: the number of a [`super::table::Family`].
    Version = libc::NFT_META_NFPROTO as u32,
    /// Name of the link that the packet came in by, 16 bytes.
    InputName = libc::NFT_META_IIFNAME as u32,
    /// Name of the link that the packet leaves by, 16 bytes.
    OutputName = libc::NFT_META_OIFNAME as u32,
    /// What is in a frame, two bytes: the number of Ethernet. For bridges, where [`Self::Version`] is neither.
    EtherType = libc::NFT_META_PROTOCOL as u32,
    /// TCP, UDP…, one byte.
    Protocol = libc::NFT_META_L4PROTO as u32,
}

/// A header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    /// Ethernet's: the source is at byte 6.
    Link = libc::NFT_PAYLOAD_LL_HEADER as u32,
    /// IPv4's or IPv6's.
    Network = libc::NFT_PAYLOAD_NETWORK_HEADER as u32,
    /// TCP's, UDP's…
    Transport = libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32,
}

/// How a rule ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on to the next base chain.
    Accept,
    /// The packet is gone.
    Drop,
    /// Back to the chain that sent it here.
    Return,
    /// Into another chain, and back.
    Jump(String),
    /// Into another chain.
    Goto(String),
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads what is known about the packet.
    Meta(Meta, Register),
    /// Loads bytes of a header: where, at which byte, how many.
    Payload(Base, u32, u32, Register),
    /// Keeps the bits of a register that stand in the mask.
    And(Register, Vec<u8>),
    /// Goes on if the register equals the value.
    Equal(Register, Vec<u8>),
    /// Goes on if the register differs from the value.
    Differ(Register, Vec<u8>),
    /// Goes on if the map has the key that begins in the first register; the value goes to the second.
    Map(String, Register, Register),
    /// Goes on if the set has the key that begins in the register.
    Set(String, Register),
    /// Goes on if the set does not have the key that begins in the register.
    NotSet(String, Register),
    /// Loads the type of the destination address as the routing tables see it, such as local (`RTN_LOCAL`).
    DestinationType(Register),
    /// Loads the bit of the state that the connection is in.
    ConnectionState(Register),
    /// Loads the status bits of the connection.
    ConnectionStatus(Register),
    /// Source becomes the address of the link that the packet leaves through, at a port that nobody can guess.
    Masquerade,
    /// Destination becomes the address, and the port, in these registers.
    Dnat {
        /// [`super::table::Family::Ip`] or `Ip6`.
        family: super::table::Family,
        /// Where the address is.
        address: Register,
        /// Where the port is.
        port: Register,
    },
    /// The rule's end.
    Verdict(Verdict),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub exprs: Vec<Expr>,
    /// Shown by `nft list`.
    pub comment: Cow<'static, str>,
}

/// A rule as the kernel has it, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The kernel's number for it, of which each is given once in a table.
    pub handle: u64,
    /// Its comment; empty if it has none.
    pub comment: String,
}

/// Goes on if the packet came in by the link of this name.
pub fn comes_in_by(link: &str) -> [Expr; 2] {
    [Expr::Meta(Meta::InputName, Register(0)), Expr::Equal(Register(0), link_name(link))]
}

/// Goes on if the packet leaves by the link of this name.
pub fn leaves_by(link: &str) -> [Expr; 2] {
    [Expr::Meta(Meta::OutputName, Register(0)), Expr::Equal(Register(0), link_name(link))]
}

/// Goes on if the packet came in by a link of another name.
pub fn comes_in_elsewhere(link: &str) -> [Expr; 2] {
    [Expr::Meta(Meta::InputName, Register(0)), Expr::Differ(Register(0), link_name(link))]
}

fn link_name(link: &str) -> Vec<u8> {
    let mut name = link.as_bytes().to_vec();
    name.resize(libc::IFNAMSIZ, 0);
    name
}

/// Goes on if the packet is of a connection that both sides have spoken in, or was brought about by one.
pub fn connection_goes_on() -> [Expr; 3] {
    let register = Register(0);
    let bits = STATE_GOES_ON.to_ne_bytes().to_vec();
    [Expr::ConnectionState(register), Expr::And(register, bits), Expr::Differ(register, vec![0; 4])]
}

/// Goes on if a frame on a bridge has a packet of this version of IP in it.
pub fn frame_version_is(address: &IpAddr) -> [Expr; 2] {
    let number = if address.is_ipv4() { ETHER_TYPE_IPV4 } else { ETHER_TYPE_IPV6 };
    [Expr::Meta(Meta::EtherType, Register(0)), Expr::Equal(Register(0), number.to_be_bytes().to_vec())]
}

/// Goes on if the packet's source is in the network.
pub fn source_in(network: IpNetwork) -> Vec<Expr> {
    version_is(&network.ip()).into_iter().chain(source_bits_in(network)).collect()
}

/// Goes on if the packet's destination is in the network.
pub fn destination_in(network: IpNetwork) -> Vec<Expr> {
    version_is(&network.ip()).into_iter().chain(destination_bits_in(network)).collect()
}

/// As [`source_in`], where the version of IP is known: in a table of one, or behind another question for it.
pub fn source_bits_in(network: IpNetwork) -> [Expr; 3] {
    address_in(network, 12, 8)
}

/// As [`destination_in`], where the version of IP is known.
pub fn destination_bits_in(network: IpNetwork) -> [Expr; 3] {
    address_in(network, 16, 24)
}

/// The opposite of [`source_bits_in`].
pub fn source_bits_elsewhere(network: IpNetwork) -> [Expr; 3] {
    let [load, mask, compare] = source_bits_in(network);
    let compare = match compare {
        Expr::Equal(register, value) => Expr::Differ(register, value),
        other => other,
    };
    [load, mask, compare]
}

/// Goes on if the destination is an address of this machine.
pub fn destination_local() -> [Expr; 2] {
    let register = Register(0);
    [Expr::DestinationType(register), Expr::Equal(register, u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec())]
}

/// Goes on if the connection's destination was translated.
pub fn destination_translated() -> [Expr; 3] {
    let register = Register(0);
    let bit = STATUS_DNAT.to_ne_bytes().to_vec();
    [Expr::ConnectionStatus(register), Expr::And(register, bit), Expr::Differ(register, vec![0; 4])]
}

/// Goes on if the packet is of this version of IP.
pub fn version_is(address: &IpAddr) -> [Expr; 2] {
    let number = if address.is_ipv4() { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    [Expr::Meta(Meta::Version, Register(0)), Expr::Equal(Register(0), vec![number as u8])]
}

fn address_in(network: IpNetwork, v4_offset: u32, v6_offset: u32) -> [Expr; 3] {
    let (offset, address, mask) = match network {
        IpNetwork::V4(network) => (v4_offset, network.network().octets().to_vec(), network.mask().octets().to_vec()),
        IpNetwork::V6(network) => (v6_offset, network.network().octets().to_vec(), network.mask().octets().to_vec()),
    };
    let register = Register(0);
    [
        Expr::Payload(Base::Network, offset, address.len() as u32, register),
        Expr::And(register, mask),
        Expr::Equal(register, address),
    ]
}

impl Nft {
    /// The rules of a chain, in their order; none if there is no such chain.
    pub fn rules(&mut self, table: Table<'_>, chain: &str) -> Result<Vec<Standing>, Error> {
        let what = format!("read the rules of nft chain {} {chain}", table.name);
        self.dump_rules(what, table, |message| name_chain(message, table, chain))
    }

    /// The rules of all chains of a table; none if there is no such table.
    pub fn rules_of_table(&mut self, table: Table<'_>) -> Result<Vec<Standing>, Error> {
        let what = format!("read the rules of nft table {}", table.name);
        self.dump_rules(what, table, |message| message.put_str(RULE_TABLE, table.name))
    }

    fn dump_rules(
        &mut self,
        what: String,
        table: Table<'_>,
        name: impl FnOnce(&mut Attributes<'_>),
    ) -> Result<Vec<Standing>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request.push(what, kind(libc::NFT_MSG_GETRULE), flags, |message| {
            header(message, table);
            name(message);
        });
        let found = self.socket.dump(&mut request, |message| body(message).and_then(Standing::parse));
        if_absent(found, Vec::new())
    }
}

impl Standing {
    fn parse(attributes: &[u8]) -> Option<Self> {
        let handle = u64::from_be_bytes(attribute(attributes, RULE_HANDLE)?.try_into().ok()?);
        let comment = attribute(attributes, RULE_USERDATA).and_then(comment_in).unwrap_or_default();
        Some(Self { handle, comment })
    }
}

impl Batch {
    /// Puts a rule at the end of a chain.
    pub fn add_rule(&mut self, table: Table<'_>, chain: &str, rule: &Rule) {
        self.rule(libc::NLM_F_APPEND, table, chain, rule);
    }

    /// Puts a rule at the beginning of a chain.
    pub fn insert_rule(&mut self, table: Table<'_>, chain: &str, rule: &Rule) {
        self.rule(0, table, chain, rule);
    }

    fn rule(&mut self, place: i32, table: Table<'_>, chain: &str, rule: &Rule) {
        let what = format!("add a rule ({}) to nft chain {} {chain}", rule.comment, table.name);
        self.push(what, kind(libc::NFT_MSG_NEWRULE), libc::NLM_F_CREATE | place, |message| {
            header(message, table);
            name_chain(message, table, chain);
            message.nest(RULE_EXPRESSIONS, |list| {
                for expr in &rule.exprs {
                    list.nest(LIST_ITEM, |item| encode::write(item, expr));
                }
            });
            message.put(RULE_USERDATA, &comment(&rule.comment));
        });
    }

    /// Deletes all rules of a chain; refused with `ENOENT` if there is no such chain.
    pub fn flush_chain(&mut self, table: Table<'_>, chain: &str) {
        let what = format!("flush nft chain {} {chain}", table.name);
        self.push(what, kind(libc::NFT_MSG_DELRULE), 0, |message| {
            header(message, table);
            name_chain(message, table, chain);
        });
    }

    /// Deletes a rule; refused with `ENOENT` if it is gone.
    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, rule: &Standing) {
        let what = format!("delete a rule ({}) of nft chain {} {chain}", rule.comment, table.name);
        self.push(what, kind(libc::NFT_MSG_DELRULE), 0, |message| {
            header(message, table);
            name_chain(message, table, chain);
            message.put(RULE_HANDLE, &rule.handle.to_be_bytes());
        });
    }
}

fn name_chain(message: &mut Attributes<'_>, table: Table<'_>, chain: &str) {
    message.put_str(RULE_TABLE, table.name);
    message.put_str(RULE_CHAIN, chain);
}

/// A comment as nft keeps it: type 0, length, text with its zero byte.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(COMMENT_BYTES_MAX)];
    let mut bytes = vec![0, text.len() as u8 + 1];
    bytes.extend(text);
    bytes.push(0);
    bytes
}

/// The text of a comment that nft keeps; `None` if it is something else.
pub(super) fn comment_in(userdata: &[u8]) -> Option<String> {
    let [0, length, text @ ..] = userdata else { return None };
    let text = text.get(..usize::from(*length))?;
    Some(String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned())
}
