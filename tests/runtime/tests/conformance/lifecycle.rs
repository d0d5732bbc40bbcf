//! The life of a container: what each command does in each state, and what `state` says of it.

use berth_runtime_tests::container::is_alive;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::json;

#[test]
fn the_probe_sees_the_usual_container() {
    let seen = Container::probe().seen();
    println!("{seen:#?}");
    assert_eq!(seen.folder, "/");
}
