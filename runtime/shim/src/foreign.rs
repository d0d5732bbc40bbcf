//! The verbs as another OCI runtime is told them, on its command line.

use std::ffi::OsString;
use std::path::Path;

use berth_runtime::shim::protocol::Fault;
use serde::Deserialize;

use crate::console::Console;
use crate::fault::{failed, of_runtime};
use crate::run::{Run, Verb};
use crate::tool::{Files, Tool};

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

impl Tool {
    /// Begins a verb.
    pub(crate) fn begin(&mut self, id: &str, verb: Verb<'_>, what: String) -> Result<Run, Fault> {
        let files = self.files(id)?;
        let plain = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        // Its streams and whether it has a terminal, if the verb makes a process.
        let (mut arguments, after, made) = match verb {
            Verb::Create { bundle, stdio } => {
                let has_terminal = wants_terminal(bundle)?;
                (vec!["create".into(), "--bundle".into(), bundle.into()], None, Some((stdio, has_terminal)))
            }
            Verb::Exec { process, stdio } => {
                let file = files.write_json(process)?;
                let words = vec!["exec".into(), "--detach".into(), "--process".into(), file.into()];
                (words, None, Some((stdio, process.terminal() == Some(true))))
            }
            Verb::Update(resources) => {
                let file = files.write_json(resources)?;
                (vec!["update".into(), "--resources".into(), file.into()], None, None)
            }
            Verb::Kill { signal, all: true } => (plain(&["kill", "--all"]), Some(signal.to_string()), None),
            Verb::Kill { signal, all: false } => (plain(&["kill"]), Some(signal.to_string()), None),
            Verb::Start => (plain(&["start"]), None, None),
            Verb::Delete => (plain(&["delete", "--force"]), None, None),
            Verb::Pause => (plain(&["pause"]), None, None),
            Verb::Resume => (plain(&["resume"]), None, None),
        };
        let mut console = None;
        if let Some((_, has_terminal)) = &made {
            arguments.extend(["--pid-file".into(), files.path("pid").into()]);
            console = has_terminal.then(|| listen(&files)).transpose()?;
        }
        if let Some(console) = &console {
            arguments.extend(["--console-socket".into(), console.address().into()]);
        }
        arguments.push(id.into());
        arguments.extend(after.map(OsString::from));
        self.run(what, (files, console), arguments, made.map(|(stdio, _)| stdio))
    }
}

/// Whether the process of a bundle's container shall have a terminal.
fn wants_terminal(bundle: &Path) -> Result<bool, Fault> {
    let text = berth_runtime::read_config(bundle).map_err(|error| of_runtime(&error))?;
    let config: Config = serde_json::from_slice(&text)
        .map_err(|error| failed(&format!("reading {}", bundle.join("config.json").display()), &error))?;
    Ok(config.process.is_some_and(|process| process.terminal))
}

fn listen(files: &Files) -> Result<Console, Fault> {
    Console::listen(&files.path("sock")).map_err(|error| failed("listening for a terminal", &error))
}
