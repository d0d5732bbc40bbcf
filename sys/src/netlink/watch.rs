//! Being told that links, addresses, routes, neighbours or nftables have changed, whoever changed them. What exactly is not
//! told: who wants to know looks, and so misses nothing when events were lost.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use super::Error;
use super::message::{Received, messages};

/// Longest piece of events; the kernel gathers them up to a page or two (`NLMSG_GOODSIZE`).
const EVENT_BYTES_MAX: usize = 32 * 1024;
/// Events that are read at once; more stay for the next time.
const READS_MAX: usize = 4096;
/// Links, neighbours, and addresses and routes of both versions (`linux/rtnetlink.h`).
const ROUTE_GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;
/// Links, and addresses of both versions.
const INTERFACE_GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// nftables, of netfilter's groups (`NFNLGRP_NFTABLES` 7).
const NFTABLES_GROUP: u32 = 1 << 6;

/// A subscription, for the network namespace of the thread that opened it. Its descriptor becomes readable with an event.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Subscribes to links, neighbours, addresses and routes.
    pub fn of_links() -> Result<Self, Error> {
        Self::open(SockProtocol::NetlinkRoute, ROUTE_GROUPS)
    }

    /// Subscribes to links and addresses alone: neighbours change with traffic, all the time.
    pub fn of_interfaces() -> Result<Self, Error> {
        Self::open(SockProtocol::NetlinkRoute, INTERFACE_GROUPS)
    }

    /// Subscribes to nftables.
    pub fn of_nftables() -> Result<Self, Error> {
        Self::open(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)
    }

    fn open(protocol: SockProtocol, groups: u32) -> Result<Self, Error> {
        let open = || -> nix::Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok(fd)
        };
        Ok(Self { fd: open().map_err(|errno| Error::Open { source: errno.into() })? })
    }

    /// Waits until one of these has something to be taken; whether one has, or the time is over.
    pub fn wait(watches: &[Self], timeout: Duration) -> Result<bool, Error> {
        let mut ready: Vec<_> = watches.iter().map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut ready, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Error::Receive { source: errno.into() }),
        }
    }

    /// Takes what has come, without waiting; whether there was anything. Events that were lost count as one.
    pub fn drain(&mut self) -> Result<bool, Error> {
        self.drain_if(|_| true)
    }

    /// As [`Self::drain`]; whether there was anything that matters. What was lost or is not read now may matter.
    pub(crate) fn drain_if(&mut self, mut matters: impl FnMut(Received<'_>) -> bool) -> Result<bool, Error> {
        let mut buffer = vec![0; EVENT_BYTES_MAX];
        let mut any = false;
        for _ in 0..READS_MAX {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // One that was cut.
                Ok(EVENT_BYTES_MAX) | Err(Errno::ENOBUFS) => any = true,
                Ok(length) => any |= messages(&buffer[..length.min(EVENT_BYTES_MAX)]).any(&mut matters),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(any),
                Err(errno) => return Err(Error::Receive { source: errno.into() }),
            }
        }
        Ok(true)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
