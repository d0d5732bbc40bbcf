//! How long a pod takes from its binding to Ready, alone and among twenty, how long its deletion takes, and how much
//! memory each of berth's processes has meanwhile. No kubectl is in the measured path: a client on the machine creates
//! pods that are bound already and watches.
//!
//! The programs are those beside this one, or where BERTH_BIN says.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_tests::cluster::{KUBECONFIG, Node};
use berth_tests::machine::succeeded;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

/// How many pods, one after the other, give the median.
const SINGLE_RUNS: usize = 20;

/// How many pods are started at once.
const AT_ONCE: usize = 20;

/// What no measurement may exceed.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("--on-the-machine") => tokio::runtime::Runtime::new()?.block_on(measure("bench")),
        _ => from_outside(),
    }
}

/// Starts a machine with a cluster of one node, and this program on it.
fn from_outside() -> anyhow::Result<()> {
    let node = Node::up("bench");
    let this = std::env::current_exe()?;
    let output = node.machine.output(this, &["--on-the-machine"]);
    print!("{}", succeeded(&output, "bench-path on the machine"));
    Ok(())
}

async fn measure(node: &str) -> anyhow::Result<()> {
    let kubeconfig = Kubeconfig::read_from(KUBECONFIG)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let pods: Api<Pod> = Api::default_namespaced(Client::try_from(config)?);
    println!("{:<44}{:>10}{:>10}{:>10}", "", "median", "min", "max");

    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for run in 0..=SINGLE_RUNS {
        let name = format!("single-{run}");
        let started = until_ready(&pods, node, std::slice::from_ref(&name)).await?;
        if run == 1 {
            memory("memory (PSS) with 1 pod")?;
        }
        let ended = until_gone(&pods, &[name]).await?;
        // The first one pays for what is made once: bridge, rules, page cache.
        if run > 0 {
            starts.push(started);
            ends.push(ended);
        }
    }
    row(&format!("1 pod, bound -> Ready, {SINGLE_RUNS} runs"), &mut starts)?;
    row(&format!("1 pod, deleted -> gone, {SINGLE_RUNS} runs"), &mut ends)?;

    let names: Vec<_> = (0..AT_ONCE).map(|number| format!("many-{number}")).collect();
    let started = until_ready(&pods, node, &names).await?;
    memory(&format!("memory (PSS) with {AT_ONCE} pods"))?;
    let ended = until_gone(&pods, &names).await?;
    row(&format!("{AT_ONCE} pods at once, first bound -> last Ready"), &mut [started])?;
    row(&format!("{AT_ONCE} pods at once, first deleted -> last gone"), &mut [ended])?;
    Ok(())
}

/// Creates pods that are bound to the node and tells how long it took until the last of them was Ready.
async fn until_ready(pods: &Api<Pod>, node: &str, names: &[String]) -> anyhow::Result<Duration> {
    let changes = watch(pods).await?;
    let start = Instant::now();
    let creations = names.iter().map(|name| async move {
        pods.create(&PostParams::default(), &pod(node, name)?).await.map_err(anyhow::Error::from)
    });
    futures::future::try_join_all(creations).await?;
    wait(changes, names, |event| match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) if is_ready(pod) => pod.metadata.name.clone(),
        _ => None,
    })
    .await?;
    Ok(start.elapsed())
}

/// Deletes pods and tells how long it took until the last of them was gone from the API.
async fn until_gone(pods: &Api<Pod>, names: &[String]) -> anyhow::Result<Duration> {
    let changes = watch(pods).await?;
    let start = Instant::now();
    let deletions = names.iter().map(|name| async move { pods.delete(name, &DeleteParams::default()).await.map(drop) });
    futures::future::try_join_all(deletions).await?;
    wait(changes, names, |event| match event {
        WatchEvent::Deleted(pod) => pod.metadata.name.clone(),
        _ => None,
    })
    .await?;
    Ok(start.elapsed())
}

type Changes = futures::stream::BoxStream<'static, kube::Result<WatchEvent<Pod>>>;

async fn watch(pods: &Api<Pod>) -> anyhow::Result<Changes> {
    let version = pods.list(&Default::default()).await?.metadata.resource_version.unwrap_or_default();
    Ok(pods.watch(&WatchParams::default(), &version).await?.boxed())
}

/// Reads changes until `done` has named every pod.
async fn wait(
    mut changes: Changes,
    names: &[String],
    done: impl Fn(&WatchEvent<Pod>) -> Option<String>,
) -> anyhow::Result<()> {
    let mut missing: BTreeSet<_> = names.iter().cloned().collect();
    let waiting = async {
        while let Some(event) = changes.try_next().await? {
            if let Some(name) = done(&event) {
                missing.remove(&name);
            }
            if missing.is_empty() {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    waited.unwrap_or_else(|_| Err(anyhow::anyhow!("not within {DEADLINE:?}: {missing:?}")))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn pod(node: &str, name: &str) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(serde_json::json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 30,
            "containers": [{
                "name": "main",
                "image": "busybox:1",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
            }],
        },
    }))?)
}

fn row(what: &str, times: &mut [Duration]) -> anyhow::Result<()> {
    times.sort_unstable();
    let shown = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    let (median, min, max) = (times[times.len() / 2], times[0], times[times.len() - 1]);
    println!("{what:<44}{:>10}{:>10}{:>10}", shown(median), shown(min), shown(max));
    Ok(std::io::stdout().flush()?)
}

/// The proportional set size of every process of berth, added up by program.
fn memory(what: &str) -> anyhow::Result<()> {
    let (mut agent, mut shims, mut count) = (0, 0, 0);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) else { continue };
        let Some(kib) = proportional_kib(&entry.path()) else { continue };
        match name.trim() {
            "berth" => agent += kib,
            "berth-shim" => {
                shims += kib;
                count += 1;
            }
            _ => {}
        }
    }
    println!("{what:<44}{:>10}", format!("{} KiB", agent + shims));
    println!("{:<44}{:>10}", "  master and agent (one process)", format!("{agent} KiB"));
    println!("{:<44}{:>10}", format!("  {count} shims"), format!("{shims} KiB"));
    Ok(())
}

fn proportional_kib(process: &Path) -> Option<u64> {
    let rollup = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB").parse().ok()
}
