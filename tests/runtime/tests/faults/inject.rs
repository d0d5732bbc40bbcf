//! A fault at one system call of a command, put there by strace(1).
//!
//! strace counts the calls of each process by itself, by their names: the runtime makes few of those by which the process
//! that it makes becomes a container, so that each of these is hit while all goes well with the runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use berth_runtime_tests::call::{Call, Outcome};

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The kernel has no memory for it.
    Fails,
    /// The process is killed.
    Kills,
}

/// A call of this name, counted from one, in every process that makes so many.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    name: String,
    number: u32,
}

/// Makes a call with a fault at a place, and tells how many processes it hit. strace follows as a grandchild, so that the
/// runtime stays our child, and ends with the last process that it follows.
#[track_caller]
pub(crate) fn with_fault(call: Call, fault: Fault, place: &Place, folder: &Path) -> (Outcome, usize) {
    let (list, Place { name, number }) = (folder.join("calls"), place);
    let (words, mark) = match fault {
        // All other calls run at full speed; with that, strace 6.1 sends no signals.
        Fault::Fails => (format!("--seccomp-bpf -e inject={name}:error=ENOMEM"), "(INJECTED)"),
        Fault::Kills => (format!("-e inject={name}:signal=SIGKILL"), "+++ killed by SIGKILL"),
    };
    let outcome = traced(call, &format!("-o {} -e trace={name} {words}:when={number}", list.display()));
    let text = std::fs::read_to_string(&list).expect("strace is installed");
    (outcome, text.matches(mark).count())
}

/// A system call as strace tells it.
#[derive(Debug)]
pub(crate) struct Told {
    pid: i32,
    pub(crate) place: Place,
    pub(crate) line: String,
}

/// The system calls of a command and of all that it makes, as they came.
#[track_caller]
pub(crate) fn calls(call: Call, folder: &Path) -> Vec<Told> {
    let list = folder.join("calls");
    let outcome = traced(call, &format!("-o {}", list.display()));
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    let mut counts: BTreeMap<(i32, String), u32> = BTreeMap::new();
    // strace may still be writing of those that go on, which changes nothing about the command.
    let text = std::fs::read_to_string(&list).expect("strace is installed");
    let told = text.lines().filter_map(|line| {
        let (pid, rest) = line.split_once(' ')?;
        let (name, _) = rest.trim_start().split_once('(')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (pid, name) = (pid.parse().ok()?, Some(name).filter(|name| name.chars().all(is_name))?.to_owned());
        let number = counts.entry((pid, name.clone())).or_default();
        *number += 1;
        Some(Told { pid, place: Place { name, number: *number }, line: line.to_owned() })
    });
    told.collect()
}

/// What no kernel fails at: a close that reports an error has closed all the same, and there is nobody to tell that the
/// end or the mask of permissions failed.
const NEVER_FAIL: [&str; 4] = ["close", "exit", "exit_group", "umask"];

/// What changes nothing but the process itself: whoever is killed there might as well be killed at its next call.
const TOUCH_NOTHING: [&str; 26] = [
    "access",
    "brk",
    "close",
    "fcntl",
    "fstatfs",
    "getcwd",
    "getdents64",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "poll",
    "pread64",
    "read",
    "readlink",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sigaltstack",
    "statfs",
    "statx",
];

impl Fault {
    /// Every place of some calls where this fault could leave something behind.
    pub(crate) fn places(self, told: &[Told]) -> BTreeSet<Place> {
        let first = told.first().expect("a program makes system calls").pid;
        let is = |it: &Told, name: &str| it.pid == first && it.place.name.starts_with(name);
        // Until it has executed itself anew, and all its libraries are in place, the runtime has made nothing: a program
        // in Rust begins with a look at its streams.
        let executed = told.iter().rposition(|it| is(it, "execve")).unwrap_or(0);
        let begun = told[executed..].iter().position(|it| is(it, "poll")).unwrap_or(0);
        let all = told[executed + begun..].iter().map(|it| it.place.clone());
        let spared = match self {
            Self::Fails => NEVER_FAIL.as_slice(),
            Self::Kills => TOUCH_NOTHING.as_slice(),
        };
        all.filter(|place| !spared.contains(&place.name.as_str())).collect()
    }
}

fn traced(call: Call, options: &str) -> Outcome {
    call.after(&format!("set -- strace -D -f -qq {options} -- \"$@\"")).begin().wait()
}
