//! Binding: a pod is given its node.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::create::parse_body;
use super::reply::{self, Reply};
use super::status::{About, Refusal};
use super::update::{Place, Through};
use super::{Api, Call, DryRun, object};
use crate::resource::find;
use crate::store::Prefix;

/// What a Binding says.
#[derive(Debug)]
struct Binding {
    pod: String,
    uid: String,
    node: String,
    annotations: Map<String, Value>,
}

impl Binding {
    fn parse(body: &Value, name: Option<&str>) -> Result<Self, Refusal> {
        let metadata = &body["metadata"];
        let target = &body["target"];
        let named = metadata["name"].as_str().filter(|name| !name.is_empty());
        let invalid = |why: &str| {
            Refusal::unprocessable(format!("Binding {:?} is invalid: {why}", named.or(name).unwrap_or_default()))
        };
        let pod = match (named, name) {
            (Some(named), Some(name)) if named != name => {
                return Err(Refusal::bad_request("name in URL does not match name in Binding object"));
            }
            (None, None) => return Err(invalid("metadata.name: Required value")),
            (Some(pod), _) | (None, Some(pod)) => pod.to_owned(),
        };
        match target["kind"].as_str() {
            None | Some("" | "Node") => {}
            Some(other) => {
                return Err(invalid(&format!(
                    "target.kind: Unsupported value: {other:?}: supported values: \"Node\", \"<empty>\""
                )));
            }
        }
        let node = target["name"].as_str().filter(|node| !node.is_empty());
        let node = node.ok_or_else(|| invalid("target.name: Required value"))?.to_owned();
        let annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
        let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
        Ok(Self { pod, uid, node, annotations })
    }

    /// The pod with its node.
    fn bind(&self, pod: &Value, now: Timestamp) -> Result<Value, Refusal> {
        let about = About { group: "", resource: "pods/binding", name: &self.pod };
        object::check_identity(about, pod, &self.uid, "")?;
        if object::is_deleting(pod) {
            return Err(Refusal::conflict(
                about,
                &format!("pod {} is being deleted, cannot be assigned to a host", self.pod),
            ));
        }
        if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
            return Err(Refusal::conflict(about, &format!("pod {} is already assigned to node {node:?}", self.pod)));
        }
        let mut bound = pod.clone();
        bound["spec"]["nodeName"] = self.node.as_str().into();
        if !self.annotations.is_empty()
            && let Some(metadata) = object::metadata_mut(&mut bound)
            && let Some(annotations) = metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
        {
            annotations.extend(self.annotations.clone());
        }
        set_scheduled(&mut bound, now);
        Ok(bound)
    }
}

fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": object::time(now),
    });
    let Some(status) = pod.as_object_mut().map(|pod| pod.entry("status").or_insert_with(|| json!({}))) else { return };
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}

impl Api {
    /// `pods/<name>/binding`, and `bindings`, whose body names the pod.
    pub(super) async fn bind(&self, call: &Call) -> Result<Reply, Refusal> {
        let binding = Binding::parse(&parse_body(call)?, call.target.name.as_deref())?;
        let pods = find("", "v1", "pods").ok_or_else(Refusal::no_such_path)?;
        let key = Prefix::new("", "pods", call.target.namespace.as_deref()).key(&binding.pod);
        let dry_run: DryRun = call.dry_run()?;
        let place = Place { kind: pods, key: &key, name: &binding.pod, through: Through::Binding, dry_run };
        self.replace(place, |pod| binding.bind(pod, Timestamp::now())).await?;
        let done = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
        Ok(reply::json(StatusCode::CREATED, &done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(body: Value) -> Result<Binding, Refusal> {
        Binding::parse(&body, Some("p"))
    }

    #[test]
    fn a_free_pod_gets_its_node_once() {
        let to_n1 = binding(json!({"metadata": {"annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n1"}}))
            .unwrap();
        let pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let bound = to_n1.bind(&pod, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["metadata"]["annotations"]["a"], "b");
        assert_eq!(bound["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        let again = to_n1.bind(&bound, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(again.code, StatusCode::CONFLICT);
    }

    #[test]
    fn a_binding_names_a_node_and_the_pod_of_its_path() {
        for broken in [
            json!({}),
            json!({"target": {"name": ""}}),
            json!({"target": {"kind": "Pod", "name": "n"}}),
            json!({"metadata": {"name": "q"}, "target": {"name": "n"}}),
        ] {
            assert!(binding(broken.clone()).is_err(), "{broken}");
        }
        let deleting = json!({"metadata": {"deletionTimestamp": "x"}, "spec": {}});
        assert!(binding(json!({"target": {"name": "n"}})).unwrap().bind(&deleting, Timestamp::UNIX_EPOCH).is_err());
    }
}
