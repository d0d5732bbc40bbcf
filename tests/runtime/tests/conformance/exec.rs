//! runc's command line: processes that join a running container.

use std::fs;

use berth_runtime_tests::container::{exit_code, is_alive, report};
use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::{Value, json};

fn seen(container: &Container, options: &[&str]) -> Report {
    report(&container.exec_with(options, &["/bin/probe"]).ok())
}

#[test]
fn a_process_joins_all_namespaces_and_the_control_group() {
    let container = Container::sleeper().running();
    let own = seen(&container, &[]);
    for name in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let init = fs::read_link(format!("/proc/{}/ns/{name}", container.pid())).unwrap();
        assert_eq!(own.namespaces[name], init.to_str().unwrap(), "{name}");
    }
    let groups = container.exec("cat /proc/self/cgroup; echo; cat /proc/1/cgroup").ok();
    let (own, init) = groups.split_once("\n\n").unwrap();
    assert_eq!(own, init.trim());
}

#[test]
fn a_process_has_what_the_container_s_has() {
    let container = Container::sleeper().with(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "COLOUR=blue"]);
        spec["process"]["cwd"] = json!("/tmp");
        spec["process"]["oomScoreAdj"] = json!(321);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [7] });
    });
    let container = container.running();
    let seen = seen(&container, &[]);
    if lacks("crun < 1.9", "a process joins as root") {
        return;
    }
    assert_eq!((seen.uids, seen.gids, seen.groups), (vec![1000; 4], vec![1000; 4], vec![7]));
    assert_eq!((seen.folder.as_str(), seen.environment["COLOUR"].as_str()), ("/tmp", "blue"));
    assert_eq!(seen.limits["Max open files"].0, "1024");
    assert_eq!(seen.status["NoNewPrivs"], "1");
    assert_eq!(seen.oom_score_adj, 321);
    assert_eq!(seen.capabilities["effective"], [""; 0], "another user than root has none");
}

#[test]
fn exit_codes_are_the_program_s_or_tell_what_ended_it() {
    let container = Container::sleeper().running();
    for code in [0, 1, 7, 126, 255] {
        assert_eq!(container.exec(&format!("exit {code}")).code, code);
    }
    assert_eq!(container.exec("kill -KILL $$").code, 137);
    assert_eq!(container.exec("kill -TERM $$").code, 143);
}

#[test]
fn a_program_that_cannot_be_run_is_an_error_that_is_told() {
    let container = Container::sleeper().running();
    for program in ["/no/such/program", "nothing", "/etc/passwd", "/etc"] {
        let outcome = container.exec_with(&[], &[program]);
        let code = outcome.code;
        assert!([1, 126, 127, 255].contains(&code), "{program}: {outcome:?}");
        outcome.refused();
    }
    container.exec_with(&["--cwd", "/etc/passwd"], &["true"]).refused();
    until("nothing is left of them", || container.cgroup().processes().len() == 2);
}

#[test]
fn options_change_the_process() {
    let container = Container::sleeper().running();
    assert_eq!(seen(&container, &["--cwd", "/tmp"]).folder, "/tmp");
    let with = seen(&container, &["--env", "COLOUR=blue", "--env", "SIGN=a=b"]);
    assert_eq!((with.environment["COLOUR"].as_str(), with.environment["SIGN"].as_str()), ("blue", "a=b"));
    if !lacks("crun", "a variable takes the others away") {
        assert_eq!(with.environment["PATH"], "/bin");
    }
    let user = seen(&container, &["--user", "1000:10"]);
    assert_eq!((user.uids[0], user.gids[0]), (1000, 10));
    assert_eq!(seen(&container, &["--user", "1000"]).uids[0], 1000);
    if !lacks("crun < 1.9", "no option for groups") {
        let options = ["--user", "1000:10", "--additional-gids", "20", "--additional-gids", "30"];
        let groups = seen(&container, &options).groups;
        assert!(groups.ends_with(&[20, 30]), "{groups:?}");
    }
    let granted = seen(&container, &["--cap", "CAP_NET_ADMIN", "--cap", "CAP_SYS_TIME"]);
    let effective = granted.set("effective");
    assert!(effective.contains(&"CAP_NET_ADMIN"), "{effective:?}");
    assert!(effective.contains(&"CAP_CHOWN") || lacks("crun", "a capability takes the others away"), "{effective:?}");
    assert!(granted.set("bounding").contains(&"CAP_SYS_TIME"));
    assert!(!seen(&container, &[]).set("effective").contains(&"CAP_NET_ADMIN"), "the container has none of it");
}

#[test]
fn a_process_can_give_up_new_privileges_by_itself() {
    let container = Container::sleeper().with(|spec| spec["process"]["noNewPrivileges"] = json!(false)).running();
    assert_eq!(seen(&container, &[]).status["NoNewPrivs"], "0");
    assert_eq!(seen(&container, &["--no-new-privs"]).status["NoNewPrivs"], "1");
}

#[test]
fn a_process_of_the_configuration_s_kind_is_all_its_own() {
    let container = Container::sleeper().running();
    let process = |change: &dyn Fn(&mut Value)| {
        let mut process = json!({
            "args": ["/bin/probe", "a b"], "cwd": "/etc", "env": ["ONLY=this"],
            "user": { "uid": 1000, "gid": 10, "additionalGids": [20] },
        });
        change(&mut process);
        report(&container.exec_process(&process).ok())
    };
    let seen = process(&|_| ());
    assert_eq!((seen.arguments[1].as_str(), seen.folder.as_str()), ("a b", "/etc"));
    assert_eq!((seen.uids[0], seen.gids[0], seen.groups), (1000, 10, vec![20]));
    assert!(!seen.environment.contains_key("PATH") && seen.environment["ONLY"] == "this", "{:?}", seen.environment);
    let limits = process(&|process| {
        process["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_FSIZE", "soft": 100_000, "hard": 200_000 },
        ]);
        process["noNewPrivileges"] = json!(true);
        process["oomScoreAdj"] = json!(900);
        process["user"] = json!({ "uid": 0, "gid": 0, "umask": 0o077 });
        let both = json!(["CAP_KILL", "CAP_CHOWN"]);
        process["capabilities"] = json!({
            "bounding": both, "effective": both, "permitted": both, "inheritable": both, "ambient": ["CAP_KILL"],
        });
    });
    assert_eq!(limits.limits["Max file size"], ("100000".to_owned(), "200000".to_owned()));
    if !lacks("runc < 1.2", "its language's run time raises the limit of open files") {
        assert_eq!(limits.limits["Max open files"], ("100".to_owned(), "200".to_owned()));
    }
    assert_eq!(limits.status["NoNewPrivs"], "1");
    if !lacks("runc < 1.2", "the mask of a joining process is ignored") {
        assert_eq!(limits.status["Umask"], "0077");
    }
    assert_eq!(limits.set("effective"), ["CAP_CHOWN", "CAP_KILL"]);
    assert_eq!(limits.set("ambient"), ["CAP_KILL"]);
    if !lacks("runc < 1.2 | crun < 1.9", "a joining process's score is the container's") {
        assert_eq!(limits.oom_score_adj, 900);
    }
}

#[test]
fn a_detached_process_runs_on_and_its_number_is_in_the_file() {
    let container = Container::sleeper().running();
    let file = container.folder().join("exec-pid");
    let options = ["--detach", "--pid-file", file.to_str().unwrap()];
    container.exec_with(&options, &["/bin/sh", "-c", "while [ ! -e /data/go ]; do sleep 0.01; done; exit 6"]).ok();
    let pid: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(is_alive(pid));
    assert!(container.cgroup().processes().contains(&pid));
    fs::write(container.rootfs().join("data/go"), "").unwrap();
    assert_eq!(exit_code(pid), 6);
    assert_eq!(container.status(), "running");
}

#[test]
fn a_process_that_is_waited_for_gets_the_signals_of_who_waits() {
    let container = Container::sleeper().running();
    let call = container
        .exec_call(
            &[],
            &["/bin/sh", "-c", "trap 'exit 44' TERM; echo; while :; do sleep 1000 > /dev/null 2>&1 & wait; done"],
        )
        .begin();
    until("the trap is set", || !call.out().is_empty());
    berth_runtime_tests::container::signal(call.pid(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(call.wait().code, 44);
}

#[test]
fn streams_are_passed_through_in_both_directions() {
    let container = Container::sleeper().running();
    let outcome = container.exec_call(&[], &["/bin/sh", "-c", "cat; echo e >&2"]).input("some\ntext").finish();
    assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("some\ntext", "e\n"));
}

#[test]
fn descriptors_are_kept_if_asked() {
    let container = Container::sleeper().running();
    fs::write(container.folder().join("file"), "by descriptor").unwrap();
    let program = ["/bin/sh", "-c", "cat <&3; cat <&4"];
    let call = container.exec_call(&["--preserve-fds", "2"], &program).after("exec 3< file 4< file");
    assert_eq!(call.finish().ok(), "by descriptorby descriptor");
    let call = container.exec_call(&["--preserve-fds", "1"], &program).after("exec 3< file 4< file");
    assert!(call.finish().err.contains("ad file descriptor"));
}

#[test]
fn a_process_can_join_a_group_below_the_container_s() {
    if lacks("crun < 1.9", "no such option for this layout") {
        return;
    }
    let mut container = Container::sleeper();
    container.namespace("cgroup", None);
    let container = container.running();
    let below = container.cgroup().folder("pids").join("below");
    fs::create_dir(&below).unwrap();
    let line = container.exec_with(&["--cgroup", "pids:below"], &["/bin/grep", ":pids:", "/proc/self/cgroup"]).ok();
    assert!(line.trim().ends_with("/below"), "{line}");
    container.exec_with(&["--cgroup", "pids:nowhere"], &["true"]).refused();
    container.exec_with(&["--cgroup", "pids:../.."], &["true"]).refused();
    fs::remove_dir(&below).unwrap();
}

#[test]
fn many_processes_join_at_once() {
    let container = Container::sleeper().running();
    let calls: Vec<_> =
        (0..8).map(|number| container.exec_call(&[], &["/bin/echo", &number.to_string()]).begin()).collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait().ok(), format!("{number}\n"));
    }
    until("nothing is left of them", || container.cgroup().processes().len() == 2);
}

#[test]
fn processors_are_those_that_exec_is_bound_to() {
    if lacks("runc < 1.3 | crun < 1.22", "no affinity for joining processes") {
        return;
    }
    let container =
        Container::sleeper().with(|spec| spec["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" }));
    let container = container.running();
    assert_eq!(seen(&container, &[]).status["Cpus_allowed_list"], "0");
    let container =
        Container::new("true").with(|spec| spec["process"]["execCPUAffinity"] = json!({ "final": "nonsense" }));
    assert!(container.try_create().code != 0);
}

#[test]
fn a_process_ends_with_its_container() {
    let container = Container::sleeper().running();
    let call = container.exec_call(&[], &["/bin/sh", "-c", "echo; sleep 1000"]).begin();
    until("it runs", || !call.out().is_empty());
    container.kill("KILL").ok();
    assert_eq!(call.wait().code, 137);
}
