//! The worker of one pod: observe, plan, apply, for as long as the pod is.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_api::id::PodUid;
use berth_engine::{ContainerId, Error, SandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::apply::Job;
use super::desired::{Desired, Presence};
use super::event::{Change, Event, Outcome};
use super::memory::Memory;
use super::notice::{self, Notice};
use super::observe::{self, Observed, Sandbox};
use super::plan::{Action, Plan, Task, plan};
use super::{Context, StatusUpdate, invariants, last_words, status, unsupported};

/// What others want of a worker. Only the newest counts, so nothing is lost and nobody waits.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// The pod's object.
    pub(super) pod: Arc<Pod>,
    /// Whether the source still has it.
    pub(super) presence: Presence,
    /// How often the engine had news of the pod.
    pub(super) news: u64,
    /// How often a config map or secret of the pod changed.
    pub(super) objects: u64,
}

/// What others may know of a pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    /// Its status.
    pub(super) status: PodStatus,
    /// The runs of each container that have a log, oldest first, and whether each still runs.
    pub(super) runs: BTreeMap<String, Vec<(u32, bool)>>,
}

/// The worker.
pub(super) struct Worker {
    context: Arc<Context>,
    uid: PodUid,
    wishes: watch::Receiver<Wish>,
    shown: Arc<Mutex<Shown>>,
    /// What was heard of already.
    heard: Wish,
    memory: Memory,
    tasks: JoinSet<Outcome>,
    running: HashMap<Id, Task>,
    aborts: BTreeMap<Task, AbortHandle>,
    /// Last words, read once.
    words: BTreeMap<ContainerId, Option<String>>,
    /// The last status that was handed on, whether the pod was finished, and whether it was unwanted.
    sent: Option<(PodStatus, bool, bool)>,
}

impl Worker {
    pub(super) fn new(
        context: Arc<Context>,
        uid: PodUid,
        mut wishes: watch::Receiver<Wish>,
        shown: Arc<Mutex<Shown>>,
    ) -> Self {
        let heard = wishes.borrow_and_update().clone();
        Self {
            context,
            uid,
            wishes,
            shown,
            heard,
            memory: Memory::default(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            aborts: BTreeMap::new(),
            words: BTreeMap::new(),
            sent: None,
        }
    }

    /// Works until the pod is gone. `leave` is asked then, and says whether nobody wants it again meanwhile.
    pub(super) async fn run(mut self, leave: impl Fn(&PodUid) -> bool) {
        self.context.adopt().await;
        let mut desired = self.first_desired().await;
        loop {
            let Some(wanted) = &desired else {
                if self.heard.presence == Presence::Removed && leave(&self.uid) {
                    return;
                }
                self.next(None).await;
                desired = self.first_desired().await;
                continue;
            };
            let wanted = Arc::clone(wanted);
            let gone = self.turn(&wanted).await;
            if gone && leave(&self.uid) {
                return;
            }
            if gone {
                // Somebody wants it again: it begins from nothing.
                self.memory = Memory::default();
                self.sent = None;
                self.heard = self.wishes.borrow_and_update().clone();
                desired = self.first_desired().await;
                continue;
            }
            desired = Some(self.follow(wanted));
        }
    }

    /// One turn of the loop, up to the next event. Whether the pod is gone.
    async fn turn(&mut self, desired: &Arc<Desired>) -> bool {
        let sandboxes = self.look(desired).await;
        let now = Timestamp::now();
        self.prune(&sandboxes);
        let observed = Observed { sandboxes, memory: &self.memory };
        let node = self.context.node();
        let before = self.before(desired);
        let status = status::status(desired, &observed, &before, &node.addresses, now);
        let plan = plan(desired, &observed, now);
        for violation in invariants::violations(desired, &observed, &plan, now) {
            tracing::error!(pod = %desired.id, violation, "a plan breaks an invariant");
        }
        let changes_at = status::changes_at(&observed, now);
        let ips = addresses(desired, &observed, &node.addresses);
        self.show(&observed, &status);
        let finished = plan.finished;
        self.hand_on(desired, status, finished).await;
        let wake_at = plan.wake_at.into_iter().chain(changes_at).min();
        self.apply(desired, plan, ips, now);
        if finished && desired.presence == Presence::Removed && self.tasks.is_empty() {
            return true;
        }
        let events = self.next(wake_at).await;
        let now = Timestamp::now();
        for event in events {
            for notice in self.memory.note(desired, &event, now) {
                self.context.tell(desired, &notice);
            }
        }
        false
    }

    /// The pod as it should be, when a worker begins; `None`, and told so, if it cannot be run at all.
    async fn first_desired(&mut self) -> Option<Arc<Desired>> {
        let (pod, presence) = (Arc::clone(&self.heard.pod), self.heard.presence);
        match Desired::parse(Arc::clone(&pod), presence, self.context.world.config.restart_backoff_max) {
            Ok(desired) => {
                self.tell_unsupported(&desired);
                if presence == Presence::Wanted && !self.context.routes.of(&self.uid).is_empty() {
                    self.context.cgroups.adopt(&desired);
                }
                Some(Arc::new(desired))
            }
            Err(_) if presence == Presence::Removed => Some(Arc::new(Desired::leftover(pod, self.uid.clone()))),
            Err(error) => {
                let message = format!("the pod cannot be run: {error}");
                let reason = berth_api::reason::event::FAILED_VALIDATION;
                self.context.tell_pod(&pod, &Notice::warning(None, reason, message.clone()));
                let before = pod.status.clone().unwrap_or_default();
                let status = status::refused(&before, message, Timestamp::now());
                self.shown.lock().unwrap_or_else(PoisonError::into_inner).status = status.clone();
                let update = StatusUpdate { pod, status, finished: true };
                // Without a receiver the agent is shutting down.
                let _ = self.context.world.statuses.send(update).await;
                None
            }
        }
    }

    /// The pod as it should be, after what was heard. A version that makes no sense changes nothing. A pod that was
    /// unwanted stays so until it is gone: who wants it again, under the same uid, gets a new one then.
    fn follow(&self, desired: Arc<Desired>) -> Arc<Desired> {
        let (pod, presence) = (Arc::clone(&self.heard.pod), self.heard.presence);
        let same = Arc::ptr_eq(&desired.pod, &pod) && presence == Presence::Wanted;
        if same || desired.presence == Presence::Removed {
            return desired;
        }
        let deleted = pod.metadata.deletion_timestamp.is_some();
        if desired.presence == Presence::Deleted && !deleted {
            return Arc::new(Desired { presence: Presence::Removed, ..(*desired).clone() });
        }
        match Desired::parse(pod, presence, desired.backoff_max) {
            Ok(newer) => {
                if newer.pod.metadata.generation != desired.pod.metadata.generation {
                    self.tell_unsupported(&newer);
                }
                Arc::new(newer)
            }
            Err(error) => {
                let message = format!("this version of the pod is ignored: {error}");
                let reason = berth_api::reason::event::FAILED_VALIDATION;
                self.context.tell(&desired, &Notice::warning(None, reason, message));
                let presence = if deleted && presence == Presence::Wanted { Presence::Deleted } else { presence };
                Arc::new(Desired { presence, ..(*desired).clone() })
            }
        }
    }

    fn tell_unsupported(&self, desired: &Desired) {
        for sentence in unsupported::unsupported(desired) {
            let reason = berth_api::reason::event::NOT_SUPPORTED;
            self.context.tell(desired, &Notice::warning(None, reason, sentence));
        }
    }

    /// What the engine has of the pod, with the last words of what has ended.
    async fn look(&mut self, desired: &Desired) -> Vec<Sandbox> {
        let engine = &self.context.world.engine;
        let mut sandboxes = Vec::new();
        for id in self.context.routes.of(&self.uid) {
            match engine.sandbox(&id).await {
                Ok(found) => sandboxes.push(observe::sandbox(found)),
                Err(Error::NotFound { .. }) => self.context.routes.remove(&id),
                Err(error) => tracing::error!(pod = %desired.id, %error, "cannot look at a sandbox"),
            }
        }
        sandboxes.sort_by_key(|sandbox| (sandbox.attempt, sandbox.created_at));
        let ended = sandboxes.iter_mut().flat_map(|sandbox| &mut sandbox.containers);
        for container in ended.filter(|container| container.end().is_some()) {
            let read = || last_words::last_words(&self.context, desired, container);
            let words = self.words.get(&container.id).cloned().unwrap_or_else(read);
            self.words.insert(container.id.clone(), words.clone());
            container.message = words;
        }
        sandboxes
    }

    fn prune(&mut self, sandboxes: &[Sandbox]) {
        let containers = || sandboxes.iter().flat_map(|sandbox| &sandbox.containers).map(|container| &container.id);
        self.memory.prune(containers());
        self.words.retain(|id, _| containers().any(|known| known == id));
    }

    /// What was told last, with the conditions that are somebody else's as they are now.
    fn before(&self, desired: &Desired) -> PodStatus {
        let told = desired.pod.status.clone().unwrap_or_default();
        match &self.sent {
            Some((sent, _, _)) => status::with_foreign_conditions(sent.clone(), &told),
            None => told,
        }
    }

    fn show(&self, observed: &Observed<'_>, status: &PodStatus) {
        let mut runs: BTreeMap<String, Vec<(u32, bool)>> = BTreeMap::new();
        for (_, container) in observed.containers() {
            if container.is_running() || container.end().is_some() {
                runs.entry(container.name.clone()).or_default().push((container.attempt, container.is_running()));
            }
        }
        runs.values_mut().for_each(|runs| runs.sort_unstable());
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Shown { status: status.clone(), runs };
    }

    /// Hands a status on, if there is anything new in it.
    async fn hand_on(&mut self, desired: &Desired, status: PodStatus, finished: bool) {
        let next = (status, finished, desired.presence != Presence::Wanted);
        if self.sent.as_ref() == Some(&next) {
            return;
        }
        let update = StatusUpdate { pod: Arc::clone(&desired.pod), status: next.0.clone(), finished };
        self.sent = Some(next);
        // Without a receiver the agent is shutting down.
        let _ = self.context.world.statuses.send(update).await;
    }

    /// Begins what was planned.
    fn apply(&mut self, desired: &Arc<Desired>, plan: Plan, ips: Vec<IpAddr>, now: Timestamp) {
        self.memory.begin(&plan, now);
        for action in plan.actions {
            if let Some(notice) = notice::of_action(&action) {
                self.context.tell(desired, &notice);
            }
            if let Action::Cancel(task) = &action {
                if let Some(abort) = self.aborts.get(task) {
                    abort.abort();
                }
                continue;
            }
            let Some(task) = action.task() else { continue };
            tracing::debug!(pod = %desired.id, ?task, "begin");
            let job = Job { context: Arc::clone(&self.context), desired: Arc::clone(desired), ips: ips.clone() };
            let abort = self.tasks.spawn(job.perform(action));
            self.running.insert(abort.id(), task.clone());
            self.aborts.insert(task, abort);
        }
    }

    /// Waits for something to happen, and gives all that has happened by then.
    async fn next(&mut self, wake_at: Option<Timestamp>) -> Vec<Event> {
        let mut events = Vec::new();
        tokio::select! {
            changed = self.wishes.changed() => match changed {
                Ok(()) => self.heed(&mut events),
                // The agent is shutting down: what runs, runs on, and the next agent adopts it.
                Err(_) => std::future::pending().await,
            },
            Some(ended) = self.tasks.join_next_with_id() => self.ended(ended, &mut events),
            () = sleep_until(wake_at) => events.push(Event::Time),
        }
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended, &mut events);
        }
        if self.wishes.has_changed().unwrap_or(false) {
            self.heed(&mut events);
        }
        events
    }

    fn heed(&mut self, events: &mut Vec<Event>) {
        let wish = self.wishes.borrow_and_update().clone();
        if wish.news != self.heard.news {
            events.push(Event::Engine);
        }
        if wish.objects != self.heard.objects {
            events.push(Event::Object);
        }
        if !Arc::ptr_eq(&wish.pod, &self.heard.pod) || wish.presence != self.heard.presence {
            let (new, old) = (&wish.pod.metadata, &self.heard.pod.metadata);
            let metadata = new.labels != old.labels || new.annotations != old.annotations;
            events.push(Event::Wish(if metadata { Change::Metadata } else { Change::Other }));
        }
        self.heard = wish;
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>, events: &mut Vec<Event>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) if error.is_cancelled() => (error.id(), Outcome::Cancelled),
            Err(error) => {
                let message = format!("a bug in the agent: {error}");
                (error.id(), Outcome::Failed(super::event::Fault { reason: "InternalError", message }))
            }
        };
        let Some(task) = self.running.remove(&id) else { return };
        // A task that was begun again meanwhile has another id.
        if self.aborts.get(&task).is_some_and(|abort| abort.id() == id) {
            self.aborts.remove(&task);
        }
        if let Outcome::Failed(fault) = &outcome {
            tracing::warn!(uid = %self.uid, ?task, reason = fault.reason, message = fault.message, "failed");
        }
        events.push(Event::Ended(task, outcome));
    }
}

async fn sleep_until(wake_at: Option<Timestamp>) {
    let Some(wake_at) = wake_at else { return std::future::pending().await };
    let wait = Duration::try_from(wake_at.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(wait).await;
}

/// Where the pod is reached: at its own addresses, or at the node's.
fn addresses(desired: &Desired, observed: &Observed<'_>, host: &[IpAddr]) -> Vec<IpAddr> {
    if desired.spec().host_network == Some(true) {
        return host.to_vec();
    }
    let ready = observed.sandboxes.iter().rev().find(|sandbox| sandbox.state == SandboxState::Ready);
    ready.map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
}
