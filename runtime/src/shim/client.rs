//! A blocking client of one shim.
