//! Making and unmaking a sandbox: its record, shim, network and shared files, in this order and back.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use berth_runtime::shim::client;
use berth_runtime::shim::protocol::{Call, NamespaceMode, SandboxNamespaces, SandboxSpec};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::config::{NetworkMode, PidMode, SandboxConfig};
use crate::error::chain;
use crate::live::Sandbox;
use crate::record::{Phase, SandboxRecord};
use crate::shim::{Shim, ShimError};
use crate::status::{ContainerState, SandboxId};
use crate::{Error, Inner, id, pod_files};

/// The size of a pod's `/dev/shm`, as docker and containerd have it.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

impl Inner {
    /// Makes a sandbox; on failure nothing of it is left.
    pub(crate) async fn run_sandbox(self: &Arc<Self>, config: SandboxConfig) -> Result<SandboxId, Error> {
        let record = SandboxRecord {
            id: SandboxId(id::random().map_err(|error| failed(&config, &error))?),
            config,
            created_at: Timestamp::now(),
            phase: Phase::Making,
            ips: Vec::new(),
        };
        self.layout.save_sandbox(&record)?;
        let sandbox = Arc::new(Sandbox::new(record));
        self.sandboxes.insert(Arc::clone(&sandbox));
        match self.make(&sandbox).await {
            Ok(()) => Ok(sandbox.id.clone()),
            Err(error) => {
                if let Err(left) = self.remove_sandbox(&sandbox.id).await {
                    tracing::warn!(sandbox = sandbox.id.as_str(), %left, "a half made sandbox could not be taken down");
                }
                Err(error)
            }
        }
    }

    async fn make(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let config = sandbox.lock().record.config.clone();
        let folder = self.layout.shim(&sandbox.id);
        let (program, spec) = (self.config.shim.clone(), shim_spec(&sandbox.id, &config));
        let target = folder.clone();
        blocking(move || client::start_shim(&program, &target, &spec).map_err(|error| chain(&error)))
            .await
            .map_err(|error| failed(&config, &error))?;
        self.connect(sandbox, &folder).await.map_err(|error| failed(&config, &chain(&error)))?;
        let ips = match config.network {
            NetworkMode::Host => Vec::new(),
            NetworkMode::Pod => self.networks.add(&sandbox.id, &config, &self.layout.netns(&sandbox.id)).await?,
        };
        self.write_pod_files(&sandbox.id, &config, &ips).map_err(|error| failed(&config, &error))?;
        let record = {
            let mut state = sandbox.lock();
            state.record.ips = ips;
            state.record.phase = Phase::Ready;
            state.record.clone()
        };
        self.layout.save_sandbox(&record)
    }

    /// Connects to a sandbox's shim and takes over what it knows of the containers.
    pub(crate) async fn connect(self: &Arc<Self>, sandbox: &Arc<Sandbox>, folder: &Path) -> Result<(), ShimError> {
        let (listener, events) = (Arc::downgrade(sandbox), self.events.clone());
        let (shim, containers) = Shim::connect(folder, move |told| {
            if let Some(sandbox) = listener.upgrade() {
                sandbox.take(told, &events);
            }
        })
        .await?;
        let mut state = sandbox.lock();
        for (id, found) in containers {
            let found = crate::live::state_of(&found);
            if let Some(known) = state.containers.get_mut(&crate::ContainerId(id)) {
                known.state = found;
            }
        }
        state.shim = Some(shim);
        Ok(())
    }

    fn write_pod_files(&self, id: &SandboxId, config: &SandboxConfig, ips: &[IpAddr]) -> io::Result<()> {
        let folder = self.layout.pod_files(id);
        pod_files::write(&folder, config, ips)?;
        if config.host_ipc {
            return Ok(());
        }
        let shm = folder.join("shm");
        std::fs::create_dir_all(&shm)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Ok(mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(SHM_OPTIONS))?)
    }

    /// Releases a sandbox's network and kills what runs in it. Goes on at errors and returns the first.
    pub(crate) async fn stop_sandbox(self: &Arc<Self>, id: &SandboxId) -> Result<(), Error> {
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(()) };
        let record = sandbox.lock().record.clone();
        if record.phase == Phase::Stopped {
            return Ok(());
        }
        let mut first = Ok(());
        if record.config.network == NetworkMode::Pod {
            let netns = self.layout.netns(id);
            keep_first(&mut first, self.networks.del(id, &record.config, &netns).await);
        }
        keep_first(&mut first, self.end_shim(&sandbox, &record.config).await);
        keep_first(&mut first, self.save_last_states(&sandbox));
        let record = {
            let mut state = sandbox.lock();
            // With an error it stays as it was, so that the next call tries again.
            if first.is_ok() {
                state.record.phase = Phase::Stopped;
            }
            state.record.clone()
        };
        keep_first(&mut first, self.layout.save_sandbox(&record));
        first
    }

    /// Ends a living shim, or cleans up after a dead one: either way its folder and everything in the pod is gone.
    async fn end_shim(&self, sandbox: &Arc<Sandbox>, config: &SandboxConfig) -> Result<(), Error> {
        let folder = self.layout.shim(&sandbox.id);
        if let Some(shim) = sandbox.shim() {
            if let Err(error) = shim.call(Call::Shutdown, Vec::new()).await {
                tracing::warn!(sandbox = sandbox.id.as_str(), %error, "the shim did not end by itself");
                let folder = folder.clone();
                let killed = blocking(move || client::kill_shim(&folder).map_err(|error| chain(&error))).await;
                killed.map_err(|error| failed(config, &error))?;
            }
            sandbox.lock().shim = None;
        }
        // Also without a connection it may live: whoever made the sandbox can have died before there was one.
        let ended = blocking(move || crate::shim::end(&folder).map_err(|error| chain(&error))).await;
        ended.map_err(|error| failed(config, &error))
    }

    /// The shim that knew how the containers ended is gone: what is known now is kept with their records.
    fn save_last_states(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let records: Vec<_> = {
            let mut state = sandbox.lock();
            let containers = state.containers.values_mut();
            containers
                .map(|container| {
                    if matches!(container.state, ContainerState::Running { .. } | ContainerState::Created) {
                        container.state = ContainerState::Unknown;
                    }
                    container.record.last_state = Some(container.state.clone());
                    container.record.clone()
                })
                .collect()
        };
        let mut first = Ok(());
        for record in records {
            keep_first(&mut first, self.layout.save_container(&record));
        }
        first
    }

    /// Stops a sandbox and forgets it. Goes on at errors and returns the first; what could not be removed stays known.
    pub(crate) async fn remove_sandbox(self: &Arc<Self>, id: &SandboxId) -> Result<(), Error> {
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(()) };
        let mut first = self.stop_sandbox(id).await;
        let containers: Vec<_> = sandbox.lock().containers.keys().cloned().collect();
        for container in containers {
            keep_first(&mut first, self.remove_container(&container).await);
        }
        keep_first(&mut first, remove_pod_files(&self.layout.pod_files(id)));
        first?;
        self.layout.forget_sandbox(id)?;
        self.sandboxes.remove(id);
        Ok(())
    }
}

/// Removes the files that a pod's containers share, and its `/dev/shm`.
pub(crate) fn remove_pod_files(folder: &Path) -> Result<(), Error> {
    match umount2(&folder.join("shm"), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => {
            return Err(Error::Internal { message: format!("cannot unmount {}/shm: {errno}", folder.display()) });
        }
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Internal { message: format!("cannot remove {}: {error}", folder.display()) })
        }
        _ => Ok(()),
    }
}

fn shim_spec(id: &SandboxId, config: &SandboxConfig) -> SandboxSpec {
    let own_unless = |host: bool| if host { NamespaceMode::Host } else { NamespaceMode::New };
    let host_network = config.network == NetworkMode::Host;
    SandboxSpec {
        id: id.as_str().to_owned(),
        hostname: config.hostname.clone(),
        namespaces: SandboxNamespaces {
            user: NamespaceMode::Host,
            net: own_unless(host_network),
            ipc: own_unless(config.host_ipc),
            uts: own_unless(host_network),
            pid: match config.pid {
                PidMode::Container => NamespaceMode::Container,
                PidMode::Pod => NamespaceMode::New,
                PidMode::Host => NamespaceMode::Host,
            },
        },
        uid_mappings: Vec::new(),
        gid_mappings: Vec::new(),
        cgroup: config.cgroup.clone(),
        sysctls: config.sysctls.clone(),
        handler: None,
    }
}

fn failed(config: &SandboxConfig, error: &dyn std::fmt::Display) -> Error {
    Error::Sandbox { pod: format!("{}/{}", config.namespace, config.name), message: error.to_string() }
}

/// Remembers the first of several failures of one teardown.
pub(crate) fn keep_first(first: &mut Result<(), Error>, next: Result<(), Error>) {
    if let Err(error) = next {
        match first {
            Ok(()) => *first = Err(error),
            Err(_) => tracing::warn!(%error, "one more failure while taking down"),
        }
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
