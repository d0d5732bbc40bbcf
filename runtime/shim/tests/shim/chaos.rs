//! Clients and shims that are killed at any moment of a client's work, and a shim that runs out of descriptors at any
//! step of its own.

use std::fs::{self, File};
use std::io::pipe;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_runtime::shim::client::{self, Connection};
use berth_runtime::shim::protocol::{Call, LogSpec, SandboxSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pod::{PATIENCE, Pod, eventually, handler, process, spec};

/// How the folder of a sandbox, and that of its bundles, is told to a client that is a process of its own.
const FOLDER: &str = "BERTH_TEST_POD";

/// Names of the containers that such a client makes.
const NAMES: [&str; 3] = ["a", "b", "c"];

#[test]
#[ignore = "the work of a client that others kill"]
fn be_a_client() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let mut connection = Connection::connect(&folder.join("sandbox"), PATIENCE).unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    connection.call(Call::Subscribe, &[], PATIENCE).unwrap();
    loop {
        for name in NAMES {
            // Whatever a killed one left is in the way.
            let _ = connection.call(Call::Delete { container: name.into() }, &[], PATIENCE);
            let log = Some(LogSpec { path: folder.join(format!("{name}.log")), max_bytes: 10_000, max_files: 2 });
            let bundle = folder.join("bundles").join(name);
            let create = Call::Create { container: name.into(), bundle, log, stdin: true, stdin_once: false };
            let _ = connection.call(create, &[], PATIENCE);
            let _ = connection.call(Call::Start { container: name.into() }, &[], PATIENCE);
            let (_output, end) = pipe().unwrap();
            let attach = Call::Attach { container: name.into(), stdin: true, stdout: true, stderr: false };
            let _ = connection.call(attach, &[end.as_fd()], PATIENCE);
            for exec in ["e", "f"] {
                let process = Box::new(serde_json::from_value(process(&["sleep", "1000"])).unwrap());
                let exec = Call::Exec { container: name.into(), exec: exec.into(), process };
                let _ = connection.call(exec, &[null.as_fd(); 3], PATIENCE);
            }
        }
    }
}

fn client_of(pod: &Pod) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "chaos::be_a_client"]).env(FOLDER, pod.folder.path());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn with_bundles(spec: SandboxSpec) -> Pod {
    let pod = Pod::with(spec);
    for name in NAMES {
        pod.bundle(name, "seq 1 1000; sleep 1000 & sleep 1000");
    }
    pod
}

/// Moments from its start on, in which such a client does its work.
fn moments(count: u64) -> impl Iterator<Item = Duration> {
    (0..count).map(|number| Duration::from_millis(5 + number * 37 % 97))
}

fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn clients_are_killed(spec: SandboxSpec) {
    let pod = with_bundles(spec);
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let before = open_files(pod.shim_pid());
    for moment in moments(20) {
        let mut victim = client_of(&pod);
        std::thread::sleep(moment);
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    for name in NAMES {
        client.ask(Call::Delete { container: name.into() });
    }
    assert!(client.state().is_empty() && pod.kept() == 0);
    eventually("all that the clients brought is closed", || open_files(pod.shim_pid()) == before);
    let left = |folder: &PathBuf| NAMES.iter().any(|name| folder.join(name).exists());
    assert!(!pod.cgroups().iter().any(left), "{:?}", pod.cgroups());
}

#[test]
fn clients_killed_at_any_moment_leave_nothing_that_the_next_cannot_remove() {
    clients_are_killed(spec());
}

#[test]
fn clients_killed_at_any_moment_leave_nothing_of_runc_s_either() {
    clients_are_killed(SandboxSpec { handler: Some(handler("/usr/sbin/runc")), ..spec() });
}

#[test]
fn shims_killed_at_any_moment_leave_nothing_that_is_not_found() {
    for (number, moment) in moments(16).enumerate() {
        let runc = (number % 4 == 3).then(|| handler("/usr/sbin/runc"));
        let pod = with_bundles(SandboxSpec { handler: runc, ..spec() });
        let mut victim = client_of(&pod);
        std::thread::sleep(moment);
        kill(Pid::from_raw(pod.shim_pid()), Signal::SIGKILL).unwrap();
        eventually("the shim is dead", || client::living(&pod.dir).unwrap().is_none());
        victim.kill().unwrap();
        victim.wait().unwrap();
        client::reap_dead(&pod.dir).unwrap();
        assert!(pod.cgroups().is_empty(), "after {moment:?}: {:?}", pod.cgroups());
        assert!(pod.mounts().is_empty(), "after {moment:?}: {:?}", pod.mounts());
        assert!(!pod.dir.exists() && !is_mentioned(&pod.dir), "after {moment:?}");
    }
}

/// Whether any process has anything below a folder as its root or working directory, or in its arguments.
pub(crate) fn is_mentioned(dir: &Path) -> bool {
    let dir = dir.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.into_iter().any(|path| {
        let link = |name: &str| fs::read_link(path.join(name)).map(|to| to.display().to_string()).unwrap_or_default();
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        link("root").contains(dir) || link("cwd").contains(dir) || String::from_utf8_lossy(&arguments).contains(dir)
    })
}

/// How many descriptors the shim may have; its hard limit stays.
fn limit_files(pid: i32, count: usize) {
    let status = Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={count}:")]).status();
    assert!(status.unwrap().success());
}

fn descriptors_run_out(spec: SandboxSpec, most: usize) {
    let pod = Pod::with(spec);
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let shim = pod.shim_pid();
    let bundle = pod.bundle("c", "sleep 1000");
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let before = open_files(shim);
    let mut all_went_well = 0;
    for room in 0..most {
        limit_files(shim, before + room);
        let log = Some(LogSpec { path: pod.log_path("c"), max_bytes: 0, max_files: 1 });
        let create =
            Call::Create { container: "c".into(), bundle: bundle.clone(), log, stdin: true, stdin_once: false };
        let created = client.try_ask(create);
        let started = client.try_ask(Call::Start { container: "c".into() });
        let process = Box::new(serde_json::from_value(process(&["true"])).unwrap());
        let exec = Call::Exec { container: "c".into(), exec: "e".into(), process };
        let executed = client.0.call(exec, &[null.as_fd(); 3], PATIENCE);
        all_went_well += usize::from(created.is_ok() && started.is_ok() && executed.is_ok());
        let refused = client.try_ask(Call::Delete { container: "c".into() });
        limit_files(shim, 1000);
        if refused.is_err() {
            client.ask(Call::Delete { container: "c".into() });
        }
        assert!(client.state().is_empty() && pod.kept() == 0, "with room for {room}");
        assert!(!pod.cgroups().iter().any(|folder| folder.join("c").exists()), "with room for {room}");
        assert_eq!(open_files(shim), before, "with room for {room}");
    }
    assert!((1..most).contains(&all_went_well), "{all_went_well}");
}

#[test]
fn without_descriptors_at_any_step_it_refuses_and_goes_on() {
    descriptors_run_out(spec(), 40);
}

#[test]
fn without_descriptors_for_runc_at_any_step_it_refuses_and_goes_on() {
    descriptors_run_out(SandboxSpec { handler: Some(handler("/usr/sbin/runc")), ..spec() }, 14);
}
