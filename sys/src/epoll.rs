//! One place to wait for many descriptors: level-triggered `epoll`, each descriptor known by the caller's number.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How many events one [`Poller::wait`] returns at most; the others come with the next.
pub const EVENTS_MAX: usize = 16;

/// What to wait for. The other end's hang-up and errors are always told, as readiness to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read.
    Read,
    /// There is something to read, or room to write.
    ReadWrite,
    /// Only a hang-up or an error.
    HangUp,
}

impl From<Interest> for EpollFlags {
    fn from(interest: Interest) -> Self {
        match interest {
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::ReadWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Interest::HangUp => EpollFlags::empty(),
        }
    }
}

/// What happened to one descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The number that it is known by.
    pub token: u64,
    /// It can be read: there are bytes, an end or an error.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
}

/// A set of watched descriptors.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Watches a descriptor under the number `token`.
    pub fn watch(&self, fd: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(interest.into(), token))?)
    }

    /// Changes what a watched descriptor is watched for.
    pub fn change(&self, fd: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(interest.into(), token))?)
    }

    /// Watches a descriptor no longer. Needed even before closing it if a copy of it lives on in another process.
    pub fn forget(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits until something happens or `timeout` has passed, for ever without one. An interruption by a signal counts
    /// as nothing having happened.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = Ready> + use<>> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.epoll.wait(&mut events, milliseconds(timeout)) {
            Err(nix::Error::EINTR) => 0,
            other => other?,
        };
        Ok(events.into_iter().take(count).map(|event| {
            let flags = event.events();
            Ready {
                token: event.data(),
                readable: flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
                writable: flags.contains(EpollFlags::EPOLLOUT),
            }
        }))
    }
}

/// Rounded up, so that a wait never ends before its time and spins.
fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    match timeout {
        None => EpollTimeout::NONE,
        Some(timeout) => {
            let whole = timeout.as_nanos().div_ceil(1_000_000);
            EpollTimeout::from(u16::try_from(whole).unwrap_or(u16::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn readiness_carries_the_token_until_it_is_forgotten() {
        let poller = Poller::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        poller.watch(&reader, Interest::Read, 42).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().count(), 0);
        writer.write_all(b"x").unwrap();
        let ready: Vec<_> = poller.wait(None).unwrap().collect();
        assert_eq!(ready, [Ready { token: 42, readable: true, writable: false }]);
        poller.forget(&reader).unwrap();
        assert_eq!(poller.wait(Some(Duration::from_nanos(1))).unwrap().count(), 0);
    }

    #[test]
    fn a_closed_writer_wakes_the_reader() {
        let poller = Poller::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        poller.watch(&reader, Interest::HangUp, 1).unwrap();
        drop(writer);
        assert!(poller.wait(None).unwrap().all(|ready| ready.readable));
    }
}
