//! After a start: adopt what lives, take down what is half done, free what nobody owns.
//!
//! Three things can be found: a record whose shim answers (adopted), a record whose shim is dead (kept as a sandbox that
//! is not ready, for its owner to see how its containers ended and to remove it), and a folder, a snapshot or an address
//! without a record (freed).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use berth_runtime::shim::protocol::ExitRecord;

use crate::error::chain;
use crate::live::{Container, Sandbox, exited};
use crate::record::Phase;
use crate::sandbox::{blocking, remove_pod_files};
use crate::status::{ContainerId, ContainerState, SandboxId};
use crate::{Error, Inner, id};

impl Inner {
    /// Does all of it; what fails is told of and left for the next start.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), Error> {
        self.layout.sweep();
        for record in self.layout.sandbox_records() {
            self.sandboxes.insert(Arc::new(Sandbox::new(record)));
        }
        for record in self.layout.container_records() {
            match self.sandboxes.get(&record.sandbox) {
                Some(sandbox) => {
                    let state = record.last_state.clone().unwrap_or(ContainerState::Unknown);
                    sandbox.lock().containers.insert(record.id.clone(), Container { record, state });
                }
                None => self.layout.forget_container(&record.id)?,
            }
        }
        for sandbox in self.sandboxes.all() {
            self.adopt(&sandbox).await;
        }
        self.free_strays().await;
        Ok(())
    }

    async fn adopt(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let phase = sandbox.lock().record.phase;
        let folder = self.layout.shim(&sandbox.id);
        let result = match phase {
            Phase::Making => self.remove_sandbox(&sandbox.id).await.map_err(|error| error.to_string()),
            Phase::Stopped => Ok(()),
            Phase::Ready => match self.connect(sandbox, &folder).await {
                Ok(()) => self.remove_half_made(sandbox).await,
                Err(error) => {
                    tracing::warn!(sandbox = sandbox.id.as_str(), error = %chain(&error), "a sandbox has lost its shim");
                    read_exits(sandbox, &folder);
                    Ok(())
                }
            },
        };
        if let Err(error) = result {
            tracing::warn!(sandbox = sandbox.id.as_str(), %error, "a half made sandbox could not be taken down");
        }
    }

    /// Removes the containers that the shim does not know: their making was interrupted.
    async fn remove_half_made(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), String> {
        let unknown: Vec<_> = {
            let state = sandbox.lock();
            let unknown = state.containers.iter().filter(|(_, container)| container.state == ContainerState::Unknown);
            unknown.map(|(id, _)| id.clone()).collect()
        };
        for id in unknown {
            self.remove_container(&id).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn free_strays(self: &Arc<Self>) {
        let sandboxes: BTreeSet<_> = self.sandboxes.all().iter().map(|sandbox| sandbox.id.0.clone()).collect();
        let containers: BTreeSet<_> = self
            .sandboxes
            .all()
            .iter()
            .flat_map(|sandbox| sandbox.lock().containers.keys().cloned().collect::<Vec<_>>())
            .map(|id| id.0)
            .collect();
        for name in self.layout.names("sandboxes").into_iter().filter(|name| !sandboxes.contains(name)) {
            let folder = self.layout.shim(&SandboxId(name.clone()));
            let freed = blocking(move || crate::shim::end(&folder).map_err(|error| chain(&error))).await;
            report("sandbox", &name, freed);
        }
        for name in self.layout.names("pods").into_iter().filter(|name| !sandboxes.contains(name)) {
            let freed = remove_pod_files(&self.layout.pod_files(&SandboxId(name.clone())));
            report("pod folder", &name, freed.map_err(|error| error.to_string()));
        }
        // Others are somebody's who mounted an image by hand.
        let snapshots = self.store.snapshots().unwrap_or_default().into_iter().filter(|key| id::is_one(key));
        let bundles = self.layout.names("bundles").into_iter().chain(snapshots).collect::<BTreeSet<_>>();
        for name in bundles.into_iter().filter(|name| !containers.contains(name)) {
            let freed = self.remove_bundle(&ContainerId(name.clone())).await;
            report("container", &name, freed.map_err(|error| error.to_string()));
        }
    }

    /// Frees the addresses of sandboxes that are no more. Needs a network; called when one is set.
    pub(crate) async fn free_addresses(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        let live = move || inner.sandboxes.all().iter().map(|sandbox| sandbox.id.clone()).collect();
        if let Err(error) = self.networks.gc(live).await {
            tracing::warn!(%error, "addresses of former pods could not be freed");
        }
    }
}

fn report(what: &str, name: &str, freed: Result<(), String>) {
    match freed {
        Ok(()) => tracing::info!(what, name, "freed what nobody owned"),
        Err(error) => tracing::warn!(what, name, %error, "what nobody owns could not be freed"),
    }
}

/// How the containers ended, by the records that a dead shim left. One without a record ended with it, unseen.
pub(crate) fn read_exits(sandbox: &Sandbox, folder: &Path) {
    let mut state = sandbox.lock();
    for (id, container) in &mut state.containers {
        if container.state != ContainerState::Unknown {
            continue;
        }
        let path = folder.join("exits").join(format!("{}.json", id.as_str()));
        let record = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<ExitRecord>(&text).ok());
        if let Some(exit) = record {
            container.state = exited(&exit);
        }
    }
}
