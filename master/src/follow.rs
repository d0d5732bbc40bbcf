//! Local copies of what the API has, kept up to date by watches. The one way in which the scheduler and the controllers
//! see the cluster.

use std::fmt::Debug;
use std::future;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Follows all objects of an API. Each change wakes `changed`; failures are tried again, ever more slowly.
///
/// The copy is kept by a task in `tasks` and is not whole before `Store::wait_until_ready` says so.
pub(crate) fn follow<K>(tasks: &mut JoinSet<()>, api: Api<K>, changed: Arc<Notify>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash,
{
    let (store, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer);
    tasks.spawn(stream.for_each(move |event| {
        match event {
            Ok(_) => changed.notify_one(),
            Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch failed, trying again"),
        }
        future::ready(())
    }));
    store
}
