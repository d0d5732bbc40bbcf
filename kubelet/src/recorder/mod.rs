//! Events on their way to the master: a bounded queue that never makes anybody wait, and one task that counts repeats,
//! holds the rate, and writes.
//!
//! Events are news, not truth: what cannot be told within [`TRIES_MAX`] tries is dropped and counted in the log.

mod aggregate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use self::aggregate::{Aggregator, Bucket, Seen, Write};

/// How many events wait at most.
const QUEUE_MAX: usize = 1000;
/// How often one event is tried.
const TRIES_MAX: u32 = 6;
/// How long the master has to take one.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// Whether an event is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    /// What was to be expected.
    Normal,
    /// What somebody should see.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Where events are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Seen>,
    dropped: Arc<AtomicU64>,
}

/// The other end: what is to be written, and how fast.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Receiver<Seen>,
    dropped: Arc<AtomicU64>,
}

/// How fast events may go out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// On average; 0 sends none.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// A recorder and its other end, to be run by [`Outbox::run`].
pub(crate) fn recorder() -> (Recorder, Outbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    (Recorder { queue: sender, dropped: Arc::clone(&dropped) }, Outbox { queue: receiver, dropped })
}

impl Recorder {
    /// Records that something happened to a pod, or to one of its containers. Never waits: an event that finds no room
    /// is counted and dropped.
    pub(crate) fn event(
        &self,
        about: &Pod,
        container: Option<&str>,
        kind: EventType,
        reason: &'static str,
        message: String,
    ) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: about.namespace(),
            name: Some(about.name_any()),
            uid: about.uid(),
            resource_version: about.resource_version(),
            field_path: container.and_then(|name| field_path(about, name)),
        };
        self.hand_in(about, kind, reason, message);
    }

    /// Records that something happened to the node itself.
    pub(crate) fn node_event(&self, node: &str, kind: EventType, reason: &'static str, message: String) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            // Events of nodes carry the name here: that is how `kubectl describe node` finds them.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        self.hand_in(about, kind, reason, message);
    }

    fn hand_in(&self, about: ObjectReference, kind: EventType, reason: &'static str, message: String) {
        let seen = Seen { about, kind, reason, message, at: Timestamp::now() };
        if self.queue.try_send(seen).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where in the pod's spec a container stands, in the words of `kubectl describe`.
fn field_path(pod: &Pod, container: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_init = spec.init_containers.iter().flatten().any(|init| init.name == container);
    Some(format!("spec.{}{{{container}}}", if is_init { "initContainers" } else { "containers" }))
}

impl Outbox {
    /// Writes what comes until all recorders are gone. Without a client events go to the log alone.
    pub(crate) async fn run(mut self, client: Option<Client>, node: String, rate: Rate) {
        let mut aggregator = Aggregator::new(node);
        let mut bucket = Bucket::full(f64::from(rate.burst), Timestamp::now());
        while let Some(seen) = self.queue.recv().await {
            log(&seen);
            self.tell_dropped();
            let Some(client) = client.as_ref().filter(|_| rate.per_second > 0) else { continue };
            while !bucket.take(Timestamp::now(), f64::from(rate.burst), f64::from(rate.per_second)) {
                sleep(Duration::from_secs(1) / rate.per_second).await;
            }
            match aggregator.take(seen) {
                Some(write) => write_patiently(client, &mut aggregator, write).await,
                None => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn tell_dropped(&self) {
        match self.dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            count => tracing::warn!(count, "events dropped: too many, or too many about one object"),
        }
    }
}

fn log(seen: &Seen) {
    let object = format!(
        "{} {}/{}",
        seen.about.kind.as_deref().unwrap_or_default(),
        seen.about.namespace.as_deref().unwrap_or_default(),
        seen.about.name.as_deref().unwrap_or_default()
    );
    match seen.kind {
        EventType::Normal => tracing::info!(object, reason = seen.reason, "{}", seen.message),
        EventType::Warning => tracing::warn!(object, reason = seen.reason, "{}", seen.message),
    }
}

async fn write_patiently(client: &Client, aggregator: &mut Aggregator, write: Write) {
    let started = Instant::now();
    let mut delay = RETRY_FIRST;
    for _ in 0..TRIES_MAX {
        match timeout(WRITE_DEADLINE, write_once(client, aggregator, &write)).await {
            Ok(Ok(())) => return,
            // Refused: the namespace is going, or the agent may not. Trying again changes nothing.
            Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
                tracing::debug!(%status, "event refused");
                return;
            }
            Ok(Err(error)) => tracing::debug!(%error, "event not written"),
            Err(_) => tracing::debug!("event not written within {WRITE_DEADLINE:?}"),
        }
        sleep(delay).await;
        delay = (delay * 2).min(RETRY_MOST);
    }
    tracing::warn!(waited = ?started.elapsed(), "event dropped: the master does not take it");
}

async fn write_once(client: &Client, aggregator: &mut Aggregator, write: &Write) -> Result<(), kube::Error> {
    let event = match write {
        Write::Create(event) => event,
        Write::Repeat(event) => {
            match events(client, event).patch(&event.name_any(), &PatchParams::default(), &repeat(event)).await {
                // It was forgotten there, as events are after an hour.
                Err(kube::Error::Api(status)) if status.code == 404 => event,
                other => return other.map(|_| ()),
            }
        }
    };
    let renamed = aggregator.rename(event);
    match events(client, &renamed).create(&PostParams::default(), &renamed).await {
        // A try before this one arrived after all.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}

fn events(client: &Client, event: &Event) -> Api<Event> {
    Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"))
}

fn repeat(event: &Event) -> Patch<serde_json::Value> {
    Patch::Merge(serde_json::json!({ "count": event.count, "lastTimestamp": event.last_timestamp }))
}
