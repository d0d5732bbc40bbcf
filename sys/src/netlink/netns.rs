//! Network namespaces as another one knows them: by a number that holds in it alone (`linux/net_namespace.h`), with which
//! the kernel tells where the other end of a link is.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{Messages, attribute};
use super::{Error, Route};

/// Length of the fixed part of a message (`rtgenmsg`), padded.
const FIXED_LEN: usize = 4;
const NUMBER: u16 = 1;
const FD: u16 = 3;

impl Route {
    /// The number of another network namespace in this one. `None` if it has none here: then nothing here leads to it, or
    /// nobody has read a link that does.
    pub fn netns_number(&mut self, netns: BorrowedFd<'_>) -> Result<Option<u32>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        request.push("read the number of a network namespace", libc::RTM_GETNSID, flags, |message| {
            message.fixed(&[0; FIXED_LEN]);
            message.put_u32(FD, netns.as_raw_fd() as u32);
        });
        let mut found = None;
        self.socket.answers(&mut request, |message| found = parse(message.body))?;
        Ok(found)
    }
}

/// The kernel tells -1 where there is no number.
fn parse(body: &[u8]) -> Option<u32> {
    let number = attribute(body.get(FIXED_LEN..)?, NUMBER)?.try_into().ok().map(i32::from_ne_bytes)?;
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_read_and_none_is_none() {
        let answer = |number: i32| [[0, 0, 0, 0], [8, 0, 1, 0], number.to_ne_bytes()].concat();
        assert_eq!((parse(&answer(7)), parse(&answer(0)), parse(&answer(-1))), (Some(7), Some(0), None));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
