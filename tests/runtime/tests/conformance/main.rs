//! The conformance suite of OCI runtimes: a file per chapter of the specification.
#![forbid(unsafe_code)]

mod lifecycle;
