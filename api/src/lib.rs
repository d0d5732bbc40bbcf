//! Kubernetes words: quantities, selectors, and what pods mean. Pure: no I/O, no clock, no Linux.
#![forbid(unsafe_code)]

pub mod quantity;
pub mod selector;
