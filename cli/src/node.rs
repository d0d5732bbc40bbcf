//! `berth node`: the agent, on the engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use berth_engine::{Engine, EngineConfig};
use berth_kubelet::{CertificateFiles, Config, Options};
use berth_sys::file::{self, Durability};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::{Folders, NodeFlags, NodeOptions};
use crate::presence::Presence;

/// What a node needs of a master.
#[derive(Debug, Clone, Default)]
pub(crate) struct Membership {
    /// How to reach the master.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Whose clients may call the node.
    pub(crate) client_ca: Option<PathBuf>,
    /// What the node shows to its callers.
    pub(crate) serving: Option<CertificateFiles>,
}

impl Membership {
    /// What `berth issue-node` left in a folder.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        Self {
            kubeconfig: Some(folder.join("kubeconfig")),
            client_ca: Some(folder.join("ca.crt")),
            serving: Some(CertificateFiles {
                certificate: folder.join("serving.crt"),
                key: folder.join("serving.key"),
            }),
        }
    }
}

pub(crate) fn run(options: NodeOptions) -> Result<ExitCode> {
    let _presence = Presence::take(&options.folders.run_dir)?;
    let membership = match (options.credentials, options.kubeconfig) {
        (Some(folder), _) => Membership::of_folder(&folder),
        (None, kubeconfig) => Membership { kubeconfig, ..Membership::default() },
    };
    runtime()?.block_on(async {
        let stop = stop_on_signal()?;
        serve(&options.folders, &options.node, membership, stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the agent until `stop`; the pods stay.
pub(crate) async fn serve(
    folders: &Folders,
    flags: &NodeFlags,
    membership: Membership,
    stop: CancellationToken,
) -> Result<()> {
    remember(folders, flags)?;
    let config = config(folders, flags, membership)?;
    let engine = Engine::open(engine_config(&config, flags)?).await?;
    berth_kubelet::run(config, engine, stop).await?;
    Ok(())
}

/// The agent's configuration.
pub(crate) fn config(folders: &Folders, flags: &NodeFlags, membership: Membership) -> Result<Config> {
    Ok(Config::load(Options {
        config_file: flags.config.clone(),
        kubeconfig: membership.kubeconfig,
        node_name: flags.hostname_override.clone(),
        node_ips: flags.node_ip.clone(),
        state_dir: folders.state_dir.clone(),
        run_dir: folders.run_dir.clone(),
        pod_log_dir: flags.pod_logs_dir.clone(),
        container_log_dir: Some(flags.container_logs_dir.clone()),
        static_pod_path: flags.pod_manifest_path.clone(),
        node_labels: flags.labels(),
        cgroup_root: flags.cgroup_root.clone(),
        bridge: flags.bridge.clone(),
        port: flags.port,
        client_ca_file: membership.client_ca,
        server_certificate: membership.serving,
        pod_cidrs: Vec::new(),
    })?)
}

/// The engine's configuration.
pub(crate) fn engine_config(config: &Config, flags: &NodeFlags) -> Result<EngineConfig> {
    Ok(EngineConfig {
        state_dir: config.state_dir.clone(),
        run_dir: config.run_dir.clone(),
        shim: shim(flags)?,
        cni_bin_dirs: flags.cni_bin_dir.clone(),
        cni_conf_dir: flags.cni_conf_dir.clone(),
        insecure_registries: flags.insecure_registry.clone(),
        registry_config_dir: Some(flags.registry_config_dir.clone()),
        log_max_bytes: config.log_max_bytes,
        log_max_files: config.log_max_files,
    })
}

fn shim(flags: &NodeFlags) -> Result<PathBuf> {
    let path = match &flags.shim {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("cannot tell where this program is")?.with_file_name("berth-shim"),
    };
    if !path.is_file() {
        anyhow::bail!("the shim is not at {}: install berth-shim beside berth, or name it with --shim", path.display());
    }
    Ok(path)
}

fn memory(folders: &Folders) -> PathBuf {
    folders.run_dir.join("node.json")
}

/// Keeps how the node was started, for `berth down`.
fn remember(folders: &Folders, flags: &NodeFlags) -> Result<()> {
    let path = memory(folders);
    let text = serde_json::to_vec_pretty(flags)?;
    file::replace(&path, &text, Durability::Process).with_context(|| format!("cannot write {}", path.display()))
}

/// How the node was started the last time; `None` if it never was.
pub(crate) fn remembered(folders: &Folders) -> Result<Option<NodeFlags>> {
    let path = memory(folders);
    match fs::read(&path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| path.display().to_string())?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The async runtime of everything that serves: few threads, since nearly all of the work is waiting.
pub(crate) fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("cannot start the runtime")
}

/// Cancelled by SIGTERM and SIGINT.
pub(crate) fn stop_on_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        told.cancel();
    });
    Ok(stop)
}
