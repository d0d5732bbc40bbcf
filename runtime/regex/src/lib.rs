//! In the place of the crate `regex` for all that we depend on.
//!
//! oci-spec has one regular expression, which checks a list of CPUs, and for that half a mebibyte of engines and Unicode
//! tables would be in each program that reads a `config.json`. `regex-lite`, by the same authors, has the same interface.
#![forbid(unsafe_code)]

pub use regex_lite::*;
