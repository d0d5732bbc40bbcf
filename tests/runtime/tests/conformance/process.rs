//! config.md: the process: arguments, environment, folder, user, limits and everything that it inherits.

use std::collections::BTreeMap;
use std::fs;

use berth_runtime_tests::machine::{has_capability, misses};
use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, lacks};
use serde_json::{Value, json};

/// CAP_SYS_RESOURCE.
const RESOURCE: u32 = 24;

/// Runs the probe with a changed process.
fn seen(change: impl FnOnce(&mut Value)) -> Report {
    Container::probe().with(|spec| change(&mut spec["process"])).seen()
}

#[test]
fn the_arguments_are_taken_as_they_are() {
    let words = ["/bin/probe", "", "two words", "\"quoted\" 'twice'", "$HOME", "*", "ä\n", "--help"];
    assert_eq!(seen(|process| process["args"] = json!(words)).arguments, words);
}

#[test]
fn a_program_without_a_path_is_looked_for_in_the_container_s_path() {
    let found = |path: &str| {
        let container = Container::new("").with(|spec| {
            spec["process"]["args"] = json!(["mark"]);
            spec["process"]["env"] = json!([format!("PATH={path}")]);
        });
        fs::create_dir(container.rootfs().join("tools")).unwrap();
        fs::copy(container.rootfs().join("bin/busybox"), container.rootfs().join("tools/busybox")).unwrap();
        fs::write(container.rootfs().join("tools/mark"), "#!/bin/sh\necho found").unwrap();
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(container.rootfs().join("tools/mark"), mode).unwrap();
        let created = container.try_create();
        if created.code != 0 || container.verb("start").code != 0 {
            return String::new();
        }
        container.wait();
        container.out()
    };
    assert_eq!(found("/nowhere:/tools:/bin"), "found\n");
    assert_eq!(found("/bin:/sbin"), "");
}

#[test]
fn the_environment_is_the_configuration_s_alone() {
    let container = Container::probe().with(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "EMPTY=", "SIGNS==a=b c$d", "COLOUR=blue"]);
    });
    container.create_by(container.create_call(&[]).variable("SECRET", "x").variable("COLOUR", "red")).ok();
    container.start();
    container.wait();
    let seen = berth_runtime_tests::container::report(&container.out());
    let mut environment = seen.environment;
    // A runtime may add the home folder that /etc/passwd names.
    environment.remove("HOME");
    let expected = [("PATH", "/bin"), ("EMPTY", ""), ("SIGNS", "=a=b c$d"), ("COLOUR", "blue")];
    assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[test]
fn home_is_the_user_s_if_it_is_not_named() {
    let home = |uid: u32, environment: Value| {
        let seen = seen(|process| {
            process["user"] = json!({ "uid": uid, "gid": uid });
            process["env"] = environment;
        });
        seen.environment.get("HOME").cloned()
    };
    assert_eq!(home(0, json!(["PATH=/bin"])).as_deref(), Some("/root"));
    assert_eq!(home(1000, json!(["PATH=/bin"])).as_deref(), Some("/home/worker"));
    assert_eq!(home(1000, json!(["HOME=/named"])).as_deref(), Some("/named"));
}

#[test]
fn the_working_folder_is_entered_and_made_if_it_is_missing() {
    for folder in ["/", "/tmp", "/made/for/it", "/dev/shm"] {
        let seen = seen(|process| process["cwd"] = json!(folder));
        assert_eq!(seen.folder, folder);
    }
}

#[test]
fn the_working_folder_is_entered_as_the_user_who_may() {
    let container = Container::probe().with(|spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"]["cwd"] = json!("/private");
    });
    let private = container.rootfs().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&private, Some(1000), Some(1000)).unwrap();
    assert_eq!(container.seen().folder, "/private");
}

#[test]
fn the_user_has_its_ids_and_groups_and_no_others() {
    let check = |user: Value, uid: u32, gid: u32, groups: &[u32]| {
        let seen = seen(|process| process["user"] = user);
        assert_eq!((seen.uids, seen.gids), (vec![uid; 4], vec![gid; 4]));
        let mut own = seen.groups;
        own.retain(|group| *group != gid || groups.contains(group));
        assert_eq!(own, groups);
    };
    check(json!({ "uid": 0, "gid": 0 }), 0, 0, &[]);
    check(json!({ "uid": 1000, "gid": 1001 }), 1000, 1001, &[]);
    check(
        json!({ "uid": 2_000_000_000, "gid": 7, "additionalGids": [8, 9, 2_000_000] }),
        2_000_000_000,
        7,
        &[8, 9, 2_000_000],
    );
    check(json!({ "uid": 0, "gid": 5, "additionalGids": [5, 10] }), 0, 5, &[5, 10]);
}

#[test]
fn new_files_have_the_umask_s_permissions() {
    let umask = |mask: Value| {
        let seen = seen(|process| process["user"] = json!({ "uid": 0, "gid": 0, "umask": mask }));
        seen.status["Umask"].clone()
    };
    assert_eq!(umask(json!(0o027)), "0027");
    assert_eq!(umask(json!(0)), "0000");
    // The caller's is not inherited.
    let container = Container::probe();
    container.create_by(container.create_call(&[]).after("umask 0777")).ok();
    container.start();
    assert_eq!(container.wait(), 0);
    assert_eq!(berth_runtime_tests::container::report(&container.out()).status["Umask"], "0022");
}

#[test]
fn limits_are_set_and_the_others_are_left() {
    let limits = [
        ("RLIMIT_CPU", "Max cpu time", "3600", "7200"),
        ("RLIMIT_FSIZE", "Max file size", "1000000", "2000000"),
        ("RLIMIT_DATA", "Max data size", "1000000000", "1000000001"),
        ("RLIMIT_STACK", "Max stack size", "4194304", "8388608"),
        ("RLIMIT_CORE", "Max core file size", "0", "0"),
        ("RLIMIT_RSS", "Max resident set", "1000000", "1000000"),
        ("RLIMIT_NPROC", "Max processes", "1000", "2000"),
        ("RLIMIT_NOFILE", "Max open files", "512", "1024"),
        ("RLIMIT_AS", "Max address space", "1000000000", "2000000000"),
        ("RLIMIT_LOCKS", "Max file locks", "5", "6"),
        ("RLIMIT_SIGPENDING", "Max pending signals", "100", "200"),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", "1000", "2000"),
        ("RLIMIT_NICE", "Max nice priority", "0", "0"),
        ("RLIMIT_RTPRIO", "Max realtime priority", "0", "0"),
        ("RLIMIT_RTTIME", "Max realtime timeout", "100000", "100000"),
        ("RLIMIT_MEMLOCK", "Max locked memory", "65536", "131072"),
    ];
    let own = Report::take();
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let settable: Vec<_> =
        limits.iter().filter(|(.., name, _, hard)| number(hard) <= number(&own.limits[*name].1)).collect();
    assert!(settable.len() > 10, "{:?}", own.limits);
    let list: Vec<_> = settable
        .iter()
        .map(|(kind, _, soft, hard)| json!({ "type": kind, "soft": number(soft), "hard": number(hard) }))
        .collect();
    let seen = seen(|process| process["rlimits"] = json!(list));
    for (kind, name, soft, hard) in settable {
        assert_eq!(seen.limits[*name], ((*soft).to_owned(), (*hard).to_owned()), "{kind}");
    }
    let seen = self::seen(|process| process["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]));
    let others = |limits: BTreeMap<String, (String, String)>| {
        limits.into_iter().filter(|(name, _)| name != "Max core file size").collect::<BTreeMap<_, _>>()
    };
    assert_eq!(others(seen.limits), others(own.limits), "limits that are not named are inherited");
}

#[test]
fn limits_that_are_not_valid_are_refused() {
    let check = |limits: Value| {
        let container = Container::new("true").with(|spec| spec["process"]["rlimits"] = limits.clone());
        container.try_create().refused();
        container.assert_gone();
    };
    check(json!([{ "type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1 }]));
    check(json!([{ "type": "RLIMIT_NOFILE", "soft": 200, "hard": 100 }]));
    if !lacks("runc | crun", "a limit that is named twice is accepted, though the specification asks for an error") {
        let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 });
        check(json!([limit, limit]));
    }
}

#[test]
fn hard_limits_can_be_raised_by_who_may() {
    if misses(!has_capability(RESOURCE), "CAP_SYS_RESOURCE, to raise hard limits") {
        return;
    }
    let seen = seen(|process| process["rlimits"] = json!([{ "type": "RLIMIT_NICE", "soft": 40, "hard": 40 }]));
    assert_eq!(seen.limits["Max nice priority"].1, "40");
}

#[test]
fn the_oom_killer_s_score_is_set() {
    for score in [500, 1000] {
        assert_eq!(seen(|process| process["oomScoreAdj"] = json!(score)).oom_score_adj, score);
    }
    assert_eq!(seen(|_| ()).oom_score_adj, Report::take().oom_score_adj, "inherited if not named");
    if !misses(!has_capability(RESOURCE), "CAP_SYS_RESOURCE, to lower the OOM killer's score") {
        assert_eq!(seen(|process| process["oomScoreAdj"] = json!(-500)).oom_score_adj, -500);
    }
}

#[test]
fn new_privileges_are_given_up_if_asked() {
    for asked in [true, false] {
        let seen = seen(|process| process["noNewPrivileges"] = json!(asked));
        assert_eq!(seen.status["NoNewPrivs"], u32::from(asked).to_string());
    }
}

#[test]
fn the_scheduler_is_set() {
    if lacks("runc < 1.2 | crun < 1.9", "the scheduler is not set") {
        return;
    }
    let check = |scheduler: Value, policy: &str, nice: &str, priority: &str| {
        let seen = seen(|process| process["scheduler"] = scheduler);
        assert_eq!((seen.stat(41), seen.stat(19), seen.stat(40)), (policy, nice, priority));
    };
    check(json!({ "policy": "SCHED_OTHER", "nice": 7 }), "0", "7", "0");
    check(json!({ "policy": "SCHED_BATCH", "nice": 3 }), "3", "3", "0");
    check(json!({ "policy": "SCHED_IDLE" }), "5", "0", "0");
    let times =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 9_000_000, "period": 10_000_000 });
    check(times, "6", "0", "0");
    // SCHED_RESET_ON_FORK leaves no other trace than that the flag is accepted.
    check(json!({ "policy": "SCHED_BATCH", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }), "3", "1", "0");
    for policy in ["SCHED_NONSENSE", ""] {
        let container = Container::new("").with(|spec| spec["process"]["scheduler"] = json!({ "policy": policy }));
        container.try_create().refused();
    }
}

#[test]
fn what_runs_in_real_time_has_its_share_of_that_first() {
    if lacks("runc < 1.2 | crun < 1.9", "the scheduler is not set") {
        return;
    }
    for (policy, number) in [("SCHED_FIFO", "1"), ("SCHED_RR", "2")] {
        let mut container = Container::probe();
        container.spec["process"]["scheduler"] = json!({ "policy": policy, "priority": 7 });
        // Some kernels have shares of it, and none for a new group.
        if container.cgroup().folder("cpu").with_file_name("cpu.rt_runtime_us").exists() {
            container.spec["linux"]["resources"]["cpu"] =
                json!({ "realtimePeriod": 1_000_000, "realtimeRuntime": 10_000 });
        }
        let seen = container.seen();
        assert_eq!((seen.stat(41), seen.stat(40)), (number, "7"), "{policy}");
    }
}

#[test]
fn the_priority_of_input_and_output_is_set() {
    if lacks("runc < 1.2 | crun < 1.9", "the I/O priority is not set") {
        return;
    }
    let check = |class: &str, priority: u32, shown: &str| {
        let container = Container::new("ionice -p $$").with(|spec| {
            spec["process"]["ioPriority"] = json!({ "class": class, "priority": priority });
        });
        assert_eq!(container.output(), shown);
    };
    check("IOPRIO_CLASS_BE", 6, "best-effort: prio 6");
    check("IOPRIO_CLASS_IDLE", 0, "idle");
    let container = Container::new("").with(|spec| {
        spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_NONSENSE", "priority": 1 });
    });
    container.try_create().refused();
}

#[test]
fn an_apparmor_profile_is_set_or_refused_where_there_is_none() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    if misses(!enabled, "AppArmor") {
        return;
    }
    let container = Container::new("cat /proc/self/attr/current").with(|spec| {
        spec["process"]["apparmorProfile"] = json!("unconfined");
    });
    assert_eq!(container.output(), "unconfined");
    let container = Container::new("").with(|spec| spec["process"]["apparmorProfile"] = json!("no-such-profile"));
    assert!(container.try_create().code != 0 || container.verb("start").code != 0);
}
