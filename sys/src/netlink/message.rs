//! Netlink messages as bytes: writing requests, reading attributes. Pure; layouts after netlink(7) and rtnetlink(7).

use std::borrow::Cow;

/// Length of a message header (`nlmsghdr`).
pub const HEADER_LEN: usize = 16;
/// Length of an attribute header (`nlattr`).
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Set in the type of an attribute that holds attributes.
const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// Requests that are sent together, each with the words that an error about it begins with.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    list: Vec<Entry>,
    too_long: bool,
}

#[derive(Debug)]
struct Entry {
    start: usize,
    what: Cow<'static, str>,
}

impl Messages {
    /// No request yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request. `what` says what it is for: `create bridge berth0`.
    pub fn push(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        kind: u16,
        flags: i32,
        build: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.list.push(Entry { start, what: what.into() });
        let sequence = self.list.len() as u32 - 1;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags as u16).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        build(&mut Attributes { bytes: &mut self.bytes, too_long: &mut self.too_long });
        let length = self.bytes.len() - start;
        match u32::try_from(length) {
            Ok(length) => self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether an attribute or a message passed the length that its header can tell.
    pub(crate) fn too_long(&self) -> bool {
        self.too_long
    }

    /// What the request with this number is for.
    pub(crate) fn what(&self, index: usize) -> &str {
        self.list.get(index).map_or("netlink request", |entry| &entry.what)
    }

    /// The bytes as they are sent, with sequence numbers from `first` on.
    pub(crate) fn numbered(&mut self, first: u32) -> &[u8] {
        for (index, entry) in self.list.iter().enumerate() {
            let sequence = first.wrapping_add(index as u32);
            self.bytes[entry.start + 8..entry.start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        &self.bytes
    }

    /// Adds flags to the last request.
    pub(crate) fn flag_last(&mut self, flags: i32) {
        if let Some(entry) = self.list.last() {
            let at = entry.start + 6;
            let old = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
            self.bytes[at..at + 2].copy_from_slice(&(old | flags as u16).to_ne_bytes());
        }
    }
}

/// Writes the fixed part and the attributes of one message, or of one nested attribute.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
    too_long: &'a mut bool,
}

impl Attributes<'_> {
    /// The fixed part, which comes before any attribute.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.pad();
    }

    /// An attribute of bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend(value);
        self.close(start);
    }

    /// An attribute of text, with the zero byte that the kernel expects behind it.
    pub fn put_str(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// A number in the machine's byte order (rtnetlink).
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A number in the network's byte order (nfnetlink).
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, build: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open(kind | NESTED);
        build(&mut Attributes { bytes: self.bytes, too_long: self.too_long });
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => *self.too_long = true,
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

/// One message as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The message's type.
    pub kind: u16,
    /// The message's flags.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// Cuts received bytes into messages; ends at the first that does not fit.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let message = bytes.get(..length)?;
        let body = message.get(HEADER_LEN..)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        let (kind, flags) = (u16_at(message, 4)?, u16_at(message, 6)?);
        Some(Received { kind, flags, sequence: u32_at(message, 8)?, body })
    })
}

/// The attributes in `bytes`, as (type, value); ends at the first that does not fit.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = bytes.get(..length)?;
        let value = attribute.get(ATTRIBUTE_HEADER_LEN..)?;
        let kind = u16_at(attribute, 2)? & libc::NLA_TYPE_MASK as u16;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in the machine's byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A short number in the machine's byte order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Text up to its zero byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut list = Messages::new();
        list.push("one", 16, libc::NLM_F_REQUEST, |message| {
            message.fixed(&[1, 2, 3, 4]);
            message.put_str(3, "lo");
            message.nest(18, |inner| inner.put_be32(1, 7));
        });
        list.push("two", 17, 0, |message| message.fixed(&[9]));
        let bytes = list.numbered(41).to_vec();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(
            read.iter().map(|message| (message.kind, message.sequence)).collect::<Vec<_>>(),
            [(16, 41), (17, 42)]
        );
        let body = &read[0].body[4..];
        assert_eq!(attribute(body, 3).map(text).as_deref(), Some("lo"));
        assert_eq!(attribute(body, 18).and_then(|inner| attribute(inner, 1)), Some(&[0, 0, 0, 7][..]));
        assert!(!list.too_long());
    }

    #[test]
    fn an_attribute_that_is_too_long_is_told() {
        let mut list = Messages::new();
        list.push("", 1, 0, |message| message.put(1, &[0; 70_000]));
        assert!(list.too_long());
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            for message in messages(&bytes) {
                attributes(message.body).for_each(|(_, value)| drop(text(value)));
            }
            let _ = attributes(&bytes).count();
        }
    }
}
