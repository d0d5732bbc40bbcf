//! Empties namespaces that are going away, then lets them go.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::action::{Action, Plan};
use super::observe::World;

/// How long what is still there may take before it is looked for again; pods that end wake the loop sooner.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The finalizer that only this controller takes away.
const FINALIZER: &str = "kubernetes";

pub(super) fn plan(world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for namespace in &world.namespaces {
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        let is_ours = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        if namespace.metadata.deletion_timestamp.is_none() || !is_ours {
            continue;
        }
        let name = namespace.name_any();
        match world.contents.get(&name).map(Vec::as_slice) {
            // Not looked at yet.
            None => {}
            Some([]) => plan.actions.push(Action::Finalize { namespace: name }),
            Some(left) => {
                let delete = |kind| Action::DeleteAll { namespace: name.clone(), kind };
                plan.actions.extend(left.iter().copied().map(delete));
                plan.wake_by(now.checked_add(LOOK_AGAIN_AFTER).unwrap_or(Timestamp::MAX));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::controller::action::KindRef;
    use crate::resource::find;

    fn after(namespace: Value, contents: Option<&[&str]>) -> Plan {
        let mut world =
            World { namespaces: vec![Arc::new(serde_json::from_value(namespace).unwrap())], ..World::default() };
        if let Some(kinds) = contents {
            let kinds = kinds.iter().map(|plural| KindRef(find("", "v1", plural).unwrap())).collect();
            world.contents.insert("n".to_owned(), kinds);
        }
        plan(&world, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_namespace_goes_when_it_is_empty() {
        let going = json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}});
        let plan = after(going.clone(), Some(&["pods", "secrets"]));
        assert_eq!(
            format!("{:?}", plan.actions),
            r#"[DeleteAll { namespace: "n", kind: pods }, DeleteAll { namespace: "n", kind: secrets }]"#
        );
        assert!(plan.wake_at.is_some());
        assert_eq!(after(going.clone(), Some(&[])).actions, [Action::Finalize { namespace: "n".to_owned() }]);
        assert_eq!(after(going, None).actions, []);
    }

    #[test]
    fn living_namespaces_are_left_alone() {
        let living = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}});
        assert_eq!(after(living, Some(&["pods"])).actions, []);
        let gone =
            json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": []}});
        assert_eq!(after(gone, Some(&[])).actions, []);
    }
}
