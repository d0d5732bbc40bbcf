//! Namespaces: alive until their finalizer is gone.

use serde_json::{Value, json};

use super::meta::NameForm;
use super::strategy::Strategy;
use super::{FieldError, meta};

/// The finalizer in `spec` that keeps a namespace until its contents are gone.
const FINALIZER: &str = "kubernetes";

/// The label by which selectors name one namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespaces: a phase, a finalizer of their own, and a label with their name.
pub(super) struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn default(&self, namespace: &mut Value) {
        let name = namespace["metadata"]["name"].clone();
        let Some(metadata) = namespace.as_object_mut().and_then(|m| meta::child(m, "metadata")) else { return };
        if let Some(labels) = meta::child(metadata, "labels").filter(|_| name.is_string()) {
            labels.insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_create(&self, namespace: &mut Value) {
        let Some(members) = namespace.as_object_mut() else { return };
        members.insert("spec".to_owned(), json!({"finalizers": [FINALIZER]}));
        members.insert("status".to_owned(), json!({"phase": "Active"}));
    }

    fn prepare_update(&self, old: &Value, new: &mut Value, sub: Option<&str>) {
        // The finalizers go by `finalize` alone, which changes nothing else.
        if sub == Some("finalize") {
            meta::keep_all_but(old, new, &["spec"]);
        } else {
            meta::keep(old, new, "spec");
        }
    }

    fn validate(&self, namespace: &Value, errors: &mut Vec<FieldError>) {
        for (at, finalizer) in meta::items(&namespace["spec"], "finalizers").iter().enumerate() {
            if finalizer != FINALIZER && !finalizer.as_str().is_some_and(|f| f.contains('/')) {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(FieldError::invalid(format!("spec.finalizers[{at}]"), finalizer, detail));
            }
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn name_form(&self) -> NameForm {
        NameForm::Label
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::find;

    #[test]
    fn namespaces_are_born_active_with_their_finalizer() {
        let kind = find("", "v1", "namespaces").unwrap();
        let mut made = json!({"metadata": {"name": "n"}, "status": {"phase": "Terminating"}});
        kind.prepare_create(&mut made);
        assert_eq!(
            made,
            json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
                                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
        assert_eq!(kind.validate_create(&made), []);
        let mut update = made.clone();
        update["spec"] = json!({});
        kind.prepare_update(&made, &mut update, None);
        assert_eq!(update, made);
        update["spec"] = json!({"finalizers": []});
        kind.prepare_update(&made, &mut update, Some("finalize"));
        assert_eq!(update["spec"], json!({"finalizers": []}));
    }
}
