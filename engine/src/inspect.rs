//! A look at an engine's sandboxes from another process: reads the records, asks the shims, changes nothing. It needs no
//! engine to be running, so that people can look at a node whose agent is dead.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_runtime::shim::client::{self, Connection};
use berth_runtime::shim::protocol::{self, Answer, Call};

use crate::error::chain;
use crate::live::{Container, Sandbox, state_of};
use crate::record::{Layout, Phase};
use crate::recover::read_exits;
use crate::shim::{CALL_DEADLINE, CONNECT_DEADLINE};
use crate::status::{ContainerId, ContainerState, SandboxState, SandboxStatus};
use crate::{Error, exec, id};

/// How long one wait for an event is; waiting goes on until the shim is gone.
const EVENT_WAIT: Duration = Duration::from_secs(60);

/// All sandboxes of a run folder, oldest first; none if there is no such folder.
///
/// # Errors
/// The folder may be read by root alone.
pub fn sandboxes(run_dir: &Path) -> Result<Vec<SandboxStatus>, Error> {
    let layout = Layout::of(run_dir);
    layout.check_readable()?;
    let containers = layout.container_records();
    let mut all: Vec<_> = layout
        .sandbox_records()
        .into_iter()
        .map(|record| {
            let phase = record.phase;
            let sandbox = Arc::new(Sandbox::new(record));
            for record in containers.iter().filter(|container| container.sandbox == sandbox.id) {
                let state = record.last_state.clone().unwrap_or(ContainerState::Unknown);
                let container = Container { record: record.clone(), state };
                sandbox.lock().containers.insert(record.id.clone(), container);
            }
            let alive = look(&layout, &sandbox);
            let mut status = sandbox.status();
            status.state = if alive && phase == Phase::Ready { SandboxState::Ready } else { SandboxState::NotReady };
            status
        })
        .collect();
    all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(all)
}

/// Asks a sandbox's shim how its containers are, or else the records that it left. Tells whether it lives.
fn look(layout: &Layout, sandbox: &Sandbox) -> bool {
    let folder = layout.shim(&sandbox.id);
    let answer = Connection::connect(&folder, CONNECT_DEADLINE)
        .and_then(|mut connection| connection.call(Call::State, &[], CALL_DEADLINE));
    match answer {
        Ok(Answer::State { containers }) => {
            let mut state = sandbox.lock();
            for (id, found) in containers {
                if let Some(known) = state.containers.get_mut(&ContainerId(id)) {
                    known.state = state_of(&found);
                }
            }
            true
        }
        _ => {
            read_exits(sandbox, &folder);
            false
        }
    }
}

/// Runs a command in a container on the caller's descriptors and gives its exit code.
pub fn run(
    run_dir: &Path,
    sandbox: &SandboxStatus,
    container: &ContainerId,
    command: &[String],
    stdio: [BorrowedFd<'_>; 3],
) -> Result<i32, Error> {
    let failed = |message: String| Error::Exec { command: command.first().cloned().unwrap_or_default(), message };
    let told = |error: client::Error| failed(chain(&error));
    let layout = Layout::of(run_dir);
    let process = exec::process(&layout.bundle(container), command).map_err(failed)?;
    let mut connection = Connection::connect(&layout.shim(&sandbox.id), CONNECT_DEADLINE).map_err(told)?;
    connection.call(Call::Subscribe, &[], CALL_DEADLINE).map_err(told)?;
    let name = id::random().map_err(|error| failed(error.to_string()))?;
    let process = Box::new(process);
    let call = Call::Exec { container: container.as_str().to_owned(), exec: name.clone(), process };
    let stdio = stdio.each_ref().map(AsFd::as_fd);
    connection.call(call, &stdio, CALL_DEADLINE).map_err(told)?;
    loop {
        match connection.next_event(EVENT_WAIT).map_err(told)? {
            Some(protocol::Event::ExecExited { exec, code, .. }) if exec == name => return Ok(code),
            _ => {}
        }
    }
}

/// Waits until a container has ended, or its shim has.
pub fn wait(run_dir: &Path, sandbox: &SandboxStatus, container: &ContainerId) {
    let Ok(mut connection) = Connection::connect(&Layout::of(run_dir).shim(&sandbox.id), CONNECT_DEADLINE) else {
        return;
    };
    let Ok(Answer::State { containers }) = connection.call(Call::Subscribe, &[], CALL_DEADLINE) else { return };
    if containers.get(container.as_str()).is_none_or(|state| state.exit.is_some()) {
        return;
    }
    loop {
        match connection.next_event(EVENT_WAIT) {
            Ok(Some(protocol::Event::Exited { container: ended, .. })) if ended == container.as_str() => return,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
