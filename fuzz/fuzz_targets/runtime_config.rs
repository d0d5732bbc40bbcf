//! Any bytes as `config.json`, and as the `process` object of one more process: an error that names the field, or none.
#![no_main]

use berth_runtime::{Error, Settings, check_config, read_process};
use libfuzzer_sys::fuzz_target;

/// More than any error has to say; fields and values may be as long as the document.
const ERROR_BYTES_MAX: usize = 4096;

fn check(outcome: Result<(), Error>) {
    let Err(error) = outcome else { return };
    let field = match &error {
        Error::Spec { field, .. } | Error::Unsupported { field } => field,
        other => panic!("names no field: {other:?}"),
    };
    let told = error.to_string();
    assert!(!field.is_empty() && told.starts_with(field) && told.len() < ERROR_BYTES_MAX, "{told}");
}

fuzz_target!(|bytes: &[u8]| {
    for systemd_cgroup in [false, true] {
        check(check_config(bytes, Settings { systemd_cgroup }));
    }
    check(read_process(bytes).map(drop));
});
