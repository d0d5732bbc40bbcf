//! Logs, from a kubelet that this test plays: with the credentials that a node is issued.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use support::{Cluster, pod, send};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Serves what comes through the channel as a log; refuses the container `waiting`.
async fn kubelet(dir: &Path, lines: mpsc::Receiver<&'static str>) -> SocketAddr {
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read("ca.crt")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let tls = rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(
        vec![CertificateDer::from_pem_slice(&read("serving.crt")).unwrap()],
        PrivateKeyDer::from_pem_slice(&read("serving.key")).unwrap(),
    );
    let acceptor = TlsAcceptor::from(Arc::new(tls.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lines = Arc::new(tokio::sync::Mutex::new(lines));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let lines = Arc::clone(&lines);
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let lines = Arc::clone(&lines);
                async move {
                    let target = request.uri().to_string();
                    if target.contains("/waiting") {
                        let words = "container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating";
                        let mut refusal = http::Response::new(Full::new(Bytes::from(words)).boxed_unsync());
                        *refusal.status_mut() = http::StatusCode::BAD_REQUEST;
                        return Ok::<_, Infallible>(refusal);
                    }
                    let first = futures::stream::once(async move { Bytes::from(format!("{target}\n")) });
                    let rest = futures::stream::unfold(lines, |lines| async move {
                        let line = lines.lock().await.recv().await?;
                        Some((Bytes::from(line), lines))
                    });
                    let body = StreamBody::new(first.chain(rest).map(|line| Ok::<_, Infallible>(Frame::data(line))));
                    Ok(http::Response::new(body.boxed_unsync()))
                }
            });
            tokio::spawn(
                hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .into_owned(),
            );
        }
    });
    address
}

/// A node whose kubelet is at an address, and a pod with two containers on it.
async fn furnish(cluster: &Cluster, node: &str, address: SocketAddr) {
    let made = json!({"metadata": {"name": node}});
    assert_eq!(support::json(&cluster.admin, "POST", "/api/v1/nodes", &made).await.0, 201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": address.ip().to_string()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
    }});
    let patch = [("content-type", "application/merge-patch+json")];
    let (code, _, text) =
        send(&cluster.admin, "PATCH", &format!("/api/v1/nodes/{node}/status"), &patch, status.to_string()).await;
    assert_eq!(code, 200, "{text}");
    let mut two = pod("p");
    two["spec"]["nodeName"] = json!(node);
    two["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "waiting", "image": "i"}]);
    let (code, made) = support::json(&cluster.admin, "POST", PODS, &two).await;
    assert_eq!(code, 201, "{made}");
}

#[tokio::test]
async fn logs_flow_from_the_kubelet_as_they_are_written() {
    let cluster = Cluster::start().await;
    let dir = cluster.folder.path().join("n1");
    cluster.master.issue_node("n1", &[], &dir).unwrap();
    let (say, lines) = mpsc::channel(4);
    furnish(&cluster, "n1", kubelet(&dir, lines).await).await;

    let pods: Api<Pod> = Api::default_namespaced(cluster.admin.clone());
    let follow =
        LogParams { follow: true, container: Some("a".to_owned()), tail_lines: Some(5), ..LogParams::default() };
    let mut log = pods.log_stream("p", &follow).await.unwrap().lines();
    assert_eq!(log.try_next().await.unwrap().unwrap(), "/containerLogs/default/p/a?follow=true&tailLines=5");
    for line in ["one", "two"] {
        say.send(if line == "one" { "one\n" } else { "two\n" }).await.unwrap();
        assert_eq!(log.try_next().await.unwrap().unwrap(), line);
    }
    drop(say);
    assert_eq!(log.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_says_why() {
    let cluster = Cluster::start().await;
    let dir = cluster.folder.path().join("n1");
    cluster.master.issue_node("n1", &[], &dir).unwrap();
    let (_say, lines) = mpsc::channel(4);
    furnish(&cluster, "n1", kubelet(&dir, lines).await).await;
    let message = async |path: &str| {
        let (code, status) = support::json(&cluster.admin, "GET", &format!("{PODS}/{path}"), &json!(null)).await;
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    };
    let waiting = "container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating";
    assert_eq!(message("p/log?container=waiting").await, (400, waiting.to_owned()));
    let choose = "a container name must be specified for pod p, choose one of: [a waiting]";
    assert_eq!(message("p/log").await, (400, choose.to_owned()));
    assert_eq!(message("p/log?container=x").await, (400, "container x is not valid for pod p".to_owned()));
    assert_eq!(message("q/log").await, (404, "pods \"q\" not found".to_owned()));
    // Nothing has run of a pod without a node.
    assert_eq!(support::json(&cluster.admin, "POST", PODS, &pod("free")).await.0, 201);
    assert_eq!(send(&cluster.admin, "GET", &format!("{PODS}/free/log"), &[], "").await.0, 200);
}

#[tokio::test]
async fn a_kubelet_with_another_nodes_certificate_is_not_believed() {
    let cluster = Cluster::start().await;
    let dir = cluster.folder.path().join("n2");
    cluster.master.issue_node("n2", &["127.0.0.1".parse().unwrap()], &dir).unwrap();
    let (_say, lines) = mpsc::channel(4);
    furnish(&cluster, "n1", kubelet(&dir, lines).await).await;
    let (code, status) = support::json(&cluster.admin, "GET", &format!("{PODS}/p/log?container=a"), &json!(null)).await;
    assert_eq!(code, 500);
    assert!(status["message"].as_str().unwrap().contains("certificate"), "{status}");
}
