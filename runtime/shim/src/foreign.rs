//! The verbs as another OCI runtime is told them: each begins a run of it, whose end is met in `work`.

use std::ffi::OsString;
use std::path::Path;

use berth_runtime::Stdio;
use berth_runtime::shim::protocol::{Fault, FaultKind};
use jiff::Timestamp;
use oci_spec::runtime::{LinuxResources, Process};
use serde::Deserialize;

use crate::clients::Asker;
use crate::console::Console;
use crate::creation::Streams;
use crate::fault::{failed, fault};
use crate::shim::Shim;
use crate::tool::{Files, Run, Tool};
use crate::work::{Goal, Work};

/// What has to be known of a bundle's `config.json` before the runtime reads it.
#[derive(Deserialize)]
struct Config {
    process: Option<ConfigProcess>,
}

#[derive(Deserialize)]
struct ConfigProcess {
    #[serde(default)]
    terminal: bool,
}

impl Shim {
    /// Lets the runtime make a container, which is in the list already.
    pub(crate) fn begin_create(
        &mut self,
        asker: Asker,
        number: u32,
        bundle: &Path,
        streams: Streams,
        stdio: Stdio,
    ) -> Result<(), Fault> {
        let id = self.id_of(number);
        let path = bundle.join("config.json");
        let config: Config = std::fs::read(&path)
            .and_then(|text| serde_json::from_slice(&text).map_err(std::io::Error::from))
            .map_err(|error| failed(&format!("reading {}", path.display()), &error))?;
        let tool = self.tool_mut()?;
        let files = tool.files(&id)?;
        let console = console(config.process.is_some_and(|process| process.terminal), &files)?;
        let mut arguments: Vec<OsString> = vec!["create".into(), "--bundle".into(), bundle.into()];
        arguments.extend(["--pid-file".into(), files.path("pid").into()]);
        arguments.extend(console_arguments(console.as_ref()));
        arguments.push(id.clone().into());
        let mut run = tool.run(format!("creating container {id}"), files, arguments, Some(stdio))?;
        run.console = console;
        self.meanwhile(run, Goal::Create { asker, number, streams });
        Ok(())
    }

    /// Lets the runtime start a container.
    pub(crate) fn begin_start(&mut self, asker: Asker, number: u32) -> Result<(), Fault> {
        let run = self.run_plain(number, "starting", &["start"], &[])?;
        self.meanwhile(run, Goal::Start { asker, number, at: Timestamp::now() });
        Ok(())
    }

    /// Lets the runtime signal a container; without an asker, for what is left of it.
    pub(crate) fn begin_kill(
        &mut self,
        asker: Option<Asker>,
        number: u32,
        signal: i32,
        all: bool,
    ) -> Result<(), Fault> {
        let verb: &[&str] = if all { &["kill", "--all"] } else { &["kill"] };
        let run = self.run_plain(number, "signalling", verb, &[&signal.to_string()])?;
        self.meanwhile(run, Goal::Kill { asker, number });
        Ok(())
    }

    /// Lets the runtime remove all that is left of a container.
    pub(crate) fn begin_delete(&mut self, number: u32) -> Result<(), Fault> {
        let run = self.run_plain(number, "deleting", &["delete", "--force"], &[])?;
        self.meanwhile(run, Goal::Delete { number });
        Ok(())
    }

    /// Lets the runtime remove what a failed creation left; then that failure is told.
    pub(crate) fn begin_undo(&mut self, asker: Asker, number: u32, fault: Fault) -> Result<(), Fault> {
        let run = self.run_plain(number, "deleting", &["delete", "--force"], &[])?;
        self.meanwhile(run, Goal::Undo { asker, number, fault });
        Ok(())
    }

    /// Lets the runtime run one more process, whose name is taken already.
    pub(crate) fn begin_exec(
        &mut self,
        asker: Asker,
        number: u32,
        exec: String,
        process: &Process,
        stdio: Stdio,
    ) -> Result<(), Fault> {
        let id = self.id_of(number);
        let tool = self.tool_mut()?;
        let files = tool.files(&id)?;
        let console = console(process.terminal() == Some(true), &files)?;
        let mut arguments: Vec<OsString> = vec!["exec".into(), "--detach".into()];
        arguments.extend(["--process".into(), files.write_json(process)?.into()]);
        arguments.extend(["--pid-file".into(), files.path("pid").into()]);
        arguments.extend(console_arguments(console.as_ref()));
        arguments.push(id.clone().into());
        let mut run = tool.run(format!("executing in container {id}"), files, arguments, Some(stdio))?;
        run.console = console;
        self.meanwhile(run, Goal::Exec { asker, number, exec });
        Ok(())
    }

    /// Lets the runtime pause a container, or let it go on.
    pub(crate) fn begin_plain(&mut self, asker: Asker, number: u32, action: &str, verb: &str) -> Result<(), Fault> {
        let run = self.run_plain(number, action, &[verb], &[])?;
        self.meanwhile(run, Goal::Plain { asker });
        Ok(())
    }

    /// Lets the runtime change limits.
    pub(crate) fn begin_update(&mut self, asker: Asker, number: u32, to: &LinuxResources) -> Result<(), Fault> {
        let id = self.id_of(number);
        let tool = self.tool_mut()?;
        let files = tool.files(&id)?;
        let file = files.write_json(to)?;
        let arguments = ["update".into(), "--resources".into(), file.into(), id.clone().into()];
        let run = tool.run(format!("updating container {id}"), files, arguments, None)?;
        self.meanwhile(run, Goal::Plain { asker });
        Ok(())
    }

    fn run_plain(&mut self, number: u32, action: &str, before: &[&str], after: &[&str]) -> Result<Run, Fault> {
        let id = self.id_of(number);
        let tool = self.tool_mut()?;
        let files = tool.files(&id)?;
        let arguments = before.iter().copied().chain([id.as_str()]).chain(after.iter().copied()).map(OsString::from);
        tool.run(format!("{action} container {id}"), files, arguments, None)
    }

    fn meanwhile(&mut self, run: Run, goal: Goal) {
        self.works.insert(run.pid, Work { run, goal });
    }

    fn id_of(&self, number: u32) -> String {
        self.containers.get(&number).map(|container| container.id.clone()).unwrap_or_default()
    }

    fn tool_mut(&mut self) -> Result<&mut Tool, Fault> {
        self.tool.as_mut().ok_or_else(|| fault(FaultKind::Failed, "the sandbox has no handler"))
    }
}

fn console(wanted: bool, files: &Files) -> Result<Option<Console>, Fault> {
    let listening = wanted.then(|| Console::listen(&files.path("sock"))).transpose();
    listening.map_err(|error| failed("listening for a terminal", &error))
}

fn console_arguments(console: Option<&Console>) -> impl Iterator<Item = OsString> {
    console.into_iter().flat_map(|console| ["--console-socket".into(), console.address().into()])
}
