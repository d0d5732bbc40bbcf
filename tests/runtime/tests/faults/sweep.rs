//! Every system call of every verb fails once, and kills once.

use std::ops::RangeInclusive;

use berth_runtime_tests::Container;
use berth_runtime_tests::call::Call;

use crate::inject::{Fault, count_calls, with_fault};

/// The verb under fault: what comes before it, and its call.
struct Verb {
    before: fn(&Container),
    call: fn(&Container) -> Call,
}

const CREATE: Verb = Verb { before: |_| {}, call: |container| container.create_call(&[]) };

const START: Verb =
    Verb { before: Container::create, call: |container| container.call(&["start", &container.id]) };

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
            container.assert_gone();
        }
        // What was cut short is found and removed by its name.
        let deleted = container.call(&["delete", "--force", &container.id]).finish();
        assert_eq!(deleted.code, 0, "{fault:?} at call {number}: {}; {}", outcome.text(), deleted.text());
        container.assert_gone();
    }
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
