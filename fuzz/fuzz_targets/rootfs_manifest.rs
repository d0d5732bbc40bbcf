//! Any bytes as a manifest or an index, whatever a registry calls them: an error that says what is wrong, or none.
#![no_main]

use berth_rootfs::check_manifest;
use libfuzzer_sys::fuzz_target;

const MEDIA_TYPES: [Option<&str>; 4] = [
    None,
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
    Some("text/plain; charset=utf-8"),
];

fuzz_target!(|bytes: &[u8]| {
    let accepted = MEDIA_TYPES.map(|media_type| check_manifest(bytes, media_type).is_ok());
    // What is called an index cannot be a manifest too.
    assert!(!(accepted[1] && accepted[2]));
});
