//! A blocking netlink socket: sends requests, collects their acknowledgements or a dump, each within a deadline. It
//! belongs to the network namespace of the thread that opened it, for as long as it is open.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::Error;
use super::message::{Messages, Received, attribute, messages, text, u32_at};

/// Largest piece of an answer; the kernel cuts dumps into pieces of at most 32 KiB.
const RECEIVE_BYTES_MAX: usize = 64 * 1024;
/// How long the kernel may take for one answer. It may wait for other holders of its locks, not for anything else.
const ANSWER_SECS_MAX: i64 = 10;
/// Most messages in one dump: a bound, far above any node's count of links, routes or elements.
const DUMP_MESSAGES_MAX: usize = 1 << 20;
/// How often a list that changes all the time is asked for.
const DUMPS_MAX: usize = 64;
/// Send buffer that every socket gets without asking.
const SEND_BYTES_DEFAULT: usize = 128 * 1024;
/// Attribute of an extended acknowledgement that holds the kernel's sentence (`NLMSGERR_ATTR_MSG`).
const ATTRIBUTE_MESSAGE: u16 = 1;

/// Which kernel subsystem a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nftables.
    Netfilter,
}

/// An open socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    next_sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let number = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let open = || -> nix::Result<OwnedFd> {
            let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, number)?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECS_MAX, 0))?;
            setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(ANSWER_SECS_MAX, 0))?;
            for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
                netlink_option(fd.as_fd(), option)?;
            }
            Ok(fd)
        };
        let fd = open().map_err(|errno| Error::Open { source: errno.into() })?;
        Ok(Self { fd, next_sequence: 1, buffer: vec![0; RECEIVE_BYTES_MAX] })
    }

    /// Sends requests of which each asks for an acknowledgement, and waits for all of them. The first refusal is the
    /// error; the kernel has tried the others nevertheless.
    pub fn acknowledged(&mut self, requests: &mut Messages) -> Result<(), Error> {
        if requests.is_empty() {
            return Ok(());
        }
        let first = self.send(requests)?;
        let mut missing = requests.len();
        let mut refusal = None;
        while missing > 0 {
            self.receive(|message| {
                let index = message.sequence.wrapping_sub(first) as usize;
                if index < requests.len() && i32::from(message.kind) == libc::NLMSG_ERROR {
                    missing = missing.saturating_sub(1);
                    if let Err(error) = acknowledgement(message, requests.what(index)) {
                        refusal.get_or_insert(error);
                    }
                }
            })?;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Sends a request for a dump and gathers what `parse` makes of its messages. A dump during which the kernel's list
    /// changed is asked for again.
    pub fn dump<T, I: IntoIterator<Item = T>>(
        &mut self,
        request: &mut Messages,
        mut parse: impl FnMut(Received<'_>) -> I,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMPS_MAX {
            let mut found = Vec::new();
            let mut whole = true;
            self.answers(request, |message| {
                whole &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                found.extend(parse(message));
            })?;
            if whole {
                return Ok(found);
            }
        }
        Err(Error::Unsteady { what: request.what(0).to_owned() })
    }

    /// Sends one request and calls `each` with every message of its answer, until the answer or its dump ends.
    pub fn answers(&mut self, request: &mut Messages, mut each: impl FnMut(Received<'_>)) -> Result<(), Error> {
        let first = self.send(request)?;
        let mut end = None;
        let mut count = 0;
        while end.is_none() {
            self.receive(|message| {
                if message.sequence != first || end.is_some() {
                    return;
                }
                count += 1;
                end = match i32::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => Some(acknowledgement(message, request.what(0))),
                    _ if count > DUMP_MESSAGES_MAX => Some(Err(Error::Malformed { what: request.what(0).to_owned() })),
                    _ => {
                        each(message);
                        None
                    }
                };
            })?;
        }
        end.unwrap_or(Ok(()))
    }

    /// Sends the requests in one piece; the sequence number of the first is returned.
    pub(crate) fn send(&mut self, requests: &mut Messages) -> Result<u32, Error> {
        let first = self.next_sequence;
        self.next_sequence = first.wrapping_add(requests.len() as u32);
        if requests.too_long() {
            return Err(Error::TooLong { what: requests.what(0).to_owned() });
        }
        let bytes = requests.numbered(first);
        if bytes.len() > SEND_BYTES_DEFAULT {
            setsockopt(&self.fd, sockopt::SndBufForce, &(2 * bytes.len()))
                .map_err(|errno| Error::Send { source: errno.into() })?;
        }
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty())
            .map_err(|errno| Error::Send { source: errno.into() })?;
        if sent != bytes.len() {
            return Err(Error::TooLong { what: requests.what(0).to_owned() });
        }
        Ok(first)
    }

    /// Receives one piece and calls `each` with its messages.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Received<'_>)) -> Result<(), Error> {
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let source = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
                    return Err(Error::Receive { source });
                }
                Err(errno) => return Err(Error::Receive { source: errno.into() }),
                Ok(length) => break length,
            }
        };
        messages(&self.buffer[..length.min(RECEIVE_BYTES_MAX)]).for_each(&mut each);
        Ok(())
    }
}

/// What an acknowledgement, or the end of a dump, says.
pub(crate) fn acknowledgement(message: Received<'_>, what: &str) -> Result<(), Error> {
    let code = u32_at(message.body, 0).map_or(0, |code| code as i32);
    if code >= 0 {
        return Ok(());
    }
    // Behind the number stands the header of the request; NETLINK_CAP_ACK cuts the rest of the request off.
    let attributes = match i32::from(message.kind) {
        libc::NLMSG_ERROR => message.body.get(4 + super::message::HEADER_LEN..),
        _ => message.body.get(4..),
    };
    let hint = attributes.and_then(|bytes| attribute(bytes, ATTRIBUTE_MESSAGE)).map(text);
    Err(Error::Refused { what: what.to_owned(), errno: Errno::from_raw(-code), hint: hint.unwrap_or_default() })
}

fn netlink_option(fd: BorrowedFd<'_>, option: i32) -> nix::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to `on`, which lives on this stack frame, and the length is that of its type; `fd` is open
    // for as long as it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}
