//! runc's command line: `run`, `list`, `ps`, `spec`, `events`, and what all commands have in common.

use std::fs;
use std::path::Path;

use berth_runtime_tests::container::exit_code;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::Value;

#[test]
fn run_is_create_start_wait_and_delete() {
    let container = Container::new("cat; echo err >&2; exit 7");
    container.write();
    let bundle = container.bundle();
    let call = container.call(&["run", "--bundle", bundle.to_str().unwrap(), &container.id]).input("text");
    let outcome = call.finish();
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (7, "text", "err\n"));
    container.assert_gone();
    container.verb("state").refused();
}

#[test]
fn run_tells_the_signal_that_ended_the_program() {
    let container = Container::new("kill -KILL $$; sleep 1000");
    // The first process of a namespace cannot kill itself.
    let container = container.with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|it| it["type"] != "pid");
    });
    container.write();
    let outcome = container.call(&["run", "--bundle", container.bundle().to_str().unwrap(), &container.id]).finish();
    assert_eq!(outcome.code, 137);
}

#[test]
fn run_passes_signals_on() {
    let container = Container::new("trap 'exit 44' TERM; echo; while :; do sleep 1000 & wait; done");
    container.write();
    let call = container.call(&["run", "--bundle", container.bundle().to_str().unwrap(), &container.id]).begin();
    until("the trap is set", || !call.out().is_empty());
    assert_eq!(container.status(), "running");
    berth_runtime_tests::container::signal(call.pid(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(call.wait().code, 44);
    container.assert_gone();
}

#[test]
fn run_can_leave_the_container_alone_or_keep_it() {
    let container = Container::new("exit 5");
    container.write();
    let (bundle, pid_file) = (container.bundle(), container.folder().join("pid"));
    let (bundle, pid_file) = (bundle.to_str().unwrap(), pid_file.to_str().unwrap());
    container.call(&["run", "--detach", "--bundle", bundle, "--pid-file", pid_file, &container.id]).finish().ok();
    assert_eq!(container.wait(), 5);
    assert_eq!(container.status(), "stopped");
    container.verb("delete").ok();
    if lacks("crun < 1.9", "no --keep") {
        return;
    }
    let outcome = container.call(&["run", "--keep", "--bundle", bundle, &container.id]).finish();
    assert_eq!((outcome.code, container.status().as_str()), (5, "stopped"));
}

#[test]
fn list_shows_all_containers_in_three_forms() {
    let container = Container::sleeper().running();
    let mut other = Container::sleeper();
    other.id = format!("{}-other", container.id);
    other.write();
    let pid_file = other.folder().join("pid");
    let bundle = other.bundle();
    let options = ["create", "--bundle", bundle.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap(), &other.id];
    let created = container.call(&options).begin().wait_and_keep_streams();
    created.0.ok();
    let json = container.call(&["list", "--format", "json"]).finish().json();
    let entry = |id: &str| {
        let all = json.as_array().unwrap();
        all.iter().find(|entry| entry["id"] == id).unwrap_or_else(|| panic!("{id}: {json}")).clone()
    };
    let (first, second) = (entry(&container.id), entry(&other.id));
    assert_eq!((first["status"].as_str(), first["pid"].as_i64()), (Some("running"), Some(container.pid().into())));
    assert_eq!(second["status"], "created");
    assert_eq!(second["bundle"], bundle.to_str().unwrap());
    assert!(first["created"].as_str().is_some_and(|time| time.starts_with("20")), "{first}");
    let table = container.call(&["list"]).finish().ok();
    assert!(
        table.lines().next().is_some_and(|head| ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
            .iter()
            .all(|name| head.contains(name))),
        "{table}"
    );
    assert!(table.lines().any(|line| line.contains(&container.id) && line.contains("running")), "{table}");
    let quiet = container.call(&["list", "--quiet"]).finish().ok();
    let mut ids: Vec<_> = quiet.lines().collect();
    ids.sort_unstable();
    assert_eq!(ids, [container.id.as_str(), other.id.as_str()]);
    container.call(&["list", "--format", "nonsense"]).finish().refused();
    container.call(&["delete", "--force", &other.id]).finish().ok();
}

#[test]
fn list_of_nothing_is_empty() {
    let container = Container::new("");
    assert_eq!(container.call(&["list", "--quiet"]).finish().ok(), "");
    let json = container.call(&["list", "--format", "json"]).finish().json();
    assert!(json.is_null() || json.as_array().is_some_and(Vec::is_empty), "{json}");
}

#[test]
fn ps_shows_the_processes_by_the_machine_s_numbers() {
    let container = Container::sleeper().running();
    until("the shell has its child", || container.cgroup().processes().len() == 2);
    let json = container.call(&["ps", "--format", "json", &container.id]).finish().json();
    let mut pids: Vec<i32> = json.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap() as i32).collect();
    pids.sort_unstable();
    assert_eq!(pids, container.cgroup().processes());
    let table = container.verb("ps").ok();
    assert!(table.contains("PID") && table.lines().any(|line| line.contains(&container.pid().to_string())), "{table}");
    if !lacks("crun", "no options of ps") {
        let table = container.call(&["ps", &container.id, "-o", "pid,args"]).finish().ok();
        assert!(table.contains("trap") && !table.contains("UID"), "{table}");
    }
}

#[test]
fn spec_writes_a_configuration_that_runs_and_never_over_another() {
    let container = Container::new("");
    let folder = container.bundle();
    container.call(&["spec", "--bundle", folder.to_str().unwrap()]).finish().ok();
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut spec: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(spec["root"]["path"], "rootfs");
    assert_eq!(spec["process"]["args"], serde_json::json!(["sh"]));
    container.call(&["spec", "--bundle", folder.to_str().unwrap()]).finish().refused();
    spec["process"]["terminal"] = serde_json::json!(false);
    spec["process"]["args"] = serde_json::json!(["sh", "-c", "echo runs"]);
    fs::write(folder.join("config.json"), spec.to_string()).unwrap();
    let outcome = container.call(&["run", "--bundle", folder.to_str().unwrap(), &container.id]).finish();
    assert_eq!(outcome.ok(), "runs\n");
    // In the current folder, if none is named.
    container.call(&["spec"]).finish().ok();
    assert!(container.folder().join("config.json").exists());
}

#[test]
fn spec_for_who_is_not_root_has_users_of_its_own() {
    let container = Container::new("");
    container.call(&["spec", "--rootless"]).finish().ok();
    let spec: Value = serde_json::from_slice(&fs::read(container.folder().join("config.json")).unwrap()).unwrap();
    let kinds: Vec<_> = spec["linux"]["namespaces"].as_array().unwrap().iter().map(|it| &it["type"]).collect();
    assert!(kinds.contains(&&"user".into()) && !kinds.contains(&&"network".into()), "{spec}");
    for mappings in ["uidMappings", "gidMappings"] {
        assert_eq!(spec["linux"][mappings], serde_json::json!([{ "containerID": 0, "hostID": 0, "size": 1 }]));
    }
    assert!(spec["linux"]["resources"].is_null(), "{spec}");
    let binds = spec["mounts"].as_array().unwrap().iter().filter(|mount| mount["source"] == "/sys");
    assert_eq!(binds.count(), 1, "{spec}");
}

#[test]
fn the_session_keyring_is_a_new_one_unless_the_caller_s_shall_be_kept() {
    let keyring = |options: &[&str]| {
        let container =
            Container::new("cat /proc/keys").with(|spec| spec["linux"]["maskedPaths"] = serde_json::json!([]));
        container.create_by(container.create_call(options)).ok();
        container.start();
        container.wait();
        container.out().contains(&format!("_ses.{}", container.id))
    };
    assert!(keyring(&[]));
    assert!(!keyring(&["--no-new-keyring"]));
}

#[test]
fn events_tell_what_a_container_uses() {
    if lacks("crun", "no events command") {
        return;
    }
    let container = Container::sleeper().with(|spec| {
        spec["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 64 << 20 });
        spec["linux"]["resources"]["pids"] = serde_json::json!({ "limit": 33 });
    });
    let container = container.running();
    until("the shell has its child", || container.cgroup().processes().len() == 2);
    let event = container.call(&["events", "--stats", &container.id]).finish().json();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(container.id.as_str())));
    let data = &event["data"];
    assert_eq!(data["pids"]["current"], 2, "{event}");
    assert_eq!(data["pids"]["limit"], 33, "{event}");
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20, "{event}");
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{event}");
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0), "{event}");
    container.call(&["events", "--stats", "nobody"]).finish().refused();
    let stopped = Container::new("true");
    stopped.run();
    stopped.call(&["events", "--stats", &stopped.id]).finish().refused();
}

#[test]
fn events_go_on_until_the_end_of_the_container() {
    if lacks("crun", "no events command") {
        return;
    }
    let container = Container::sleeper().running();
    let call = container.call(&["events", "--interval", "100ms", &container.id]).begin();
    until("there are some", || call.out().lines().count() >= 3);
    container.delete();
    let outcome = call.wait();
    assert!(outcome.out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{outcome:?}");
}

#[test]
fn events_tell_when_the_memory_is_out() {
    if lacks("crun", "no events command") {
        return;
    }
    let container = Container::new(
        "while [ ! -e /data/go ]; do sleep 0.01; done; (x=a; while :; do x=$x$x; done); exec sleep 1000",
    )
    .with(|spec| {
        spec["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
    });
    let container = container.running();
    let call = container.call(&["events", "--interval", "100ms", &container.id]).begin();
    until("it watches", || call.out().contains("stats"));
    fs::write(container.rootfs().join("data/go"), "").unwrap();
    until("it is told", || {
        call.out().lines().any(|line| {
            serde_json::from_str::<Value>(line).is_ok_and(|event| event["type"] == "oom" && event["id"] == container.id)
        })
    });
}

#[test]
fn errors_are_written_to_the_log_in_either_form() {
    let container = Container::new("");
    let log = container.folder().join("log");
    let call = || container.call(&["state", "nobody"]).global(&["--log", log.to_str().unwrap()]);
    call().finish().refused();
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.trim().is_empty());
    fs::write(&log, "").unwrap();
    call().global(&["--log-format", "json"]).finish().refused();
    let text = fs::read_to_string(&log).unwrap();
    let line: Value =
        serde_json::from_str(text.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(line["level"], "error", "{line}");
    assert!(line["msg"].as_str().is_some_and(|message| !message.is_empty()), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.starts_with("20")), "{line}");
    call().global(&["--log-format", "nonsense"]).finish().refused();
}

#[test]
fn what_fails_inside_is_told_in_the_log() {
    let container = Container::new("true").with(|spec| spec["process"]["cwd"] = serde_json::json!("/etc/passwd"));
    let log = container.folder().join("log");
    let call = container.create_call(&[]).global(&["--log", log.to_str().unwrap(), "--log-format", "json"]);
    if container.create_by(call).code == 0 {
        let call = container.call(&["start", &container.id]);
        call.global(&["--log", log.to_str().unwrap(), "--log-format", "json"]).finish().refused();
    }
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("/etc/passwd") || text.contains("not a directory") || text.contains("Not a directory"),
        "{text}"
    );
}

#[test]
fn mistakes_on_the_command_line_are_told() {
    let container = Container::new("");
    for arguments in [
        &["nonsense"][..],
        &["state"],
        &["create"],
        &["start", "a", "b"],
        &["state", "--nonsense", "x"],
        &["exec", "x"],
    ] {
        if arguments == ["start", "a", "b"] && lacks("crun", "ignores what is too much") {
            continue;
        }
        let outcome = container.call(arguments).finish();
        assert!(outcome.code != 0 && !outcome.text().trim().is_empty(), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn help_and_version_are_told() {
    let container = Container::new("");
    let version = container.call(&["--version"]).finish().ok();
    assert!(version.contains("spec: 1."), "{version}");
    let help = container.call(&["--help"]).finish().ok();
    for verb in
        ["create", "start", "state", "kill", "delete", "exec", "run", "pause", "resume", "update", "ps", "list", "spec"]
    {
        assert!(help.contains(verb), "{verb}: {help}");
    }
}

#[test]
fn the_pid_file_is_there_when_create_returns() {
    let container = Container::sleeper();
    container.create();
    let text = fs::read_to_string(container.folder().join("pid")).unwrap();
    assert_eq!(text.trim().parse::<i64>().unwrap(), container.state()["pid"].as_i64().unwrap());
    assert!(Path::new(&format!("/proc/{}", text.trim())).exists());
}

#[test]
fn descriptors_are_kept_for_the_program_if_asked() {
    let container = Container::new("cat <&3; cat <&4; cat <&5");
    fs::write(container.folder().join("file"), "text ").unwrap();
    let call = container.create_call(&["--preserve-fds", "2"]).after("exec 3< file 4< file 5< file");
    container.create_by(call).ok();
    container.start();
    container.wait();
    assert_eq!(container.out(), "text text ");
    assert!(container.err().contains("ad file descriptor"), "{}", container.err());
}

#[test]
fn sockets_of_an_activating_manager_are_passed_on() {
    if lacks("crun", "passes descriptors on, but does not tell of them") {
        return;
    }
    let container = Container::probe();
    fs::write(container.folder().join("file"), "").unwrap();
    let call = container.create_call(&[]).after("exec 3< file 4< file; export LISTEN_PID=$$");
    let call = call.variable("LISTEN_FDS", "2");
    container.create_by(call).ok();
    container.start();
    container.wait();
    let seen = berth_runtime_tests::container::report(&container.out());
    assert_eq!(seen.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(seen.environment["LISTEN_FDS"], "2");
    assert!(["1", "0"].contains(&seen.environment["LISTEN_PID"].as_str()), "{:?}", seen.environment);
}

#[test]
fn the_root_folder_of_states_is_the_caller_s_choice() {
    let container = Container::sleeper().running();
    let other = container.folder().join("other");
    container.verb("state").ok();
    let call = container.call(&["state", &container.id]).global(&["--root", other.to_str().unwrap()]);
    call.finish().refused();
}

#[test]
fn a_process_handle_is_handed_over_if_asked() {
    if lacks("runc < 1.2 | crun", "no socket for process handles") {
        return;
    }
    let container = Container::sleeper();
    let socket = berth_runtime_tests::socket::Socket::listen(container.folder(), "handle");
    let call = container.create_call(&["--pidfd-socket", socket.name()]).begin();
    let (_, descriptors) = socket.receive();
    let (created, _streams) = call.wait_and_keep_streams();
    created.ok();
    assert_eq!(descriptors.len(), 1);
    container.kill("KILL").ok();
    berth_runtime_tests::socket::wait_readable(&descriptors[0], "the handle does not tell the end");
    assert_eq!(exit_code(container.pid()), 137);
}
