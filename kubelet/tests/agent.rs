//! The agent as a whole, without a master: its server over real TLS, and the folder of manifests. Each test has a network
//! namespace and folders of its own; it needs root.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod node;

use std::fs;

use http::StatusCode;

use crate::node::{Identity, Node};

const PODS: &str = "/pods";

#[test]
fn the_server_answers_by_who_asks() {
    Node::run_test(|node| async move {
        let master = Identity::signed_by(&node.authority, "kube-apiserver", "system:masters");
        let other_node = Identity::signed_by(&node.authority, "system:node:other", "system:nodes");
        let log = "/containerLogs/default/web/a";
        for (who, path, expected, word) in [
            (None, "/healthz", StatusCode::OK, "ok"),
            (None, PODS, StatusCode::UNAUTHORIZED, "a client certificate is needed"),
            (None, log, StatusCode::UNAUTHORIZED, "a client certificate is needed"),
            (Some(&other_node), "/healthz", StatusCode::OK, "ok"),
            (Some(&other_node), PODS, StatusCode::FORBIDDEN, "\"system:node:other\" may not do this"),
            (Some(&master), PODS, StatusCode::OK, "\"kind\":\"PodList\""),
            (Some(&master), log, StatusCode::NOT_FOUND, "default/web"),
            (Some(&master), "/containerLogs/default/web/a?tailLines=few", StatusCode::BAD_REQUEST, "tailLines: "),
            (Some(&master), "/exec/default/web/a", StatusCode::NOT_FOUND, "there is /healthz"),
        ] {
            let (status, body) = node.get(who, path).await.unwrap();
            assert_eq!((status, body.contains(word)), (expected, true), "{path}: {body}");
        }
    });
}

#[test]
fn a_certificate_of_a_stranger_is_refused() {
    Node::run_test(|node| async move {
        let stranger = Identity::signed_by(&Identity::authority("another"), "kube-apiserver", "system:masters");
        assert!(node.get(Some(&stranger), PODS).await.is_err());
        assert_eq!(node.get(None, "/healthz").await.unwrap().0, StatusCode::OK);
    });
}

#[test]
fn endless_heads_are_refused_and_callers_without_tls_harm_nobody() {
    Node::run_test(|node| async move {
        let long = format!("/healthz?{}", "x".repeat(60 << 10));
        assert!(node.get(None, &long).await.map_or(true, |(status, _)| status.is_client_error()));
        let silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
        assert_eq!(node.get(None, "/healthz").await.unwrap().0, StatusCode::OK);
        drop(silent);
    });
}

#[test]
fn the_pods_of_the_folder_come_and_go_with_their_files() {
    Node::run_test(|node| async move {
        let master = Identity::signed_by(&node.authority, "kube-apiserver", "system:masters");
        let manifest = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: none.invalid/x}}]}}\n"
            )
        };
        fs::write(node.manifests.join("bad.yaml"), "kind: Pod\nspec: {containers: 7}\n").unwrap();
        fs::write(node.manifests.join("one.yaml"), manifest("one")).unwrap();
        fs::write(node.manifests.join("two.yaml"), manifest("two")).unwrap();
        let pods = node.pods_eventually(&master, &["one-node", "two-node"]).await;
        let annotations = &pods["items"][0]["metadata"]["annotations"];
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(annotations["kubernetes.io/config.hash"], pods["items"][0]["metadata"]["uid"]);
        fs::remove_file(node.manifests.join("one.yaml")).unwrap();
        node.pods_eventually(&master, &["two-node"]).await;
    });
}
