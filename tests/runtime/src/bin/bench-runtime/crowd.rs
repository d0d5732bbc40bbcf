//! What many shims cost that have nothing to do, beside as many conmons, each the parent of one container.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use berth_runtime::shim::protocol::Event;
use berth_runtime_tests::bundle::Bundle;
use berth_runtime_tests::until;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::pod::exec;
use crate::shim::Shim;

/// How many there are.
const COUNT: usize = 100;

/// How many processes each shim has executed before.
const EXECS: usize = 3;

/// How long they are left alone, to give back what they need no more.
const REST: Duration = Duration::from_secs(1);

/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(3);

/// The memory of a process, in KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    private: u64,
    proportional: u64,
}

pub(crate) fn print_shims(program: &Path, folder: &Path, bundle: &Bundle) {
    let mut shims: Vec<Shim> = Vec::new();
    for number in 0..COUNT {
        let mut shim = Shim::start(program, folder, &format!("crowd-{number}"));
        let id = id("shim", number);
        shim.run(&id, &bundle.path);
        for number in 0..EXECS {
            exec(&mut shim, id.clone(), format!("e{number}"));
            while !matches!(shim.event(), Event::ExecExited { .. }) {}
        }
        shims.push(shim);
    }
    sleep(REST);
    let pids: Vec<i32> = shims.iter().map(|shim| shim.pid).collect();
    print(&format!("{COUNT} shims"), &pids, "at most 300, 500");
    let before = switches(&pids);
    sleep(WATCHED);
    println!("{COUNT} shims: wake-ups in {WATCHED:?}: {} (goal: 0)", switches(&pids) - before);
}

/// conmon with the runtime that is given as podman calls it.
pub(crate) fn print_conmons(conmon: &Path, runtime: &Path, folder: &Path, bundle: &Bundle) {
    let root = folder.join("state-conmon");
    let crowd: Vec<Conmon<'_>> = (0..COUNT)
        .map(|number| Conmon::start((conmon, runtime, &root), folder, bundle, id("conmon", number)))
        .collect();
    sleep(REST);
    let pids: Vec<i32> = crowd.iter().map(|conmon| conmon.pid).collect();
    print(&format!("{COUNT} conmons"), &pids, "none: the peer");
}

struct Conmon<'a> {
    pid: i32,
    id: String,
    runtime: &'a Path,
    root: &'a Path,
}

impl<'a> Conmon<'a> {
    fn start((conmon, runtime, root): (&Path, &'a Path, &'a Path), folder: &Path, bundle: &Bundle, id: String) -> Self {
        let own = folder.join("conmons").join(&id);
        fs::create_dir_all(&own).expect("the folder can be made");
        let pid_file = own.join("conmon.pid");
        let mut command = Command::new(conmon);
        command.args(["--cid", &id, "--cuuid", &id, "--name", &id, "--full-attach", "--log-level", "error"]);
        command.arg("--runtime").arg(runtime).args(["--runtime-arg", "--root", "--runtime-arg"]).arg(root);
        command.arg("--bundle").arg(&bundle.path).arg("--container-pidfile").arg(own.join("pid"));
        command.arg("--conmon-pidfile").arg(&pid_file).arg("--persist-dir").arg(&own).arg("--exit-dir").arg(&own);
        command
            .arg("--socket-dir-path")
            .arg(&own)
            .arg("--log-path")
            .arg(format!("k8s-file:{}", own.join("log").display()));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("conmon can be executed");
        assert!(status.success(), "conmon: {status}");
        // It goes on by itself, and notes the container's process when that is made.
        until("conmon's container is made", || own.join("pid").exists());
        let pid =
            fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok()).expect("it tells its id");
        let this = Self { pid, id, runtime, root };
        assert!(this.call(&["start"]), "starting the container of conmon");
        this
    }

    fn call(&self, verb: &[&str]) -> bool {
        let mut command = Command::new(self.runtime);
        command.arg("--root").arg(self.root).args(verb).arg(&self.id).stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Conmon<'_> {
    fn drop(&mut self) {
        self.call(&["delete", "--force"]);
        // It ends with its container, but waits for somebody to ask how that was.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        let _ = waitpid(Pid::from_raw(self.pid), None);
    }
}

fn id(of: &str, number: usize) -> String {
    format!("bench-{}-{of}-{number}", std::process::id())
}

fn print(what: &str, pids: &[i32], goal: &str) {
    let all: Vec<Memory> = pids.iter().map(|pid| memory_of(*pid)).collect();
    let median = |field: fn(&Memory) -> u64| {
        let mut values: Vec<_> = all.iter().map(field).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let (private, proportional) = (median(|memory| memory.private), median(|memory| memory.proportional));
    println!("{what} with a container each: private {private}, PSS {proportional} KiB (medians; goal: {goal})");
}

fn memory_of(pid: i32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("every kernel has it");
        line.trim().trim_end_matches(" kB").parse().expect("it is a number")
    };
    Memory { private: field("Private_Clean:") + field("Private_Dirty:"), proportional: field("Pss:") }
}

/// How often processes were put to sleep or aside.
fn switches(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts.filter_map(|line| line.rsplit_once('\t')?.1.parse::<u64>().ok()).sum::<u64>()
    };
    pids.iter().map(of).sum()
}
