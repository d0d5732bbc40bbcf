//! All pods of the node: a worker for each, and the way to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use berth_api::id::{PodId, PodUid};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::desired::Presence;
use super::sandbox_config::remembered_pod;
use super::worker::{Shown, Wish, Worker};
use super::{Context, LogError, LogFile, World, logs};
use crate::objects::references;

/// How long a worker that fell over a bug rests.
const WORKER_PAUSE: Duration = Duration::from_secs(10);

/// All pods of the node. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub(crate) struct Workers {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    pods: Mutex<HashMap<PodUid, Handle>>,
}

/// The way to one worker.
struct Handle {
    wish: watch::Sender<Wish>,
    shown: Arc<Mutex<Shown>>,
}

impl Workers {
    /// No pods yet. Must be called on a runtime.
    pub(crate) fn new(world: World) -> Self {
        let inner = Arc::new(Inner { context: Arc::new(Context::new(world)), pods: Mutex::default() });
        tokio::spawn(route_news(Arc::downgrade(&inner)));
        tokio::spawn(route_changes(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// The source has this version of a pod now.
    pub(crate) fn update(&self, pod: Arc<Pod>) {
        match PodId::of(&pod) {
            Ok(id) => self.wish(&id.uid, pod, Presence::Wanted),
            Err(error) => tracing::error!(%error, "a pod that cannot even be named is left alone"),
        }
    }

    /// The source has a pod no more: it is ended with its grace period, and all it had is freed.
    pub(crate) fn remove(&self, uid: &PodUid) {
        let pods = self.inner.lock();
        let Some(handle) = pods.get(uid) else { return };
        handle.wish.send_modify(|wish| wish.presence = Presence::Removed);
    }

    /// The first complete list is in: what runs here for pods that are not in it is ended and freed.
    pub(crate) fn synced(&self, known: &HashSet<PodUid>) {
        let (workers, known) = (self.clone(), known.clone());
        tokio::spawn(async move { workers.end_leftovers(&known).await });
    }

    /// All pods with what is known of them now.
    pub(crate) fn pods(&self) -> Vec<(Arc<Pod>, PodStatus)> {
        let pods = self.inner.lock();
        pods.values().map(|handle| (Arc::clone(&handle.wish.borrow().pod), handle.shown().status.clone())).collect()
    }

    /// Where a container's log is.
    #[allow(clippy::unused_async, reason = "the contract leaves room for looking it up")]
    pub(crate) async fn log_file(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<LogFile, LogError> {
        let names = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let pods = self.inner.lock();
        let found = pods.values().filter_map(|handle| {
            let wish = handle.wish.borrow().clone();
            let id = PodId::of(&wish.pod).ok()?;
            (id.namespace == namespace && id.name == pod).then_some((wish, id, handle))
        });
        // One that is wanted before one of the same name that is going.
        let found = found.min_by_key(|(wish, _, _)| wish.presence == Presence::Removed);
        let (namespace, pod, container) = names;
        let Some((wish, id, handle)) = found else { return Err(LogError::NoPod { namespace, pod }) };
        if !has_container(&wish.pod, &container) {
            return Err(LogError::NoContainer { namespace, pod, container });
        }
        let shown = handle.shown();
        let runs = shown.runs.get(&container).map(Vec::as_slice).unwrap_or_default();
        let run = if previous { runs.iter().rev().nth(1) } else { runs.last() };
        match run {
            Some(&(attempt, running)) => {
                Ok(LogFile { path: logs::file(&self.inner.context.world.config, &id, &container, attempt), running })
            }
            None if previous => Err(LogError::NoPrevious { namespace, pod, container }),
            None => {
                let reason = waiting_reason(&shown.status, &container);
                Err(LogError::Waiting { namespace, pod, container, reason })
            }
        }
    }

    fn wish(&self, uid: &PodUid, pod: Arc<Pod>, presence: Presence) {
        let mut pods = self.inner.lock();
        if let Some(handle) = pods.get(uid) {
            handle.wish.send_modify(|wish| {
                wish.pod = pod;
                wish.presence = presence;
            });
            return;
        }
        let (wish, wishes) = watch::channel(Wish { pod, presence, news: 0, objects: 0 });
        let shown = Arc::<Mutex<Shown>>::default();
        pods.insert(uid.clone(), Handle { wish, shown: Arc::clone(&shown) });
        let context = Arc::clone(&self.inner.context);
        tokio::spawn(supervise(context, Arc::downgrade(&self.inner), uid.clone(), wishes, shown));
    }

    /// Ends what runs here for pods that are not known; returns when all of it is on its way.
    pub(crate) async fn end_leftovers(&self, known: &HashSet<PodUid>) {
        let context = &self.inner.context;
        context.adopt().await;
        let mut left: BTreeSet<PodUid> = context.routes.owners().into_iter().collect();
        left.extend(context.volumes.pods());
        match context.cgroups.pods() {
            Ok(pods) => left.extend(pods),
            Err(error) => tracing::warn!(%error, "cgroups that are left over cannot be found"),
        }
        for uid in left.into_iter().filter(|uid| !known.contains(uid)) {
            if self.inner.lock().contains_key(&uid) {
                continue;
            }
            let pod = remembered(context, &uid).await;
            tracing::info!(%uid, pod = pod.metadata.name, "a pod that nobody knows any more is ended");
            self.wish(&uid, Arc::new(pod), Presence::Removed);
        }
    }
}

impl Inner {
    /// A panic of a former holder has left the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Handle>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of a worker whose pod is gone, unless somebody wants it again.
    fn let_go(&self, uid: &PodUid) -> bool {
        let mut pods = self.lock();
        let gone = pods.get(uid).is_none_or(|handle| handle.wish.borrow().presence == Presence::Removed);
        if gone {
            pods.remove(uid);
        }
        gone
    }
}

impl Handle {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a pod's worker until the pod is gone. A worker that falls over a bug takes nobody with it: another one finds
/// what it left, as after a restart of the agent.
async fn supervise(
    context: Arc<Context>,
    inner: Weak<Inner>,
    uid: PodUid,
    wishes: watch::Receiver<Wish>,
    shown: Arc<Mutex<Shown>>,
) {
    loop {
        let worker = Worker::new(Arc::clone(&context), uid.clone(), wishes.clone(), Arc::clone(&shown));
        let inner = inner.clone();
        let leave = move |uid: &PodUid| inner.upgrade().is_none_or(|inner| inner.let_go(uid));
        // Aborted with this task, so that nothing works on when the agent stops.
        match AbortOnDropHandle::new(tokio::spawn(worker.run(leave))).await {
            Ok(()) => return,
            Err(error) => tracing::error!(%uid, %error, "a pod's worker fell over a bug and begins anew"),
        }
        tokio::time::sleep(WORKER_PAUSE).await;
    }
}

/// What is known of a pod that no source has any more.
async fn remembered(context: &Context, uid: &PodUid) -> Pod {
    for id in context.routes.of(uid) {
        if let Ok(sandbox) = context.world.engine.sandbox(&id).await {
            return remembered_pod(&sandbox.config);
        }
    }
    let mut pod = Pod::default();
    pod.metadata.uid = Some(uid.to_string());
    pod
}

/// Wakes the worker whose pod the engine has news of.
async fn route_news(inner: Weak<Inner>) {
    let Some(mut events) = inner.upgrade().map(|inner| inner.context.world.engine.events()) else { return };
    loop {
        let event = events.recv().await;
        let Some(inner) = inner.upgrade() else { return };
        let owner = match &event {
            Ok(event) => inner.context.routes.owner(event.sandbox()),
            // Who fell behind looks at everything.
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return,
        };
        let pods = inner.lock();
        match (event.is_ok(), owner) {
            (true, Some(owner)) => pods.get(&owner).into_iter().for_each(news),
            // A sandbox in the making: whoever makes it looks when it is done.
            (true, None) => {}
            (false, _) => pods.values().for_each(news),
        }
    }
}

fn news(handle: &Handle) {
    handle.wish.send_modify(|wish| wish.news = wish.news.wrapping_add(1));
}

/// Wakes the workers whose pods use a config map or secret that has changed.
async fn route_changes(inner: Weak<Inner>) {
    let Some(mut changes) = inner.upgrade().map(|inner| inner.context.world.objects.changes()) else { return };
    loop {
        let change = changes.recv().await;
        let Some(inner) = inner.upgrade() else { return };
        let key = match change {
            Ok(key) => Some(key),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return,
        };
        for handle in inner.lock().values() {
            let concerned = key.as_ref().is_none_or(|key| references(&handle.wish.borrow().pod).contains(key));
            if concerned {
                handle.wish.send_modify(|wish| wish.objects = wish.objects.wrapping_add(1));
            }
        }
    }
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let spec = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    spec.into_iter().any(|container| container.name == name)
}

fn waiting_reason(status: &PodStatus, container: &str) -> String {
    let all = [&status.init_container_statuses, &status.container_statuses];
    let told = all.into_iter().flatten().flatten().find(|told| told.name == container);
    let waiting = told.and_then(|told| told.state.as_ref()).and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.clone());
    reason.unwrap_or_else(|| berth_api::reason::waiting::CONTAINER_CREATING.to_owned())
}
