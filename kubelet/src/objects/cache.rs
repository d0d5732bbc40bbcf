//! One kind's objects: per name one watch, and what it last said.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::ObjectKey;

/// How many objects of one kind are watched.
const OBJECTS_MAX: usize = 10_000;
/// How long one who asks waits for the first answer.
const FIRST_ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Miss(pub String);

/// What is known of one object.
#[derive(Debug, Clone)]
enum State<K> {
    /// Nothing yet.
    Asked,
    /// Nothing yet, for this reason; it is tried again.
    Failed(String),
    /// What the master has, or that it has none.
    Known(Option<Arc<K>>),
}

#[derive(Debug)]
struct Entry<K> {
    state: watch::Receiver<State<K>>,
    _watch: AbortOnDropHandle<()>,
}

/// All objects of one kind that somebody asked for.
#[derive(Debug)]
pub(super) struct Cache<K> {
    entries: Mutex<HashMap<ObjectKey, Entry<K>>>,
    changes: broadcast::Sender<ObjectKey>,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq + Send + Sync + 'static,
{
    pub(super) fn new(changes: broadcast::Sender<ObjectKey>) -> Self {
        Self { entries: Mutex::new(HashMap::new()), changes }
    }

    /// The object as it is known; the first who asks starts its watch, and waits for its first answer.
    pub(super) async fn get(&self, key: &ObjectKey, api: impl FnOnce() -> Api<K>) -> Result<Option<Arc<K>>, Miss> {
        let mut state = self.state(key, api)?;
        let answered = timeout(FIRST_ANSWER_DEADLINE, state.wait_for(|state| !matches!(state, State::Asked))).await;
        match answered {
            Ok(Ok(answer)) => match &*answer {
                State::Known(object) => Ok(object.clone()),
                State::Failed(message) => Err(Miss(message.clone())),
                State::Asked => Err(Miss("no answer yet".to_owned())),
            },
            Ok(Err(_)) => Err(Miss("its watch was ended".to_owned())),
            Err(_) => Err(Miss(format!("no answer within {FIRST_ANSWER_DEADLINE:?}"))),
        }
    }

    /// Forgets what is not among `named`.
    pub(super) fn retain(&self, named: &HashSet<ObjectKey>) {
        self.lock().retain(|key, _| named.contains(key));
    }

    fn state(&self, key: &ObjectKey, api: impl FnOnce() -> Api<K>) -> Result<watch::Receiver<State<K>>, Miss> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(key) {
            return Ok(entry.state.clone());
        }
        if entries.len() >= OBJECTS_MAX {
            return Err(Miss(format!("this node already watches {OBJECTS_MAX} objects of the kind")));
        }
        let (sender, state) = watch::channel(State::Asked);
        let task = tokio::spawn(follow(api(), key.clone(), sender, self.changes.clone()));
        entries.insert(key.clone(), Entry { state: state.clone(), _watch: AbortOnDropHandle::new(task) });
        Ok(state)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, Entry<K>>> {
        // A map of handles is whole between any two of its operations.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches one object for ever.
async fn follow<K>(api: Api<K>, key: ObjectKey, state: watch::Sender<State<K>>, changes: broadcast::Sender<ObjectKey>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq + Send + Sync + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = Some(object);
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(object)) => Some(object),
            Ok(watcher::Event::Delete(_)) => None,
            Err(error) => {
                tracing::debug!(%key, %error, "watch failed");
                state.send_if_modified(|state| fail(state, &error));
                continue;
            }
        };
        if state.send_if_modified(|state| know(state, object)) {
            // Nobody listens while there are no pods.
            let _ = changes.send(key.clone());
        }
    }
}

/// A failure is told to those who wait; it does not make forgotten what is known.
fn fail<K>(state: &mut State<K>, error: &watcher::Error) -> bool {
    match state {
        State::Known(_) => false,
        State::Asked | State::Failed(_) => {
            *state = State::Failed(error.to_string());
            true
        }
    }
}

/// Takes in what the master has, and says whether that is news.
fn know<K: Resource + PartialEq>(state: &mut State<K>, object: Option<K>) -> bool {
    let same = match (&*state, &object) {
        (State::Known(Some(old)), Some(new)) => old.resource_version() == new.resource_version() && **old == *new,
        (State::Known(None), None) => true,
        _ => false,
    };
    if !same {
        *state = State::Known(object.map(Arc::new));
    }
    !same
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(value: &str) -> ConfigMap {
        ConfigMap { data: Some([("a".to_owned(), value.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn only_news_is_told() {
        let mut state = State::Asked;
        assert!(know(&mut state, None));
        assert!(!know::<ConfigMap>(&mut state, None));
        assert!(know(&mut state, Some(map("1"))));
        assert!(!know(&mut state, Some(map("1"))));
        assert!(know(&mut state, Some(map("2"))));
        assert!(!fail(&mut state, &watcher::Error::NoResourceVersion));
        assert!(matches!(state, State::Known(Some(_))));
    }

    #[test]
    fn who_waits_is_told_of_a_failure() {
        let mut state = State::<ConfigMap>::Asked;
        assert!(fail(&mut state, &watcher::Error::NoResourceVersion));
        assert!(matches!(state, State::Failed(_)));
        assert!(know(&mut state, Some(map("1"))));
    }
}
