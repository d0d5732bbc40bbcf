//! Packets from clients, read.

use berth_runtime::shim::document;
use berth_runtime::shim::protocol::{Fault, FaultKind, Request};
use serde::Deserialize;

use crate::fault::fault;
use crate::limits::ID_BYTES_MAX;

/// A packet that makes no sense: which question it is, as far as it tells, and why.
#[derive(Debug)]
pub(crate) struct Unread {
    /// 0 if that cannot be told.
    pub(crate) id: u64,
    pub(crate) message: String,
}

/// The part of a request that can be read even if the rest makes no sense.
#[derive(Deserialize)]
struct Addressed {
    id: u64,
}

/// Reads a packet, of which bytes or descriptors may have been cut off.
pub(crate) fn read(packet: &[u8], is_cut: bool) -> Result<Request, Unread> {
    let unread = |message: String| Unread {
        id: serde_json::from_slice::<Addressed>(packet).map_or(0, |addressed| addressed.id),
        message,
    };
    if is_cut {
        return Err(unread("the packet is too long, or there is no room for the descriptors that came with it".into()));
    }
    document::read::<Request>(packet).map_err(|error| unread(format!("the packet is no request: {error}")))
}

/// Names become names of files and of cgroups.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > ID_BYTES_MAX || name.starts_with('.') || !name.bytes().all(plain) {
        let rule = format!("1 to {ID_BYTES_MAX} letters, digits, `_`, `.`, `-`, and no dot at the beginning");
        return Err(fault(FaultKind::Invalid, format!("{what} {name:?}: {rule}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_that_makes_no_sense_is_told_by_its_field() {
        for (packet, id, word) in [
            (&b"\"x\""[..], 0, "the packet is no request"),
            (br#"{"id":4,"call":{"verb":"resize","container":"c","columns":70000,"rows":1}}"#, 4, "call.columns: "),
            (br#"{"id":5,"call":{"verb":"start"}}"#, 5, "missing field `container`"),
            (&[b'['; 60_000], 0, "the packet is no request"),
        ] {
            let unread = read(packet, false).unwrap_err();
            assert!(unread.id == id && unread.message.contains(word), "{unread:?}");
        }
        assert_eq!(read(b"{\"id\":6,\"call\":", true).unwrap_err().id, 0);
        assert_eq!(read(br#"{"id":6,"call":{"verb":"state"}}"#, true).unwrap_err().id, 6);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(packet in any::<Vec<u8>>(), name in any::<String>()) {
            let _ = read(&packet, false);
            let _ = check_name("id", &name);
        }
    }

    #[test]
    fn names_are_safe_to_be_files() {
        for good in ["a", "A-1_b.c", &"x".repeat(128)] {
            assert!(check_name("id", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(check_name("id", bad).is_err(), "{bad}");
        }
    }
}
