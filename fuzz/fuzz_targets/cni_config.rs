//! Any bytes as a network's configuration, for a list and for each plugin's program: an error with a number of the
//! specification's, in words, or none.
#![no_main]

use std::path::PathBuf;

use berth_cni::{Dirs, Error, Network, plugin};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dirs = || Dirs { state: PathBuf::from("/nonexistent"), bin: vec![] };
    let outcomes = [Network::parse(bytes, dirs()).map(drop), Network::of_programs(bytes, dirs()).map(drop)];
    outcomes.into_iter().for_each(told);
    told(plugin::check(None, bytes));
    for name in plugin::NAMES {
        told(plugin::check(Some(name), bytes));
    }
});

fn told(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        assert!(matches!(error.code(), 1 | 4 | 6 | 7), "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}
