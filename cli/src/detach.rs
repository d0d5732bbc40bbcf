//! `--detach`: this program again in the background, until it has said that it is ready.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result};

/// How much of the log is shown when the background process fails, in lines.
const LOG_LINES_SHOWN: usize = 20;

/// Starts this program again, with `--detached` in place of `--detach`, in a process group of its own; passes on what it
/// prints until it closes its stdout.
pub(crate) fn run(run_dir: &Path) -> Result<ExitCode> {
    fs::create_dir_all(run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
    let log_path = run_dir.join("berth.log");
    let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let arguments = std::env::args_os().skip(1).map(|one| if one == "--detach" { "--detached".into() } else { one });
    // By its path, so that it has its name in lists of processes.
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start in the background")?;
    pass_on(&mut child)?;
    match child.try_wait().context("cannot look after the background process")? {
        None => {
            println!("berth runs in the background (process {}); its log is {}", child.id(), log_path.display());
            Ok(ExitCode::SUCCESS)
        }
        Some(status) => {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                eprintln!("{line}");
            }
            anyhow::bail!("the background process ended ({status}); its log is {}", log_path.display())
        }
    }
}

fn pass_on(child: &mut Child) -> Result<()> {
    let Some(mut theirs) = child.stdout.take() else { return Ok(()) };
    let mut buffer = [0; 4096];
    loop {
        match theirs.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => io::stdout().write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read what the background process says"),
        }
    }
    // A process that failed closes its stdout a moment before it is gone: give it that moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(200);
    while std::time::Instant::now() < deadline && child.try_wait()?.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}
