//! The namespaces that every cluster has.

use jiff::Timestamp;
use serde_json::json;

use super::object;
use super::status::{About, Refusal};
use crate::resource::find;
use crate::store::{Key, Store, StoreError, Write};

const INITIAL: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Those that nobody may delete.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// A namespace that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the namespace {name}: {why}")]
pub(crate) struct InitialError {
    name: &'static str,
    why: String,
}

pub(super) fn key(name: &str) -> Key {
    Key::new("", "namespaces", None, name)
}

/// Makes the namespaces that are missing.
pub(crate) async fn make_initial(store: &Store) -> Result<(), InitialError> {
    for name in INITIAL {
        let failed = |why: String| InitialError { name, why };
        let told = |refusal: &Refusal| refusal.object()["message"].to_string();
        let kind = find("", "v1", "namespaces").ok_or_else(|| failed("the kind is not served".to_owned()))?;
        let labels = json!({ "kubernetes.io/metadata.name": name });
        let mut namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
        object::stamp_new(&mut namespace, Timestamp::now()).map_err(|refusal| failed(told(&refusal)))?;
        kind.prepare_create(&mut namespace);
        let text = object::encode(&namespace).map_err(|refusal| failed(told(&refusal)))?;
        match store.write(Write::Create { key: key(name), text }).await {
            Ok(_) | Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Ok(())
}

/// Refuses to delete what every cluster has.
pub(super) fn check_deletable(about: About<'_>) -> Result<(), Refusal> {
    if about.group.is_empty() && about.resource == "namespaces" && IMMORTAL.contains(&about.name) {
        return Err(Refusal::forbidden(about, "this namespace may not be deleted"));
    }
    Ok(())
}
