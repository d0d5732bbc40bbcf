//! Running one more program in a container.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_runtime::shim::protocol::{Call, FaultKind};
use nix::fcntl::OFlag;
use oci_spec::runtime::{Process, Spec};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::error::chain;
use crate::live::Sandbox;
use crate::shim::ShimError;
use crate::status::{ContainerId, ExecOutput};
use crate::{Error, Inner, id, spec};

/// How long output is waited for after the program ended: a child of it may still hold the pipe.
const DRAIN_DEADLINE: Duration = Duration::from_millis(500);

/// What ends every program.
const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// A program that runs in a container, or was asked for; dropped before its end, it is killed.
struct Session {
    sandbox: Arc<Sandbox>,
    container: ContainerId,
    name: String,
    end: oneshot::Receiver<i32>,
    over: bool,
}

impl Session {
    /// Waits for the end and gives the exit code; `None` when the shim is lost.
    async fn end(&mut self) -> Option<i32> {
        let code = (&mut self.end).await.ok();
        self.over = true;
        code
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sandbox.lock().execs.remove(&self.name);
        if self.over {
            return;
        }
        let (shim, container, exec) = (self.sandbox.shim(), self.container.0.clone(), self.name.clone());
        if let (Some(shim), Ok(runtime)) = (shim, tokio::runtime::Handle::try_current()) {
            runtime
                .spawn(async move { shim.call(Call::ExecKill { container, exec, signal: SIGKILL }, Vec::new()).await });
        }
    }
}

impl Inner {
    /// Runs a command and collects what it writes.
    pub(crate) async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
        output_bytes_max: usize,
    ) -> Result<ExecOutput, Error> {
        let failed = |message: String| Error::Exec { command: command.first().cloned().unwrap_or_default(), message };
        let io = |error: std::io::Error| failed(error.to_string());
        let nothing: OwnedFd = fs::File::open("/dev/null").map_err(io)?.into();
        let (stdout, theirs_out) = output_pipe().map_err(io)?;
        let (stderr, theirs_err) = output_pipe().map_err(io)?;
        let (mut out, mut err) = (Collected::new(output_bytes_max), Collected::new(output_bytes_max));
        let (mut stdout, mut stderr) = (stdout, stderr);
        let whole = async {
            let mut session = self.begin(id, command, vec![nothing, theirs_out, theirs_err]).await?;
            let reading = async { tokio::join!(out.read_all(&mut stdout), err.read_all(&mut stderr)) };
            tokio::pin!(reading);
            let mut code = None;
            tokio::select! {
                _ = &mut reading => {}
                ended = session.end() => code = Some(ended),
            }
            Ok(match code {
                // The pipes are closed before the program ended, or it ended and what is in them is still to be read.
                None => session.end().await,
                Some(code) => {
                    let _ = tokio::time::timeout(DRAIN_DEADLINE, reading).await;
                    code
                }
            })
        };
        let code = tokio::time::timeout(timeout, whole).await.map_err(|_| Error::ExecTimeout { timeout })??;
        let exit_code = code.ok_or_else(|| failed(ShimError::Lost.to_string()))?;
        Ok(ExecOutput { exit_code, stdout: out.bytes, stderr: err.bytes })
    }

    /// Runs a command on the caller's own descriptors.
    pub(crate) async fn exec_with(
        &self,
        id: &ContainerId,
        command: &[String],
        stdio: [OwnedFd; 3],
    ) -> Result<i32, Error> {
        let mut session = self.begin(id, command, stdio.into()).await?;
        let lost = || Error::Exec {
            command: command.first().cloned().unwrap_or_default(),
            message: ShimError::Lost.to_string(),
        };
        session.end().await.ok_or_else(lost)
    }

    async fn begin(&self, id: &ContainerId, command: &[String], stdio: Vec<OwnedFd>) -> Result<Session, Error> {
        let program = command.first().cloned().unwrap_or_default();
        let failed = |message: String| Error::Exec { command: program.clone(), message };
        if command.is_empty() {
            return Err(failed("no command".to_owned()));
        }
        let (sandbox, record) = self.container(id)?;
        let shim = sandbox.shim().ok_or_else(|| failed("the container's sandbox is not ready".to_owned()))?;
        let process = Box::new(process(&self.layout.bundle(&record.id), command).map_err(failed)?);
        let name = id::random().map_err(|error| failed(error.to_string()))?;
        // Whoever waits is there before the program can end.
        let (told, end) = oneshot::channel();
        sandbox.lock().execs.insert(name.clone(), told);
        let mut session =
            Session { sandbox: Arc::clone(&sandbox), container: id.clone(), name: name.clone(), end, over: false };
        let call = Call::Exec { container: id.as_str().to_owned(), exec: name, process };
        match shim.call(call, stdio).await {
            Ok(_) => Ok(session),
            // It may have got there, and begin yet.
            Err(error @ ShimError::Deadline) => Err(failed(chain(&error))),
            Err(error) => {
                session.over = true;
                Err(match error {
                    ShimError::Fault(fault) if fault.kind == FaultKind::NotFound => {
                        Error::NotFound { what: "container", id: id.as_str().to_owned() }
                    }
                    error => failed(chain(&error)),
                })
            }
        }
    }
}

/// The process to run: the container's own, as its bundle has it, with another command.
pub(crate) fn process(bundle: &Path, command: &[String]) -> Result<Process, String> {
    let path = bundle.join("config.json");
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read(&path).map_err(|error| told(&error))?;
    let config: Spec = serde_json::from_slice(&text).map_err(|error| told(&error))?;
    let process = config.process().as_ref().ok_or_else(|| told(&"no process"))?;
    Ok(spec::exec_process(process, command))
}

/// A pipe: our end to read from, theirs to write to.
fn output_pipe() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// The beginning of a stream, as far as it was asked for.
struct Collected {
    bytes: Vec<u8>,
    max: usize,
}

impl Collected {
    fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    /// Reads to the end and drops what is beyond the limit, so that the writer never waits for us.
    async fn read_all(&mut self, from: &mut (impl AsyncRead + Unpin)) {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let room = self.max - self.bytes.len();
            self.bytes.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
}
