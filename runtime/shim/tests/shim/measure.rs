//! What the shim costs. Ignored by default: figures mean something only for the program as it is built for use, on a
//! machine with nothing else to do.
//!
//! ```text
//! .ci/build target/release
//! BERTH_SHIM=target/release/berth-shim cargo test --release -p berth-shim --test shim measure -- --ignored --nocapture --test-threads 1
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_runtime::shim::client;
use berth_runtime::shim::protocol::{Call, LogSpec};

use crate::pod::{PATIENCE, Pod, process, spec};

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
        client.ask(Call::create("c", pod.bundle("c", &script), Some(log)));
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

#[test]
#[ignore = "a measurement"]
fn memory() {
    let pods: Vec<Pod> = (0..100).map(|_| Pod::start()).collect();
    for pod in &pods {
        let mut client = pod.connect();
        pod.run(&mut client, "c", "seq 1 100000; sleep 0.1; echo two; exec sleep 1000");
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        for number in 0..3 {
            let process = Box::new(serde_json::from_value(process(&["/bin/true"])).unwrap());
            let call = Call::Exec { container: "c".into(), exec: format!("e{number}"), process };
            client.0.call(call, &[null.as_fd(); 3], PATIENCE).unwrap();
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let rolled: Vec<_> = pods.iter().map(|pod| kib_of(pod.shim_pid())).collect();
    let median = |field: fn(&Kib) -> u64| {
        let mut values: Vec<_> = rolled.iter().map(field).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    println!(
        "100 shims with a container each: private {} KiB, proportional {} KiB, resident {} KiB (medians)",
        median(|kib| kib.private),
        median(|kib| kib.proportional),
        median(|kib| kib.resident)
    );
    println!(
        "{}",
        fs::read_to_string(format!("/proc/{}/smaps", pods[0].shim_pid())).map(|text| private(&text)).unwrap()
    );
    let switches = || pods.iter().map(|pod| context_switches(pod.shim_pid())).sum::<u64>();
    let before = switches();
    std::thread::sleep(Duration::from_secs(3));
    println!("wake-ups of the 100 in 3 s: {}", switches() - before);
}

#[test]
#[ignore = "a measurement"]
fn latency() {
    let mut starts = Vec::new();
    for _ in 0..40 {
        let pod = Pod::unstarted(spec());
        let began = Instant::now();
        client::start_shim(&Pod::program(), &pod.dir, &pod.spec).unwrap();
        starts.push(began.elapsed());
    }
    tell("start_shim until it answers", starts);
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let [mut creates, mut begins, mut deletes] = [const { Vec::new() }; 3];
    for number in 0..200 {
        let id = format!("c{number}");
        let bundle = pod.bundle_with(&id, &["/bin/true"], |_| {});
        let began = Instant::now();
        pod.create(&mut client, &id, bundle);
        creates.push(began.elapsed());
        client.ask(Call::Start { container: id.clone() });
        begins.push(began.elapsed());
        client.exit_of(&id);
        let began = Instant::now();
        client.ask(Call::Delete { container: id });
        deletes.push(began.elapsed());
    }
    tell("create", creates);
    tell("create and start", begins);
    tell("delete", deletes);
    pod.run(&mut client, "c", "sleep 1000");
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let [mut begun, mut ended] = [const { Vec::new() }; 2];
    for number in 0..300 {
        let process = Box::new(serde_json::from_value(process(&["/bin/true"])).unwrap());
        let call = Call::Exec { container: "c".into(), exec: format!("e{number}"), process };
        let began = Instant::now();
        client.0.call(call, &[null.as_fd(); 3], PATIENCE).unwrap();
        begun.push(began.elapsed());
        client.event();
        ended.push(began.elapsed());
    }
    tell("exec until it runs", begun);
    tell("exec until its end is told", ended);
    let floor = (0..300).map(|_| {
        let began = Instant::now();
        Command::new("/bin/busybox").arg("true").stdin(Stdio::null()).status().unwrap();
        began.elapsed()
    });
    tell("floor: a process made, executed and waited for", floor.collect());
    let launched = (0..300).map(|_| {
        let began = Instant::now();
        Command::new(Pod::program()).stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        began.elapsed()
    });
    tell("the shim made, executed, found to have no arguments and waited for", launched.collect());
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    println!(
        "{what}: median {:.2?}, best {:.2?}, 90 % {:.2?}",
        times[times.len() / 2],
        times[0],
        times[times.len() * 9 / 10]
    );
}

struct Kib {
    private: u64,
    proportional: u64,
    resident: u64,
}

fn kib_of(pid: i32) -> Kib {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    Kib {
        private: field("Private_Clean:") + field("Private_Dirty:"),
        proportional: field("Pss:"),
        resident: field("Rss:"),
    }
}

/// Each mapping with private pages: its line of `/proc/<pid>/smaps`, and how many KiB.
fn private(smaps: &str) -> String {
    let (mut told, mut name) = (String::new(), "");
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(word) if word.contains('-') => name = line,
            Some("Private_Dirty:" | "Private_Clean:") if words.next() != Some("0") => {
                told += &format!("{name}: {line}\n")
            }
            _ => {}
        }
    }
    told
}

/// How often a process was put to sleep or aside.
pub(crate) fn context_switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
    counts.map(|line| line.rsplit_once('\t').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// User and system time of a process, in hundredths of a second.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
