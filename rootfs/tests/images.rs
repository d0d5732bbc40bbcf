//! The store against real programs, registries and filesystems. Run as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "images/collect.rs"]
mod collect;
#[path = "images/crashes.rs"]
mod crashes;
#[path = "images/export.rs"]
mod export;
#[path = "images/faults.rs"]
mod faults;
#[path = "images/hostile.rs"]
mod hostile;
#[path = "images/import.rs"]
mod import;
#[path = "images/layers.rs"]
mod layers;
#[path = "images/links.rs"]
mod links;
#[path = "images/registry.rs"]
mod registry;
#[path = "images/roots.rs"]
mod roots;
#[path = "images/support.rs"]
mod support;
