//! Verbs that take long, beside which everything else goes on.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use berth_runtime::shim::client::{self, Error};
use berth_runtime::shim::protocol::{Answer, Call, Event, Fault, FaultKind, SandboxSpec};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, Backlog};
use nix::unistd::Pid;
use serde_json::json;

use crate::chaos::is_mentioned;
use crate::pod::{Client, PATIENCE, Pod, eventually, lives, process, spec};

/// A pod of the library's, whatever the others use: hooks are its own.
fn pod() -> Pod {
    Pod::with(SandboxSpec { handler: None, ..spec() })
}

/// Where a hook says that it is `here` and waits for `go`; one kind of them runs in the container.
fn folder(pod: &Pod) -> PathBuf {
    pod.folder.path().join("rootfs/tmp")
}

/// A bundle with such a hook.
fn with_hook(pod: &Pod, container: &str, kind: &str) -> PathBuf {
    let folder = if kind == "startContainer" { "/tmp".into() } else { folder(pod) };
    let folder = folder.display();
    let script = format!(": > {folder}/here; while [ ! -e {folder}/go ]; do sleep 0.01; done");
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 60});
    pod.bundle_with(container, &["/bin/sleep", "1000"], |config| config["hooks"] = json!({kind: [hook]}))
}

fn is_in_hook(pod: &Pod) -> bool {
    folder(pod).join("here").exists()
}

fn kind(result: Result<impl std::fmt::Debug, Error>) -> FaultKind {
    match result {
        Err(Error::Fault(Fault { kind, .. })) => kind,
        other => panic!("no fault: {other:?}"),
    }
}

#[test]
fn while_a_hook_sleeps_the_other_containers_log_end_and_are_told_of() {
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let pod = pod();
        let bundle = with_hook(&pod, "slow", kind);
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let mut client = pod.connect();
                pod.create(&mut client, "slow", bundle.clone());
                client.ask(Call::Start { container: "slow".into() });
                client.ask(Call::Delete { container: "slow".into() });
            });
            eventually("the hook runs", || is_in_hook(&pod));
            let mut client = pod.connect();
            client.ask(Call::Subscribe);
            pod.run(&mut client, "quick", "echo out; exit 3");
            assert_eq!(client.exit_of("quick").code, 3, "{kind}");
            assert_eq!(pod.log("quick"), ["stdout F out"], "{kind}");
            assert!(client.state().contains_key("quick"), "{kind}");
            client.ask(Call::Delete { container: "quick".into() });
            assert!(!slow.is_finished(), "{kind}: nobody waited for the hook");
            fs::write(folder(&pod).join("go"), "").unwrap();
            slow.join().unwrap();
        });
        assert!(pod.connect().state().is_empty() && pod.kept() == 0, "{kind}");
    }
}

/// Starts a container `slow` to which execs come only as far as to their seccomp filter, until the listener is accepted.
fn hold_up(pod: &Pod, client: &mut Client) -> UnixListener {
    // Every process gives the listener of its filter away. With no more than one client waiting, the container's, the
    // next finds no room until that is accepted.
    let path = pod.folder.path().join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let bundle = pod.bundle_with("slow", &["/bin/sleep", "1000"], |config| {
        let rule = json!({"names": ["mknodat"], "action": "SCMP_ACT_NOTIFY"});
        config["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [rule]});
    });
    pod.create(client, "slow", bundle);
    client.ask(Call::Start { container: "slow".into() });
    listener
}

fn exec(words: &[&str]) -> Call {
    let process = Box::new(serde_json::from_value(process(words)).unwrap());
    Call::Exec { container: "slow".into(), exec: "e".into(), process }
}

/// Whether there is a second process in the container.
fn is_joined(pod: &Pod) -> bool {
    match pod.connect().ask(Call::Processes { container: "slow".into() }) {
        Answer::Processes { pids } => pids.len() > 1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn while_an_exec_is_held_up_the_other_containers_log_end_and_are_told_of() {
    let pod = pod();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let listener = hold_up(&pod, &mut client);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let null = File::options().read(true).write(true).open("/dev/null").unwrap();
            pod.connect().0.call(exec(&["true"]), &[null.as_fd(); 3], PATIENCE)
        });
        eventually("its process is in the container", || is_joined(&pod));
        pod.run(&mut client, "quick", "echo out; exit 3");
        assert_eq!(client.exit_of("quick").code, 3);
        assert_eq!(pod.log("quick"), ["stdout F out"]);
        assert!(client.state().contains_key("quick") && !slow.is_finished(), "nothing held it up");
        listener.accept().unwrap();
        slow.join().unwrap().unwrap();
    });
    assert!(matches!(client.event(), Event::ExecExited { code: 0, .. }));
}

#[test]
fn a_signal_for_an_exec_that_is_being_made_waits_for_it() {
    let pod = pod();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let listener = hold_up(&pod, &mut client);
    let signal = |signal| Call::ExecKill { container: "slow".into(), exec: "e".into(), signal };
    assert_eq!(kind(client.try_ask(signal(9))), FaultKind::NotFound);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let null = File::options().read(true).write(true).open("/dev/null").unwrap();
            pod.connect().0.call(exec(&["sleep", "1000"]), &[null.as_fd(); 3], PATIENCE)
        });
        eventually("its process is in the container", || is_joined(&pod));
        let (wrong, right) =
            (scope.spawn(|| pod.connect().try_ask(signal(999))), scope.spawn(|| pod.connect().try_ask(signal(9))));
        assert!(client.state().contains_key("slow") && !wrong.is_finished() && !right.is_finished());
        listener.accept().unwrap();
        slow.join().unwrap().unwrap();
        assert_eq!(kind(wrong.join().unwrap()), FaultKind::Invalid);
        right.join().unwrap().unwrap();
    });
    assert!(matches!(client.event(), Event::ExecExited { code: 137, .. }));
}

#[test]
fn a_second_verb_on_a_busy_container_is_refused_and_a_signal_is_not() {
    let pod = pod();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let pid = pod.create(&mut client, "c", with_hook(&pod, "c", "poststart"));
    thread::scope(|scope| {
        let starting = scope.spawn(|| pod.connect().try_ask(Call::Start { container: "c".into() }));
        eventually("the hook runs", || is_in_hook(&pod));
        assert_eq!(kind(client.try_ask(Call::Start { container: "c".into() })), FaultKind::WrongState);
        assert_eq!(kind(client.try_ask(Call::Pause { container: "c".into() })), FaultKind::WrongState);
        client.ask(Call::Kill { container: "c".into(), signal: 9, all: false });
        eventually("it is dead", || !lives(pid));
        fs::write(folder(&pod).join("go"), "").unwrap();
        starting.join().unwrap().unwrap();
    });
    let exit = client.exit_of("c");
    assert!(exit.signal == Some(9) && exit.started_at.is_some(), "{exit:?}");
}

#[test]
fn what_is_deleted_while_it_is_created_is_not_waited_for() {
    let pod = pod();
    let mut client = pod.connect();
    thread::scope(|scope| {
        let creating =
            scope.spawn(|| pod.connect().try_ask(Call::create("c", with_hook(&pod, "c", "createRuntime"), None)));
        eventually("the hook runs", || is_in_hook(&pod));
        client.ask(Call::Delete { container: "c".into() });
        assert_eq!(kind(creating.join().unwrap()), FaultKind::Failed);
    });
    assert!(client.state().is_empty() && pod.kept() == 0);
    assert!(!pod.cgroups().iter().any(|folder| folder.join("c").exists()));
    eventually("the hook is dead", || !is_mentioned(&folder(&pod)));
}

#[test]
fn a_shim_killed_while_a_hook_sleeps_leaves_nothing_that_is_not_found() {
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let pod = pod();
        let bundle = with_hook(&pod, "c", kind);
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let mut client = pod.connect();
                let calls = [
                    Call::create("c", bundle.clone(), None),
                    Call::Start { container: "c".into() },
                    Call::Delete { container: "c".into() },
                ];
                calls.into_iter().map(|call| client.try_ask(call)).find_map(Result::err)
            });
            eventually("the hook runs", || is_in_hook(&pod));
            kill(Pid::from_raw(pod.shim_pid()), Signal::SIGKILL).unwrap();
            assert!(matches!(slow.join().unwrap(), Some(Error::Closed { .. })), "{kind}");
        });
        // Its hooks run for the one who cleans up, too.
        fs::write(folder(&pod).join("go"), "").unwrap();
        eventually("the shim is dead", || client::living(&pod.dir).unwrap().is_none());
        client::reap_dead(&pod.dir).unwrap();
        assert!(pod.cgroups().is_empty() && pod.mounts().is_empty() && !pod.dir.exists(), "{kind}");
        eventually("nobody works on", || !is_mentioned(&folder(&pod)));
    }
}
