//! The scheduler and the controllers, as clients of a living master.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use support::{Cluster, eventually};

/// Registers a node as a kubelet does, with its own credentials.
async fn register(cluster: &Cluster, name: &str, cpu: &str) -> Client {
    let client = cluster.node(name).await;
    let node = json!({
        "metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"},
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    client
}

async fn create_pod(client: &Client, name: &str, cpu: &str) {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}],
                 "terminationGracePeriodSeconds": 0},
    });
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

async fn node_of(client: &Client, name: &str) -> Result<String, String> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = pods.get(name).await.map_err(|e| e.to_string())?;
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).ok_or_else(|| format!("{:?}", pod.status))
}

async fn has_event(client: &Client, reason: &str, message: &str) -> Result<(), String> {
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let found = events.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
    let told: Vec<_> = found.iter().map(|e| (e.reason.clone(), e.message.clone())).collect();
    let wanted = (Some(reason.to_owned()), Some(message.to_owned()));
    if told.contains(&wanted) { Ok(()) } else { Err(format!("{told:?}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_to_nodes_with_room_and_wait_for_it() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    create_pod(admin, "early", "500m").await;
    eventually("nowhere to go", async || {
        has_event(admin, "FailedScheduling", "no nodes available to schedule pods").await
    })
    .await;
    let _node = register(&cluster, "one", "1").await;
    let place = eventually("the early pod is bound", async || node_of(admin, "early").await).await;
    assert_eq!(place, "one");
    eventually("it is told", async || {
        has_event(admin, "Scheduled", "Successfully assigned default/early to one").await
    })
    .await;

    create_pod(admin, "late", "750m").await;
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    eventually("the late pod waits", async || has_event(admin, "FailedScheduling", message).await).await;
    let pods: Api<Pod> = Api::default_namespaced(admin.clone());
    eventually("its condition says so", async || {
        let conditions = pods.get("late").await.unwrap().status.and_then(|s| s.conditions).unwrap_or_default();
        let told = conditions.iter().any(|c| {
            c.type_ == "PodScheduled"
                && c.reason.as_deref() == Some("Unschedulable")
                && c.message.as_deref() == Some(message)
        });
        if told { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
    pods.delete("early", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(eventually("room is made", async || node_of(admin, "late").await).await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_get_networks_of_their_own() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        register(&cluster, name, "1").await;
    }
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let mut networks = eventually("each node has a network", async || {
        let found = nodes.list(&ListParams::default()).await.unwrap().items;
        let networks: Vec<String> = found.iter().filter_map(|n| n.spec.as_ref()?.pod_cidr.clone()).collect();
        if networks.len() == 3 { Ok(networks) } else { Err(format!("{networks:?}")) }
    })
    .await;
    networks.sort();
    assert_eq!(networks, ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_have_an_account_and_go_when_they_are_empty() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "space"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.admin.clone(), "space");
    eventually("the account is made", async || accounts.get("default").await.map_err(|e| e.to_string())).await;
    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), "space");
    let secret = serde_json::from_value(json!({"metadata": {"name": "s"}})).unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    namespaces.delete("space", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || match namespaces.get_opt("space").await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?} {:?}", left.status, left.spec)),
    })
    .await;
    assert_eq!(secrets.list(&ListParams::default()).await.unwrap().items.len(), 0);
}
