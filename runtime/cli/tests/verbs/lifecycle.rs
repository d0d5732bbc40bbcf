//! create, start, kill, delete; run without a terminal.

use std::fs;

use serde_json::json;

use crate::bundle::{Bundle, Ended, WAIT, eventually, exists, is_runc};

#[test]
fn a_container_is_created_started_ended_and_deleted() {
    let bundle = Bundle::of(WAIT);
    bundle.create(&["--pid-file", "pid", "a"]).ok();
    let state = bundle.state("a");
    assert_eq!((&state["status"], &state["id"]), (&"created".into(), &"a".into()));
    assert_eq!(state["pid"].to_string(), fs::read_to_string(bundle.path("pid")).unwrap());
    assert!(!exists(&bundle.path("rootfs/there")));
    bundle.runtime(&["start", "a"]).ok();
    assert_eq!(bundle.state("a")["status"], "running");
    assert_eq!(bundle.await_file("there"), "ready\n");
    bundle.runtime(&["kill", "a"]).ok();
    bundle.await_status("stopped");
    assert_eq!(bundle.state("a")["pid"], 0);
    bundle.runtime(&["delete", "a"]).ok();
    assert_eq!(bundle.runtime(&["list", "-q"]).ok(), "");
}

#[test]
fn what_makes_a_container_may_end_at_once() {
    let bundle = Bundle::of("exit 0");
    for round in 0..20 {
        let id = format!("a{round}");
        bundle.create(&[&id]).ok();
        bundle.runtime(&["start", &id]).ok();
        bundle.runtime(&["delete", "--force", &id]).ok();
    }
}

#[test]
fn signals_have_names_and_numbers() {
    let script =
        "trap 'echo usr1 > /heard' USR1; trap 'echo rt > /heard' 36; echo x > /there; while :; do sleep 0.05; done";
    let bundle = Bundle::running(script);
    bundle.await_file("there");
    for (signal, heard) in
        [("USR1", "usr1\n"), ("RTMIN+2", "rt\n"), ("sigusr1", "usr1\n"), ("36", "rt\n"), ("10", "usr1\n")]
    {
        if is_runc() && signal.starts_with("RT") {
            continue;
        }
        let _ = fs::remove_file(bundle.path("rootfs/heard"));
        bundle.runtime(&["kill", "a", signal]).ok();
        assert_eq!(bundle.await_file("heard"), heard, "{signal}");
    }
    bundle.runtime(&["kill", "--all", "a", "KILL"]).ok();
    bundle.await_status("stopped");
}

#[test]
fn deletion_is_forced_or_refused() {
    let bundle = Bundle::running(WAIT);
    bundle.runtime(&["delete", "a"]).failed(1, "cannot delete container a that is not stopped: running");
    bundle.runtime(&["delete", "a", "--force"]).ok();
    bundle.runtime(&["delete", "--force", "a"]).ok();
    bundle.runtime(&["delete", "a"]).failed(1, "container does not exist");
    bundle.create(&["b"]).ok();
    bundle.runtime(&["delete", "b"]).ok();
}

#[test]
fn a_container_whose_record_is_broken_can_be_deleted_by_force() {
    if is_runc() {
        return;
    }
    let breaks: [(&dyn Fn(String) -> String, &str); 3] = [
        (&|text| text.replace("\"created\":\"", "\"created\":\"never "), "created: "),
        (&|text| text.split_once("\"namespaces\"").unwrap().0.to_owned(), "state.json: EOF"),
        (&|_| "x".to_owned(), "state.json: expected value"),
    ];
    for (number, (change, field)) in breaks.into_iter().enumerate() {
        let bundle = Bundle::running(WAIT);
        let pid = bundle.state("a")["pid"].as_i64().unwrap();
        let path = bundle.path("state/a/state.json");
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
        for verb in [&["delete", "a"][..], &["state", "a"], &["kill", "a"], &["update", "--memory", "64M", "a"]] {
            let ended = bundle.runtime(verb);
            ended.failed(1, &format!("cannot understand {}: {field}", path.display()));
        }
        let ended = bundle.runtime(&["delete", "--force", "a"]);
        assert!(ended.code == 0 && ended.err.contains(field), "{ended:?}");
        assert!(!exists(&bundle.path("state/a")));
        let is_told = number < 2;
        assert_eq!(bundle.cgroups().is_empty(), is_told, "{field}");
        if is_told {
            eventually("it is dead", || berth_sys::proc::stat(pid as i32).map_or(true, |stat| stat.is_dead()));
        } else {
            let pidfd = berth_sys::process::pidfd_open(pid as i32).unwrap();
            berth_sys::process::pidfd_send_signal(&pidfd, nix::libc::SIGKILL).unwrap();
            eventually("nobody is left", || {
                bundle
                    .cgroups()
                    .iter()
                    .all(|folder| fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|inside| inside.is_empty()))
            });
        }
    }
}

#[test]
fn run_is_all_of_it() {
    let bundle = Bundle::of("echo out; echo err >&2; exit 3");
    let ended = bundle.runtime(&["run", "a"]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (3, "out\n", "err\n"));
    assert_eq!(bundle.runtime(&["list", "-q"]).ok(), "");
    assert_eq!(bundle.runtime(&["run", "--keep", "a"]).code, 3);
    assert_eq!(bundle.state("a")["status"], "stopped");
}

#[test]
fn run_may_leave_the_container_alone() {
    let bundle = Bundle::of(WAIT);
    let mut command = bundle.command(&["run", "--detach", "--pid-file", "pid", "a"]);
    command.stdout(fs::File::create(bundle.path("out")).unwrap()).stderr(fs::File::create(bundle.path("err")).unwrap());
    assert!(command.status().unwrap().success());
    assert_eq!(bundle.state("a")["status"], "running");
    bundle.await_file("there");
    bundle.runtime(&["kill", "a", "TERM"]).ok();
    bundle.await_status("stopped");
}

#[test]
fn a_container_is_paused_and_resumed() {
    let bundle = Bundle::running(WAIT);
    bundle.runtime(&["resume", "a"]).failed(1, "container not paused");
    bundle.runtime(&["pause", "a"]).ok();
    assert_eq!(bundle.state("a")["status"], "paused");
    bundle.runtime(&["pause", "a"]).failed(1, "container not running");
    bundle
        .runtime(&["exec", "a", "true"])
        .failed(255, "cannot exec in a paused container (use --ignore-paused to override)");
    bundle.runtime(&["resume", "a"]).ok();
    assert_eq!(bundle.state("a")["status"], "running");
    bundle.runtime(&["pause", "a"]).ok();
    bundle.runtime(&["kill", "a", "KILL"]).ok();
    eventually("the frozen dies", || matches!(bundle.state("a")["status"].as_str(), Some("stopped")));
}

#[test]
fn devices_are_denied_and_allowed_while_it_runs() {
    if is_runc() {
        return;
    }
    for unified in [false, true] {
        let mut bundle = Bundle::of(WAIT);
        bundle.unified = unified;
        bundle.config["linux"]["devices"] = json!([{ "path": "/dev/there", "type": "c", "major": 10, "minor": 229 }]);
        let rules = |allow: bool| {
            let fuse = json!({ "allow": allow, "type": "c", "major": 10, "minor": 229, "access": "rw" });
            json!([{ "allow": false, "access": "rwm" }, fuse])
        };
        bundle.config["linux"]["resources"]["devices"] = rules(true);
        bundle.save();
        bundle.create(&["a"]).ok();
        bundle.runtime(&["start", "a"]).ok();
        for allow in [true, false, true, false] {
            fs::write(bundle.path("limits.json"), json!({ "devices": rules(allow) }).to_string()).unwrap();
            let open = || bundle.runtime(&["exec", "a", "sh", "-c", ": < /dev/there"]);
            // What denies it is the cgroup: whether there is such a device is nobody's concern.
            let denied = |ended: &Ended| ended.err.contains("Operation not permitted");
            bundle.runtime(&["update", "--resources", "limits.json", "a"]).ok();
            assert_eq!(denied(&open()), !allow, "{unified}, {:?}", open());
            bundle.runtime(&["exec", "a", "sh", "-c", ": < /dev/null"]).ok();
        }
    }
}

#[test]
fn nobody_can_write_to_the_runtime() {
    if is_runc() {
        return;
    }
    let bundle = Bundle::of(WAIT);
    bundle.create(&["a"]).ok();
    // Until it is started, the container's first process is the runtime.
    let own = format!("/proc/{}/exe", bundle.state("a")["pid"]);
    let error = fs::OpenOptions::new().write(true).truncate(true).open(own).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS), "{error}");
}
