//! User, groups, capabilities, limits, umask, seccomp: as the kernel tells them.

use std::fs;

use serde_json::json;

use crate::support::{Container, describe, finish};

/// A line of `/proc/self/status`.
fn status(output: &str, name: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("{name}: {output}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn root_has_the_capabilities_that_are_listed() {
    let container = Container::new("cat /proc/self/status; umask");
    let output = container.output();
    // CHOWN 0, KILL 5, SETGID 6, SETUID 7, SETPCAP 8, NET_BIND_SERVICE 10.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(&output, set), "00000000000005e1", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(&output, set), "0000000000000000", "{set}");
    }
    assert_eq!((status(&output, "NoNewPrivs").as_str(), status(&output, "Groups").as_str()), ("1", ""));
    assert_eq!(
        (status(&output, "SigBlk").as_str(), status(&output, "SigIgn").as_str()),
        ("0000000000000000", "0000000000000000")
    );
    assert!(output.ends_with("0022"));
}

#[test]
fn a_user_has_its_groups_umask_and_ambient_capabilities_alone() {
    let mut container = Container::new("cat /proc/self/status; umask; echo written > /dev/stdout");
    container.spec["process"]["user"] =
        json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 2000], "umask": 0o077 });
    let output = container.output();
    assert_eq!(status(&output, "Uid"), "1000 1000 1000 1000");
    assert_eq!(status(&output, "Gid"), "1001 1001 1001 1001");
    assert_eq!(status(&output, "Groups"), "5 2000");
    assert_eq!(status(&output, "CapEff"), "0000000000000000");
    assert!(output.ends_with("0077\nwritten"), "{output}");
    let bind = json!(["CAP_NET_BIND_SERVICE"]);
    container.spec["process"]["capabilities"] =
        json!({ "bounding": bind, "effective": bind, "permitted": bind, "inheritable": bind, "ambient": bind });
    container.runtime.delete(&container.id).unwrap();
    let output = container.output();
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
        assert_eq!(status(&output, set), "0000000000000400", "{set}");
    }
}

#[test]
fn what_this_process_cannot_grant_is_a_warning() {
    let mut container = Container::new("sleep 100");
    let all: Vec<String> = berth_sys::caps::Set(u64::MAX).names();
    container.spec["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
    let spawned = container.running();
    let own = berth_sys::caps::bounding().unwrap();
    let missing = berth_sys::caps::Set(u64::MAX).names().len() - own.names().len();
    assert_eq!(container.runtime.state(&container.id).unwrap().warnings.len(), missing);
    let status_file = fs::read_to_string(format!("/proc/{}/status", spawned.pid)).unwrap();
    assert_eq!(status(&status_file, "CapEff"), format!("{:016x}", own.0));
}

#[test]
fn limits_are_set_as_far_as_allowed() {
    let mut container = Container::new("grep -E 'open files|core' /proc/self/limits");
    container.spec["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
    ]);
    let output = container.output();
    assert!(
        output.lines().any(|line| line.split_whitespace().eq(["Max", "open", "files", "100", "200", "files"])),
        "{output}"
    );
    // More than this process may give: as much as there is, and no failure.
    container.spec["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "soft": 1_u64 << 40, "hard": 1_u64 << 40 }]);
    container.runtime.delete(&container.id).unwrap();
    let (code, _) = container.run();
    assert!(
        code == 0 || nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1 == u64::MAX
    );
    container.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 2, "hard": 1 }]);
    container.runtime.delete(&container.id).unwrap();
    assert!(describe(&container.create().unwrap_err()).contains("process.rlimits[0]"));
}

#[test]
fn the_oom_score_is_set_and_one_that_may_not_be_is_passed_over() {
    let mut container = Container::new("cat /proc/self/oom_score_adj");
    container.spec["process"]["oomScoreAdj"] = json!(500);
    assert_eq!(container.output(), "500");
    container.spec["process"]["oomScoreAdj"] = json!(-998);
    container.runtime.delete(&container.id).unwrap();
    assert_eq!(container.run().0, 0);
}

#[test]
fn the_working_directory_is_made_and_entered() {
    let mut container = Container::new("pwd");
    container.spec["process"]["cwd"] = json!("/srv/made/here");
    assert_eq!(container.output(), "/srv/made/here");
    assert!(container.rootfs().join("srv/made/here").is_dir());
}

/// A profile as container engines ship it: an allow list, one call that does not exist, a condition on an argument.
fn profile() -> serde_json::Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": ["mkdir", "mkdirat", "nonsense"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
            { "names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS" },
            { "names": ["kill"], "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }] },
        ],
    })
}

#[test]
fn a_filter_refuses_calls_by_name_and_argument_and_holds_for_exec_too() {
    let script = "mkdir /tmp/x; kill -0 $$ && echo alive; kill -USR1 $$; echo $?";
    let mut container = Container::new(&format!("{script}; while :; do sleep 1; done"));
    container.spec["linux"]["seccomp"] = profile();
    for no_new_privileges in [true, false] {
        container.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let spawned = container.running();
        let (_, output) = container.exec(&format!("grep Seccomp: /proc/self/status; {script}"));
        assert!(output.contains("Seccomp:\t2"), "{output}");
        assert!(output.contains("Operation not supported") || output.contains("Not supported"), "{output}");
        assert!(output.contains("alive"), "{output}");
        assert!(output.contains("Operation not permitted"), "{output}");
        // SIGSYS
        assert_eq!(container.exec("hostname x").0, 128 + 31);
        container.runtime.delete(&container.id).unwrap();
        finish(&spawned);
    }
}

#[test]
fn an_allow_list_lets_a_shell_run_and_answers_no_such_call_to_the_unknown() {
    let mut container = Container::new("echo allowed; mkdir /tmp/x");
    // Every call by name that a static shell needs, but not mkdir.
    let calls = [
        "read",
        "write",
        "open",
        "openat",
        "close",
        "stat",
        "fstat",
        "lstat",
        "newfstatat",
        "mmap",
        "mprotect",
        "munmap",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "ioctl",
        "access",
        "dup",
        "dup2",
        "getpid",
        "getppid",
        "fork",
        "vfork",
        "clone",
        "execve",
        "exit",
        "exit_group",
        "wait4",
        "fcntl",
        "getcwd",
        "getuid",
        "geteuid",
        "getgid",
        "getegid",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "prlimit64",
        "readlink",
        "getrandom",
        "rseq",
        "uname",
        "umask",
        "sendto",
        "statx",
        "getpgrp",
        "setpgid",
        "lseek",
        "pread64",
        "poll",
        "gettid",
        "tgkill",
        "futex",
        "nanosleep",
        "clock_gettime",
        "mremap",
        "madvise",
        "sysinfo",
        "getrlimit",
        "prctl",
    ];
    container.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": calls.as_slice(), "action": "SCMP_ACT_ALLOW" }],
    });
    let (code, output) = container.run();
    assert_eq!((code, output.lines().next()), (1, Some("allowed")), "{output}");
    assert!(output.contains("Operation not permitted"), "{output}");
}
