//! The API as client programs see it, over real TLS.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use support::{Cluster, eventually, pod, send};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("k".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// A refusal's code, reason and message.
fn refused<T: std::fmt::Debug>(outcome: kube::Result<T>) -> (u16, String, String) {
    match outcome.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn objects_are_made_changed_and_deleted_under_their_revision() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    let made = maps.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let (code, reason, message) = refused(maps.create(&PostParams::default(), &map("a", "1")).await);
    assert_eq!((code, reason.as_str(), message.as_str()), (409, "AlreadyExists", "configmaps \"a\" already exists"));

    let mut first = made.clone();
    first.data = map("a", "2").data;
    let second = maps.replace("a", &PostParams::default(), &first).await.unwrap();
    assert_ne!(second.metadata.resource_version, made.metadata.resource_version);
    let (code, reason, message) = refused(maps.replace("a", &PostParams::default(), &first).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.starts_with("Operation cannot be fulfilled on configmaps \"a\": the object has been modified"));

    // The same again changes nothing, and what the server decides cannot be changed.
    let same = maps.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.metadata.resource_version, second.metadata.resource_version);

    let wrong = DeleteParams::default()
        .preconditions(kube::api::Preconditions { uid: Some("other".to_owned()), resource_version: None });
    assert_eq!(refused(maps.delete("a", &wrong).await).0, 409);
    let status = maps.delete("a", &DeleteParams::default()).await.unwrap().right().unwrap();
    assert_eq!(status.details.unwrap().uid, made.metadata.uid.unwrap());
    let (code, reason, message) = refused(maps.get("a").await);
    assert_eq!((code, reason.as_str(), message.as_str()), (404, "NotFound", "configmaps \"a\" not found"));
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    let mut unnamed = map("", "1");
    unnamed.metadata.name = None;
    unnamed.metadata.generate_name = Some("web-".to_owned());
    let made = maps.create(&PostParams::default(), &unnamed).await.unwrap();
    assert_eq!(made.metadata.name.unwrap().len(), "web-".len() + 5);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("dry", "1")).await.unwrap();
    assert_eq!(refused(maps.get("dry").await).0, 404);
}

#[tokio::test]
async fn lists_come_in_pages_and_by_selectors() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    for name in ["a", "b", "c", "d", "e"] {
        let mut new = map(name, "1");
        new.metadata.labels = Some([("even".to_owned(), (["b", "d"].contains(&name)).to_string())].into());
        maps.create(&PostParams::default(), &new).await.unwrap();
    }
    let names = |list: &kube::core::ObjectList<ConfigMap>| -> Vec<String> {
        list.iter().map(|map| map.metadata.name.clone().unwrap()).collect()
    };
    let page = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(names(&page), ["a", "b"]);
    maps.delete("c", &DeleteParams::default()).await.unwrap();
    let token = page.metadata.continue_.clone().unwrap();
    let rest = maps.list(&ListParams::default().limit(9).continue_token(&token)).await.unwrap();
    assert_eq!(names(&rest), ["c", "d", "e"], "the list shows one moment");
    assert_eq!(rest.metadata.resource_version, page.metadata.resource_version);
    assert_eq!(names(&maps.list(&ListParams::default().labels("even=true")).await.unwrap()), ["b", "d"]);
    assert_eq!(names(&maps.list(&ListParams::default().labels("even=false").limit(1)).await.unwrap()), ["a"]);
    assert_eq!(names(&maps.list(&ListParams::default().fields("metadata.name=e")).await.unwrap()), ["e"]);
    let (code, _, message) = refused(maps.list(&ListParams::default().fields("data.k=1")).await);
    assert_eq!(code, 400);
    assert!(message.ends_with("field label not supported: data.k"), "{message}");
    assert_eq!(refused(maps.list(&ListParams::default().continue_token("nonsense")).await).0, 400);
}

#[tokio::test]
async fn watches_tell_what_enters_changes_and_leaves_a_selection() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let selected = WatchParams::default().labels("in=yes");
    let mut events = Box::pin(maps.watch(&selected, &start).await.unwrap());

    let mut object = maps.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    for (label, data) in [("yes", "1"), ("yes", "2"), ("no", "2"), ("yes", "3")] {
        object.metadata.labels = Some([("in".to_owned(), label.to_owned())].into());
        object.data = map("a", data).data;
        object = maps.replace("a", &PostParams::default(), &object).await.unwrap();
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let mut heard = Vec::new();
    let mut revisions = Vec::new();
    while heard.len() < 5 {
        let (word, map) = match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) => ("added", map),
            WatchEvent::Modified(map) => ("modified", map),
            WatchEvent::Deleted(map) => ("deleted", map),
            other => panic!("{other:?}"),
        };
        heard.push(word);
        revisions.push(map.metadata.resource_version.unwrap().parse::<u64>().unwrap());
    }
    assert_eq!(heard, ["added", "modified", "deleted", "added", "deleted"]);
    assert!(revisions.is_sorted());

    // The past is told to one who comes late, and a future that is not ours ends the watch.
    let late: Vec<_> =
        maps.watch(&WatchParams::default().timeout(1), &start).await.unwrap().try_collect().await.unwrap();
    assert_eq!(late.len(), 6);
    let (code, _, text) =
        send(&cluster.admin, "GET", &format!("{MAPS}?watch=1&resourceVersion=99999999"), &[], "").await;
    let error: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((code, &error["type"], &error["object"]["code"]), (200, &json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn both_kinds_of_informers_keep_up() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    maps.create(&PostParams::default(), &map("before", "1")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = Box::pin(watcher(maps.clone(), config));
        let mut initial = Vec::new();
        loop {
            match events.try_next().await.unwrap().unwrap() {
                watcher::Event::Init => {}
                watcher::Event::InitApply(map) => initial.push(map.metadata.name.unwrap()),
                watcher::Event::InitDone => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(initial, ["before"]);
        maps.create(&PostParams::default(), &map("after", "1")).await.unwrap();
        assert!(matches!(events.try_next().await.unwrap().unwrap(), watcher::Event::Apply(_)));
        maps.delete("after", &DeleteParams::default()).await.unwrap();
        assert!(matches!(events.try_next().await.unwrap().unwrap(), watcher::Event::Delete(_)));
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_field() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let (code, status) = support::json(
        admin,
        "POST",
        PODS,
        &json!({"metadata": {"name": "x"}, "spec": {"containers": [{"image": "i"}]}}),
    )
    .await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    assert_eq!(status["message"], "Pod \"x\" is invalid: spec.containers[0].name: Required value");
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[0].name"})
    );
    assert_eq!((&status["details"]["name"], &status["details"]["kind"]), (&json!("x"), &json!("Pod")));

    let mut unknown = pod("y");
    unknown["spec"]["foo"] = json!(1);
    let (code, status) = support::json(admin, "POST", &format!("{PODS}?fieldValidation=Strict"), &unknown).await;
    assert_eq!(code, 400);
    assert_eq!(
        status["message"],
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.foo\""
    );
    let json_body = [("content-type", "application/json")];
    let (code, headers, text) = send(admin, "POST", PODS, &json_body, unknown.to_string()).await;
    assert_eq!(code, 201);
    assert_eq!(headers["warning"], "299 - \"unknown field \\\"spec.foo\\\"\"");
    assert!(!text.contains("\"foo\""), "what the kind does not have is not kept");
    let (code, headers, _) =
        send(admin, "POST", &format!("{PODS}?fieldValidation=Ignore&dryRun=All"), &json_body, unknown.to_string())
            .await;
    assert!(code == 409 && !headers.contains_key("warning"));

    let (code, status) = support::json(admin, "POST", "/api/v1/namespaces/none/pods", &pod("x")).await;
    assert_eq!((code, &status["message"]), (404, &json!("namespaces \"none\" not found")));
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused_in_kubernetes_words() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let is_json = ("content-type", "application/json");
    let apply = ("content-type", "application/apply-patch+yaml");
    let protobuf = ("accept", "application/vnd.kubernetes.protobuf");
    for (method, path, header, body, code, reason) in [
        ("GET", "/api/v1/nothings", is_json, "", 404, "NotFound"),
        ("GET", "/apis/none/v1", is_json, "", 404, "NotFound"),
        ("GET", "/api/v1/pods", protobuf, "", 406, "NotAcceptable"),
        ("POST", "/api/v1/pods", is_json, "{}", 405, "MethodNotAllowed"),
        ("PUT", MAPS, is_json, "{}", 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/namespaces", is_json, "", 405, "MethodNotAllowed"),
        ("POST", MAPS, ("content-type", "text/plain"), "{}", 415, "UnsupportedMediaType"),
        ("PATCH", &format!("{MAPS}/a"), apply, "{}", 415, "UnsupportedMediaType"),
        ("POST", MAPS, is_json, "{", 400, "BadRequest"),
        ("POST", MAPS, is_json, "[]", 400, "BadRequest"),
        ("POST", MAPS, is_json, "{\"kind\":\"Pod\"}", 400, "BadRequest"),
        ("POST", MAPS, is_json, "{\"metadata\":{\"namespace\":\"x\"}}", 400, "BadRequest"),
        ("PUT", &format!("{MAPS}/a"), is_json, "{\"metadata\":{\"name\":\"b\"}}", 400, "BadRequest"),
        ("GET", "/api/v1/pods?limit=x", is_json, "", 400, "BadRequest"),
        ("GET", "/api/v1/pods?labelSelector=!!", is_json, "", 400, "BadRequest"),
        ("DELETE", &format!("{MAPS}/a?propagationPolicy=x"), is_json, "", 422, "Invalid"),
        ("DELETE", "/api/v1/namespaces/default", is_json, "", 403, "Forbidden"),
    ] {
        let (found, _, text) = send(admin, method, path, &[header], body).await;
        let status: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (found, &status["reason"], &status["kind"]),
            (code, &json!(reason), &json!("Status")),
            "{method} {path}: {text}"
        );
        assert_eq!(status["code"], code);
    }
    let (code, _, _) = send(admin, "POST", MAPS, &[is_json], vec![b' '; (3 << 20) + 1]).await;
    assert_eq!(code, 413);
    let huge = json!({"metadata": {"name": "huge"}, "data": {"k": "x".repeat(2 << 20)}}).to_string();
    let (code, _, _) = send(admin, "POST", MAPS, &[is_json], huge).await;
    assert!(matches!(code, 413 | 422), "{code}");
}

#[tokio::test]
async fn strangers_see_the_servers_health_only() {
    let cluster = Cluster::start().await;
    let kubeconfig = std::fs::read_to_string(cluster.master.admin_kubeconfig()).unwrap();
    let nobody: String =
        kubeconfig.lines().filter(|line| !line.contains("client-")).map(|l| format!("{l}\n")).collect();
    let path = cluster.folder.path().join("nobody");
    std::fs::write(&path, nobody.replace("  user:\n", "  user: {}\n")).unwrap();
    let nobody = support::client(&path).await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(send(&nobody, "GET", path, &[], "").await.0, 200, "{path}");
    }
    let (code, _, text) = send(&nobody, "GET", "/api/v1/secrets", &[], "").await;
    assert_eq!(code, 403);
    assert!(text.contains("User \\\"system:anonymous\\\" cannot list resource \\\"secrets\\\" in API group \\\"\\\" at the cluster scope"), "{text}");
    assert_eq!(send(&nobody, "GET", "/apis", &[], "").await.0, 403);
    assert_eq!(send(&nobody, "GET", "/healthz", &[("authorization", "Bearer x")], "").await.0, 401);
}

#[tokio::test]
async fn a_node_works_with_its_own_things_only() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    let own = json!({"metadata": {"name": "n1"}});
    assert_eq!(support::json(&node, "POST", "/api/v1/nodes", &own).await.0, 201);
    let (code, status) = support::json(&node, "POST", "/api/v1/nodes", &json!({"metadata": {"name": "n2"}})).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(support::json(&node, "POST", leases, &lease).await.0, 201);
    assert_eq!(support::json(&node, "GET", PODS, &Value::Null).await.0, 403);
    let mine = format!("{PODS}?fieldSelector=spec.nodeName%3Dn1");
    assert_eq!(support::json(&node, "GET", &mine, &Value::Null).await.0, 200);

    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(support::json(&cluster.admin, "POST", secrets, &secret).await.0, 201);
    let secret_path = format!("{secrets}/s");
    assert_eq!(support::json(&node, "GET", &secret_path, &Value::Null).await.0, 403);
    let mut user = pod("user");
    user["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    user["spec"]["nodeName"] = json!("n1");
    assert_eq!(support::json(&cluster.admin, "POST", PODS, &user).await.0, 201);
    assert_eq!(support::json(&node, "GET", &secret_path, &Value::Null).await.0, 200);
    let status = json!({"status": {"phase": "Running"}});
    let patch = [("content-type", "application/merge-patch+json")];
    let (code, _, text) = send(&node, "PATCH", &format!("{PODS}/user/status"), &patch, status.to_string()).await;
    assert_eq!(code, 200, "{text}");
    assert_eq!(send(&node, "PATCH", &format!("{PODS}/user"), &patch, status.to_string()).await.0, 403);
}

#[tokio::test]
async fn a_bound_pod_gets_its_grace_and_then_goes() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.admin.clone());
    support::json(&cluster.admin, "POST", PODS, &pod("p")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let (code, _) = support::json(&cluster.admin, "POST", &format!("{PODS}/p/binding"), &binding).await;
    assert_eq!(code, 201);
    let bound = pods.get("p").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.unwrap(), "n1");
    assert_eq!(bound.status.unwrap().conditions.unwrap()[0].type_, "PodScheduled");
    let (code, again) = support::json(&cluster.admin, "POST", "/api/v1/namespaces/default/bindings", &binding).await;
    assert_eq!((code, &again["reason"]), (409, &json!("Conflict")));

    let marked = pods.delete("p", &DeleteParams::default().grace_period(7)).await.unwrap().left().unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(7));
    let uid = marked.metadata.uid.clone();
    let last =
        DeleteParams::default().grace_period(0).preconditions(kube::api::Preconditions { uid, resource_version: None });
    pods.delete("p", &last).await.unwrap();
    assert_eq!(refused(pods.get("p").await).0, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    let mut held = map("held", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    maps.delete("held", &DeleteParams::default()).await.unwrap();
    let mut marked = maps.get("held").await.unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    marked.metadata.finalizers = Some(vec!["example.com/hold".to_owned(), "example.com/more".to_owned()]);
    assert_eq!(refused(maps.replace("held", &PostParams::default(), &marked).await).0, 422);
    marked.metadata.finalizers = None;
    maps.replace("held", &PostParams::default(), &marked).await.unwrap();
    assert_eq!(refused(maps.get("held").await).0, 404);
}

#[tokio::test]
async fn a_deleted_namespace_takes_nothing_new_and_goes_with_its_contents() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let namespace = json!({"metadata": {"name": "gone", "finalizers": ["example.com/hold"]}});
    assert_eq!(support::json(admin, "POST", "/api/v1/namespaces", &namespace).await.0, 201);
    let maps = "/api/v1/namespaces/gone/configmaps";
    assert_eq!(support::json(admin, "POST", maps, &json!({"metadata": {"name": "a"}})).await.0, 201);
    let (code, marked) = support::json(admin, "DELETE", "/api/v1/namespaces/gone", &Value::Null).await;
    assert_eq!((code, &marked["status"]["phase"]), (200, &json!("Terminating")));
    let (code, status) = support::json(admin, "POST", maps, &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "configmaps \"b\" is forbidden: unable to create new content in namespace gone because it is being terminated"
    );
    let release = json!({"metadata": {"finalizers": null}});
    let patch = [("content-type", "application/merge-patch+json")];
    assert_eq!(send(admin, "PATCH", "/api/v1/namespaces/gone", &patch, release.to_string()).await.0, 200);
    eventually("the namespace and what was in it go", async || {
        match support::json(admin, "GET", "/api/v1/namespaces/gone", &Value::Null).await {
            (404, _) => Ok(()),
            (_, found) => Err(found.to_string()),
        }
    })
    .await;
    let (_, list) = support::json(admin, "GET", maps, &Value::Null).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    for name in ["a", "b"] {
        let mut new = map(name, "1");
        new.metadata.labels = Some([("name".to_owned(), name.to_owned())].into());
        maps.create(&PostParams::default(), &new).await.unwrap();
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("name=a")).await.unwrap();
    assert_eq!(refused(maps.get("a").await).0, 404);
    assert!(maps.get("b").await.is_ok());
}

#[tokio::test]
async fn what_is_served_can_be_discovered_in_both_forms() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let legacy = admin.list_core_api_resources("v1").await.unwrap();
    let pods = legacy.resources.iter().find(|resource| resource.name == "pods").unwrap();
    assert!(
        pods.namespaced && pods.verbs.contains(&"watch".to_owned()) && pods.short_names == Some(vec!["po".to_owned()])
    );
    assert!(legacy.resources.iter().any(|resource| resource.name == "pods/log"));
    let groups = admin.list_api_groups().await.unwrap();
    assert_eq!(groups.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["coordination.k8s.io"]);
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let (code, headers, text) = send(admin, "GET", "/api", &accept, "").await;
    assert_eq!(
        (code, headers["content-type"].to_str().unwrap()),
        (200, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    );
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["items"][0]["versions"][0]["version"], "v1");
    let version = admin.apiserver_version().await.unwrap();
    assert!(version.git_version.starts_with("v1.37."));
}

#[tokio::test]
async fn a_stopped_master_comes_back_as_it_was() {
    let Cluster { folder, master, admin } = Cluster::start().await;
    support::json(&admin, "POST", MAPS, &json!({"metadata": {"name": "kept"}})).await;
    let (_, before) = support::json(&admin, "GET", &format!("{MAPS}/kept"), &Value::Null).await;
    let ca = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("pki/ca.crt")).unwrap();
    let authority = ca(&folder);
    master.shutdown().await;
    let master = berth_master::start(support::config(folder.path())).await.unwrap();
    let admin = support::client(master.admin_kubeconfig()).await;
    let (_, after) = support::json(&admin, "GET", &format!("{MAPS}/kept"), &Value::Null).await;
    assert_eq!(before, after);
    assert_eq!(authority, ca(&folder));
    // One who had seen everything goes on; one who had not is told to begin anew.
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion=1");
    let (_, _, text) = send(&admin, "GET", &path, &[], "").await;
    assert!(text.contains("too old resource version: 1"), "{text}");
    master.shutdown().await;
}
