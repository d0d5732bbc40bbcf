//! `berth exec`: a command in a container, on this terminal's streams.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Result;

use crate::args::ExecOptions;
use crate::inspect;

pub(crate) fn run(options: &ExecOptions) -> Result<ExitCode> {
    let run_dir = &options.folders.run_dir;
    let found = inspect::find(run_dir, &options.which)?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let code = berth_engine::inspect::run(run_dir, &found.sandbox, &found.container.id, &options.command, stdio)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
