//! How long a pod takes from its binding to Ready, alone and among twenty, how long its deletion takes, and how much
//! memory each of berth's processes has meanwhile. No kubectl is in the measured path: a client on the machine creates
//! pods that are bound already and watches.
//!
//! The programs are those beside this one, or where BERTH_BIN says.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
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

/// How long to wait until what was started is really idle.
const SETTLING: Duration = Duration::from_secs(5);

/// How long idleness is watched: some renewals of the node's lease are in it.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// What no measurement may exceed.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("--on-the-machine") => tokio::runtime::Runtime::new()?.block_on(measure("bench")),
        _ => from_outside(),
    }
}

/// Starts a machine with a master and a node as two processes, and this program on it.
fn from_outside() -> anyhow::Result<()> {
    let node = Node::beside_its_master("bench");
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
            memory("memory (PSS), agent and shims, 1 pod")?;
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
    memory(&format!("memory (PSS), agent and shims, {AT_ONCE} pods"))?;
    idle().await?;
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

/// What a process of berth is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Agent,
    Shim,
    Master,
}

/// Every process of berth on the machine, by its folder in `/proc`.
fn processes() -> anyhow::Result<Vec<(Part, PathBuf)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(command) = std::fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let words: Vec<_> = command.split('\0').collect();
        let name = Path::new(words[0]).file_name().unwrap_or_default();
        let part = match (name.to_str(), words.get(1).copied()) {
            (Some("berth"), Some("node")) => Part::Agent,
            (Some("berth"), Some("master")) => Part::Master,
            (Some("berth-shim"), _) => Part::Shim,
            _ => continue,
        };
        all.push((part, entry.path()));
    }
    Ok(all)
}

/// The proportional set size of every process of berth.
fn memory(what: &str) -> anyhow::Result<()> {
    let all = processes()?;
    let of = |part| -> u64 {
        let processes = all.iter().filter(|(one, _)| *one == part);
        processes.filter_map(|(_, process)| proportional_kib(process)).sum()
    };
    let row = |what: &str, kib: u64| println!("{what:<44}{:>10}", format!("{kib} KiB"));
    row(what, of(Part::Agent) + of(Part::Shim));
    row("  the agent", of(Part::Agent));
    row(&format!("  {} shims together", all.iter().filter(|(part, _)| *part == Part::Shim).count()), of(Part::Shim));
    row("  beside them, the master", of(Part::Master));
    Ok(())
}

/// The share of one processor that the agent and the shims take while nothing happens.
async fn idle() -> anyhow::Result<()> {
    tokio::time::sleep(SETTLING).await;
    let used = |part: Part| -> anyhow::Result<u64> {
        Ok(processes()?.iter().filter(|(one, _)| *one == part).map(|(_, process)| cpu_nanos(process)).sum())
    };
    let before = [used(Part::Agent)?, used(Part::Shim)?, used(Part::Master)?];
    tokio::time::sleep(IDLE_TIME).await;
    let after = [used(Part::Agent)?, used(Part::Shim)?, used(Part::Master)?];
    for ((what, before), after) in ["the agent", "the shims", "the master"].iter().zip(before).zip(after) {
        let share = after.saturating_sub(before) as f64 / IDLE_TIME.as_nanos() as f64 * 100.0;
        println!("{:<44}{:>10}", format!("idle CPU with {AT_ONCE} pods, {what}"), format!("{share:.3} %"));
    }
    Ok(())
}

/// The processor time of a process (proc(5)): to the nanosecond by `schedstat` for one with a single thread; for others,
/// whose threads come and go, by `stat`, in hundredths of a second.
fn cpu_nanos(process: &Path) -> u64 {
    let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
    if std::fs::read_dir(process.join("task")).into_iter().flatten().count() == 1 {
        return read("schedstat").split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    }
    let stat = read("stat");
    // After the name in parentheses, which may hold anything: fields 14 and 15 of the line.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10_000_000
}

fn proportional_kib(process: &Path) -> Option<u64> {
    let rollup = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB").parse().ok()
}
