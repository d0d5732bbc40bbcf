//! `berth ps`: the pods and containers of this node.

use std::process::ExitCode;

use anyhow::Result;
use berth_engine::{ContainerState, SandboxState, SandboxStatus};

use crate::args::{Output, PsOptions};
use crate::{inspect, output};

const HEADINGS: [&str; 8] = ["CONTAINER", "POD", "NAME", "IMAGE", "STATE", "ATTEMPT", "IP", "AGE"];

pub(crate) fn run(options: &PsOptions) -> Result<ExitCode> {
    let sandboxes = berth_engine::inspect::sandboxes(&options.folders.run_dir)?;
    match options.output {
        Output::Json => output::json(&sandboxes)?,
        Output::Table => output::table(&HEADINGS, &rows(&sandboxes, options.all))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(sandboxes: &[SandboxStatus], all: bool) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for sandbox in sandboxes.iter().filter(|sandbox| all || sandbox.state == SandboxState::Ready) {
        let pod = format!("{}/{}", sandbox.config.namespace, sandbox.config.name);
        let ip = sandbox.ips.first().map_or_else(|| "<host>".to_owned(), ToString::to_string);
        for container in &sandbox.containers {
            let alive = matches!(container.state, ContainerState::Created | ContainerState::Running { .. });
            if !all && !alive {
                continue;
            }
            rows.push(vec![
                container.id.as_str().chars().take(12).collect(),
                pod.clone(),
                container.config.name.clone(),
                berth_kubelet::image_asked_for(&container.config.annotations),
                inspect::word(&container.state).to_owned(),
                container.config.attempt.to_string(),
                ip.clone(),
                output::age(container.created_at),
            ]);
        }
    }
    rows
}
