//! What a pod gets when its manifest says nothing: the API's defaults, and what Kubernetes' usual admission adds
//! (service account, priority, tolerations).

use serde_json::{Map, Value, json};

use super::super::meta::{child, default, items, objects_mut};

/// Annotation of pods that show what a node runs from its own manifests.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long pods stay on a node that is not ready or not reachable, unless they say otherwise.
const TOLERATION_SECS: i64 = 300;
/// `0644`, as JSON has it.
const FILE_MODE: i64 = 0o644;
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

type Members = Map<String, Value>;

pub(super) fn pod(pod: &mut Value) {
    let is_mirror = pod["metadata"]["annotations"].get(MIRROR).is_some();
    let Some(spec) = pod.as_object_mut().and_then(|members| child(members, "spec")) else { return };
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
        ("securityContext", json!({})),
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
    ] {
        default(spec, field, value);
    }
    if !is_mirror {
        service_account(spec);
    }
    tolerations(spec);
    let on_host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINER_LISTS {
        objects_mut(spec, list).for_each(|c| container(c, on_host_network));
    }
    objects_mut(spec, "volumes").for_each(volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`, and both are always shown.
fn service_account(spec: &mut Members) {
    let named = |field: &str| spec.get(field).and_then(Value::as_str).filter(|n| !n.is_empty()).map(str::to_owned);
    let name = named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or_else(|| "default".to_owned());
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.into());
}

fn tolerations(spec: &mut Members) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let list = spec.entry("tolerations").or_insert_with(|| json!([]));
        let Some(list) = list.as_array_mut() else { return };
        let tolerated = list.iter().any(|t| {
            let key_fits = t["key"].as_str().unwrap_or_default();
            let effect_fits = t["effect"].as_str().unwrap_or_default();
            (key_fits == key || key_fits.is_empty()) && (effect_fits == "NoExecute" || effect_fits.is_empty())
        });
        if !tolerated {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                             "tolerationSeconds": TOLERATION_SECS}));
        }
    }
}

fn container(container: &mut Members, on_host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if has_moving_tag(image) { "Always" } else { "IfNotPresent" };
    default(container, "imagePullPolicy", policy);
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
        requests_from_limits(resources);
    }
    for port in objects_mut(container, "ports") {
        default(port, "protocol", "TCP");
        if let (true, Some(number)) = (on_host_network, port.get("containerPort").cloned()) {
            default(port, "hostPort", number);
        }
    }
    for env in objects_mut(container, "env") {
        if let Some(source) = env.get_mut("valueFrom").and_then(Value::as_object_mut) {
            field_source(source);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).and_then(Value::as_object_mut) {
            probe_defaults(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(name).and_then(Value::as_object_mut) {
                http_get(handler);
            }
        }
    }
}

/// Whether what an image name means can change without the name changing: tag `latest`, or neither tag nor digest.
fn has_moving_tag(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none(),
    }
}

fn requests_from_limits(resources: &mut Members) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = child(resources, "requests") {
        for (name, limit) in limits {
            default(requests, &name, limit);
        }
    }
}

fn probe_defaults(probe: &mut Members) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        // Zero means "not said" in these fields.
        if probe.get(field).is_none_or(|v| v == 0) {
            probe.insert(field.to_owned(), value.into());
        }
    }
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Members) {
    if let Some(get) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        default(get, "path", "/");
        default(get, "scheme", "HTTP");
    }
}

/// A field or a resource of the pod as the source of a value or a file.
fn field_source(source: &mut Members) {
    if let Some(field) = source.get_mut("fieldRef").and_then(Value::as_object_mut) {
        default(field, "apiVersion", "v1");
    }
    if let Some(resource) = source.get_mut("resourceFieldRef").and_then(Value::as_object_mut) {
        default(resource, "divisor", "0");
    }
}

fn volume(volume: &mut Members) {
    if volume.keys().all(|field| field == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            default(source, "defaultMode", FILE_MODE);
            objects_mut(source, "items").for_each(field_source);
            objects_mut(source, "sources").for_each(projection);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        default(path, "type", "");
    }
}

fn projection(projection: &mut Members) {
    if let Some(token) = projection.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
        default(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = projection.get_mut("downwardAPI").and_then(Value::as_object_mut) {
        objects_mut(downward, "items").for_each(field_source);
    }
}

/// All containers of a spec with the paths by which errors name them.
pub(super) fn containers<'a>(spec: &'a Value, list: &'static str) -> impl Iterator<Item = (String, &'a Value)> {
    items(spec, list).iter().enumerate().map(move |(at, c)| (format!("spec.{list}[{at}]"), c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_move_are_pulled_always() {
        for (image, moves) in [
            ("busybox", true),
            ("busybox:latest", true),
            ("busybox:1", false),
            ("host:5000/busybox", true),
            ("host:5000/busybox:1", false),
            ("busybox@sha256:00", false),
            ("busybox:latest@sha256:00", true),
        ] {
            assert_eq!(has_moving_tag(image), moves, "{image}");
        }
    }

    #[test]
    fn host_network_opens_the_ports_on_the_host() {
        let mut made = json!({"spec": {"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]}});
        pod(&mut made);
        assert_eq!(
            made["spec"]["containers"][0]["ports"],
            json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
        );
    }

    #[test]
    fn what_a_pod_tolerates_is_left_alone() {
        let mut made = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        pod(&mut made);
        assert_eq!(made["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    }
}
