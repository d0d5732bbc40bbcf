//! Every system call of every verb fails once, and kills once.

use std::sync::atomic::{AtomicUsize, Ordering};

use berth_runtime_tests::Container;
use berth_runtime_tests::call::Call;

use crate::inject::{Fault, Place, calls, with_fault};
use crate::subject::{Kind, Subject};

/// How many containers of a sweep there are at the same time: most of their time they wait for the kernel.
const AT_ONCE: usize = 3;

/// The verb under fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Start,
    Exec,
    Delete,
    Run,
}

impl Verb {
    /// What comes before it.
    fn prepare(self, subject: &Subject) {
        match self {
            Self::Create | Self::Run => {}
            Self::Start => subject.create(),
            Self::Exec | Self::Delete => subject.run(),
        }
    }

    fn call(self, subject: &Subject) -> Call {
        match self {
            Self::Create => subject.create_call(),
            Self::Start => subject.call(&["start", &subject.container.id]),
            Self::Exec => subject.exec_call(),
            Self::Delete => subject.call(&["delete", "--force", &subject.container.id]),
            Self::Run => subject.run_call(),
        }
    }
}

/// Runs a verb on containers of a kind, with a fault at each of its places.
fn sweep(verb: Verb, kind: Kind, fault: Fault) {
    let first = kind.first(if verb == Verb::Run { Container::new("true") } else { Container::sleeper() });
    let sample = kind.sharing(&first);
    verb.prepare(&sample);
    let places: Vec<_> = fault.places(&calls(verb.call(&sample), sample.container.folder())).into_iter().collect();
    println!("{} places", places.len());
    drop(sample);
    let (begun, hit) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(place) = places.get(begun.fetch_add(1, Ordering::Relaxed)) {
                    let is_hit = survive(verb, &kind.sharing(&first), fault, place);
                    hit.fetch_add(usize::from(is_hit), Ordering::Relaxed);
                }
            });
        }
    });
    // How often a process looks whether another is ready depends on how busy the machine is.
    let hit = hit.into_inner();
    assert!(hit * 2 >= places.len(), "of {} places, {hit} were hit", places.len());
}

/// Whether the fault came to pass.
#[track_caller]
fn survive(verb: Verb, subject: &Subject, fault: Fault, place: &Place) -> bool {
    verb.prepare(subject);
    println!("{}: {verb:?}, with {place:?}, which {fault:?}", subject.container.id);
    let (outcome, hit) = with_fault(verb.call(subject), fault, place, subject.container.folder());
    println!("{}: {}", subject.container.id, outcome.text());
    // There are failures that the C library ends a process for.
    let refused = (1..128).contains(&outcome.code);
    if fault == Fault::Fails && refused && verb == Verb::Create && hit == 1 {
        // What could not be made has left nothing for anybody to clean, unless cleaning failed too.
        subject.assert_gone();
    }
    // What was cut short is found and removed by its name.
    subject.delete();
    subject.assert_gone();
    hit > 0
}

macro_rules! sweeps {
    ($($name:ident: $verb:ident $kind:ident $fault:ident;)*) => {
        $(#[test]
        fn $name() {
            sweep(Verb::$verb, Kind::$kind, Fault::$fault);
        })*
    };
}

sweeps! {
    nothing_is_left_when_a_call_of_create_fails: Create Plain Fails;
    nothing_is_left_when_create_is_killed: Create Plain Kills;
    nothing_is_left_when_a_call_of_start_fails: Start Plain Fails;
    nothing_is_left_when_start_is_killed: Start Plain Kills;
    nothing_is_left_when_a_call_of_exec_fails: Exec Plain Fails;
    nothing_is_left_when_exec_is_killed: Exec Plain Kills;
    nothing_is_left_when_a_call_of_delete_fails: Delete Plain Fails;
    nothing_is_left_when_delete_is_killed: Delete Plain Kills;
    nothing_is_left_when_run_is_killed: Run Plain Kills;
    nothing_of_much_is_left_when_a_call_of_create_fails: Create Laden Fails;
    nothing_of_much_is_left_when_a_call_of_start_fails: Start Laden Fails;
    nothing_of_much_is_left_when_exec_is_killed: Exec Laden Kills;
    nothing_of_much_is_left_when_delete_is_killed: Delete Laden Kills;
    nothing_of_other_users_is_left_when_a_call_of_create_fails: Create Mapped Fails;
    nothing_of_other_users_is_left_when_create_is_killed: Create Mapped Kills;
    nothing_of_other_users_is_left_when_a_call_of_exec_fails: Exec Mapped Fails;
}

/// What holds a user namespace until its users are mapped: a helper for a mount, or the container's first process.
#[test]
fn nobody_outlives_a_caller_that_is_killed_while_it_maps_users() {
    let kind = Kind::Mapped;
    let first = kind.first(Container::sleeper());
    let sample = kind.sharing(&first);
    let told = calls(sample.create_call(), sample.container.folder());
    drop(sample);
    let opens: Vec<_> = told.iter().filter(|it| it.line.contains("/uid_map") || it.line.contains("/gid_map")).collect();
    assert_eq!(opens.len(), 4, "the helper's and the first process': {opens:?}");
    for it in opens {
        assert!(survive(Verb::Create, &kind.sharing(&first), Fault::Kills, &it.place), "{it:?}");
    }
}
