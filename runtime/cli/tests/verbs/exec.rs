//! `exec`.

use std::fs;

use serde_json::json;

use crate::bundle::{Bundle, WAIT, is_runc};

#[test]
fn codes_come_back() {
    let bundle = Bundle::running(WAIT);
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(bundle.runtime(&["exec", "a", "sh", "-c", script]).code, code, "{script}");
    }
}

#[test]
fn flags_change_the_process() {
    let bundle = Bundle::running(WAIT);
    let exec =
        |flags: &[&str], script: &str| bundle.runtime(&[&["exec"], flags, &["a", "sh", "-c", script]].concat()).ok();
    assert_eq!(exec(&["--env", "A=b", "--env", "C=d"], "echo $A $C"), "b d\n");
    assert_eq!(exec(&["--cwd", "/tmp"], "pwd"), "/tmp\n");
    assert_eq!(exec(&["--user", "5:6", "-g", "7", "-g", "8"], "id"), "uid=5 gid=6 groups=7,8\n");
    assert_eq!(exec(&["-u", "5"], "id -u; id -g"), "5\n0\n");
    let status = |flags: &[&str], field: &str| exec(flags, &format!("grep {field} /proc/self/status"));
    // CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE; and CAP_CHOWN.
    assert_eq!(status(&[], "CapBnd"), "CapBnd:\t0000000020000420\n");
    assert_eq!(status(&["--cap", "CAP_CHOWN"], "CapBnd"), "CapBnd:\t0000000020000421\n");
    assert_eq!(status(&["--cap", "CAP_CHOWN"], "CapInh"), "CapInh:\t0000000000000000\n");
    assert_eq!(status(&[], "NoNewPrivs"), "NoNewPrivs:\t1\n");
    assert_eq!(status(&["--no-new-privs=false"], "NoNewPrivs"), "NoNewPrivs:\t0\n");
    assert_eq!(exec(&[], "echo $0 --flag \"$@\""), "sh --flag\n");
}

#[test]
fn a_file_says_it_all() {
    let bundle = Bundle::running(WAIT);
    let process = json!({
        "args": ["sh", "-c", "id -u; echo $A; pwd; exit 4"], "env": ["A=b", "PATH=/bin"], "cwd": "/tmp",
        "user": {"uid": 9, "gid": 9}
    });
    fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    let ended = bundle.runtime(&["exec", "--process", "process.json", "--pid-file", "pid", "a"]);
    assert_eq!((ended.code, ended.out.as_str()), (4, "9\nb\n/tmp\n"), "{ended:?}");
    assert!(fs::read_to_string(bundle.path("pid")).unwrap().parse::<i32>().unwrap() > 1);
    fs::write(bundle.path("process.json"), "{").unwrap();
    assert_eq!(bundle.runtime(&["exec", "-p", "process.json", "a"]).code, 255);
}

#[test]
fn it_may_be_left_alone() {
    let bundle = Bundle::running(WAIT);
    let script = "echo begun > /begun; while [ ! -e /go ]; do sleep 0.05; done; echo ended > /ended";
    let mut command = bundle.command(&["exec", "--detach", "--pid-file", "pid", "a", "sh", "-c", script]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    assert!(command.status().unwrap().success());
    bundle.await_file("begun");
    let pid = fs::read_to_string(bundle.path("pid")).unwrap();
    let shown = bundle.runtime(&["ps", "--format", "json", "a"]).ok();
    assert!(shown.contains(&pid), "{shown} {pid}");
    fs::write(bundle.path("rootfs/go"), "").unwrap();
    bundle.await_file("ended");
}

#[test]
fn standard_input_is_passed_on() {
    let bundle = Bundle::running(WAIT);
    fs::write(bundle.path("input"), "typed\n").unwrap();
    let mut command = bundle.command(&["exec", "a", "cat"]);
    let output = command.stdin(fs::File::open(bundle.path("input")).unwrap()).output().unwrap();
    assert_eq!(output.stdout, b"typed\n");
}

#[test]
fn it_runs_in_a_cgroup_below() {
    if is_runc() {
        return;
    }
    let bundle = Bundle::running(WAIT);
    bundle.runtime(&["exec", "--cgroup", "nosuch", "a", "true"]).failed(255, "exec failed");
    bundle.runtime(&["exec", "--cgroup", "../..", "a", "true"]).failed(255, "exec failed");
    bundle.runtime(&["exec", "--cgroup", "memory:/x", "a", "true"]).failed(255, "exec failed");
    bundle.runtime(&["exec", "--cgroup", "/", "a", "true"]).ok();
}
