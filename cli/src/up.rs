//! `berth up` and `berth master`: one command, one working cluster.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_master::{Master, MasterConfig};
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};

use crate::args::{Folders, MasterFlags, MasterOptions, NodeFlags, UpOptions};
use crate::node::{Membership, runtime, serve, stop_on_signal};
use crate::presence::Presence;
use crate::{detach, node};

/// How long the node may take until it is Ready.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// `berth up`.
pub(crate) fn run(options: UpOptions) -> Result<ExitCode> {
    if options.detach {
        return detach::run(&options.folders.run_dir);
    }
    let _presence = Presence::take(&options.folders.run_dir)?;
    runtime()?.block_on(up(options))?;
    Ok(ExitCode::SUCCESS)
}

async fn up(options: UpOptions) -> Result<()> {
    let stop = stop_on_signal()?;
    let known = node::config(&options.folders, &options.node, Membership::default())?;
    let node_ips = berth_kubelet::node_addresses(&known);
    let master = start(&options.folders, &options.master, &node_ips).await?;
    let credentials = options.folders.state_dir.join("master/node");
    master.issue_node(&known.node_name, &node_ips, &credentials)?;
    let flags = NodeFlags { node_ip: node_ips, ..options.node };
    let agent = serve(&options.folders, &flags, Membership::of_folder(&credentials), stop.clone());
    tokio::pin!(agent);
    let ready = ready(&master, &known.node_name);
    let result = tokio::select! {
        ended = &mut agent => ended,
        failed = master.wait() => failed.map_err(Into::into),
        ready = ready => {
            ready?;
            announce(&master, &known.node_name)?;
            if options.detached {
                close_stdout()?;
            }
            tokio::select! {
                ended = agent => ended,
                failed = master.wait() => failed.map_err(Into::into),
            }
        }
    };
    stop.cancel();
    master.shutdown().await;
    result
}

/// `berth master`.
pub(crate) fn run_master(options: MasterOptions) -> Result<ExitCode> {
    let _presence = Presence::take(&options.folders.run_dir)?;
    runtime()?.block_on(async {
        let stop = stop_on_signal()?;
        let master = start(&options.folders, &options.master, &[]).await?;
        println!("The API is served at {}", master.url());
        println!("  export KUBECONFIG={}", master.admin_kubeconfig().display());
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            failed = master.wait() => failed.map_err(anyhow::Error::from),
        };
        master.shutdown().await;
        result
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn start(folders: &Folders, flags: &MasterFlags, addresses: &[IpAddr]) -> Result<Master> {
    let (san_addresses, names): (Vec<_>, Vec<_>) =
        flags.tls_san.iter().map(|name| name.parse::<IpAddr>().map_err(|_| name.clone())).partition(Result::is_ok);
    let config = MasterConfig {
        data_dir: folders.state_dir.join("master"),
        listen: flags.listen,
        advertise_addresses: addresses.iter().copied().chain(san_addresses.into_iter().flatten()).collect(),
        advertise_names: names.into_iter().filter_map(Result::err).collect(),
        cluster_cidr: flags.cluster_cidr,
    };
    berth_master::start(config).await.context("cannot start the master")
}

/// Returns when the node is Ready.
async fn ready(master: &Master, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client(master.admin_kubeconfig()).await?);
    let waiting = await_condition(nodes, name, |node: Option<&Node>| node.is_some_and(is_ready));
    let waited = tokio::time::timeout(READY_DEADLINE, waiting).await;
    waited.with_context(|| {
        format!("node {name:?} is not Ready after {READY_DEADLINE:?}; kubectl describe node tells why")
    })??;
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn announce(master: &Master, node: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Node {node:?} is Ready, the API is served at {}", master.url())?;
    writeln!(out, "  export KUBECONFIG={}", master.admin_kubeconfig().display())?;
    out.flush()
}

/// Whoever waits for this program to be ready reads its stdout to the end.
fn close_stdout() -> Result<()> {
    let nothing = std::fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(nothing)?;
    Ok(())
}
