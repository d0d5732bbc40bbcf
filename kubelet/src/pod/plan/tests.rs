//! placeholder
use berth_engine::SandboxId;

use super::Start;

/// A start for tests of others.
pub(crate) fn a_start(name: &str) -> Start {
    Start {
        sandbox: sandbox_id("s"),
        name: name.to_owned(),
        attempt: 0,
        streak: 0,
        image: "sha256:0".to_owned(),
        created: None,
    }
}

fn sandbox_id(text: &str) -> SandboxId {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).unwrap()
}
