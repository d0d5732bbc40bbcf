//! Any bytes as a layer's archive: whatever it says, nothing comes to be beside the folder that it is unpacked into, and
//! nothing that was there changes. Run as root.
#![no_main]

use std::fs;
use std::os::unix::fs::MetadataExt;

use berth_rootfs::unpack_layer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let top = tempfile::tempdir_in("/dev/shm").unwrap();
    let witness = top.path().join("witness");
    fs::write(&witness, "as it was").unwrap();
    let before = fs::metadata(&witness).unwrap();
    let _ = unpack_layer(bytes, &top.path().join("layer"));
    let after = fs::metadata(&witness).unwrap();
    assert_eq!((before.mode(), before.uid(), before.mtime_nsec()), (after.mode(), after.uid(), after.mtime_nsec()));
    assert_eq!(fs::read(&witness).unwrap(), b"as it was");
    let names: Vec<_> = fs::read_dir(top.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == "witness" || name == "layer"), "{names:?}");
});
