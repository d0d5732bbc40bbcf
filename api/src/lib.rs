//! Kubernetes words: quantities, selectors, and what pods mean. Pure: no I/O, no clock, no Linux.
//!
//! | room | what it knows |
//! |---|---|
//! | [`id`] | uids and names that are safe as parts of paths: parsed, not checked |
//! | [`quantity`] | `500m`, `1Gi` |
//! | [`resource`] | what a pod asks for in sum, its QoS class |
//! | [`pod`] | phase, readiness, restart rules |
//! | [`condition`] | conditions and when they changed |
//! | [`backoff`] | the crash-loop and pull curves |
//! | [`port`] | ports by number or name |
//! | [`selector`] | label and field selectors |
//! | [`reason`] | each word that a status or an event gives as its reason |
//!
//! There is no client here: those who do I/O have their own.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod condition;
pub mod id;
pub mod pod;
pub mod port;
pub mod quantity;
pub mod reason;
pub mod resource;
pub mod selector;
