//! From a container of a pod to a container of the engine. Pure: what has to be looked up or prepared comes in.

mod env;
mod expand;
mod fields;
mod mounts;
pub(crate) mod note;
pub(crate) mod resources;
mod security;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_api::reason::waiting;
use berth_api::resource::{ContainerResources, MEMORY};
use berth_engine::config::ContainerConfig;
use k8s_openapi::api::core::v1::{Container, VolumeMount};

pub(crate) use env::{Fetched, environment, references};
pub(crate) use expand::expand;
pub(crate) use fields::Fields;

use super::event::Fault;
use super::plan::Start;
use crate::config::Config;
use crate::volume::Place;

/// What makes a container impossible to create: `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ConfigFault {
    /// Which field, what is wrong with it.
    pub message: String,
}

impl ConfigFault {
    fn field(container: &Container, field: &str, wrong: &str) -> Self {
        Self { message: format!("containers[{}].{field}: {wrong}", container.name) }
    }

    fn missing(kind: &str, name: &str) -> Self {
        Self { message: format!("{kind} {name:?} not found") }
    }
}

impl From<ConfigFault> for Fault {
    fn from(fault: ConfigFault) -> Self {
        Self { reason: waiting::CREATE_CONTAINER_CONFIG_ERROR, message: fault.message }
    }
}

/// What a container's configuration is made of.
pub(crate) struct Inputs<'a> {
    /// The container.
    pub container: &'a Container,
    /// Which run of it.
    pub start: &'a Start,
    /// What the pod may learn about itself.
    pub fields: Fields<'a>,
    /// What the environment refers to.
    pub fetched: &'a Fetched,
    /// The path on the host of each volume mount, in the order of the spec.
    pub places: &'a [Place],
    /// Where its log goes.
    pub log_path: PathBuf,
    /// Where its last words go.
    pub termination_log: &'a Path,
    /// The folder of the seccomp profiles.
    pub seccomp_dir: &'a Path,
    /// What the agent was told to be.
    pub config: &'a Config,
}

/// The engine's configuration of a container.
pub(crate) fn container_config(inputs: &Inputs<'_>) -> Result<ContainerConfig, ConfigFault> {
    let Inputs { container, start, fields, config, .. } = inputs;
    let env = environment(container, *fields, inputs.fetched)?;
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        let value = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        words.iter().flatten().map(|word| expand(word, value)).collect()
    };
    let desired = fields.desired;
    let node = security::NodeSecurity { seccomp_default: config.seccomp_default, seccomp_dir: inputs.seccomp_dir };
    let place = |index: usize, _: &VolumeMount| inputs.places.get(index).cloned();
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: start.attempt,
        image: start.image.clone(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: mounts::mounts(container, place, inputs.termination_log)?,
        log_path: inputs.log_path.clone(),
        resources: engine_resources(inputs)?,
        security: security::security(desired.spec(), container, node)?,
        labels: BTreeMap::new(),
        annotations: note::annotations(start.streak, container.image.as_deref().unwrap_or_default()),
        env,
    })
}

fn engine_resources(inputs: &Inputs<'_>) -> Result<berth_engine::config::Resources, ConfigFault> {
    let own = ContainerResources::of(inputs.container)
        .map_err(|error| ConfigFault { message: format!("{error}: {}", error.source) })?;
    let quota = if inputs.config.cpu_cfs_quota { resources::Quota::Enforced } else { resources::Quota::Off };
    let memory = own.requests.get(MEMORY).map_or(0, |request| request.units());
    let (desired, node) = (inputs.fields.desired, inputs.fields.node);
    let score = resources::oom_score_adj(desired.qos, memory, node.allocatable_memory_bytes);
    Ok(berth_engine::config::Resources {
        oom_score_adj: Some(score),
        ..resources::kernel_numbers(&own.requests, &own.limits, quota)
    })
}
