//! Every system call of every verb fails once, and kills once.

use std::fs;
use std::ops::RangeInclusive;

use berth_runtime_tests::call::{Call, Outcome};
use berth_runtime_tests::{Container, until};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::inject::{Fault, count_calls, with_fault};

/// The verb under fault: what comes before it, and its call.
struct Verb {
    before: fn(&Container),
    call: fn(&Container) -> Call,
}

const CREATE: Verb = Verb { before: |_| {}, call: |container| container.create_call(&[]) };

const START: Verb = Verb { before: Container::create, call: |container| container.call(&["start", &container.id]) };

const EXEC: Verb = Verb {
    before: |container| {
        container.create();
        container.start();
    },
    call: |container| container.exec_call(&["--detach"], &["/bin/sleep", "1000"]),
};

const DELETE: Verb = Verb {
    before: |container| {
        container.create();
        container.start();
    },
    call: |container| container.call(&["delete", "--force", &container.id]),
};

const RUN: Verb = Verb {
    before: |_| {},
    call: |container| {
        container.write();
        let bundle = container.bundle();
        container.call(&["run", "--bundle", bundle.to_str().expect("its path is text"), &container.id])
    },
};

/// Runs a verb with a fault at each number of a part of its calls: the parts are run side by side.
fn sweep(verb: &Verb, fault: Fault, part: u32) {
    const PARTS: u32 = 2;
    // Thousands of containers: one root folder serves all.
    let first = if std::ptr::eq(verb, &RUN) { Container::new("true") } else { Container::sleeper() };
    let container = || Container::sharing(&first);
    let sample = container();
    (verb.before)(&sample);
    let last = count_calls((verb.call)(&sample), sample.folder());
    drop(sample);
    let numbers: RangeInclusive<u32> = 1..=last;
    for number in numbers.filter(|number| number % PARTS == part) {
        let container = container();
        (verb.before)(&container);
        let outcome = with_fault((verb.call)(&container), fault, number);
        if fault == Fault::Fails && outcome.code != 0 && std::ptr::eq(verb, &CREATE) {
            // What could not be made has left nothing for anybody to clean.
            assert!(
                !container.folder().join("state").join(&container.id).exists(),
                "call {number}: {}",
                outcome.text()
            );
            container.assert_gone();
        }
        // What was cut short is found and removed by its name.
        let deleted = delete(&container);
        assert_eq!(deleted.code, 0, "{fault:?} at call {number}: {}; {}", outcome.text(), deleted.text());
        container.assert_gone();
    }
}

/// Deletes a container as its engine would: one who takes the status of what has ended. Without, the namespace of the
/// container's processes could not end.
fn delete(container: &Container) -> Outcome {
    let mut call = container.call(&["delete", "--force", &container.id]).begin();
    until("the container is deleted", || {
        for pid in orphans() {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
        call.ended()
    });
    call.wait()
}

/// The children of this process that began in a container, by the many ids that they have.
fn orphans() -> Vec<Pid> {
    let children = fs::read_dir("/proc/self/task").expect("every kernel has it").flatten();
    let lists = children.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<i32> =
        lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    let is_nested = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() > 2)
    };
    pids.into_iter().filter(is_nested).map(Pid::from_raw).collect()
}

macro_rules! sweeps {
    ($($name:ident: $verb:ident $fault:ident $part:literal;)*) => {
        $(#[test]
        fn $name() {
            static VERB: &Verb = &$verb;
            sweep(VERB, Fault::$fault, $part);
        })*
    };
}

sweeps! {
    nothing_is_left_when_a_call_of_create_fails_odd: CREATE Fails 1;
    nothing_is_left_when_a_call_of_create_fails_even: CREATE Fails 0;
    nothing_is_left_when_create_is_killed_odd: CREATE Kills 1;
    nothing_is_left_when_create_is_killed_even: CREATE Kills 0;
    nothing_is_left_when_a_call_of_start_fails: START Fails 0;
    nothing_is_left_when_start_is_killed: START Kills 1;
    nothing_is_left_when_a_call_of_exec_fails: EXEC Fails 0;
    nothing_is_left_when_exec_is_killed: EXEC Kills 1;
    nothing_is_left_when_a_call_of_delete_fails: DELETE Fails 0;
    nothing_is_left_when_delete_is_killed: DELETE Kills 1;
    nothing_is_left_when_run_is_killed: RUN Kills 1;
}
