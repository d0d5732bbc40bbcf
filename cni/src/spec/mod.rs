//! The words of the CNI specification: fields of configurations, results.

pub(crate) mod fields;
pub(crate) mod result;

/// The versions of the specification that are spoken, oldest first.
pub(crate) const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
