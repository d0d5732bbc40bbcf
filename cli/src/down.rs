//! `berth down`: the agent, then its pods, then what the node made of the machine.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use berth_engine::Engine;

use crate::args::DownOptions;
use crate::node::{self, Membership};
use crate::presence::{self, Presence};

pub(crate) fn run(options: &DownOptions) -> Result<ExitCode> {
    let folders = &options.folders;
    presence::end(&folders.run_dir)?;
    if !folders.run_dir.exists() && !options.purge {
        println!("berth does not run on {}", folders.run_dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(flags) = node::remembered(folders)? {
        let _presence = Presence::take(&folders.run_dir)?;
        let config = node::config(folders, &flags, Membership::default())?;
        node::runtime()?.block_on(async {
            let engine = Engine::open(node::engine_config(&config, &flags)?).await?;
            berth_kubelet::drain(config, engine.clone()).await?;
            engine.remove_pod_network().await?;
            anyhow::Ok(())
        })?;
        if options.purge {
            forget_empty(&flags.pod_logs_dir)?;
            forget_empty(&flags.container_logs_dir)?;
        }
    }
    forget(&folders.run_dir)?;
    if options.purge {
        forget(&folders.state_dir)?;
    }
    println!("berth is down{}", if options.purge { ", and what it kept is gone" } else { "" });
    Ok(ExitCode::SUCCESS)
}

fn forget(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot remove {}", folder.display())),
    }
}

/// Removes a folder that others may use too, if nothing is left in it.
fn forget_empty(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
