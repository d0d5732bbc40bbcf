//! The master's pods for this node: a watch that starts again by itself. While the master is away nothing is lost and
//! nothing is taken away: only a complete list, or the master's word, makes a pod gone.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

/// What the master says.
#[derive(Debug)]
pub(super) enum News {
    /// These are all pods of this node.
    All(Vec<Arc<Pod>>),
    /// This pod is new, or has changed.
    Changed(Arc<Pod>),
    /// This pod is gone.
    Gone(Arc<Pod>),
}

/// Follows the master until nobody listens.
pub(super) async fn follow(client: Client, node: String, news: mpsc::Sender<News>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut events = pin!(watcher(Api::<Pod>::all(client), config).default_backoff());
    let mut listed = Vec::new();
    let mut is_failing = false;
    while let Some(event) = events.next().await {
        let told = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(pod)) => {
                listed.push(Arc::new(slim(pod)));
                None
            }
            Ok(watcher::Event::InitDone) => Some(News::All(std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(pod)) => Some(News::Changed(Arc::new(slim(pod)))),
            Ok(watcher::Event::Delete(pod)) => Some(News::Gone(Arc::new(slim(pod)))),
            Err(error) => {
                // Told once per absence, not once per try.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "the master cannot be watched; pods run on, trying on");
                }
                continue;
            }
        };
        if told.is_some() && std::mem::replace(&mut is_failing, false) {
            tracing::info!("the master is watched again");
        }
        if let Some(told) = told
            && news.send(told).await.is_err()
        {
            return;
        }
    }
}

/// Who changed which field when is of no use here, and half of an object's size.
fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod
}
