//! Finding what a person means: a pod by name, a container by the beginning of its id.

use std::path::Path;

use anyhow::{Result, bail};
use berth_engine::{ContainerState, ContainerStatus, SandboxStatus};

use crate::args::Which;

/// A container with its sandbox.
pub(crate) struct Found {
    pub(crate) sandbox: SandboxStatus,
    pub(crate) container: ContainerStatus,
}

/// The one container that is meant; of several attempts of one name, the newest.
pub(crate) fn find(run_dir: &Path, which: &Which) -> Result<Found> {
    let all: Vec<Found> = berth_engine::inspect::sandboxes(run_dir)?
        .into_iter()
        .flat_map(|sandbox| {
            let containers = sandbox.containers.clone();
            containers.into_iter().map(move |container| Found { sandbox: sandbox.clone(), container })
        })
        .filter(|found| matches(found, which))
        .collect();
    choose(all, which)
}

fn matches(found: &Found, which: &Which) -> bool {
    let (namespace, name) = which.target.split_once('/').unwrap_or(("", &which.target));
    let config = &found.sandbox.config;
    let pod = config.name == name && (namespace.is_empty() || config.namespace == namespace);
    let id = found.container.id.as_str().starts_with(&which.target);
    (pod || id) && which.container.as_ref().is_none_or(|wanted| *wanted == found.container.config.name)
}

fn choose(mut all: Vec<Found>, which: &Which) -> Result<Found> {
    let target = &which.target;
    let names = |of: &dyn Fn(&Found) -> String| {
        let mut names: Vec<_> = all.iter().map(of).collect();
        names.sort();
        names.dedup();
        names
    };
    let pods = names(&|found| format!("{}/{}", found.sandbox.config.namespace, found.sandbox.config.name));
    if pods.len() > 1 {
        bail!("{target:?} could be any of {}: name the namespace, or more of the id", pods.join(", "));
    }
    let containers = names(&|found| found.container.config.name.clone());
    if containers.len() > 1 {
        bail!("pod {target:?} has several containers, choose one with -c: {}", containers.join(", "));
    }
    all.sort_by_key(|found| found.container.created_at);
    match all.pop() {
        Some(found) => Ok(found),
        None => bail!("no container of {target:?} on this node; berth ps --all shows what there is"),
    }
}

/// A container's state in the words of `kubectl get pods`.
pub(crate) fn word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "Created",
        ContainerState::Running { .. } => "Running",
        ContainerState::Exited { oom_killed: true, .. } => "OOMKilled",
        ContainerState::Exited { exit_code: 0, .. } => "Completed",
        ContainerState::Exited { .. } => "Error",
        ContainerState::Unknown => "Unknown",
    }
}
