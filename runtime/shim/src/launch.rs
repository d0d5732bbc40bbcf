//! From a command line to a daemon that serves, or to the reason why there is none.
//!
//! ```text
//!   berth-shim ──fork──▶ daemon: own session, log, lock, namespaces, socket, shim.json
//!       │◀──── "ready", or what went wrong ────┘ then the loop
//!       └ exit 0, or the message and exit 1
//! ```

use std::fs::{self, File};
use std::io::{self, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};

use berth_runtime::shim::document;
use berth_runtime::shim::protocol::{REVISION, SandboxSpec, ShimRecord, VERSION};
use berth_sys::daemon::{self, Forked};
use berth_sys::file::{self, Durability};
use berth_sys::presence::{self, Presence};
use berth_sys::{proc, process, socket};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};

use crate::fault::chain;
use crate::note::{self, note};
use crate::record;
use crate::sandbox::{self, Sandbox};
use crate::shim::Shim;
use crate::tool::Tool;

/// What the daemon tells when it is ready.
const READY: &str = "ready";

/// Why no shim serves.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon could not be made.
    #[error("making the daemon")]
    Fork(#[source] io::Error),
    /// What the daemon said before it gave up.
    #[error("{0}")]
    Daemon(String),
    /// The daemon is gone without a word.
    #[error("the shim died before it was ready: see shim.log")]
    Died,
    /// A step of the daemon's preparation failed.
    #[error("{action}")]
    Prepare { action: String, source: io::Error },
    /// The sandbox could not be made.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
}

/// Starts the shim of the sandbox in `dir`. Returns in two processes: in the caller's when the daemon is ready or has
/// failed, in the daemon's when it has ended.
pub(crate) fn launch(dir: &Path) -> Result<(), Error> {
    let dir = fs::canonicalize(dir).map_err(preparing(format!("looking for {}", dir.display())))?;
    let (mut told, tell) = io::pipe().map_err(Error::Fork)?;
    match daemon::fork().map_err(Error::Fork)? {
        Forked::Child => {
            drop(told);
            serve(dir, tell);
            Ok(())
        }
        Forked::Parent { .. } => {
            drop(tell);
            let mut message = String::new();
            told.read_to_string(&mut message).map_err(Error::Fork)?;
            match message.as_str() {
                READY => Ok(()),
                "" => Err(Error::Died),
                _ => Err(Error::Daemon(message)),
            }
        }
    }
}

fn serve(dir: PathBuf, mut tell: PipeWriter) {
    let mut shim = match prepare(dir) {
        Ok(prepared) => prepared,
        Err(error) => {
            note(format_args!("{}", chain(&error)));
            let _ = write!(tell, "{}", chain(&error));
            return;
        }
    };
    // Without anybody who knows of it, a shim would stay for ever.
    if tell.write_all(READY.as_bytes()).is_err() {
        note(format_args!("whoever started the shim is gone"));
        for failure in shim.clear_away() {
            note(format_args!("{failure}"));
        }
        return;
    }
    drop(tell);
    shim.run();
}

fn prepare(dir: PathBuf) -> Result<Shim, Error> {
    let log = note::open(&dir.join("shim.log")).map_err(preparing("opening shim.log".into()))?;
    daemon::detach(&log).map_err(preparing("detaching from the caller".into()))?;
    drop::<File>(log);
    umask(Mode::from_bits_truncate(0o022));
    // It may have been executed by a descriptor, which is no name.
    prctl::set_name(c"berth-shim").map_err(|errno| preparing("naming the process".into())(errno.into()))?;
    let presence = presence::take(&dir.join("shim.lock"))
        .map_err(preparing(format!("taking {}: does another shim live?", dir.join("shim.lock").display())))?;
    // Nobody in a container may look into this process, nor into a child of it that has not executed its program yet.
    prctl::set_dumpable(false).map_err(|errno| preparing("hiding the process".into())(errno.into()))?;
    process::set_child_subreaper().map_err(preparing("adopting orphans".into()))?;
    let path = dir.join("sandbox.json");
    let spec: SandboxSpec = document::read_file(&path).map_err(preparing(format!("reading {}", path.display())))?;
    let sandbox = sandbox::make(&dir, &spec)?;
    let init = sandbox.init;
    listen(dir.clone(), spec.clone(), sandbox, presence).inspect_err(|_| {
        for failure in sandbox::unmake(&dir, &spec, &mut Sandbox { init }) {
            note(format_args!("{failure}"));
        }
    })
}

fn listen(dir: PathBuf, spec: SandboxSpec, sandbox: Sandbox, presence: Presence) -> Result<Shim, Error> {
    record::prepare(&dir).map_err(preparing("making the folder of exit records".into()))?;
    let path = dir.join("shim.sock");
    // The lock is ours: what is there is a dead shim's.
    let listener = file::remove(&path)
        .and_then(|()| socket::listen(&path))
        .map_err(preparing(format!("listening at {}", path.display())))?;
    let handler = spec.handler.clone().map(|handler| {
        let preparing = preparing(format!("sandbox.json: handler: preparing {}", handler.program.display()));
        Tool::new(handler, dir.clone()).map_err(preparing)
    });
    let tool = handler.transpose()?;
    let pid = std::process::id() as i32;
    let record_path = dir.join("shim.json");
    let shim =
        Shim::new(dir, spec, sandbox, tool, presence, listener).map_err(preparing("making the event loop".into()))?;
    proc::start_time(pid)
        .and_then(|start_time| {
            Ok(serde_json::to_vec(&ShimRecord { protocol: VERSION, revision: REVISION, pid, start_time })?)
        })
        .and_then(|record| file::replace(&record_path, &record, Durability::Process))
        .map_err(preparing(format!("writing {}", record_path.display())))?;
    Ok(shim)
}

fn preparing(action: String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Prepare { action, source }
}
