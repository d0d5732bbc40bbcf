//! A shim with nothing to do.

use std::fs;
use std::time::{Duration, Instant};

use berth_runtime::shim::protocol::Call;

use crate::pod::{PATIENCE, Pod};

/// How long it is watched.
const WATCHED: Duration = Duration::from_millis(700);

#[test]
fn a_shim_does_not_wake_up_while_nothing_happens() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "head -c 1000000 /dev/zero; echo ready; exec sleep 1000");
    pod.run(&mut client, "ended", "exit 3");
    client.exit_of("ended");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = context_switches(pod.shim_pid());
        std::thread::sleep(WATCHED);
        if context_switches(pod.shim_pid()) == before {
            break;
        }
        assert!(Instant::now() < deadline, "it wakes up again and again");
    }
}

/// How often a process was put to sleep or aside.
fn context_switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
    counts.map(|line| line.rsplit_once('\t').unwrap().1.parse::<u64>().unwrap()).sum()
}
