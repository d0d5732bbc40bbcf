//! The words that a shim and its client exchange. Version 1, of which newer revisions only add to older ones.
//!
//! # Transport
//!
//! `AF_UNIX`, `SOCK_SEQPACKET`, at `<sandbox dir>/shim.sock`; one JSON document per packet, at most
//! [`PACKET_BYTES_MAX`]. The shim serves its own user only. The client sends [`Request`]s; the shim answers each with one
//! [`Reply`] that carries the same `id`, not always in the order of the requests: what takes long is answered when it is
//! done. After [`Call::Subscribe`] the shim also sends [`Event`]s on that connection.
//!
//! ```text
//! client  {"id":1,"call":{"verb":"create","container":"web","bundle":"/b","log":{"path":"/l/0.log"}}}
//! shim    {"id":1,"result":{"Ok":{"kind":"created","pid":812}}}
//! client  {"id":2,"call":{"verb":"start","container":"web"}}
//! shim    {"id":2,"result":{"Err":{"kind":"badCommand","message":"starting container web: …"}}}
//! shim    {"event":"exited","container":"web","exit":{"code":255,"signal":null,"oomKilled":false,"startedAt":null,
//!          "finishedAt":"2026-02-03T04:05:06.789Z"}}
//! ```
//!
//! File descriptors travel beside the packet that needs them (`SCM_RIGHTS`), in the order that the call's documentation
//! gives, and beside the answer where it says so. Those that a call has no use for are closed.
//!
//! # Failures
//!
//! A packet that makes no sense is answered with a [`Fault`] of the kind `invalid` that names the field, under its `id` if
//! that can be read and 0 otherwise. A call that failed has changed nothing, unless its documentation says otherwise.
//!
//! A container is created, started, paused, resumed, updated and deleted by one call at a time: another one is answered
//! with `wrongState`, but a deletion waits, and ends a creation. It can be signalled and executed in meanwhile. No call
//! holds up another container's.
//!
//! A shim serves any number of clients at once and goes on when they die; a client that leaves its answers unread is
//! dropped. Whoever connects next asks for [`Call::State`], or [`Call::Subscribe`]s, and knows all there is to know.
//!
//! # Versions
//!
//! Unknown fields are ignored and unknown verbs are answered with a fault, so that an older shim lives on under a newer
//! client; absent fields have the meaning that they had before they were there. [`ShimRecord::protocol`] tells what a
//! living shim speaks, [`ShimRecord::revision`] which additions it knows:
//!
//! | revision | adds |
//! |---|---|
//! | 0 | `create`, `start`, `kill`, `delete`, `exec`, `execKill`, `reopenLog`, `state`, `subscribe`, `shutdown` |
//! | 1 | terminals, `attach`, `closeStdin`, `resize`, `pause`, `resume`, `update`, `stats`, `processes`; [`Handler`]s |
//! | 2 | sandboxes with a user namespace |

mod answer;
mod call;
mod sandbox;

use serde::{Deserialize, Serialize};

pub use answer::{Answer, ContainerState, Event, ExitRecord, Fault, FaultKind};
pub use call::{Call, LOG_BYTES_MAX_DEFAULT, LOG_FILES_MAX_DEFAULT, LogSpec};
pub use sandbox::{HANDLER_SECS_MAX_DEFAULT, Handler, NamespaceMode, SandboxNamespaces, SandboxSpec, ShimRecord};

/// The version of this protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// The revision of that version.
pub const REVISION: u32 = 2;

/// The largest packet in either direction, in bytes.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// One question. `id` is chosen by the client and comes back in the [`Reply`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; unique among its open questions.
    pub id: u64,
    /// What is asked.
    pub call: Call,
}

/// What a shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The [`Request::id`] that this answers.
    pub id: u64,
    /// The answer, or what went wrong.
    pub result: Result<Answer, Fault>,
}

/// A packet from the shim: an answer or an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromShim {
    /// The answer to a [`Request`].
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

#[cfg(test)]
mod tests;
