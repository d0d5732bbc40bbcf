//! Many containers at once.

use std::sync::atomic::{AtomicU32, Ordering};

use berth_runtime_tests::Container;

/// How many, and how many of them at the same time.
const CONTAINERS: u32 = 500;
const AT_ONCE: usize = 16;

#[test]
fn five_hundred_containers_come_and_go_side_by_side() {
    let begun = AtomicU32::new(0);
    // One root folder for all: five hundred copies of it would be the disk's test, not the runtime's.
    let first = Container::new("true");
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < CONTAINERS {
                    let container = Container::sharing(&first);
                    container.create();
                    container.start();
                    container.delete();
                }
            });
        }
    });
}
