//! Making, starting and forgetting a container.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use berth_rootfs::Image;
use berth_runtime::shim::protocol::{Answer, Call, FaultKind, LogSpec};
use berth_sys::beneath::Root;
use jiff::Timestamp;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::LinuxSeccomp;

use crate::config::{ContainerConfig, SandboxConfig, Seccomp};
use crate::error::chain;
use crate::live::{Container, Sandbox};
use crate::record::ContainerRecord;
use crate::sandbox::keep_first;
use crate::shim::{Shim, ShimError};
use crate::spec::{self, Identity, Inputs, UserSpec};
use crate::status::{ContainerId, ContainerState, SandboxId};
use crate::{Error, Event, Inner, id, signal};

/// The largest seccomp profile that is read from a file, in bytes.
const PROFILE_BYTES_MAX: u64 = 1024 * 1024;

/// The largest `/etc/passwd` or `/etc/group` of an image that is read, in bytes.
const USER_FILE_BYTES_MAX: u64 = 1024 * 1024;

impl Inner {
    /// Sets a container up; on failure nothing of it is left.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, Error> {
        let failed = |message: String| Error::Create { name: config.name.clone(), message };
        let sandbox = self.sandbox(sandbox)?;
        let shim = sandbox.shim().ok_or_else(|| failed("its sandbox is not ready".to_owned()))?;
        let image = self.image(&config.image)?.ok_or_else(|| not_here("image", &config.image))?;
        let record = ContainerRecord {
            id: ContainerId(id::random().map_err(|error| failed(error.to_string()))?),
            sandbox: sandbox.id.clone(),
            image_id: image.id.clone(),
            image_ref: image.digests.first().unwrap_or(&image.id).clone(),
            stop_signal: signal::parse(
                image.config.config().as_ref().and_then(|config| config.stop_signal().as_deref()),
            ),
            created_at: Timestamp::now(),
            last_state: None,
            config,
        };
        self.layout.save_container(&record)?;
        let container = Container { record: record.clone(), state: ContainerState::Created };
        sandbox.lock().containers.insert(record.id.clone(), container);
        match self.set_up(&sandbox, &shim, &record, &image).await {
            Ok(()) => Ok(record.id),
            Err(error) => {
                if let Err(left) = self.remove_container(&record.id).await {
                    tracing::warn!(container = record.id.as_str(), %left, "a half made container could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn set_up(
        &self,
        sandbox: &Sandbox,
        shim: &Shim,
        record: &ContainerRecord,
        image: &Image,
    ) -> Result<(), Error> {
        let name = &record.config.name;
        let failed = |message: String| Error::Create { name: name.clone(), message };
        let (bundle, key) = (self.layout.bundle(&record.id), record.id.as_str());
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(&rootfs).map_err(|error| failed(error.to_string()))?;
        self.store.mount(image, key, &rootfs).await.map_err(|error| failed(chain(&error)))?;
        let sandbox_record = sandbox.lock().record.clone();
        let config = self.specification(&sandbox_record.config, record, image, &rootfs)?;
        let text = serde_json::to_vec(&config).map_err(|error| failed(error.to_string()))?;
        fs::write(bundle.join("config.json"), text).map_err(|error| failed(error.to_string()))?;
        let log = LogSpec {
            path: record.config.log_path.clone(),
            max_bytes: self.config.log_max_bytes,
            max_files: self.config.log_max_files,
        };
        let call = Call::create(key, bundle, Some(log));
        shim.call(call, Vec::new()).await.map_err(|error| failed(chain(&error))).map(drop)
    }

    fn specification(
        &self,
        sandbox: &SandboxConfig,
        record: &ContainerRecord,
        image: &Image,
        rootfs: &Path,
    ) -> Result<oci_spec::runtime::Spec, Error> {
        let container = &record.config;
        let invalid = |message: String| Error::Config { name: container.name.clone(), message };
        let inputs = Inputs {
            sandbox,
            container,
            image: &image.config,
            identity: identity(container, image, rootfs).map_err(invalid)?,
            rootfs,
            namespaces: &self.layout.shim(&record.sandbox).join("ns"),
            pod_files: &self.layout.pod_files(&record.sandbox),
            cgroup: format!("{}/{}", sandbox.cgroup, record.id.as_str()),
            bounding: self.bounding,
            seccomp: seccomp(container).map_err(invalid)?,
        };
        spec::spec(&inputs).map_err(|error| invalid(error.to_string()))
    }

    /// Runs a created container's program.
    pub(crate) async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        let (sandbox, record) = self.container(id)?;
        let failed = |message: String| Error::Start { name: record.config.name.clone(), message };
        let shim = sandbox.shim().ok_or_else(|| failed("its sandbox is not ready".to_owned()))?;
        let started = shim.call(Call::Start { container: id.as_str().to_owned() }, Vec::new()).await;
        match started.map_err(|error| failed(chain(&error)))? {
            Answer::Started { at } => {
                if let Some(container) = sandbox.lock().containers.get_mut(id)
                    && container.state == ContainerState::Created
                {
                    container.state = ContainerState::Running { started_at: at };
                }
                // Without a listener nobody is waiting for it.
                let _ = self.events.send(Event::Started { sandbox: sandbox.id.clone(), container: id.clone() });
                Ok(())
            }
            _ => Err(failed(ShimError::Answer.to_string())),
        }
    }

    /// Sends a signal to a container's first process; one that has ended needs none.
    pub(crate) async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        let (sandbox, record) = self.container(id)?;
        let Some(shim) = sandbox.shim() else { return Ok(()) };
        let call = Call::Kill { container: id.as_str().to_owned(), signal, all: false };
        match shim.call(call, Vec::new()).await {
            Ok(_) | Err(ShimError::Lost) => Ok(()),
            Err(ShimError::Fault(fault)) if fault.kind == FaultKind::NotFound => Ok(()),
            Err(error) => Err(Error::Internal {
                message: format!("cannot send signal {signal} to container {:?}: {error}", record.config.name),
            }),
        }
    }

    /// Kills a container if it runs and forgets it. Goes on at errors and returns the first.
    pub(crate) async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        let Ok((sandbox, record)) = self.container(id) else { return Ok(()) };
        let mut first = Ok(());
        if let Some(shim) = sandbox.shim() {
            match shim.call(Call::Delete { container: id.as_str().to_owned() }, Vec::new()).await {
                Ok(_) | Err(ShimError::Lost) => {}
                Err(ShimError::Fault(fault)) if fault.kind == FaultKind::NotFound => {}
                Err(error) => keep_first(
                    &mut first,
                    Err(Error::Internal {
                        message: format!("cannot delete container {:?}: {error}", record.config.name),
                    }),
                ),
            }
        }
        keep_first(&mut first, self.remove_bundle(id).await);
        first?;
        self.layout.forget_container(id)?;
        sandbox.lock().containers.remove(id);
        Ok(())
    }

    /// Removes a container's bundle and what it wrote in its root.
    pub(crate) async fn remove_bundle(&self, id: &ContainerId) -> Result<(), Error> {
        let bundle = self.layout.bundle(id);
        let unmounted = self.store.unmount(id.as_str(), &bundle.join("rootfs")).await;
        unmounted.map_err(|error| Error::Internal { message: chain(&error) })?;
        match fs::remove_dir_all(&bundle) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::Internal { message: format!("cannot remove {}: {error}", bundle.display()) })
            }
            _ => Ok(()),
        }
    }

    /// A sandbox that is known.
    pub(crate) fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        self.sandboxes.get(id).ok_or_else(|| not_here("sandbox", id.as_str()))
    }

    /// A container that is known, with its sandbox.
    pub(crate) fn container(&self, id: &ContainerId) -> Result<(Arc<Sandbox>, ContainerRecord), Error> {
        let sandbox = self.sandboxes.of_container(id).ok_or_else(|| not_here("container", id.as_str()))?;
        let record = sandbox.lock().containers.get(id).map(|container| container.record.clone());
        record.map(|record| (sandbox, record)).ok_or_else(|| not_here("container", id.as_str()))
    }
}

fn not_here(what: &'static str, id: &str) -> Error {
    Error::NotFound { what, id: id.to_owned() }
}

fn identity(container: &ContainerConfig, image: &Image, rootfs: &Path) -> Result<Identity, String> {
    let user = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let root = Root::open(rootfs).map_err(|error| format!("{}: {error}", rootfs.display()))?;
    let passwd = read_user_file(&root, "etc/passwd");
    let group = read_user_file(&root, "etc/group");
    Identity::resolve(&container.security, &UserSpec::parse(&user), &passwd, &group).map_err(|error| error.to_string())
}

/// A file of the image, followed inside the image only (CVE-2024-9676); empty where it cannot be read.
fn read_user_file(root: &Root, path: &str) -> String {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let Ok(file) = root.open_file(Path::new(path), flags, Mode::empty()) else { return String::new() };
    let mut text = Vec::new();
    match fs::File::from(file).take(USER_FILE_BYTES_MAX).read_to_end(&mut text) {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}

fn seccomp(container: &ContainerConfig) -> Result<Option<LinuxSeccomp>, String> {
    match &container.security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => {
            let named = |list: &[String], name: &str| {
                list.iter().any(|one| {
                    let one = one.to_ascii_uppercase();
                    one == "ALL" || one.strip_prefix("CAP_").unwrap_or(&one) == name
                })
            };
            spec::runtime_default(|name| named(&container.security.add_capabilities, name))
                .map(Some)
                .map_err(|error| error.to_string())
        }
        Seccomp::Localhost(path) => {
            let told = |error: String| format!("seccomp profile {}: {error}", path.display());
            let mut text = Vec::new();
            fs::File::open(path)
                .and_then(|file| file.take(PROFILE_BYTES_MAX + 1).read_to_end(&mut text))
                .map_err(|error| told(error.to_string()))?;
            if text.len() as u64 > PROFILE_BYTES_MAX {
                return Err(told(format!("is longer than {PROFILE_BYTES_MAX} bytes")));
            }
            serde_json::from_slice(&text).map(Some).map_err(|error| told(error.to_string()))
        }
    }
}
