//! The node agent: takes pods from a folder of manifests and from a Kubernetes master, runs them on the engine, and
//! tells the master what became of them.
//!
//! ```text
//!   folder ─┐                                    ┌─▶ status ─▶ master
//!           ├─▶ source ─▶ pod (one task each) ───┼─▶ recorder ─▶ master
//!   master ─┘        objects ─▶ │                └─▶ server ◀─ master asks for logs
//!                               ▼ engine              node ◀─▶ master
//! ```
//!
//! | room | what it owns |
//! |---|---|
//! | [`config`] | what the agent was told to be |
//! | `source` | which pods should be here |
//! | `pod` | the pods: each a loop of observe, plan, apply |
//! | `volume` | what pods' volumes hold and where they are mounted |
//! | `probe` | whether containers have started, serve, live |
//! | `image` | whether to pull, with whose credentials |
//! | `cgroups` | the `kubepods` tree |
//! | `objects` | the config maps and secrets of this node's pods |
//! | `status` | the pods' statuses on their way to the master |
//! | `recorder` | events, on their way to the master |
//! | `node` | the Node, its Lease, its readings |
//! | `server` | logs and pods for those who ask, on :10250 |
//! | `drain` | the end of a node |
//! | `document` | reading what people write, with errors that name the field |
#![forbid(unsafe_code)]

mod cgroups;
pub mod config;
mod document;
mod drain;
mod error;
mod image;
mod node;
mod objects;
mod pod;
mod probe;
mod recorder;
mod run;
mod server;
mod source;
mod status;
mod volume;

pub use crate::config::{CertificateFiles, Config, ConfigError, Options};
pub use crate::drain::drain;
pub use crate::error::Error;
pub use crate::node::node_addresses;
pub use crate::pod::image_asked_for;
pub use crate::run::run;
pub use crate::server::{Log, LogOptions, LogOutput, ServerError, TlsError, open_log};
