//! create, start, exec, kill, delete, and what is left afterwards.

use berth_runtime::{Error, Launch, Runtime, Status, Stdio};
use nix::errno::Errno;
use serde_json::json;

use crate::support::{Container, describe, finish, output, read};

#[test]
fn a_program_runs_tells_its_output_and_code_and_leaves_nothing() {
    let container = Container::new("echo hello; exit 7");
    assert_eq!(container.run(), (7, "hello\n".to_owned()));
    assert_eq!(container.runtime.state(&container.id).unwrap().status, Status::Stopped);
    container.runtime.delete(&container.id).unwrap();
    container.runtime.delete(&container.id).unwrap();
    container.assert_gone();
}

#[test]
fn a_created_container_waits_and_can_be_started_by_another_process() {
    let container = Container::new("echo started");
    let (out, stdio) = output();
    let spawned = container.create_with(stdio).unwrap();
    assert_eq!(container.runtime.state(&container.id).unwrap().status, Status::Created);
    // A runtime of its own, as another process would have.
    let other = Runtime::new(container.folder().join("state"));
    other.start(&container.id).unwrap();
    assert_eq!((finish(&spawned), read(out).as_str()), (0, "started\n"));
    let error = other.start(&container.id).unwrap_err();
    assert!(matches!(error, Error::WrongState { status: Status::Stopped, .. }), "{error}");
}

#[test]
fn of_many_who_start_a_container_one_does() {
    let container = Container::new("sleep 100");
    container.create().unwrap();
    let started: usize = std::thread::scope(|scope| {
        let starters: Vec<_> = (0..5).map(|_| scope.spawn(|| container.runtime.start(&container.id))).collect();
        starters.into_iter().filter_map(|starter| starter.join().unwrap().ok()).count()
    });
    assert_eq!(started, 1);
    assert_eq!(container.runtime.state(&container.id).unwrap().status, Status::Running);
}

#[test]
fn a_program_that_is_missing_or_no_program_is_told_by_start() {
    let check = |program: &str, expected: Errno| {
        let mut container = Container::new("");
        container.spec["process"]["args"] = json!([program]);
        let spawned = container.create().unwrap();
        let error = container.runtime.start(&container.id).unwrap_err();
        assert!(matches!(&error, Error::Exec { path, errno } if path == program && *errno == expected), "{error}");
        finish(&spawned);
        container.runtime.delete(&container.id).unwrap();
        container.assert_gone();
    };
    check("/bin/nothing", Errno::ENOENT);
    check("nothing", Errno::ENOENT);
    check("/etc", Errno::EACCES);
}

#[test]
fn a_program_that_is_looked_for_is_missed_by_create() {
    let check = |program: &str, expected: Errno| {
        let mut container = Container::new("");
        container.spec["process"]["args"] = json!([program]);
        let launch = Launch { look_for_program: true, ..Launch::default() };
        let error = container.create_with(launch).unwrap_err();
        assert!(matches!(&error, Error::Exec { path, errno } if path == program && *errno == expected), "{error}");
        container.assert_gone();
    };
    check("/bin/nothing", Errno::ENOENT);
    check("nothing", Errno::ENOENT);
    check("/etc", Errno::EACCES);
}

#[test]
fn more_processes_join_a_running_container() {
    let container = Container::new("while :; do sleep 1; done");
    let spawned = container.running();
    let (code, output) =
        container.exec("hostname; readlink /proc/self/ns/net; cat /proc/1/comm; test $$ -lt 100; exit 3");
    let own = std::fs::read_link(format!("/proc/{}/ns/net", spawned.pid)).unwrap();
    assert_eq!((code, output), (3, format!("box\n{}\nsh\n", own.display())));
    for (_, folder, _) in container.runtime.cgroup(&container.id).unwrap().folders() {
        let inside = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        assert!(inside.lines().any(|line| line == spawned.pid.to_string()), "{}", folder.display());
    }
    let (_, cgroups) = container.exec("cat /proc/self/cgroup /proc/1/cgroup");
    let lines: Vec<&str> = cgroups.lines().collect();
    let (own, init) = lines.split_at(lines.len() / 2);
    assert_eq!(own, init);
}

#[test]
fn an_exec_that_cannot_be_is_an_error_and_leaves_no_process() {
    let container = Container::new("sleep 100");
    container.running();
    let before = container.runtime.cgroup(&container.id).unwrap().processes().unwrap();
    let mut process: oci_spec::runtime::Process = serde_json::from_value(container.spec["process"].clone()).unwrap();
    process.set_args(Some(vec!["/bin/nothing".into()]));
    let error = container.runtime.exec(&container.id, &process, Stdio::default()).unwrap_err();
    assert!(matches!(error, Error::Exec { errno: Errno::ENOENT, .. }), "{error}");
    process.set_cwd("/nowhere".into());
    let error = container.runtime.exec(&container.id, &process, Stdio::default()).unwrap_err();
    assert!(describe(&error).contains("/nowhere"), "{}", describe(&error));
    assert_eq!(container.runtime.cgroup(&container.id).unwrap().processes().unwrap(), before);
    container.runtime.kill(&container.id, 9, false).unwrap();
}

#[test]
fn signals_reach_the_init_or_everybody_and_the_dead_do_not_mind() {
    let container = Container::new("trap 'exit 5' TERM; sleep 100 & while :; do wait; done");
    let spawned = container.running();
    let cgroup = container.runtime.cgroup(&container.id).unwrap();
    crate::support::until("the shell has its child", || cgroup.processes().unwrap().len() == 2);
    container.runtime.kill(&container.id, 15, false).unwrap();
    assert_eq!(finish(&spawned), 5);
    container.runtime.kill(&container.id, 15, false).unwrap();
    assert!(matches!(container.runtime.kill("nobody", 15, false), Err(Error::NotFound { .. })));
    assert!(container.runtime.kill(&container.id, 100, false).is_err());
}

#[test]
fn delete_ends_whatever_still_runs() {
    let mut container = Container::new("sleep 100 & sleep 100 & sleep 100");
    // Without a pid namespace nothing dies with the init process.
    container.namespace("pid", None);
    let spawned = container.running();
    let cgroup = container.runtime.cgroup(&container.id).unwrap();
    crate::support::until("three sleep", || cgroup.processes().unwrap().len() >= 3);
    let pids = cgroup.processes().unwrap();
    container.runtime.delete(&container.id).unwrap();
    assert_eq!(finish(&spawned), 137);
    container.assert_gone();
    for pid in pids {
        let gone = || berth_sys::proc::stat(pid).map_or(true, |stat| stat.is_dead());
        crate::support::until("the process is dead", gone);
    }
}

#[test]
fn ids_are_unique_and_checked() {
    let container = Container::new("sleep 100");
    container.running();
    assert!(matches!(container.create(), Err(Error::Exists { .. })));
    assert_eq!(container.runtime.state(&container.id).unwrap().status, Status::Running);
    assert!(matches!(container.runtime.create("../x", &container.bundle(), Stdio::default()), Err(Error::Id { .. })));
    assert!(matches!(container.runtime.start("nobody"), Err(Error::NotFound { .. })));
}

#[test]
fn a_created_container_is_deleted_without_ever_running() {
    let container = Container::new("echo never");
    let spawned = container.create().unwrap();
    container.runtime.delete(&container.id).unwrap();
    assert_eq!(finish(&spawned), 137);
    container.assert_gone();
}
