//! Any text as an image's name: refused, or printed as something that means the same.
#![no_main]

use berth_rootfs::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    let full = reference.to_string();
    assert_eq!(full.parse::<Reference>().ok(), Some(reference), "{full}");
});
