//! Who may do what. Masters everything; the scheduler and the controllers what their work needs; a node what its own
//! pods need; everybody else looks at nothing but the server's health.

use berth_api::selector::FieldSelector;
use serde_json::Value;

use super::authn::User;
use super::object;
use super::status::{About, Refusal};
use crate::limits::LIST_STEP_MAX;
use crate::pki::{USER_CONTROLLERS, USER_SCHEDULER};
use crate::request::{Target, Verb};
use crate::resource::Kind;
use crate::store::{Key, PageStart, Prefix, Store};

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// What marks a pod in the API as the image of one that its node runs from a file.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io";

const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const TELL: &[Verb] = &[Verb::Create, Verb::Update, Verb::Patch];

/// What the scheduler may do: group, resource with subresource, verbs.
const SCHEDULER: &[(&str, &str, &[Verb])] = &[
    ("", "pods", &[Verb::Get, Verb::List, Verb::Watch, Verb::Delete]),
    ("", "pods/binding", &[Verb::Create]),
    ("", "bindings", &[Verb::Create]),
    ("", "pods/status", &[Verb::Update, Verb::Patch]),
    ("", "nodes", READ),
    ("", "namespaces", READ),
    ("", "events", TELL),
    ("events.k8s.io", "events", TELL),
    ("coordination.k8s.io", "leases", &[Verb::Get, Verb::Create, Verb::Update, Verb::Patch]),
];

/// What every node may do with any object: what it tells, and what its service proxy reads.
const NODE: &[(&str, &str, &[Verb])] = &[
    ("", "events", TELL),
    ("events.k8s.io", "events", TELL),
    ("", "services", READ),
    ("discovery.k8s.io", "endpointslices", READ),
    ("node.k8s.io", "runtimeclasses", READ),
];

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) user: &'a User,
    pub(super) verb: Verb,
    pub(super) target: &'a Target,
    /// Of a list or a watch.
    pub(super) fields: &'a FieldSelector,
}

/// Whether a path that is not about objects may be read.
pub(super) fn check_path(user: &User, path: &str) -> Result<(), Refusal> {
    let public = matches!(path, "/healthz" | "/livez" | "/readyz" | "/version");
    if public || !user.is_anonymous() { Ok(()) } else { Err(Refusal::forbidden_path(&user.name, "get", path)) }
}

impl<'a> Question<'a> {
    /// Refuses what the user may not do.
    pub(super) async fn check(self, store: &Store) -> Result<(), Refusal> {
        let allowed = match self.user.node() {
            _ if self.user.is_master() || self.user.name == USER_CONTROLLERS => true,
            _ if self.user.name == USER_SCHEDULER => self.is_in(SCHEDULER),
            Some(node) => self.is_in(NODE) || self.is_of_node(store, node).await?,
            None => false,
        };
        if allowed { Ok(()) } else { Err(self.refusal()) }
    }

    fn resource(self) -> String {
        match &self.target.subresource {
            Some(subresource) => format!("{}/{subresource}", self.target.resource),
            None => self.target.resource.clone(),
        }
    }

    fn is_in(self, rules: &[(&str, &str, &[Verb])]) -> bool {
        let resource = self.resource();
        rules.iter().any(|(group, named, verbs)| {
            *group == self.target.group && *named == resource && verbs.contains(&self.verb)
        })
    }

    /// The name that is meant: in the path, or the only one that a field selector lets through.
    fn name(self) -> Option<&'a str> {
        self.target.name.as_deref().or_else(|| self.fields.required("metadata.name"))
    }

    async fn is_of_node(self, store: &Store, node: &str) -> Result<bool, Refusal> {
        let group = self.target.group.as_str();
        let reads = READ.contains(&self.verb);
        match (group, self.resource().as_str()) {
            // The body of what is created is looked at by `check_created`.
            ("", "nodes" | "pods") | ("coordination.k8s.io", "leases") if self.verb == Verb::Create => Ok(true),
            ("", "nodes" | "nodes/status") => {
                Ok(self.name() == Some(node) && (reads || matches!(self.verb, Verb::Update | Verb::Patch)))
            }
            ("coordination.k8s.io", "leases") => Ok(self.target.namespace.as_deref() == Some(LEASE_NAMESPACE)
                && self.name() == Some(node)
                && self.verb != Verb::DeleteCollection),
            ("", "pods") if matches!(self.verb, Verb::List | Verb::Watch) => {
                Ok(self.fields.required("spec.nodeName") == Some(node))
            }
            ("", "pods") if matches!(self.verb, Verb::Get | Verb::Delete) => self.is_own_pod(store, node),
            ("", "pods/status") if matches!(self.verb, Verb::Get | Verb::Update | Verb::Patch) => {
                self.is_own_pod(store, node)
            }
            ("", "secrets" | "configmaps" | "serviceaccounts") if reads => self.is_referenced(store, node).await,
            _ => Ok(false),
        }
    }

    /// Bound to the node, or gone: that it is gone is what the node then hears.
    fn is_own_pod(self, store: &Store, node: &str) -> Result<bool, Refusal> {
        let (Some(namespace), Some(name)) = (&self.target.namespace, &self.target.name) else { return Ok(false) };
        let found = store.get(&Key::new("", "pods", Some(namespace), name))?;
        let Some(found) = found else { return Ok(true) };
        Ok(object::decode(&found)?["spec"]["nodeName"] == node)
    }

    /// Some pod that is bound to the node names it.
    async fn is_referenced(self, store: &Store, node: &str) -> Result<bool, Refusal> {
        let (Some(namespace), Some(name)) = (&self.target.namespace, self.name()) else { return Ok(false) };
        let pods = Prefix::new("", "pods", Some(namespace));
        let mut start = PageStart::default();
        loop {
            let page = store.page(&pods, &start, LIST_STEP_MAX).await?;
            for (_, stored) in &page.items {
                let pod = object::decode(stored)?;
                if pod["spec"]["nodeName"] == node && names(&pod["spec"], &self.target.resource, name) {
                    return Ok(true);
                }
            }
            match page.items.into_iter().next_back() {
                Some((last, _)) if page.more => start.after = Some(last),
                _ => return Ok(false),
            }
        }
    }

    fn refusal(self) -> Refusal {
        let place = match &self.target.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        let (user, verb, resource, group) = (&self.user.name, self.verb.as_str(), self.resource(), &self.target.group);
        let why = format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}");
        let name = self.target.name.as_deref().unwrap_or_default();
        Refusal::forbidden(About { group, resource: &self.target.resource, name }, &why)
    }
}

/// What a node creates must be its own: its Node, its Lease, and mirrors of pods that it runs from files.
pub(super) fn check_created(user: &User, kind: &Kind, created: &Value) -> Result<(), Refusal> {
    let Some(node) = user.node() else { return Ok(()) };
    let name = object::name(created);
    let own = match (kind.group, kind.plural) {
        ("", "nodes") => name == node,
        ("coordination.k8s.io", "leases") => name == node && object::meta(created, "namespace") == LEASE_NAMESPACE,
        ("", "pods") => {
            created["spec"]["nodeName"] == node && !created["metadata"]["annotations"][MIRROR_ANNOTATION].is_null()
        }
        _ => true,
    };
    if own {
        return Ok(());
    }
    let why = format!("node {node:?} may only create its own node, its own lease and its own mirror pods");
    Err(Refusal::forbidden(About::object(kind, name), &why))
}

/// What a node changes must be its own to change: neither what keeps pods from it, nor what selectors go by.
pub(super) fn check_changed(
    user: &User,
    kind: &Kind,
    sub: Option<&str>,
    old: &Value,
    new: &Value,
) -> Result<(), Refusal> {
    let Some(node) = user.node() else { return Ok(()) };
    let why = match (kind.group, kind.plural) {
        ("", "pods") if is_changed(&old["metadata"]["labels"], &new["metadata"]["labels"]) => {
            format!("node {node:?} cannot update labels through pod status")
        }
        // Through a subresource the spec stays as it is, whatever the body says.
        ("", "nodes") if sub.is_none() && is_changed(&old["spec"]["taints"], &new["spec"]["taints"]) => {
            format!("node {node:?} is not allowed to modify taints")
        }
        ("", "nodes") if restricted(old) != restricted(new) => {
            format!("node {node:?} is not allowed to modify labels with the prefix {RESTRICTED_LABELS}")
        }
        _ => return Ok(()),
    };
    Err(Refusal::forbidden(About::object(kind, object::name(new)), &why))
}

/// Nothing, and a list or map of nothing, are the same.
fn is_changed(old: &Value, new: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    };
    old != new && !(is_empty(old) && is_empty(new))
}

/// Labels by which an administrator sets nodes apart.
fn restricted(node: &Value) -> Vec<(&String, &Value)> {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter(|(key, _)| key.split('/').next().is_some_and(|prefix| prefix.ends_with(RESTRICTED_LABELS))).collect()
}

/// Whether a pod's spec refers to an object, wherever it does.
fn names(part: &Value, resource: &str, name: &str) -> bool {
    let (keys, name_fields): (&[&str], &[&str]) = match resource {
        "secrets" => (
            &["secret", "secretRef", "secretKeyRef", "imagePullSecrets", "nodePublishSecretRef"],
            &["name", "secretName"],
        ),
        "configmaps" => (&["configMap", "configMapRef", "configMapKeyRef"], &["name"]),
        _ => return part["serviceAccountName"] == name,
    };
    match part {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let here = keys.contains(&key.as_str()) && is_reference(value, name_fields, name);
            here || names(value, resource, name)
        }),
        Value::Array(items) => items.iter().any(|item| names(item, resource, name)),
        _ => false,
    }
}

fn is_reference(value: &Value, name_fields: &[&str], name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| is_reference(item, name_fields, name)),
        _ => name_fields.iter().any(|field| value[*field] == name),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::request::{Options, Route, route};
    use crate::resource::find;
    use crate::store::Write;

    async fn store(folder: &tempfile::TempDir) -> Store {
        let store = Store::open(&folder.path().join("store.redb")).unwrap();
        for (name, node, secret) in [("mine", "n1", "s1"), ("other", "n2", "s2")] {
            let pod = json!({"metadata": {"name": name}, "spec": {
                "nodeName": node,
                "serviceAccountName": format!("sa-{node}"),
                "imagePullSecrets": [{"name": format!("pull-{node}")}],
                "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": format!("cm-{node}")}}}]}],
                "volumes": [{"secret": {"secretName": secret}}, {"projected": {"sources": [{"secret": {"name": "both"}}]}}],
            }});
            let text = Bytes::from(pod.to_string());
            store.write(Write::Create { key: Key::new("", "pods", Some("a"), name), text }).await.unwrap();
        }
        store
    }

    async fn may(store: &Store, user: &User, method: &str, path: &str) -> bool {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let options = Options::parse(query).unwrap();
        let Route::Resource { verb, target } = route(&method.parse().unwrap(), path, &options).unwrap() else {
            panic!("{path}");
        };
        let fields = options.text("fieldSelector").unwrap_or_default().parse().unwrap();
        Question { user, verb, target: &target, fields: &fields }.check(store).await.is_ok()
    }

    #[tokio::test]
    async fn a_node_reads_and_writes_what_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let node = User::new("system:node:n1", &["system:nodes"]);
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        for (method, path) in [
            ("GET", "/api/v1/nodes/n1"),
            ("GET", "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1"),
            ("PATCH", "/api/v1/nodes/n1/status"),
            ("POST", "/api/v1/nodes"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1"),
            ("GET", "/api/v1/namespaces/a/pods/mine"),
            ("GET", "/api/v1/namespaces/a/pods/gone"),
            ("PATCH", "/api/v1/namespaces/a/pods/mine/status"),
            ("DELETE", "/api/v1/namespaces/a/pods/mine"),
            ("GET", "/api/v1/namespaces/a/secrets/s1"),
            ("GET", "/api/v1/namespaces/a/secrets/both"),
            ("GET", "/api/v1/namespaces/a/secrets/pull-n1"),
            ("GET", "/api/v1/namespaces/a/configmaps?watch=1&fieldSelector=metadata.name%3Dcm-n1"),
            ("GET", "/api/v1/namespaces/a/serviceaccounts/sa-n1"),
            ("POST", "/api/v1/namespaces/a/events"),
            ("PUT", &format!("{lease}/n1")),
        ] {
            assert!(may(&store, &node, method, path).await, "{method} {path}");
        }
        for (method, path) in [
            ("GET", "/api/v1/nodes/n2"),
            ("GET", "/api/v1/nodes"),
            ("PATCH", "/api/v1/nodes/n2/status"),
            ("DELETE", "/api/v1/nodes/n1"),
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1"),
            ("GET", "/api/v1/namespaces/a/pods/other"),
            ("PATCH", "/api/v1/namespaces/a/pods/mine"),
            ("PATCH", "/api/v1/namespaces/a/pods/other/status"),
            ("POST", "/api/v1/namespaces/a/pods/mine/binding"),
            ("GET", "/api/v1/namespaces/a/secrets/s2"),
            ("GET", "/api/v1/namespaces/a/secrets"),
            ("GET", "/api/v1/namespaces/b/secrets/s1"),
            ("PUT", "/api/v1/namespaces/a/secrets/s1"),
            ("GET", "/api/v1/namespaces/a/configmaps/s1"),
            ("PUT", &format!("{lease}/n2")),
            ("GET", lease),
        ] {
            assert!(!may(&store, &node, method, path).await, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn a_name_alone_makes_no_node() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let outsider = User::new("system:node:n1", &[]);
        assert!(!may(&store, &outsider, "GET", "/api/v1/nodes/n1").await);
        let master = User::new("anyone", &["system:masters"]);
        assert!(may(&store, &master, "DELETE", "/api/v1/nodes/n1").await);
        let scheduler = User::new(USER_SCHEDULER, &[]);
        assert!(may(&store, &scheduler, "POST", "/api/v1/namespaces/a/pods/p/binding").await);
        assert!(!may(&store, &scheduler, "GET", "/api/v1/namespaces/a/secrets/s1").await);
    }

    #[test]
    fn a_node_creates_only_itself() {
        let node = User::new("system:node:n1", &["system:nodes"]);
        let nodes = find("", "v1", "nodes").unwrap();
        assert!(check_created(&node, nodes, &json!({"metadata": {"name": "n1"}})).is_ok());
        assert!(check_created(&node, nodes, &json!({"metadata": {"name": "n2"}})).is_err());
        let pods = find("", "v1", "pods").unwrap();
        let mut pod = json!({"metadata": {"name": "p", "annotations": {}}, "spec": {"nodeName": "n1"}});
        assert!(check_created(&node, pods, &pod).is_err());
        pod["metadata"]["annotations"][MIRROR_ANNOTATION] = "x".into();
        assert!(check_created(&node, pods, &pod).is_ok());
    }

    #[test]
    fn a_node_does_not_change_what_others_choose_by() {
        let node = User::new("system:node:n1", &["system:nodes"]);
        let check = |plural, old: Value, new: Value| {
            check_changed(&node, find("", "v1", plural).unwrap(), None, &old, &new).is_ok()
        };
        let labelled = |key: &str| json!({"metadata": {"labels": {key: "1"}}});
        assert!(check("pods", json!({"metadata": {}}), json!({"metadata": {"labels": {}}})));
        assert!(!check("pods", json!({}), labelled("app")));
        assert!(check("nodes", json!({}), labelled("zone")));
        assert!(!check("nodes", labelled("rack.node-restriction.kubernetes.io/x"), json!({})));
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        assert!(!check("nodes", tainted.clone(), json!({"spec": {}})));
        assert!(check("nodes", tainted.clone(), tainted));
    }
}
