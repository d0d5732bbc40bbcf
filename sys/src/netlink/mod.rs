//! Blocking rtnetlink, typed: links, addresses and routes of one network namespace, without a program being run.
//!
//! | room | what is in it |
//! |---|---|
//! | [`message`] | requests and answers as bytes |
//! | [`socket`] | sending, and waiting for the answer |
//! | [`link`] | bridges, veth pairs, what a link is |
//! | [`addr`] | addresses of links |
//! | [`route`] | routes |
//! | [`neighbour`] | neighbours, and what is behind a vxlan |
//! | [`netns`] | which namespace is meant |
//! | [`watch`] | being told of changes |
//! | [`tc`] | how fast links may send |
//!
//! Changes are gathered in [`Changes`] and applied in one call of the kernel each; they are not atomic: the first one
//! that is refused is the error, and the caller takes back what it made.

pub mod addr;
pub mod link;
pub mod message;
pub mod neighbour;
pub mod netns;
pub mod route;
pub mod socket;
pub mod tc;
pub mod watch;

use std::io;

use nix::errno::Errno;

use message::Messages;
use socket::{Protocol, Socket};

/// What can go wrong between this process and the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket")]
    Open {
        /// Why.
        source: io::Error,
    },
    /// The request did not leave.
    #[error("cannot send a netlink request")]
    Send {
        /// Why.
        source: io::Error,
    },
    /// No answer came.
    #[error("cannot receive the answer to a netlink request")]
    Receive {
        /// Why.
        source: io::Error,
    },
    /// The kernel said no.
    #[error("cannot {what}: {}{}", errno.desc(), if hint.is_empty() { String::new() } else { format!(" ({hint})") })]
    Refused {
        /// What was asked for.
        what: String,
        /// The kernel's number.
        errno: Errno,
        /// The kernel's sentence, if it gave one.
        hint: String,
    },
    /// A request is longer than its header can tell.
    #[error("cannot {what}: the request is too long")]
    TooLong {
        /// What was asked for.
        what: String,
    },
    /// The list changed each time that it was read.
    #[error("cannot {what}: it changes all the time")]
    Unsteady {
        /// What was asked for.
        what: String,
    },
    /// The kernel's answer makes no sense.
    #[error("cannot {what}: the kernel's answer is not understood")]
    Malformed {
        /// What was asked for.
        what: String,
    },
}

impl Error {
    /// The kernel's number, if the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// A conversation with the kernel about links, addresses and routes.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
}

impl Route {
    /// Opens one for the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// Applies changes in their order. All are tried; the first that is refused is the error.
    pub fn apply(&mut self, mut changes: Changes) -> Result<(), Error> {
        self.socket.acknowledged(&mut changes.messages)
    }
}

/// Changes that are sent to the kernel together. Each module of this room adds its own kinds.
#[derive(Debug, Default)]
pub struct Changes {
    messages: Messages,
}

impl Changes {
    /// Nothing to change yet.
    pub fn new() -> Self {
        Self::default()
    }
}
