//! The store against real programs, registries and filesystems. Run as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "images/collect.rs"]
mod collect;
#[path = "images/crashes.rs"]
mod crashes;
#[path = "images/credentials.rs"]
mod credentials;
#[path = "images/cves.rs"]
mod cves;
#[path = "images/export.rs"]
mod export;
#[path = "images/fake.rs"]
mod fake;
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
#[path = "images/mirrors.rs"]
mod mirrors;
#[path = "images/registry.rs"]
mod registry;
#[path = "images/resume.rs"]
mod resume;
#[path = "images/roots.rs"]
mod roots;
#[path = "images/support.rs"]
mod support;
