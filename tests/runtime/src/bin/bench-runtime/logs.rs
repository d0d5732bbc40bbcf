//! How much output a shim writes to a log.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use berth_runtime::shim::protocol::Event;
use berth_runtime_tests::bundle::Bundle;

use crate::shim::Shim;

const MIB: usize = 1 << 20;

/// The size of the file that is written, and how often that is done.
const FILE_MIB: usize = 100;
const TIMES: usize = 10;

/// Prints the rate for lines of some lengths.
pub(crate) fn print(program: &Path, folder: &Path) {
    let script = format!("for i in $(seq {TIMES}); do cat /lines; done");
    let bundle = Bundle::in_folder(&folder.join("logs"), "logs", &["/bin/sh", "-c", &script]);
    let path = bundle.path.join("rootfs/lines");
    for line_bytes in [100, 20] {
        let mut file = File::create(&path).expect("the file can be made");
        let piece = format!("{}\n", "x".repeat(line_bytes - 1)).repeat(MIB.div_ceil(line_bytes));
        for _ in 0..FILE_MIB {
            file.write_all(piece.as_bytes()).expect("there is room");
        }
        let mut shim = Shim::start(program, folder, &format!("logs-{line_bytes}"));
        let began = Instant::now();
        shim.run(&format!("bench-{}-logs", std::process::id()), &bundle.path);
        while !matches!(shim.event(), Event::Exited { .. }) {}
        let bytes = TIMES * FILE_MIB * piece.len();
        let rate = bytes as f64 / began.elapsed().as_secs_f64() / 1e6;
        println!("logs of lines of {line_bytes} bytes: {rate:.0} MB/s (goal: at least 500)");
        let _ = fs::remove_file(&path);
    }
}
