//! What the shim costs. Ignored by default: figures mean something only for the program as it is built for use, on a
//! machine with nothing else to do.
//!
//! ```text
//! .ci/build target/release
//! BERTH_SHIM=target/release/berth-shim cargo test --release -p berth-shim --test shim measure -- --ignored --nocapture --test-threads 1
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use berth_runtime::shim::protocol::{Call, LogSpec};

use crate::pod::Pod;

const MIB: u64 = 1 << 20;

#[test]
#[ignore = "a measurement"]
fn logs() {
    for (line_bytes, writer) in
        [(100, "cat /lines"), (100, "dd if=/lines bs=64k"), (100, "dd if=/lines bs=4k"), (20, "cat /lines")]
    {
        let pod = Pod::start();
        let mut client = pod.connect();
        client.ask(Call::Subscribe);
        let mut file = File::create(pod.folder.path().join("rootfs/lines")).unwrap();
        let line = format!("{}\n", "x".repeat(line_bytes - 1));
        let piece = line.repeat((MIB as usize).div_ceil(line_bytes));
        for _ in 0..100 {
            file.write_all(piece.as_bytes()).unwrap();
        }
        let bytes = 10 * file.metadata().unwrap().len();
        let script = format!(
            "while [ ! -e /tmp/go ]; do sleep 0.01; done; for i in 0 1 2 3 4 5 6 7 8 9; do {writer} 2>/dev/null; done"
        );
        let log = LogSpec { path: pod.log_path("c"), max_bytes: 10 * MIB, max_files: 5 };
        client.ask(Call::Create { container: "c".into(), bundle: pod.bundle("c", &script), log: Some(log) });
        client.ask(Call::Start { container: "c".into() });
        std::thread::sleep(Duration::from_millis(100));
        let (began, cpu) = (Instant::now(), cpu_ticks(pod.shim_pid()));
        fs::write(pod.folder.path().join("rootfs/tmp/go"), "").unwrap();
        client.exit_of("c");
        let (took, used) = (began.elapsed(), cpu_ticks(pod.shim_pid()) - cpu);
        let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
        println!(
            "lines of {line_bytes} bytes, {writer}: {:.0} MB/s, {:.0} MB per second of the shim's time",
            rate(took.as_secs_f64()),
            rate(used as f64 / 100.0)
        );
    }
}

/// User and system time of a process, in hundredths of a second.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
