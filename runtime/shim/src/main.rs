//! `berth-shim --dir <sandbox directory>`: the parent of one pod's containers.
//!
//! It makes and pins the pod's namespaces, keeps the containers' logs and exit records, and answers at a socket
//! (`berth_runtime::shim` has the words and the files). Its parent may come and go: the process that was started ends,
//! with 0, when the daemon behind it is ready. The daemon has one thread and one loop ([`shim::Shim`]), ignores the
//! signals of the service manager, and ends when a client asks it to, which also ends its containers.
//!
//! | file | what it owns |
//! |---|---|
//! | `launch` | becoming a daemon, telling whether it worked |
//! | `sandbox` | the shared namespaces |
//! | `shim`, `wake` | the loop, and what can wake it |
//! | `clients`, `request`, `fault` | who is connected, what they send, what they are told |
//! | `control`, `creation`, `exec`, `attach` | what they ask for |
//! | `run`, `work` | a runtime's verbs: begun, and met at their end |
//! | `library` | the verbs as the library does them, in a copy of the shim |
//! | `foreign`, `tool`, `console` | the verbs as another OCI runtime's command does them |
//! | `container`, `oom` | one container: its life, its memory |
//! | `output`, `line`, `entry`, `log`, `copy` | its output: read, cut into lines, formatted, kept, shared |
//! | `reaper`, `record` | the ends of processes, and what is kept of them |
//! | `shutdown` | the shim's own end |
#![forbid(unsafe_code)]

mod attach;
mod clients;
mod console;
mod container;
mod control;
mod copy;
mod creation;
mod entry;
mod exec;
mod fault;
mod foreign;
mod launch;
mod library;
mod limits;
mod line;
mod log;
mod note;
mod oom;
mod output;
mod reaper;
mod record;
mod request;
mod run;
mod sandbox;
mod shim;
mod shutdown;
mod tool;
mod wake;
mod work;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use berth_sys::{selfexec, signal};

fn main() -> ExitCode {
    if let Err(error) = selfexec::protect() {
        return complain(&format!("protecting this program from containers: {error}"));
    }
    if let Err(errno) = signal::heed_children() {
        return complain(&format!("heeding the ends of children: {errno}"));
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [flag, dir] = arguments.as_slice() else { return usage() };
    if flag != "--dir" {
        return usage();
    }
    match launch::launch(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&fault::chain(&error)),
    }
}

fn usage() -> ExitCode {
    complain("usage: berth-shim --dir <directory with sandbox.json>")
}

fn complain(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
