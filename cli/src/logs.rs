//! `berth logs`: what a container wrote.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use berth_kubelet::{LogOptions, LogOutput, open_log};
use futures::{StreamExt, pin_mut};

use crate::args::LogsOptions;
use crate::{inspect, node};

pub(crate) fn run(options: &LogsOptions) -> Result<ExitCode> {
    let found = inspect::find(&options.folders.run_dir, &options.which)?;
    let runtime = node::runtime()?;
    let shown = runtime.block_on(show(options, &found));
    // A reader who leaves early does not wait for the container's end.
    runtime.shutdown_background();
    shown.map(|()| ExitCode::SUCCESS)
}

async fn show(options: &LogsOptions, found: &inspect::Found) -> Result<()> {
    let wanted = LogOptions {
        follow: options.follow,
        tail_lines: options.tail,
        timestamps: options.timestamps,
        output: None::<LogOutput>,
        ..LogOptions::default()
    };
    let (run_dir, sandbox, container) =
        (options.folders.run_dir.clone(), found.sandbox.clone(), found.container.id.clone());
    let ended = async move {
        let waiting = move || berth_engine::inspect::wait(&run_dir, &sandbox, &container);
        // Its only end is the container's.
        let _ = tokio::task::spawn_blocking(waiting).await;
    };
    let path = found.container.config.log_path.clone();
    let log = open_log(path.clone(), wanted).await.with_context(|| format!("cannot read {}", path.display()))?;
    let lines = log.stream(ended);
    pin_mut!(lines);
    while let Some(chunk) = lines.next().await {
        let chunk = chunk.with_context(|| format!("cannot read {}", path.display()))?;
        match io::stdout().write_all(&chunk) {
            // Whoever read us has seen enough, as `head` has.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}
