//! Performing one action: long work is a task of its own, and its end is an event.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_api::reason::{event as word, waiting};
use berth_engine::{ContainerId, ContainerState, Error};
use k8s_openapi::api::core::v1::Container as Spec;

use super::container_config::{self, ConfigFault, Fetched, Fields, Inputs, container_config};
use super::desired::Desired;
use super::event::{Fault, Outcome, Product};
use super::notice::Notice;
use super::plan::{Action, Freed, Start, Stop};
use super::sandbox_config::{parse_resolv_conf, sandbox_config};
use super::{Context, logs};
use crate::image;
use crate::objects::ObjectKind;
use crate::probe::{self, Kind, Rules, Target};

/// A pull that takes longer is given up, and begun again.
const PULL_DEADLINE: Duration = Duration::from_secs(3600);
const SANDBOX_DEADLINE: Duration = Duration::from_secs(120);
const VOLUMES_DEADLINE: Duration = Duration::from_secs(180);
const START_DEADLINE: Duration = Duration::from_secs(120);
/// A `postStart` handler has no deadline in the API; this one keeps a broken one from holding a container for ever.
const POST_START_DEADLINE: Duration = Duration::from_secs(600);
const TEARDOWN_DEADLINE: Duration = Duration::from_secs(120);
/// The kernel's resolver file is small.
const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;

/// What a task needs of its pod, as it was when the task began.
pub(super) struct Job {
    pub(super) context: Arc<Context>,
    pub(super) desired: Arc<Desired>,
    /// The pod's addresses.
    pub(super) ips: Vec<IpAddr>,
}

impl Job {
    /// Performs an action to its end.
    pub(super) async fn perform(self, action: Action) -> Outcome {
        let (deadline, work) = match &action {
            Action::Pull { .. } => (PULL_DEADLINE, "the pull"),
            Action::Sandbox { .. } => (SANDBOX_DEADLINE, "making the sandbox"),
            Action::Volumes => (VOLUMES_DEADLINE, "mounting the volumes"),
            Action::Start(_) => (START_DEADLINE + POST_START_DEADLINE, "starting the container"),
            Action::Stop(stop) => (Duration::from_secs(stop.grace_secs) + TEARDOWN_DEADLINE, "stopping the container"),
            Action::Probe { rules, .. } => (rules.timeout + TEARDOWN_DEADLINE, "the probe"),
            _ => (TEARDOWN_DEADLINE, "taking down"),
        };
        let reason = reason_of(&action);
        let sandbox = matches!(action, Action::Sandbox { .. });
        let fault = match tokio::time::timeout(deadline, self.run(action)).await {
            Ok(Ok(product)) => return Outcome::Done(product),
            Ok(Err(fault)) => fault,
            Err(_) => Fault { reason, message: format!("{work} did not end within {deadline:?}") },
        };
        if sandbox {
            // What could not be undone is still there, and is taken down by the next plan.
            self.context.find_sandboxes().await;
        }
        Outcome::Failed(fault)
    }

    async fn run(&self, action: Action) -> Result<Product, Fault> {
        let engine = &self.context.world.engine;
        match action {
            Action::Volumes => self.volumes().await,
            Action::Sandbox { attempt } => self.sandbox(attempt).await,
            Action::Pull { name, attempt } => self.pull(&name, attempt).await,
            Action::Start(start) => self.start(start).await,
            Action::Stop(stop) => self.stop(stop).await,
            Action::Kill { id, .. } => {
                engine.signal_container(&id, nix::libc::SIGKILL).await.map_err(|error| fault(&error))?;
                Ok(Product::Nothing)
            }
            Action::Forget { id } => nothing(engine.remove_container(&id).await),
            Action::StopSandbox { id } => nothing(engine.stop_sandbox(&id).await),
            Action::RemoveSandbox { id } => nothing(engine.remove_sandbox(&id).await),
            Action::Free(freed) => self.free(freed).await,
            Action::Probe { id, name, kind, rules } => self.probe(id, name, kind, rules).await,
            Action::Cancel(_) | Action::Tell(_) => Ok(Product::Nothing),
        }
    }

    async fn volumes(&self) -> Result<Product, Fault> {
        let node = self.context.node();
        let fields = self.fields(&node);
        self.context.volumes.set_up(&self.desired, fields, &self.context.world.objects).await?;
        Ok(Product::Nothing)
    }

    async fn sandbox(&self, attempt: u32) -> Result<Product, Fault> {
        let failed = |message: String| Fault { reason: word::FAILED_CREATE_POD_SAND_BOX, message };
        let config = &self.context.world.config;
        let (cgroups, desired) = (self.context.cgroups.clone(), Arc::clone(&self.desired));
        let cgroup = blocking(move || cgroups.make(&desired).map_err(|error| chain(&error))).await.map_err(failed)?;
        logs::make_folder(config, &self.desired).map_err(|error| failed(error.to_string()))?;
        let host = parse_resolv_conf(&read_start(&config.resolv_conf));
        let cgroup = cgroup.display().to_string();
        let sandbox =
            sandbox_config(&self.desired, attempt, cgroup, config, &host).map_err(|error| failed(error.to_string()))?;
        let id = self.context.world.engine.run_sandbox(sandbox).await.map_err(|error| fault(&error))?;
        self.context.routes.add(id, &self.desired.id.uid);
        Ok(Product::Nothing)
    }

    async fn pull(&self, name: &str, attempt: u32) -> Result<Product, Fault> {
        let world = &self.context.world;
        let spec = self.spec(name)?;
        let tell = |notice| self.context.tell(&self.desired, &notice);
        image::provide(&world.engine, &world.objects, &self.desired, spec, attempt, tell).await
    }

    async fn start(&self, start: Start) -> Result<Product, Fault> {
        let engine = &self.context.world.engine;
        let spec = self.spec(&start.name)?;
        let tell = |reason, message: String| {
            self.context.tell(&self.desired, &Notice::normal(Some(&start.name), reason, message));
        };
        let id = match &start.created {
            Some(id) => id.clone(),
            None => {
                let id = self.create(spec, &start).await?;
                tell(word::CREATED, format!("Created container: {}", start.name));
                id
            }
        };
        if let Err(error) = engine.start_container(&id).await {
            self.forget_if_not_ended(&start, &id).await;
            return Err(Fault { reason: waiting::RUN_CONTAINER_ERROR, message: error.to_string() });
        }
        let config = &self.context.world.config;
        let log = logs::file(config, &self.desired.id, &start.name, start.attempt);
        if let Err(error) = logs::link(config, &self.desired.id, &start.name, id.as_str(), &log) {
            tracing::warn!(pod = %self.desired.id, container = start.name, %error, "no link to the log");
        }
        tell(word::STARTED, format!("Started container {}", start.name));
        self.post_start(spec, &id).await;
        Ok(Product::Nothing)
    }

    async fn create(&self, spec: &Spec, start: &Start) -> Result<ContainerId, Fault> {
        let config_fault = |message: String| Fault::from(ConfigFault { message });
        let fetched = self.fetch(spec).await?;
        let (context, node) = (&self.context, self.context.node());
        let fields = self.fields(&node);
        let env = container_config::environment(spec, fields, &fetched).map_err(Fault::from)?;
        let value = move |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let (volumes, desired, name) = (context.volumes.clone(), Arc::clone(&self.desired), start.name.clone());
        let attempt = start.attempt;
        let (places, words) = blocking(move || {
            let Some((_, spec)) = desired.container(&name) else { return Err(format!("no container {name:?}")) };
            let places = volumes.places(&desired, spec, value).map_err(|error| error.to_string())?;
            let words = volumes.termination_log(&desired.id.uid, &name, attempt).map_err(|error| error.to_string())?;
            Ok((places, words))
        })
        .await
        .map_err(config_fault)?;
        let config = &context.world.config;
        let inputs = Inputs {
            container: spec,
            start,
            fields,
            fetched: &fetched,
            places: &places,
            log_path: logs::file(config, &self.desired.id, &start.name, start.attempt),
            termination_log: &words,
            seccomp_dir: &config.state_dir.join("seccomp"),
            config,
        };
        let engine_config = container_config(&inputs).map_err(Fault::from)?;
        logs::prepare(config, &self.desired.id, &start.name).map_err(|error| config_fault(error.to_string()))?;
        let created = context.world.engine.create_container(&start.sandbox, engine_config).await;
        created.map_err(|error| fault(&error))
    }

    /// What the container's environment refers to.
    async fn fetch(&self, spec: &Spec) -> Result<Fetched, Fault> {
        let (objects, namespace) = (&self.context.world.objects, &self.desired.id.namespace);
        let unavailable = |error: crate::objects::ObjectError| Fault::from(ConfigFault { message: error.to_string() });
        let mut fetched = Fetched::default();
        for (kind, name) in container_config::references(spec) {
            match kind {
                ObjectKind::ConfigMap => {
                    let map = objects.config_map(namespace, &name).await.map_err(unavailable)?;
                    fetched.config_maps.insert(name, map);
                }
                ObjectKind::Secret => {
                    let secret = objects.secret(namespace, &name).await.map_err(unavailable)?;
                    fetched.secrets.insert(name, secret);
                }
            }
        }
        Ok(fetched)
    }

    /// A container whose program could not be run is kept if the engine knows it as ended: that is its end. One that
    /// still waits for its start would wait for ever.
    async fn forget_if_not_ended(&self, start: &Start, id: &ContainerId) {
        let engine = &self.context.world.engine;
        let Ok(sandbox) = engine.sandbox(&start.sandbox).await else { return };
        let found = sandbox.containers.into_iter().find(|container| container.id == *id);
        if found.is_some_and(|container| container.state == ContainerState::Created)
            && let Err(error) = engine.remove_container(id).await
        {
            tracing::warn!(pod = %self.desired.id, container = start.name, %error, "a container that did not start could not be removed");
        }
    }

    /// A handler that fails ends the container, which is then started again by its restart policy.
    async fn post_start(&self, spec: &Spec, id: &ContainerId) {
        let handler = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(handler) = handler else { return };
        let Err(message) = probe::handle(&self.target(spec, id), handler, POST_START_DEADLINE).await else { return };
        let message = format!("PostStartHook failed: {message}");
        self.context.tell(&self.desired, &Notice::warning(Some(&spec.name), word::FAILED_POST_START_HOOK, message));
        if let Err(error) = self.context.world.engine.signal_container(id, nix::libc::SIGKILL).await {
            tracing::warn!(pod = %self.desired.id, container = spec.name, %error, "cannot end a container whose handler failed");
        }
    }

    /// A `preStop` handler that fails is told, and the signal is sent all the same.
    async fn stop(&self, stop: Stop) -> Result<Product, Fault> {
        let engine = &self.context.world.engine;
        if let (Some(handler), Ok(spec)) = (&stop.pre_stop, self.spec(&stop.name)) {
            let grace = Duration::from_secs(stop.grace_secs);
            if let Err(message) = probe::handle(&self.target(spec, &stop.id), handler, grace).await {
                let message = format!("PreStopHook failed: {message}");
                let notice = Notice::warning(Some(&stop.name), word::FAILED_PRE_STOP_HOOK, message);
                self.context.tell(&self.desired, &notice);
            }
        }
        let signal = engine.stop_signal(&stop.id).await.map_err(|error| fault(&error))?;
        nothing(engine.signal_container(&stop.id, signal).await)
    }

    async fn free(&self, freed: Freed) -> Result<Product, Fault> {
        let (context, id) = (Arc::clone(&self.context), self.desired.id.clone());
        blocking(move || {
            // Each is tried, whatever becomes of the others.
            let volumes = context.volumes.free(&id.uid).map_err(|error| chain(&error));
            let cgroup = context.cgroups.remove(&id.uid).map_err(|error| chain(&error));
            let logs = match freed {
                Freed::ButLogs => Ok(()),
                Freed::All => logs::remove(&context.world.config, &id).map_err(|error| error.to_string()),
            };
            volumes.and(cgroup).and(logs)
        })
        .await
        .map_err(|message| Fault { reason: word::FAILED_KILL_POD, message })?;
        Ok(Product::Nothing)
    }

    async fn probe(&self, id: ContainerId, name: String, kind: Kind, rules: Rules) -> Result<Product, Fault> {
        let spec = self.spec(&name)?;
        let Some(asked) = kind.of(spec) else { return Ok(Product::Nothing) };
        let answer = probe::ask(&self.target(spec, &id), asked, rules.timeout).await;
        Ok(Product::Probe { name, answer, rules })
    }

    fn target<'a>(&'a self, spec: &'a Spec, id: &'a ContainerId) -> Target<'a> {
        Target { engine: &self.context.world.engine, id, spec, ip: self.ips.first().copied() }
    }

    fn fields<'a>(&'a self, node: &'a crate::node::NodeFacts) -> Fields<'a> {
        Fields { desired: &self.desired, pod_ips: &self.ips, node, node_name: &self.context.world.config.node_name }
    }

    fn spec(&self, name: &str) -> Result<&Spec, Fault> {
        let found = self.desired.container(name).map(|(_, spec)| spec);
        found.ok_or_else(|| ConfigFault { message: format!("container {name:?} is not in the pod any more") }.into())
    }
}

/// What a task that ran out of time is told as.
fn reason_of(action: &Action) -> &'static str {
    match action {
        Action::Pull { .. } => waiting::ERR_IMAGE_PULL,
        Action::Sandbox { .. } => word::FAILED_CREATE_POD_SAND_BOX,
        Action::Volumes => word::FAILED_MOUNT,
        Action::Start(_) => waiting::RUN_CONTAINER_ERROR,
        _ => word::FAILED_KILL_POD,
    }
}

fn nothing(result: Result<(), Error>) -> Result<Product, Fault> {
    result.map(|()| Product::Nothing).map_err(|error| fault(&error))
}

fn fault(error: &Error) -> Fault {
    Fault { reason: error.reason(), message: error.to_string() }
}

/// An error with all that is beneath it: events and statuses are the only place where users see it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(beneath) = source {
        let beneath_text = beneath.to_string();
        if !text.ends_with(&beneath_text) {
            text = format!("{text}: {beneath_text}");
        }
        source = beneath.source();
    }
    text
}

/// The beginning of a file; empty where it cannot be read.
fn read_start(path: &Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(RESOLV_CONF_BYTES_MAX).read_to_string(&mut text));
    if read.is_ok() { text } else { String::new() }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
