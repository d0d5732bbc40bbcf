//! runtime.md: the life of a container, and what each command says in each state.

use std::fs;

use berth_runtime_tests::container::is_alive;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::json;

#[test]
fn a_program_runs_and_leaves_nothing_once_it_is_deleted() {
    let container = Container::new("echo out; echo err >&2; exit 7");
    let outcome = container.run();
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (7, "out\n", "err\n"));
    assert_eq!(container.status(), "stopped");
    container.verb("delete").ok();
    container.assert_gone();
}

#[test]
fn the_state_has_the_fields_of_the_specification_in_each_state() {
    let container = Container::sleeper().with(|spec| spec["annotations"] = json!({ "org.example.colour": "blue" }));
    container.create();
    let check = |status: &str| {
        let state = container.state();
        assert_eq!(state["status"], status, "{state}");
        assert_eq!(state["id"], container.id, "{state}");
        assert_eq!(state["bundle"], container.bundle().to_str().unwrap(), "{state}");
        assert_eq!(state["annotations"]["org.example.colour"], "blue", "{state}");
        assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
        if status != "stopped" {
            assert_eq!(state["pid"], container.pid(), "{state}");
        }
    };
    check("created");
    container.start();
    check("running");
    container.kill("KILL").ok();
    container.wait();
    check("stopped");
}

#[test]
fn the_program_does_not_run_before_start() {
    let container = Container::new("touch /data/ran");
    container.create();
    let pid = container.pid();
    assert!(is_alive(pid));
    assert!(!container.rootfs().join("data/ran").exists());
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&command).contains("touch"), "the program is already there");
    container.start();
    assert_eq!(container.wait(), 0);
    assert!(container.rootfs().join("data/ran").exists());
}

#[test]
fn changes_of_the_configuration_after_create_change_nothing() {
    let mut container = Container::new("echo first");
    container.create();
    container.spec["process"]["args"] = json!(["/bin/echo", "second"]);
    container.write();
    container.start();
    assert_eq!((container.wait(), container.out().as_str()), (0, "first\n"));
}

/// What a command does in each state, by its success.
#[test]
fn a_command_in_a_state_that_it_is_not_for_is_refused_and_changes_nothing() {
    let check = |reach: &dyn Fn(&Container), status: &str, refused: &[&[&str]]| {
        let container = Container::sleeper();
        container.create();
        reach(&container);
        for words in refused {
            let mut arguments = vec![words[0], container.id.as_str()];
            arguments.extend(&words[1..]);
            let outcome = container.call(&arguments).finish();
            let accepted = outcome.code == 0 && !lacks("crun", "accepts what is of no use");
            assert!(!accepted, "{words:?} of a container that is {status}");
            assert_eq!(container.status(), status, "after {words:?}");
        }
        container.delete();
    };
    check(&|_| (), "created", &[&["resume"]]);
    check(&Container::start, "running", &[&["start"], &["delete"], &["resume"]]);
    check(
        &|container| {
            container.start();
            container.kill("KILL").ok();
            container.wait();
        },
        "stopped",
        &[&["start"], &["exec", "true"], &["pause"], &["resume"], &["kill", "TERM"]],
    );
}

#[test]
fn a_created_container_can_be_killed() {
    let container = Container::new("echo never");
    container.create();
    container.kill("KILL").ok();
    assert_eq!((container.wait(), container.out().as_str()), (137, ""));
    assert_eq!(container.status(), "stopped");
    container.verb("delete").ok();
    container.assert_gone();
}

#[test]
fn a_created_container_is_deleted_whole_or_not_at_all() {
    // The specification asks for an error; runc, whose command line engines are written for, deletes it.
    let container = Container::new("echo never");
    container.create();
    let pid = container.pid();
    if container.verb("delete").code == 0 {
        assert_eq!(container.wait(), 137);
        container.assert_gone();
        container.verb("state").refused();
    } else {
        assert!(is_alive(pid));
        assert_eq!(container.status(), "created");
        container.start();
        assert_eq!((container.wait(), container.out().as_str()), (0, "never\n"));
    }
}

#[test]
fn what_does_not_exist_is_an_error_for_every_command() {
    let container = Container::new("");
    for verb in ["state", "start", "delete", "pause", "resume", "ps"] {
        container.verb(verb).refused();
    }
    container.kill("KILL").refused();
    container.exec("true").refused();
    container.call(&["update", "--pids-limit", "5", &container.id]).finish().refused();
    container.call(&["delete", "--force", &container.id]).finish().ok();
}

#[test]
fn an_id_is_taken_until_its_container_is_deleted() {
    let container = Container::sleeper().running();
    let pid = container.pid();
    let again = container.call(&["create", "--bundle", container.bundle().to_str().unwrap(), &container.id]);
    again.finish().refused();
    assert!(container.status() == "running" && is_alive(pid), "the first is not touched");
    container.delete();
    container.create();
    container.start();
    assert_eq!(container.status(), "running");
}

#[test]
fn an_id_is_no_path_and_has_no_strange_letters() {
    let container = Container::new("");
    container.write();
    let bundle = container.bundle();
    for id in ["", ".", "..", "../x", "a/b", "/x", "a b", "a\nb", "ä", "a%b", "a\\b"] {
        for arguments in [&["create", "--bundle", bundle.to_str().unwrap(), id][..], &["state", id], &["delete", id]] {
            let accepted = container.call(arguments).finish().code == 0;
            assert!(!accepted || lacks("crun < 1.28", "checks no ids"), "{arguments:?}");
        }
        let _ = container.call(&["delete", "--force", id]).finish();
    }
    let left: Vec<_> = fs::read_dir(container.folder().join("state")).into_iter().flatten().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name() == ".cache"), "{left:?}");
}

#[test]
fn an_id_may_have_letters_digits_and_four_signs() {
    let mut container = Container::new("");
    container.id = format!("{}_A-z+0.9", container.id);
    assert_eq!(container.run().code, 0);
    assert_eq!(container.state()["id"], container.id);
    container.delete();
}

#[test]
fn signals_have_names_with_and_without_prefix_and_numbers() {
    for (name, code) in [("TERM", 15), ("SIGUSR1", 10), ("1", 1), ("KILL", 9)] {
        let container = Container::new(
            "trap 'exit 15' TERM; trap 'exit 10' USR1; trap 'exit 1' HUP; echo; while :; do sleep 1000 & wait; done",
        );
        container.create();
        container.start();
        until("the traps are set", || !container.out().is_empty());
        container.kill(name).ok();
        assert_eq!(container.wait(), if code == 9 { 137 } else { code }, "{name}");
    }
    let container = Container::sleeper().running();
    for signal in ["NONSENSE", "1000"] {
        assert!(container.kill(signal).code != 0 || lacks("crun", "checks no signals"), "{signal}");
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn the_default_signal_of_kill_asks_to_end() {
    let container = Container::new("trap 'exit 33' TERM; echo; while :; do sleep 1000 & wait; done").running();
    until("the trap is set", || !container.out().is_empty());
    container.verb("kill").ok();
    assert_eq!(container.wait(), 33);
}

#[test]
fn delete_with_force_ends_all_processes_with_and_without_a_pid_namespace() {
    for own_namespace in [true, false] {
        let mut container = Container::new("sleep 1000 & sleep 1000 & echo; sleep 1000");
        if !own_namespace {
            container.namespace("pid", None);
        }
        let container = container.running();
        let cgroup = container.cgroup();
        until("all sleep", || cgroup.processes().len() >= 3);
        let processes = cgroup.processes();
        container.delete();
        until("all are dead", || !processes.iter().any(|pid| is_alive(*pid)));
    }
}

#[test]
fn kill_of_all_reaches_every_process() {
    let mut container = Container::new("sleep 1000 & sleep 1000 & sleep 1000");
    container.namespace("pid", None);
    let container = container.running();
    until("all sleep", || container.cgroup().processes().len() >= 3);
    container.call(&["kill", "--all", &container.id, "KILL"]).finish().ok();
    assert_eq!(container.wait(), 137);
    until("all are dead", || container.cgroup().processes().is_empty());
    assert_eq!(container.status(), "stopped");
}

#[test]
fn a_program_that_cannot_be_run_is_told_and_nothing_is_left() {
    let check = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut container = Container::new("true");
        change(&mut container.spec);
        // Who looks for the program early may refuse to make the container.
        let created = container.try_create();
        if created.code == 0 {
            container.verb("start").refused();
        }
        container.delete();
    };
    check(&|spec| spec["process"]["args"] = json!(["/bin/nothing"]));
    check(&|spec| spec["process"]["args"] = json!(["nothing"]));
    check(&|spec| spec["process"]["args"] = json!(["/etc"]));
    check(&|spec| spec["process"]["args"] = json!(["/etc/passwd"]));
}

#[test]
fn a_bundle_that_is_not_one_is_refused_and_nothing_is_left() {
    let check = |what: &str, change: &dyn Fn(&mut Container)| {
        let mut container = Container::new("true");
        container.write();
        change(&mut container);
        let call = container.call(&["create", "--bundle", container.bundle().to_str().unwrap(), &container.id]);
        let outcome = container.create_by(call);
        assert!(outcome.code != 0 || lacks("crun", &format!("accepts {what}")), "{what} is accepted");
        container.delete();
    };
    let write = |container: &Container, text: &str| {
        fs::write(container.bundle().join("config.json"), text).unwrap();
    };
    check("no configuration", &|it| fs::remove_file(it.bundle().join("config.json")).unwrap());
    check("no bundle", &|it| fs::rename(it.bundle(), it.folder().join("elsewhere")).unwrap());
    check("text that is not JSON", &|it| write(it, "{"));
    check("JSON that is no configuration", &|it| write(it, "[1, 2]"));
    check("no root folder", &|it| fs::rename(it.rootfs(), it.folder().join("elsewhere")).unwrap());
    let changed = |what: &str, change: &dyn Fn(&mut serde_json::Value)| {
        check(what, &|it| {
            change(&mut it.spec);
            it.write();
        });
    };
    changed("no program", &|spec| spec["process"]["args"] = json!([]));
    changed("a relative working folder", &|spec| spec["process"]["cwd"] = json!("tmp"));
    changed("an unknown kind of namespace", &|spec| spec["linux"]["namespaces"][0]["type"] = json!("nonsense"));
    changed("a namespace twice", &|spec| spec["linux"]["namespaces"][1]["type"] = json!("pid"));
}

#[test]
fn the_bundle_is_the_current_folder_if_none_is_named() {
    let container = Container::new("true");
    container.write();
    let call = container.call(&["create", &container.id]).after(&format!("cd {}", container.bundle().display()));
    container.create_by(call).ok();
    assert_eq!(container.state()["bundle"], container.bundle().to_str().unwrap());
}

#[test]
fn of_many_who_start_a_container_one_does() {
    if lacks("runc", "who comes second may wait at its pipe for ever") {
        return;
    }
    let container = Container::new("echo once; exec sleep 1000");
    container.create();
    let started = std::thread::scope(|scope| {
        let starters: Vec<_> = (0..4).map(|_| scope.spawn(|| container.verb("start").code)).collect();
        starters.into_iter().map(|starter| starter.join().unwrap()).filter(|code| *code == 0).count()
    });
    assert_eq!(started, 1);
    until("it runs", || !container.out().is_empty());
    assert_eq!(container.out(), "once\n");
}

#[test]
fn what_the_configuration_has_besides_is_ignored() {
    let container = Container::new("echo runs").with(|spec| {
        spec["nonsense"] = json!({ "x": [1] });
        spec["process"]["nonsense"] = json!(true);
        spec["linux"]["nonsense"] = json!("x");
        spec["windows"] = json!({ "layerFolders": ["C:\\x"] });
    });
    assert_eq!(container.output(), "runs");
}
