//! The node agent: takes pods from a folder of manifests and from a Kubernetes master, runs them on the engine, and
//! tells the master what became of them.
//!
//! | room | what it owns |
//! |---|---|
//! | [`config`] | what the agent was told to be |
//! | `objects` | the config maps and secrets of this node's pods |
//! | `recorder` | events, on their way to the master |
//! | `node` | the Node, its Lease, its readings |
//! | `pod` | the pods: each a loop of observe, plan, apply |
#![forbid(unsafe_code)]

pub mod config;
mod document;
mod node;
mod objects;
mod pod;
mod recorder;

pub use crate::config::{Config, ConfigError, Options};
