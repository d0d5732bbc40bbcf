//! A small Kubernetes control plane: an API server over an embedded database, a scheduler and the controllers that one
//! machine or a handful of machines need. Real Kubernetes can replace it, because everything that talks to it does so
//! over the Kubernetes API: kubectl, the kubelet, its own scheduler and its own controllers.
//!
//! ```text
//!  kubectl, kubelet ──HTTPS──▶ server ──▶ store ──▶ redb
//!  scheduler, controllers ──────▲ (ordinary API clients; they know no store)
//! ```
//!
//! What it will never do: know what a Linux namespace is, keep truth in memory only, or give its own parts a back door.

#![forbid(unsafe_code)]

pub mod controller;
pub mod error;
mod follow;
pub mod limits;
pub mod openapi;
pub mod patch;
pub mod pki;
pub mod request;
pub mod resource;
mod run;
pub mod scheduler;
pub mod schema;
mod server;
mod store;
pub mod table;

pub use error::Error;
pub use run::{Master, MasterConfig, start};
