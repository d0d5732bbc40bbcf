//! Delete: at once, after a pod's grace, or when the last finalizer is gone.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::create::parse_body;
use super::read::Filter;
use super::reply::{self, Form, Reply};
use super::status::{About, Refusal, success};
use super::{Api, Call, DryRun, namespace, object};
use crate::limits::CONFLICT_RETRIES_MAX;
use crate::resource::Kind;
use crate::store::{Key, PageStart, StoreError, Write};

/// What a pod that does not say gets to end.
const POD_GRACE_SECS_DEFAULT: i64 = 30;

/// How to delete: from the body, or from the query.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    fn parse(call: &Call) -> Result<Self, Refusal> {
        let mut options = if call.body.is_empty() {
            Self::default()
        } else {
            serde_json::from_value(parse_body(call)?)
                .map_err(|error| Refusal::bad_request(format!("the body is no DeleteOptions: {error}")))?
        };
        if let Some(secs) = call.options.number("gracePeriodSeconds")? {
            options.grace_period_seconds = Some(i64::try_from(secs).unwrap_or(i64::MAX));
        }
        if let Some(policy) = call.options.text("propagationPolicy") {
            options.propagation_policy = Some(policy.to_owned());
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Refusal> {
        let invalid = |why: String| Refusal::unprocessable(format!("DeleteOptions.meta.k8s.io \"\" is invalid: {why}"));
        match self.propagation_policy.as_deref() {
            None | Some("Background" | "Foreground" | "Orphan") => {}
            Some(other) => {
                return Err(invalid(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
                )));
            }
        }
        if self.propagation_policy.is_some() && self.orphan_dependents.is_some() {
            return Err(invalid(
                "propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set".into(),
            ));
        }
        if self.grace_period_seconds.is_some_and(|secs| secs < 0) {
            return Err(invalid("gracePeriodSeconds: Invalid value: must be greater than or equal to 0".into()));
        }
        match self.dry_run.iter().flatten().find(|value| *value != "All") {
            Some(other) => Err(invalid(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""))),
            None => Ok(()),
        }
    }

    fn dry_run(&self, call: &Call) -> Result<DryRun, Refusal> {
        if self.dry_run.iter().flatten().next().is_some() { Ok(DryRun::Yes) } else { call.dry_run() }
    }
}

/// What happens to an object that is to be deleted.
#[derive(Debug, PartialEq)]
enum Plan {
    Remove,
    /// It stays, marked, until someone else has done their part.
    Mark(Value),
    /// It is marked already, and the request asks for nothing sooner.
    Nothing,
}

/// Nothing holds a marked object: no grace, no finalizer.
pub(super) fn may_go(object: &Value) -> bool {
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && object::finalizers(object).is_empty()
        && namespace_finalizers(object) == 0
}

/// Finalizers that a namespace has in its spec.
fn namespace_finalizers(object: &Value) -> usize {
    if object["kind"] == "Namespace" { object["spec"]["finalizers"].as_array().map_or(0, Vec::len) } else { 0 }
}

/// How long the object has to end; only pods that some node runs need time.
fn grace_secs(kind: &Kind, object: &Value, asked: Option<i64>) -> i64 {
    let is_pod = kind.group.is_empty() && kind.kind == "Pod";
    let is_bound = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let has_ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !is_pod || !is_bound || has_ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    // A negative time of the pod's own is an old way to say "at once, but in order".
    asked.unwrap_or_else(|| own.map_or(POD_GRACE_SECS_DEFAULT, |secs| secs.max(1)))
}

fn plan(kind: &Kind, object: &Value, asked: Option<i64>, now: Timestamp) -> Plan {
    let mut grace = grace_secs(kind, object, asked);
    if object::is_deleting(object) {
        let current = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if asked.is_none() && grace > 0 || grace >= current && current > 0 {
            return Plan::Nothing;
        }
        grace = grace.min(current);
    }
    let mut marked = object.clone();
    if let Some(metadata) = object::metadata_mut(&mut marked) {
        let ends = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        let was_marked = !metadata.get("deletionTimestamp").is_none_or(Value::is_null);
        if !was_marked || grace > 0 {
            metadata.insert("deletionTimestamp".to_owned(), object::time(ends).into());
        }
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".to_owned(), (generation + 1).into());
        }
    }
    if may_go(&marked) {
        return Plan::Remove;
    }
    if kind.group.is_empty() && kind.kind == "Namespace" {
        marked["status"]["phase"] = "Terminating".into();
    }
    if object::is_deleting(object) && grace == object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) {
        return Plan::Nothing;
    }
    Plan::Mark(marked)
}

/// What is left after a deletion.
#[derive(Debug)]
pub(super) enum Deleted {
    Gone(Value),
    Marked(Value),
}

impl Api {
    pub(super) async fn delete(&self, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        let options = DeleteOptions::parse(call)?;
        let dry_run = options.dry_run(call)?;
        let deleted = self.delete_object(call.kind, &call.key(), call.name(), &options, dry_run).await?;
        Ok(match deleted {
            Deleted::Gone(last) if !returns_object(call.kind) => {
                let uid = object::meta(&last, "uid");
                reply::json(StatusCode::OK, &success(call.about(), Some(uid)))
            }
            Deleted::Gone(object) | Deleted::Marked(object) => {
                reply::json(StatusCode::OK, &form.one(call.kind, object))
            }
        })
    }

    pub(super) async fn delete_collection(&self, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        let options = DeleteOptions::parse(call)?;
        let dry_run = options.dry_run(call)?;
        let filter = Filter::parse(call.kind, &call.options)?;
        let found = self.collect(&call.prefix(), PageStart::default(), &filter, None).await?;
        let mut objects = Vec::with_capacity(found.objects.len());
        for object in found.objects {
            let (name, namespace) = (object::name(&object), object::meta(&object, "namespace"));
            let key = Key::new(call.kind.group, call.kind.plural, Some(namespace).filter(|ns| !ns.is_empty()), name);
            match self.delete_object(call.kind, &key, name, &options, dry_run).await {
                Ok(Deleted::Gone(object) | Deleted::Marked(object)) => objects.push(object),
                // Somebody else was faster.
                Err(refusal) if refusal.code == StatusCode::NOT_FOUND => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let list_meta = json!({ "resourceVersion": self.store.revision().to_string() });
        Ok(reply::json(StatusCode::OK, &form.list(call.kind, objects, list_meta)))
    }

    pub(super) async fn delete_object(
        &self,
        kind: &Kind,
        key: &Key,
        name: &str,
        options: &DeleteOptions,
        dry_run: DryRun,
    ) -> Result<Deleted, Refusal> {
        let about = About::object(kind, name);
        namespace::check_deletable(about)?;
        let (uid, revision) = match &options.preconditions {
            Some(Preconditions { uid, resource_version }) => {
                (uid.as_deref().unwrap_or_default(), resource_version.as_deref().unwrap_or_default())
            }
            None => ("", ""),
        };
        for _ in 0..CONFLICT_RETRIES_MAX {
            let stored = self.store.get(key)?.ok_or_else(|| Refusal::not_found(about))?;
            let current = object::decode(&stored)?;
            object::check_identity(about, &current, uid, revision)?;
            let (key, expected) = (key.clone(), stored.revision);
            let (write, mut deleted) = match plan(kind, &current, options.grace_period_seconds, Timestamp::now()) {
                Plan::Nothing => return Ok(Deleted::Marked(current)),
                Plan::Remove => (Write::Delete { key, expected, last: stored.text }, Deleted::Gone(current)),
                Plan::Mark(marked) => {
                    (Write::Update { key, expected, text: object::encode(&marked)? }, Deleted::Marked(marked))
                }
            };
            if dry_run == DryRun::Yes {
                return Ok(deleted);
            }
            match self.store.write(write).await {
                Ok(revision) => {
                    let (Deleted::Gone(object) | Deleted::Marked(object)) = &mut deleted;
                    object::set_revision(object, revision);
                    return Ok(deleted);
                }
                Err(StoreError::Conflict { .. } | StoreError::Missing { .. }) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(Refusal::modified(about))
    }
}

/// Kinds whose deletion answers with the object, as in Kubernetes; others answer with a Status.
fn returns_object(kind: &Kind) -> bool {
    kind.group.is_empty() && matches!(kind.kind, "Pod" | "Namespace" | "ServiceAccount")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn check(plural: &str, object: &Value, asked: Option<i64>) -> Plan {
        plan(find("", "v1", plural).unwrap(), object, asked, now())
    }

    #[test]
    fn pods_get_their_grace_only_where_a_node_runs_them() {
        let bound = json!({"metadata": {}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        let Plan::Mark(marked) = check("pods", &bound, None) else { panic!() };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 5);
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        assert_eq!(check("pods", &bound, Some(0)), Plan::Remove);
        assert_eq!(check("pods", &json!({"metadata": {}, "spec": {}}), Some(9)), Plan::Remove);
        let ended = json!({"metadata": {}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed"}});
        assert_eq!(check("pods", &ended, None), Plan::Remove);
        // Once more: only a shorter time changes anything.
        assert_eq!(check("pods", &marked, None), Plan::Nothing);
        assert_eq!(check("pods", &marked, Some(7)), Plan::Nothing);
        let Plan::Mark(sooner) = check("pods", &marked, Some(2)) else { panic!() };
        assert_eq!(sooner["metadata"]["deletionTimestamp"], "2026-01-01T00:00:02Z");
        assert_eq!(check("pods", &marked, Some(0)), Plan::Remove);
    }

    #[test]
    fn finalizers_hold_what_is_marked() {
        let held = json!({"metadata": {"finalizers": ["a/b"]}});
        let Plan::Mark(marked) = check("configmaps", &held, None) else { panic!() };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        assert!(!may_go(&marked));
        assert_eq!(check("configmaps", &marked, None), Plan::Nothing);
        let mut free = marked.clone();
        free["metadata"]["finalizers"] = json!([]);
        assert!(may_go(&free));
        // A pod whose grace is over stays for its finalizer.
        let pod = json!({"metadata": {"finalizers": ["a/b"]}, "spec": {"nodeName": "n"}});
        let Plan::Mark(marked) = check("pods", &pod, None) else { panic!() };
        let Plan::Mark(ended) = check("pods", &marked, Some(0)) else { panic!() };
        assert_eq!(ended["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(ended["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    }

    #[test]
    fn namespaces_go_in_two_steps() {
        let namespace = json!({"kind": "Namespace", "metadata": {}, "spec": {"finalizers": ["kubernetes"]}});
        let Plan::Mark(marked) = check("namespaces", &namespace, None) else { panic!() };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(check("namespaces", &marked, None), Plan::Nothing);
        let empty = json!({"kind": "Namespace", "metadata": {}, "spec": {"finalizers": []}});
        assert_eq!(check("namespaces", &empty, None), Plan::Remove);
    }
}
