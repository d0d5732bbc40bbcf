//! A master of one's own: in a temporary folder, on a free port of the loopback.
#![allow(dead_code)]

use std::path::Path;
use std::time::{Duration, Instant};

use berth_master::{Master, MasterConfig, start};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) master: Master,
    pub(crate) admin: Client,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let master = start(config(folder.path())).await.unwrap();
        let admin = client(master.admin_kubeconfig()).await;
        Self { folder, master, admin }
    }

    /// A client with the credentials of a node.
    pub(crate) async fn node(&self, name: &str) -> Client {
        let credentials = self.master.issue_node(name, &[], &self.folder.path().join(name)).unwrap();
        client(&credentials.kubeconfig).await
    }
}

pub(crate) fn config(data_dir: &Path) -> MasterConfig {
    MasterConfig {
        data_dir: data_dir.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise_addresses: Vec::new(),
        advertise_names: Vec::new(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
    }
}

pub(crate) async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Sends a request; answers code, headers and body.
pub(crate) async fn send(
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> (u16, http::HeaderMap, String) {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(kube::client::Body::from(body.into())).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
}

/// Sends JSON; answers code and JSON.
pub(crate) async fn json(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (code, _, text) = send(client, method, path, &[("content-type", "application/json")], body).await;
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Waits until something is so; tells what it last was otherwise.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > DEADLINE => panic!("{what}: not in time; last: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) fn pod(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "busybox"}], "schedulerName": "nobody"},
    })
}
