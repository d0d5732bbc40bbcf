//! Any bytes as what a plugin gives: an error, or a result that is written as it was read, in each version.
#![no_main]

use berth_cni::AddResult;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(result) = serde_json::from_slice::<AddResult>(bytes) else { return };
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let written = result.in_version(version).expect("what was read can be written");
        let mut again: AddResult = serde_json::from_value(written).expect("and read again");
        again.cni_version.clone_from(&result.cni_version);
        assert_eq!(again, result);
    }
});
