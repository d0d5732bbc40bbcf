//! `berth issue-node`: what a node needs to join this machine's master.

use std::process::ExitCode;

use anyhow::{Result, bail};
use berth_master::pki::Pki;

use crate::args::IssueNodeOptions;

pub(crate) fn run(options: &IssueNodeOptions) -> Result<ExitCode> {
    let folder = options.folders.state_dir.join("master");
    let folder = folder.join("pki");
    if !folder.is_dir() {
        bail!("no master's certificates in {}: start berth up or berth master first", folder.display());
    }
    let made = Pki::open(&folder)?.issue_node(&options.server, &options.name, &options.node_ip, &options.out)?;
    println!(
        "Credentials of node {:?} are in {}. Take that folder to the node and run there:",
        options.name,
        options.out.display()
    );
    println!("  berth node --hostname-override {} --credentials <folder>", options.name);
    tracing::debug!(kubeconfig = %made.kubeconfig.display(), "made");
    Ok(ExitCode::SUCCESS)
}
