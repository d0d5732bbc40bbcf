//! The OOM killer's visits.

use berth_runtime::shim::protocol::{Call, Event};
use serde_json::{Value, json};

use crate::pod::Pod;

const EATER: &str = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'";

fn limit(config: &mut Value) {
    config["linux"]["resources"] = json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}});
}

#[test]
fn a_container_that_eats_too_much_is_killed_and_told_so() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let script = format!("exec {EATER}");
    pod.create(&mut client, "c", pod.bundle_with("c", &["/bin/sh", "-c", &script], limit));
    client.ask(Call::Start { container: "c".into() });
    assert_eq!(client.event(), Event::Oom { container: "c".into() });
    let exit = client.exit_of("c");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), true));
}

#[test]
fn a_container_may_live_on_after_a_child_was_killed() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let script = format!("{EATER}; echo went on; sleep 1000");
    pod.create(&mut client, "c", pod.bundle_with("c", &["/bin/sh", "-c", &script], limit));
    client.ask(Call::Start { container: "c".into() });
    assert_eq!(client.event(), Event::Oom { container: "c".into() });
    assert!(client.state()["c"].exit.is_none());
    client.ask(Call::Kill { container: "c".into(), signal: 9, all: true });
    assert!(client.exit_of("c").oom_killed);
}

#[test]
fn a_plain_kill_is_no_oom() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.create(&mut client, "c", pod.bundle_with("c", &["/bin/sleep", "1000"], limit));
    client.ask(Call::Start { container: "c".into() });
    client.ask(Call::Kill { container: "c".into(), signal: 9, all: false });
    assert!(!client.exit_of("c").oom_killed);
}
