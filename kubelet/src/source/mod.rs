//! Where pods come from: the folder and the master, made one stream of calls to the workers.
//!
//! It owns the answer to "which pods should be here": a pod is gone when its own origin says so, and what runs without
//! being wanted is ended only after every origin has given its complete list.

mod apiserver;
mod file;
mod manifest;
pub(crate) mod mirror;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use berth_api::id::{PodId, PodUid};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use self::apiserver::News;
use self::file::Listing;
use self::mirror::Mirrors;
use crate::config::Config;
use crate::objects::{Objects, references};
use crate::pod::Workers;

/// How many changes wait at most; an origin waits when there are more.
const QUEUE_MAX: usize = 256;
/// The pause before steps on mirrors that failed are tried again.
const MIRROR_RETRY: Duration = Duration::from_secs(5);
/// How long the master has for one step on a mirror.
const MIRROR_DEADLINE: Duration = Duration::from_secs(10);

/// The pods of one origin.
#[derive(Debug, Default)]
struct Origin {
    pods: HashMap<PodUid, Arc<Pod>>,
    is_complete: bool,
}

/// What the task knows.
pub(crate) struct Sources {
    config: Arc<Config>,
    client: Option<Client>,
    workers: Workers,
    objects: Objects,
    /// Mirrors by uid, as the master has them.
    mirror_pods: HashMap<PodUid, Arc<Pod>>,
    mirrors: watch::Sender<Arc<Mirrors>>,
    folder: Origin,
    master: Origin,
    is_synced: bool,
    mirror_retry_at: Option<Instant>,
}

impl Sources {
    /// `mirrors` is where the objects that stand for static pods are shown.
    pub(crate) fn new(
        config: Arc<Config>,
        client: Option<Client>,
        workers: Workers,
        objects: Objects,
        mirrors: watch::Sender<Arc<Mirrors>>,
    ) -> Self {
        // An origin that there is none of is complete from the start.
        let folder = Origin { is_complete: config.static_pod_path.is_none(), ..Origin::default() };
        let master = Origin { is_complete: client.is_none(), ..Origin::default() };
        Self {
            config,
            client,
            workers,
            objects,
            mirror_pods: HashMap::new(),
            mirrors,
            folder,
            master,
            is_synced: false,
            mirror_retry_at: None,
        }
    }

    /// Follows both origins for ever.
    pub(crate) async fn run(mut self) {
        let (listings_in, mut listings) = mpsc::channel(1);
        let (news_in, mut news) = mpsc::channel(QUEUE_MAX);
        let mut origins = tokio::task::JoinSet::new();
        if let Some(path) = self.config.static_pod_path.clone() {
            origins.spawn(file::follow(path, self.config.node_name.clone(), listings_in.clone()));
        }
        if let Some(client) = self.client.clone() {
            origins.spawn(apiserver::follow(client, self.config.node_name.clone(), news_in.clone()));
        }
        self.tell_synced();
        loop {
            let retry_at = self.mirror_retry_at;
            tokio::select! {
                Some(listing) = listings.recv() => self.take_listing(listing),
                Some(told) = news.recv() => self.take_news(told),
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
            }
            self.tell_synced();
            self.tend_mirrors().await;
        }
    }

    fn take_listing(&mut self, listing: Listing) {
        let gone = self.folder.replace(listing, &self.workers);
        self.folder.is_complete = true;
        self.forget(gone);
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::All(pods) => {
                let (mirrors, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| mirror::is_mirror(pod));
                self.mirror_pods = mirrors.into_iter().filter_map(|pod| Some((uid(&pod)?, pod))).collect();
                self.show_mirrors();
                let gone = self.master.replace(pods, &self.workers);
                self.master.is_complete = true;
                self.forget(gone);
            }
            News::Changed(pod) if mirror::is_mirror(&pod) => {
                if let Some(uid) = uid(&pod) {
                    self.mirror_pods.insert(uid, pod);
                    self.show_mirrors();
                }
            }
            News::Gone(pod) if mirror::is_mirror(&pod) => {
                if let Some(uid) = uid(&pod) {
                    self.mirror_pods.remove(&uid);
                    self.show_mirrors();
                }
            }
            News::Changed(pod) => self.master.put(pod, &self.workers),
            News::Gone(pod) => {
                let known = uid(&pod).filter(|uid| self.master.pods.remove(uid).is_some());
                self.forget(known.into_iter().collect());
            }
        }
    }

    /// Ends pods that their origin has no more, and lets go of what only they named.
    fn forget(&self, gone: Vec<PodUid>) {
        if gone.is_empty() {
            return;
        }
        for uid in &gone {
            self.workers.remove(uid);
        }
        let pods = self.folder.pods.values().chain(self.master.pods.values());
        let named: HashSet<_> = pods.flat_map(|pod| references(pod)).collect();
        self.objects.retain(&named);
    }

    fn tell_synced(&mut self) {
        if !self.is_synced && self.folder.is_complete && self.master.is_complete {
            self.is_synced = true;
            let known = self.folder.pods.keys().chain(self.master.pods.keys()).cloned().collect();
            self.workers.synced(&known);
        }
    }

    fn show_mirrors(&self) {
        self.mirrors.send_replace(Arc::new(Mirrors::new(self.mirror_pods.values().cloned())));
    }

    /// Makes the mirrors what they should be, once both sides are known.
    async fn tend_mirrors(&mut self) {
        self.mirror_retry_at = None;
        let Some(client) = &self.client else { return };
        if !self.folder.is_complete || !self.master.is_complete {
            return;
        }
        let mirrors = Arc::clone(&self.mirrors.borrow());
        for step in mirror::plan(self.folder.pods.values(), &mirrors) {
            let failure = match timeout(MIRROR_DEADLINE, mirror::apply(client, &step)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {MIRROR_DEADLINE:?}"),
            };
            tracing::warn!(failure, "mirror of a static pod; trying on");
            self.mirror_retry_at = Some(Instant::now() + MIRROR_RETRY);
            return;
        }
    }
}

impl Origin {
    /// Puts a complete list in place of what was; gives what is gone.
    fn replace(&mut self, pods: Vec<Arc<Pod>>, workers: &Workers) -> Vec<PodUid> {
        let listed: HashSet<PodUid> = pods.iter().filter_map(|pod| uid(pod)).collect();
        let gone: Vec<PodUid> = self.pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in &gone {
            self.pods.remove(uid);
        }
        for pod in pods {
            self.put(pod, workers);
        }
        gone
    }

    /// Takes in one pod; the workers hear of it if it is news.
    fn put(&mut self, pod: Arc<Pod>, workers: &Workers) {
        let id = match PodId::of(&pod) {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(pod = pod.name_any(), %error, "pod refused");
                return;
            }
        };
        if self.pods.get(&id.uid) == Some(&pod) {
            return;
        }
        self.pods.insert(id.uid, Arc::clone(&pod));
        workers.update(pod);
    }
}

fn uid(pod: &Pod) -> Option<PodUid> {
    PodUid::try_from(pod.uid()?).ok()
}
