//! Another OCI runtime in the place of the library. The other files hold it to the same: `BERTH_HANDLER=/usr/sbin/runc`
//! makes all of them use it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_runtime::shim::client::{self, Error};
use berth_runtime::shim::protocol::{Answer, Call, Event, Fault, FaultKind, Handler, Request, SandboxSpec};
use serde_json::json;

use crate::faults::kill_at_work;
use crate::pod::{PATIENCE, Pod, eventually, handler, lives, process, spec};

const RUNC: &str = "/usr/sbin/runc";

fn of_runc() -> SandboxSpec {
    SandboxSpec { handler: Some(handler(RUNC)), ..spec() }
}

/// A sandbox whose runtime is a shell script, with so many seconds for each verb.
fn of_script(folder: &Path, script: &str, secs_max: u32) -> SandboxSpec {
    let program: PathBuf = folder.join("runtime.sh");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o755).open(&program).unwrap();
    file.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    SandboxSpec { handler: Some(Handler { secs_max: Some(secs_max), ..handler(program) }), ..spec() }
}

fn refused(result: Result<Answer, Error>) -> Fault {
    match result {
        Err(Error::Fault(fault)) => fault,
        other => panic!("no fault: {other:?}"),
    }
}

/// The pod's own may be there: it is the shim's to remove.
fn has_no_cgroup(pod: &Pod, container: &str) -> bool {
    !pod.cgroups().iter().any(|folder| folder.join(container).exists())
}

#[test]
fn its_containers_are_made_logged_executed_in_and_deleted() {
    let pod = Pod::with(of_runc());
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let pid = pod.run(&mut client, "c", "echo out; echo err >&2; while [ ! -e /tmp/go ]; do sleep 0.01; done; exit 7");
    assert!(lives(pid));
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    for (name, script, code) in [("quick", "exit 3", 3), ("last", "touch /tmp/go", 0)] {
        let process = Box::new(serde_json::from_value(process(&["/bin/sh", "-c", script])).unwrap());
        let call = Call::Exec { container: "c".into(), exec: name.into(), process };
        client.0.call(call, &[null.as_fd(); 3], PATIENCE).unwrap();
        let ended = Event::ExecExited { container: "c".into(), exec: name.into(), code };
        assert_eq!(client.event(), ended);
    }
    let exit = client.exit_of("c");
    assert_eq!((exit.code, pod.exit_record("c")), (7, Some(exit)));
    let mut log = pod.log("c");
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out"]);
    client.ask(Call::Delete { container: "c".into() });
    assert!(client.state().is_empty() && pod.kept() == 0 && !lives(pid));
    assert_eq!(fs::read_dir(pod.spec.handler.as_ref().unwrap().root(&pod.dir)).unwrap().count(), 0);
}

#[test]
fn its_complaints_are_told_and_nothing_is_left() {
    let pod = Pod::with(of_runc());
    let mut client = pod.connect();
    let bundle =
        pod.bundle_with("c", &["true"], |config| config["mounts"] = json!([{"destination": "x", "type": "no"}]));
    let fault = refused(client.try_ask(Call::create("c", bundle, None)));
    assert_eq!(fault.kind, FaultKind::Failed);
    assert!(fault.message.starts_with("creating container c: runc create failed"), "{}", fault.message);
    let fault = refused(client.try_ask(Call::create("c", "/nonexistent", None)));
    assert!(fault.message.contains("/nonexistent/config.json"), "{}", fault.message);
    assert!(client.state().is_empty() && pod.kept() == 0 && has_no_cgroup(&pod, "c"));
}

#[test]
fn one_that_hangs_is_killed_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pod = Pod::with(of_script(folder.path(), "case \"$*\" in *create*) sleep 1000;; esac", 1));
    let mut client = pod.connect();
    let began = Instant::now();
    let create = Request { id: 77, call: Call::create("c", pod.bundle("c", "true"), None) };
    client::send(client.0.as_fd(), &create, &[]).unwrap();
    assert!(client.state().is_empty(), "what is being created is not there");
    assert_eq!(refused(client.try_ask(Call::Start { container: "c".into() })).kind, FaultKind::WrongState);
    assert!(began.elapsed() < Duration::from_millis(900), "the loop waited");
    // Its answer is dropped by the one connection, and its name is free again.
    eventually("the name is free", || pod.kept() == 0);
    let fault = refused(pod.connect().try_ask(Call::create("c", pod.bundle("c", "true"), None)));
    assert!(fault.message.contains("did not end within 1s"), "{}", fault.message);
}

#[test]
fn a_process_that_is_not_the_shim_s_is_taken_for_no_container() {
    let folder = tempfile::tempdir().unwrap();
    // The id of somebody else's process: a container's that had it may have ended long ago.
    let script = "while [ $# -gt 0 ]; do [ \"$1\" != --pid-file ] || echo 1 > \"$2\"; shift; done";
    let pod = Pod::with(of_script(folder.path(), script, 10));
    let mut client = pod.connect();
    let fault = refused(client.try_ask(Call::create("c", pod.bundle("c", "true"), None)));
    assert!(fault.message.contains("process 1, which is no child of the shim's"), "{}", fault.message);
    assert!(client.state().is_empty() && pod.kept() == 0);
}

#[test]
fn a_bundle_s_configuration_is_read_up_to_the_library_s_limit() {
    let pod = Pod::with(of_runc());
    let bundle = pod.bundle_with("c", &["true"], |config| config["hostname"] = "x".repeat(5 << 20).into());
    let fault = refused(pod.connect().try_ask(Call::create("c", bundle, None)));
    assert!(fault.kind == FaultKind::Invalid && fault.message.contains("is larger than"), "{}", fault.message);
}

#[test]
fn a_deletion_while_it_creates_comes_after() {
    let pod = Pod::with(of_runc());
    let client = pod.connect();
    let calls = [Call::create("c", pod.bundle("c", "sleep 1000"), None), Call::Delete { container: "c".into() }];
    for (call, id) in calls.into_iter().zip(1..) {
        client::send(client.0.as_fd(), &Request { id, call }, &[]).unwrap();
    }
    eventually("it is deleted", || pod.connect().state().is_empty() && pod.kept() == 0);
    assert!(has_no_cgroup(&pod, "c"));
}

#[test]
fn one_that_is_not_there_is_told_at_once() {
    let pod = Pod::unstarted(SandboxSpec { handler: Some(handler("/usr/sbin/nothing")), ..spec() });
    let error = client::start_shim(&Pod::program(), &pod.dir, &pod.spec).unwrap_err().to_string();
    assert!(error.contains("handler") && error.contains("/usr/sbin/nothing"), "{error}");
    eventually("the failed shim is gone", || client::living(&pod.dir).unwrap().is_none());
    client::reap_dead(&pod.dir).unwrap();
}

#[test]
fn a_shim_killed_at_any_moment_of_its_work_leaves_nothing_that_is_not_found() {
    for delay in 0..10 {
        kill_at_work(Pod::with(of_runc()), Duration::from_millis(delay * 8), Duration::from_millis(delay));
    }
}

#[test]
fn shutdown_deletes_what_it_made() {
    let pod = Pod::with(of_runc());
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let pids = [pod.run(&mut client, "c", "sleep 1000"), pod.create(&mut client, "d", pod.bundle("d", "true"))];
    pod.run(&mut client, "e", "true");
    client.exit_of("e");
    client.ask(Call::Shutdown);
    assert!(!pids.into_iter().any(lives) && pod.kept() == 0 && pod.cgroups().is_empty());
}
