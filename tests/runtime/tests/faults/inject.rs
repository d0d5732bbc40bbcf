//! A fault at one system call of a command, put there by strace(1): it counts the calls of each process by itself, so that
//! the n-th one of the command and the n-th one of the process that it makes are hit alike.

use std::collections::BTreeMap;
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

impl Fault {
    fn words(self) -> &'static str {
        match self {
            Self::Fails => "error=ENOMEM",
            Self::Kills => "signal=SIGKILL",
        }
    }
}

/// Makes a call with a fault at the n-th system call of each of its processes. strace follows as a grandchild, so that the
/// runtime stays our child, and ends with the last process that it follows.
pub(crate) fn with_fault(call: Call, fault: Fault, number: u32) -> Outcome {
    // A process that cannot even end would tell nothing about what it did.
    let options = format!("-o /dev/null -e inject=!exit_group:{}:when={number}", fault.words());
    traced(call, &options)
}

/// How many system calls the busiest process of a call makes.
#[track_caller]
pub(crate) fn count_calls(call: Call, folder: &Path) -> u32 {
    let list = folder.join("calls");
    let outcome = traced(call, &format!("-o {}", list.display()));
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    let mut calls: BTreeMap<String, u32> = BTreeMap::new();
    // strace may still be writing of those that go on, which changes nothing about the command.
    let text = std::fs::read_to_string(&list).expect("strace is installed");
    for line in text.lines().filter(|line| !line.contains(" resumed>")) {
        *calls.entry(line.split_whitespace().next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    calls.into_values().max().expect("a program makes system calls")
}

fn traced(call: Call, options: &str) -> Outcome {
    call.after(&format!("set -- strace -D -f -qq {options} -- \"$@\"")).begin().wait()
}
