//! Sets and maps, and their elements.

use super::batch::Batch;
use super::rule::{comment, comment_in};
use super::table::Table;
use super::{header, kind};
use crate::netlink::message::{Attributes, attribute};

const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const DESC_CONCAT: u16 = 2;
const FIELD_LEN: u16 = 1;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_USERDATA: u16 = 6;
const DATA_VALUE: u16 = 1;
const FLAG_MAP: u32 = 0x8;
const FLAG_CONCAT: u32 = 0x80;

/// Elements in one message: their attributes must stay below 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 512;
/// Bits by which nft packs the types of a concatenation into one number.
const TYPE_BITS: u32 = 6;

/// A type of a key's or a value's part. Each takes a multiple of four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_proto`: TCP is 6.
    Protocol,
    /// `inet_service`: a port.
    Port,
    /// `ether_addr`
    Mac,
    /// `ifname`, filled up with zero bytes.
    LinkName,
}

impl Field {
    /// nft's number of the type, and its length in bytes without padding.
    const fn number_and_len(self) -> (u32, u32) {
        match self {
            Self::Ipv4 => (7, 4),
            Self::Ipv6 => (8, 16),
            Self::Protocol => (12, 1),
            Self::Port => (13, 2),
            Self::Mac => (9, 6),
            Self::LinkName => (41, libc::IFNAMSIZ as u32),
        }
    }
}

/// A set, or with `value` a map.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// The parts of its keys.
    pub key: &'a [Field],
    /// The parts of its values.
    pub value: Option<&'a [Field]>,
}

/// An element: its key, and in a map its value, as the bytes that packets are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key; see [`concat()`].
    pub key: Vec<u8>,
    /// The value, in a map.
    pub value: Option<Vec<u8>>,
    /// What `nft list` shows beside it; may be empty.
    pub comment: String,
}

impl Element {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let data = |kind| attribute(bytes, kind).and_then(|data| attribute(data, DATA_VALUE)).map(<[u8]>::to_vec);
        let comment = attribute(bytes, ELEMENT_USERDATA).and_then(comment_in).unwrap_or_default();
        Some(Self { key: data(ELEMENT_KEY)?, value: data(ELEMENT_DATA), comment })
    }
}

/// Joins the parts of a key or of a value: each is filled up to four bytes.
pub fn concat<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

impl Batch {
    /// Makes a set or a map.
    pub fn add_set(&mut self, table: Table<'_>, set: &Set<'_>) {
        let id = self.next_id();
        let what = format!("make nft set {} {}", table.name, set.name);
        self.push(what, kind(libc::NFT_MSG_NEWSET), libc::NLM_F_CREATE, |message| {
            header(message, table);
            message.put_str(SET_TABLE, table.name);
            message.put_str(SET_NAME, set.name);
            let concat = if set.key.len() > 1 { FLAG_CONCAT } else { 0 };
            let map = if set.value.is_some() { FLAG_MAP } else { 0 };
            message.put_be32(SET_FLAGS, concat | map);
            message.put_be32(SET_KEY_TYPE, type_number(set.key));
            message.put_be32(SET_KEY_LEN, length(set.key));
            if let Some(value) = set.value {
                message.put_be32(SET_DATA_TYPE, type_number(value));
                message.put_be32(SET_DATA_LEN, length(value));
            }
            message.put_be32(SET_ID, id);
            if set.key.len() > 1 {
                message.nest(SET_DESC, |desc| desc.nest(DESC_CONCAT, |fields| describe(fields, set.key)));
            }
        });
    }

    /// Adds elements. Refused as a whole with `EEXIST` or `EBUSY` if a key is there already.
    pub fn add_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.elements("add", libc::NFT_MSG_NEWSETELEM, flags, table, set, elements);
    }

    /// Deletes elements by their keys. Refused as a whole with `ENOENT` if a key is not there.
    pub fn delete_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        self.elements("delete", libc::NFT_MSG_DELSETELEM, 0, table, set, elements);
    }

    fn elements(&mut self, word: &str, verb: i32, flags: i32, table: Table<'_>, set: &str, elements: &[Element]) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let what = format!("{word} elements of nft set {} {set}", table.name);
            self.push(what, kind(verb), flags, |message| {
                header(message, table);
                name_list(message, table, set);
                message.nest(LIST_ELEMENTS, |list| {
                    for element in chunk {
                        list.nest(LIST_ITEM, |item| write(item, element));
                    }
                });
            });
        }
    }
}

/// Names the set that a list of elements is of.
pub(super) fn name_list(message: &mut Attributes<'_>, table: Table<'_>, set: &str) {
    message.put_str(LIST_TABLE, table.name);
    message.put_str(LIST_SET, set);
}

fn write(item: &mut Attributes<'_>, element: &Element) {
    item.nest(ELEMENT_KEY, |key| key.put(DATA_VALUE, &element.key));
    if let Some(value) = &element.value {
        item.nest(ELEMENT_DATA, |data| data.put(DATA_VALUE, value));
    }
    if !element.comment.is_empty() {
        item.put(ELEMENT_USERDATA, &comment(&element.comment));
    }
}

fn describe(list: &mut Attributes<'_>, fields: &[Field]) {
    for field in fields {
        list.nest(LIST_ITEM, |item| item.put_be32(FIELD_LEN, field.number_and_len().1));
    }
}

fn type_number(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| (number << TYPE_BITS) | field.number_and_len().0)
}

fn length(fields: &[Field]) -> u32 {
    fields.iter().map(|field| field.number_and_len().1.next_multiple_of(4)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_up_to_four_bytes() {
        assert_eq!(concat([&[10, 0, 0, 1][..], &[6], &[0, 80]]), [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(length(&[Field::Ipv6, Field::Protocol, Field::Port]), 24);
        assert_eq!(type_number(&[Field::Protocol, Field::Port]), (12 << 6) | 13);
    }
}
