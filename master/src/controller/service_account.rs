//! Makes the service account "default" in every living namespace.

use kube::ResourceExt as _;

use super::action::{Action, Plan};
use super::observe::World;

/// The account of pods that name none.
pub(super) const DEFAULT: &str = "default";

pub(super) fn plan(world: &World) -> Plan {
    let living = world.namespaces.iter().filter(|n| n.metadata.deletion_timestamp.is_none()).map(|n| n.name_any());
    let without = living.filter(|name| !world.service_accounts.contains(&(name.clone(), DEFAULT.to_owned())));
    Plan { actions: without.map(|namespace| Action::MakeServiceAccount { namespace }).collect(), wake_at: None }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_living_namespace_gets_one() {
        let namespace = |name: &str, deleted: Option<&str>| {
            let object = json!({"metadata": {"name": name, "deletionTimestamp": deleted}});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let world = World {
            namespaces: vec![namespace("a", None), namespace("b", None), namespace("c", Some("2026-01-01T00:00:00Z"))],
            service_accounts: [("a".to_owned(), "default".to_owned()), ("b".to_owned(), "other".to_owned())].into(),
            ..World::default()
        };
        assert_eq!(plan(&world).actions, [Action::MakeServiceAccount { namespace: "b".to_owned() }]);
    }
}
