//! config-linux.md: seccomp: actions, conditions, architectures, flags, and a listener's notifications.

use berth_runtime_tests::call::Outcome;
use berth_runtime_tests::machine::misses;
use berth_runtime_tests::socket::{Socket, wait_readable};
use berth_runtime_tests::{Container, lacks};
use serde_json::{Value, json};

const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];

/// A filter that allows everything but what these rules say.
fn filter(rules: &Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ARCHITECTURES, "syscalls": rules })
}

fn run(script: &str, filter: Value) -> Outcome {
    Container::new(script).with(|spec| spec["linux"]["seccomp"] = filter).run()
}

#[test]
fn a_filter_is_on_with_and_without_new_privileges() {
    for no_new_privileges in [true, false] {
        let container = Container::probe().with(|spec| {
            spec["linux"]["seccomp"] = filter(&json!([{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }]));
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let seen = container.seen();
        assert_eq!((seen.status["Seccomp"].as_str(), seen.status["Seccomp_filters"].as_str()), ("2", "1"));
        assert_eq!(seen.status["NoNewPrivs"], u32::from(no_new_privileges).to_string());
    }
    assert_eq!(Container::probe().seen().status["Seccomp"], "0");
}

#[test]
fn each_action_does_what_it_says() {
    let check = |rule: Value, code: i32, complaint: &str| {
        let mut rule = rule;
        rule["names"] = json!(["mkdir", "mkdirat"]);
        println!("{rule}");
        let outcome = run("mkdir /tmp/x", filter(&json!([rule])));
        assert!(outcome.code == code && outcome.err.contains(complaint), "{rule}: {outcome:?}");
    };
    check(json!({ "action": "SCMP_ACT_ALLOW" }), 0, "");
    check(json!({ "action": "SCMP_ACT_LOG" }), 0, "");
    check(json!({ "action": "SCMP_ACT_ERRNO" }), 1, "Operation not permitted");
    check(json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }), 1, "not supported");
    check(json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 2 }), 1, "No such file");
    // SIGSYS. A shell that runs one command becomes it.
    check(json!({ "action": "SCMP_ACT_KILL" }), 128 + 31, "");
    check(json!({ "action": "SCMP_ACT_KILL_THREAD" }), 128 + 31, "");
    check(json!({ "action": "SCMP_ACT_KILL_PROCESS" }), 128 + 31, "");
    check(json!({ "action": "SCMP_ACT_TRAP" }), 128 + 31, "");
    // Nobody traces: the call does not exist.
    check(json!({ "action": "SCMP_ACT_TRACE" }), 1, "not implemented");
}

#[test]
fn the_default_is_for_all_that_no_rule_names() {
    let check = |change: Value, complaint: &str| {
        // What a shell needs, and mkdir not among it.
        let names: Vec<_> = SHELL.split_whitespace().collect();
        let mut filter = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
        });
        filter.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let outcome = run("echo runs; mkdir /tmp/x; echo $?", filter);
        assert_eq!(outcome.out, "runs\n1\n", "{outcome:?}");
        assert!(outcome.err.contains(complaint), "{outcome:?}");
    };
    check(json!({}), "Operation not permitted");
    check(json!({ "defaultErrnoRet": 95 }), "not supported");
    check(json!({ "architectures": ARCHITECTURES }), "Operation not permitted");
}

const SHELL: &str = "read write open openat close stat fstat lstat newfstatat mmap mprotect munmap brk rt_sigaction \
    rt_sigprocmask rt_sigreturn ioctl access dup dup2 getpid getppid fork vfork clone clone3 execve exit exit_group wait4 \
    fcntl getcwd getuid geteuid getgid getegid arch_prctl set_tid_address set_robust_list prlimit64 readlink getrandom \
    rseq uname umask sendto statx getpgrp setpgid lseek pread64 poll gettid tgkill futex nanosleep clock_gettime mremap \
    madvise sysinfo getrlimit prctl capget capset chdir fchdir setuid setgid setgroups getdents64 epoll_ctl epoll_pwait \
    sigaltstack sched_yield fstatfs statfs faccessat2 close_range";

#[test]
fn conditions_on_arguments_hold() {
    // `kill -SIGNAL` of the shell itself; the signal is the second argument.
    let check = |condition: Value, refused: &[u32], allowed: &[u32]| {
        let mut condition = condition;
        condition["index"] = json!(1);
        let rules = json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [condition] }]);
        let script = |signal: u32| format!("trap '' {signal}; kill -{signal} $$");
        for signal in refused {
            let outcome = run(&script(*signal), filter(&rules));
            assert!(outcome.err.contains("not permitted"), "{condition}: {signal}: {outcome:?}");
        }
        for signal in allowed {
            assert_eq!(run(&script(*signal), filter(&rules)).code, 0, "{condition}: {signal}");
        }
    };
    check(json!({ "op": "SCMP_CMP_EQ", "value": 10 }), &[10], &[12]);
    check(json!({ "op": "SCMP_CMP_NE", "value": 10 }), &[12], &[10]);
    check(json!({ "op": "SCMP_CMP_LT", "value": 12 }), &[10], &[12, 15]);
    check(json!({ "op": "SCMP_CMP_LE", "value": 12 }), &[10, 12], &[15]);
    check(json!({ "op": "SCMP_CMP_GE", "value": 12 }), &[12, 15], &[10]);
    check(json!({ "op": "SCMP_CMP_GT", "value": 12 }), &[15], &[12, 10]);
    // Signals 10 and 14 have the bits of 10, 12 has not.
    check(json!({ "op": "SCMP_CMP_MASKED_EQ", "value": 10, "valueTwo": 10 }), &[10, 14], &[12]);
}

#[test]
fn conditions_of_one_rule_all_have_to_hold_and_rules_are_alternatives() {
    let both = json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
        { "index": 0, "op": "SCMP_CMP_EQ", "value": 1 }, { "index": 1, "op": "SCMP_CMP_EQ", "value": 10 },
    ]}]);
    let script = "trap '' USR1 USR2; kill -USR1 1; echo $?; kill -USR2 1; echo $?";
    assert_eq!(run(script, filter(&both)).out, "1\n0\n");
    let either = json!([
        { "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 1, "op": "SCMP_CMP_EQ", "value": 10 }] },
        { "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 1, "op": "SCMP_CMP_EQ", "value": 12 }] },
    ]);
    assert_eq!(run(script, filter(&either)).out, "1\n1\n");
}

#[test]
fn a_call_that_no_kernel_has_is_not_in_the_way() {
    let rules = json!([{ "names": ["no_such_call", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]);
    assert_eq!(run("mkdir /tmp/x", filter(&rules)).code, 1);
}

#[test]
fn flags_are_accepted_and_unknown_ones_refused() {
    for flag in ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"] {
        if lacks("runc < 1.2", "no flags") || flag.ends_with("TSYNC") && lacks("crun < 1.9", "no such flag") {
            continue;
        }
        let mut filter = filter(&json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]));
        filter["flags"] = json!([flag]);
        let outcome = run("mkdir /tmp/x", filter);
        assert!(outcome.err.contains("Operation not permitted"), "{flag}: {outcome:?}");
    }
    let check = |change: Value| {
        let container = Container::new("true").with(|spec| {
            let mut filter = filter(&json!([]));
            filter.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            spec["linux"]["seccomp"] = filter;
        });
        let accepted = container.try_create().code == 0;
        assert!(!accepted || lacks("crun", "checks the filter when it is used"), "{change}");
        container.delete();
    };
    check(json!({ "flags": ["SECCOMP_FILTER_FLAG_NONSENSE"] }));
    check(json!({ "defaultAction": "SCMP_ACT_NONSENSE" }));
    check(json!({ "architectures": ["SCMP_ARCH_NONSENSE"] }));
    check(json!({ "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_NONSENSE" }] }));
    check(json!({ "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ERRNO",
        "args": [{ "index": 0, "op": "SCMP_CMP_NONSENSE", "value": 1 }] }] }));
    if !lacks("crun", "a condition on a seventh argument is not refused") {
        check(json!({ "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 6, "op": "SCMP_CMP_EQ", "value": 1 }] }] }));
    }
}

#[test]
fn processes_that_join_have_the_filter_too() {
    let container = Container::sleeper().with(|spec| {
        spec["linux"]["seccomp"] =
            filter(&json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]));
    });
    let container = container.running();
    let outcome = container.exec("grep Seccomp: /proc/self/status; mkdir /tmp/x");
    assert!(outcome.out.contains('2') && outcome.err.contains("not supported"), "{outcome:?}");
}

#[test]
fn what_a_profile_forbids_is_not_needed_to_get_there() {
    // What runtimes do until the program runs is not the program's.
    let names = [
        "setuid",
        "setgid",
        "setgroups",
        "capset",
        "pivot_root",
        "mount",
        "umount2",
        "sethostname",
        "setresuid",
        "setresgid",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "mknod",
        "mknodat",
        "chroot",
        "syslog",
        "personality",
    ];
    let rules = json!([{ "names": names, "action": "SCMP_ACT_ERRNO" }]);
    let container = Container::probe().with(|spec| {
        spec["linux"]["seccomp"] = filter(&rules);
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [7] });
    });
    assert_eq!(container.seen().uids, [1000; 4]);
}

#[test]
fn a_big_profile_with_several_architectures_is_no_trouble() {
    let rules: Vec<_> = (0..200)
        .map(|number| {
            json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "op": "SCMP_CMP_EQ", "value": number + 1000 }] })
        })
        .collect();
    assert_eq!(run("echo runs", filter(&json!(rules))).out, "runs\n");
}

#[test]
fn a_listener_is_handed_over_with_the_state_and_answers_for_the_kernel() {
    let mut container = Container::new("mkdir /tmp/x");
    let socket = Socket::listen(container.folder(), "listener");
    let mut filter = filter(&json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]));
    filter["listenerPath"] = json!(socket.name());
    filter["listenerMetadata"] = json!("for the agent");
    container.spec["linux"]["seccomp"] = filter;
    container.create();
    // Some hand it over when they make the container, some when they start it.
    let start = container.call(&["start", &container.id]).begin();
    let (text, descriptors) = socket.receive();
    start.wait().ok();
    let state: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(state["metadata"], "for the agent", "{state}");
    assert_eq!(state["state"]["id"], container.id, "{state}");
    assert_eq!(state["pid"], container.pid(), "{state}");
    let names = state["fds"].as_array().unwrap();
    let place = names.iter().position(|name| name == "seccompFd").unwrap_or_else(|| panic!("{state}"));
    assert_eq!(names.len(), descriptors.len());
    let listener = &descriptors[place];
    wait_readable(listener, "no notification");
    // Whoever asks is told that there is no such call when nobody listens any more.
    drop(descriptors);
    assert_eq!(container.wait(), 1);
    assert!(container.err().contains("not implemented"), "{}", container.err());
}

#[test]
fn a_process_that_joins_has_a_listener_of_its_own() {
    let mut container = Container::sleeper();
    let socket = Socket::listen(container.folder(), "listener");
    let mut filter = filter(&json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]));
    filter["listenerPath"] = json!(socket.name());
    container.spec["linux"]["seccomp"] = filter;
    container.create();
    let start = container.call(&["start", &container.id]).begin();
    let first = socket.receive();
    start.wait().ok();
    let call = container.exec_call(&[], &["mkdir", "/tmp/x"]).begin();
    let (text, descriptors) = socket.receive();
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&told["state"]["id"], &told["state"]["status"]), (&json!(container.id), &json!("running")), "{told}");
    assert!(told["pid"].is_number() && told["pid"] != container.pid(), "{told}");
    wait_readable(&descriptors[0], "no notification");
    drop(descriptors);
    let outcome = call.wait();
    assert!(outcome.code == 1 && outcome.err.contains("not implemented"), "{outcome:?}");
    drop(first);
}

/// A program for 32 bits that makes the folder `/tmp/x` and exits with the error's number.
fn program_of_another_architecture() -> Vec<u8> {
    const BASE: u32 = 0x0040_0000;
    const HEADERS: u32 = 52 + 32;
    let code = [
        // mkdir(path, 0700); exit(-result)
        [0xb8, 39, 0, 0, 0].as_slice(),
        &[0xbb],
        &(BASE + HEADERS + 30).to_le_bytes(),
        &[0xb9, 0xc0, 1, 0, 0],
        &[0xcd, 0x80],
        &[0xf7, 0xd8, 0x89, 0xc3],
        &[0xb8, 1, 0, 0, 0],
        &[0xcd, 0x80, 0xf4, 0xf4],
        b"/tmp/x\0",
    ]
    .concat();
    let size = HEADERS + code.len() as u32;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    [
        // elf(5): 32 bits, little-endian, an executable for the 80386, one program header.
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec(),
        words(&[1, BASE + HEADERS, 52, 0, 0]),
        [52_u16, 32, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()).collect(),
        words(&[1, 0, BASE, BASE, size, size, 5, 0x1000]),
        code,
    ]
    .concat()
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_filter_holds_for_the_architectures_that_it_names_and_others_are_killed() {
    let run = |architectures: &[&str]| {
        let container = Container::new("/bin/other; echo $?").with(|spec| {
            let mut filter = filter(&json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]));
            filter["architectures"] = json!(architectures);
            if !architectures.is_empty() {
                spec["linux"]["seccomp"] = filter;
            }
        });
        let other = container.rootfs().join("bin/other");
        std::fs::write(&other, program_of_another_architecture()).unwrap();
        std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        container.run().out
    };
    if misses(run(&[]) != "0\n", "programs for 32 bits") {
        return;
    }
    assert_eq!(run(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), "95\n");
    assert_eq!(run(&["SCMP_ARCH_X86_64"]), "159\n");
}

#[test]
fn a_listener_without_a_socket_is_refused() {
    let rules = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]);
    for path in [None, Some("/no/such/socket")] {
        let container = Container::new("true").with(|spec| {
            spec["linux"]["seccomp"] = filter(&rules);
            if let Some(path) = path {
                spec["linux"]["seccomp"]["listenerPath"] = json!(path);
            }
        });
        let refused = container.try_create().code != 0 || container.verb("start").code != 0;
        assert!(refused || lacks("crun", "a filter without a listener is accepted"), "{path:?}");
        container.delete();
    }
}
