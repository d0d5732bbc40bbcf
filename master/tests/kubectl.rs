//! The kubectl that is installed, with its validation on, against a master of its own. Both ends of the versions that
//! are about (1.20 and 1.32) must pass; `KUBECTL` names another one.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use support::{Cluster, send};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// For one command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
data: {password: czNjcmV0}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  schedulerName: nobody
  containers:
  - name: main
    image: busybox
    command: [sleep, '100']
    env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}]
    resources: {requests: {cpu: 500m, memory: 64Mi}, limits: {memory: 128Mi}}
    ports: [{containerPort: 80}]
  volumes: [{name: key, secret: {secretName: key}}]
";

struct Kubectl {
    cluster: Cluster,
}

impl Kubectl {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        std::fs::write(cluster.folder.path().join("manifest.yaml"), MANIFEST).unwrap();
        Self { cluster }
    }

    fn command(&self, words: &str) -> Command {
        let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = Command::new(program);
        command
            .arg("--kubeconfig")
            .arg(self.cluster.master.admin_kubeconfig())
            .arg("--cache-dir")
            .arg(self.cluster.folder.path().join("cache"))
            .args(words.split_whitespace())
            .current_dir(self.cluster.folder.path())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs; answers success and both outputs.
    async fn run(&self, words: &str) -> (bool, String, String) {
        let output = timeout(COMMAND_DEADLINE, self.command(words).output()).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {words}: no end")).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    async fn ok(&self, words: &str) -> String {
        let (success, out, err) = self.run(words).await;
        assert!(success, "kubectl {words}:\n{out}{err}");
        out
    }

    async fn fails(&self, words: &str) -> String {
        let (success, out, err) = self.run(words).await;
        assert!(!success, "kubectl {words} should fail:\n{out}{err}");
        err
    }
}

#[tokio::test]
async fn manifests_are_applied_seen_changed_and_deleted() {
    let kubectl = Kubectl::start().await;
    let applied = kubectl.ok("apply -f manifest.yaml").await;
    assert_eq!(applied, "configmap/settings created\nsecret/key created\npod/web created\n");
    let again = kubectl.ok("apply -f manifest.yaml").await;
    assert_eq!(again, "configmap/settings unchanged\nsecret/key unchanged\npod/web unchanged\n");
    std::fs::write(
        kubectl.cluster.folder.path().join("manifest.yaml"),
        MANIFEST.replace("hello", "goodbye").replace("{app: web}", "{app: web, tier: front}"),
    )
    .unwrap();
    let changed = kubectl.ok("apply -f manifest.yaml").await;
    assert_eq!(changed, "configmap/settings configured\nsecret/key unchanged\npod/web configured\n");
    assert_eq!(kubectl.ok("get cm settings -o jsonpath={.data.greeting}").await, "goodbye");
    assert_eq!(kubectl.ok("get secret key -o jsonpath={.data.password}").await, "czNjcmV0");

    let wide = kubectl.ok("get pods -o wide").await;
    let columns: Vec<&str> = wide.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns[..6], ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]);
    assert!(wide.lines().nth(1).unwrap().starts_with("web "), "{wide}");
    assert!(kubectl.ok("get pod web -o yaml").await.contains("\n  uid: "));
    let described = kubectl.ok("describe pod web").await;
    assert!(described.contains("Image:      busybox") && described.contains("Events:"), "{described}");
    assert!(kubectl.ok("get pods,cm,secrets -A -l app=web").await.contains("pod/web"));
    assert!(kubectl.ok("get all").await.contains("web"));

    let deleted = kubectl.ok("delete -f manifest.yaml").await;
    assert!(deleted.contains("pod \"web\" deleted"), "{deleted}");
    assert!(kubectl.fails("get pod web").await.contains("Error from server (NotFound): pods \"web\" not found"));
}

#[tokio::test]
async fn objects_are_labelled_annotated_and_patched_in_three_ways() {
    let kubectl = Kubectl::start().await;
    kubectl.ok("create -f manifest.yaml").await;
    assert!(kubectl.fails("create -f manifest.yaml").await.contains("(AlreadyExists)"));
    kubectl.ok("label pod web a=1").await;
    kubectl.ok("annotate pod web b=2").await;
    kubectl.ok(r#"patch pod web --type=json -p [{"op":"add","path":"/metadata/labels/c","value":"3"}]"#).await;
    kubectl.ok(r#"patch pod web --type=merge -p {"metadata":{"labels":{"d":"4"}}}"#).await;
    let image = r#"patch pod web -p {"spec":{"containers":[{"name":"main","image":"busybox:2"}]}}"#;
    kubectl.ok(image).await;
    let labels =
        kubectl.ok("get pod web -o jsonpath={.metadata.labels.a}{.metadata.labels.c}{.metadata.labels.d}").await;
    assert_eq!(labels, "134");
    assert_eq!(kubectl.ok("get pod web -o jsonpath={.spec.containers[*].image}").await, "busybox:2");
    kubectl.ok("label pod web a-").await;
    assert_eq!(kubectl.ok("get pod web -o jsonpath={.metadata.labels.a}").await, "");
    let refused = kubectl.fails(r#"patch pod web -p {"spec":{"restartPolicy":"Never"}}"#).await;
    assert!(refused.contains("The Pod \"web\" is invalid: spec: Forbidden"), "{refused}");
    assert!(kubectl.ok("replace -f manifest.yaml --force").await.contains("pod/web replaced"));
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_made() {
    let kubectl = Kubectl::start().await;
    let file = kubectl.cluster.folder.path().join("manifest.yaml");
    std::fs::write(&file, MANIFEST.replace("command:", "comand:")).unwrap();
    let told = kubectl.fails("apply -f manifest.yaml").await;
    assert!(told.contains("comand"), "{told}");
    assert!(kubectl.fails("get pod web").await.contains("NotFound"));
    std::fs::write(&file, MANIFEST.replace("name: main", "name: Main")).unwrap();
    let told = kubectl.fails("apply -f manifest.yaml").await;
    assert!(told.contains("spec.containers[0].name: Invalid value: \"Main\""), "{told}");
    let nobody = kubectl.fails("create cm x --from-literal=a=b -n nowhere").await;
    assert!(nobody.contains("namespaces \"nowhere\" not found"), "{nobody}");
}

#[tokio::test]
async fn what_create_makes_without_a_manifest_arrives() {
    let kubectl = Kubectl::start().await;
    kubectl.ok("create ns space").await;
    kubectl.ok("create configmap cm --from-literal=a=b -n space").await;
    kubectl.ok("create secret generic s --from-literal=c=d -n space").await;
    kubectl.ok("create serviceaccount robot -n space").await;
    kubectl.ok("run once --image=busybox --restart=Never -n space").await;
    assert_eq!(kubectl.ok("get cm cm -n space -o jsonpath={.data.a}").await, "b");
    assert_eq!(kubectl.ok("get secret s -n space -o jsonpath={.data.c}").await, "ZA==");
    assert!(kubectl.ok("get sa -n space").await.contains("robot"));
    assert_eq!(kubectl.ok("get pod once -n space -o jsonpath={.spec.restartPolicy}").await, "Never");
    let gone = kubectl.ok("delete ns space").await;
    assert!(gone.contains("namespace \"space\" deleted"), "{gone}");
    assert!(kubectl.fails("get ns space").await.contains("NotFound"));
}

#[tokio::test]
async fn waiting_and_watching_hear_of_changes() {
    let kubectl = Kubectl::start().await;
    kubectl.ok("apply -f manifest.yaml").await;
    let mut watching = kubectl.command("get pods -w").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || timeout(support::DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(next().await.starts_with("NAME"));
    assert!(next().await.contains("Pending"));
    let mut waiting = kubectl.command("wait --for=condition=Ready pod/web --timeout=30s").spawn().unwrap();
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "main", "ready": true, "restartCount": 0, "image": "busybox", "imageID": "x",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }],
    }});
    let patch = [("content-type", "application/merge-patch+json")];
    let path = "/api/v1/namespaces/default/pods/web/status";
    let (code, _, text) = send(&kubectl.cluster.admin, "PATCH", path, &patch, status.to_string()).await;
    assert_eq!(code, 200, "{text}");
    let line = next().await;
    assert!(line.contains("1/1") && line.contains("Running"), "{line}");
    assert!(timeout(COMMAND_DEADLINE, waiting.wait()).await.unwrap().unwrap().success());
    watching.kill().await.unwrap();
}

#[tokio::test]
async fn nodes_and_events_are_shown() {
    let kubectl = Kubectl::start().await;
    let admin = &kubectl.cluster.admin;
    support::json(admin, "POST", "/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    kubectl.ok("apply -f manifest.yaml").await;
    let uid = kubectl.ok("get pod web -o jsonpath={.metadata.uid}").await;
    let event = json!({
        "metadata": {"name": "e"}, "reason": "Tested", "message": "it works", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "uid": uid},
    });
    let (code, made) = support::json(admin, "POST", "/api/v1/namespaces/default/events", &event).await;
    assert_eq!(code, 201, "{made}");
    assert!(kubectl.ok("get nodes -o wide").await.contains("n1"));
    assert!(kubectl.ok("describe node n1").await.contains("Non-terminated Pods"));
    assert!(kubectl.ok("get events").await.contains("it works"));
    assert!(kubectl.ok("describe pod web").await.contains("it works"));
    assert!(kubectl.ok("version -o yaml").await.contains("gitVersion: v1.37.0"));
    assert!(kubectl.ok("api-resources").await.contains("configmaps"));
    assert!(kubectl.ok("explain pod.spec.restartPolicy").await.contains("Restart policy"));
    kubectl.ok("cordon n1").await;
    assert!(kubectl.ok("get node n1").await.contains("SchedulingDisabled"));
}
