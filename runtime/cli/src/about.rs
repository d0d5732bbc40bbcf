//! Version, features and help.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::args::{GLOBAL_FLAGS, VERBS, Verb};
use crate::error::Error;
use berth_runtime::OCI_VERSION;

/// What this program is called where nobody said otherwise.
const NAME: &str = "berth-runtime";

/// As runc tells it: containerd reads the lines `runc version` and `spec` (go-runc, `parseVersion`).
pub(crate) fn version() -> Result<(), Error> {
    print(&format!("{NAME} version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), OCI_VERSION))
}

/// Indented by four, as runc does.
pub(crate) fn features() -> Result<(), Error> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    berth_runtime::features().serialize(&mut serializer).map_err(|error| Error::Output(error.into()))?;
    text.push(b'\n');
    io::stdout().write_all(&text).map_err(Error::Output)
}

pub(crate) fn help(verb: Option<&Verb>) -> Result<(), Error> {
    match verb {
        Some(verb) => print(&help_of(verb)),
        None => print(&help_of_all()),
    }
}

fn help_of(verb: &Verb) -> String {
    let mut text = format!("{NAME} {}: {}\n\nUSAGE:\n    {NAME} [global flags] {}", verb.name, verb.summary, verb.name);
    if !verb.flags.is_empty() {
        text.push_str(" [flags]");
    }
    if !verb.operands.is_empty() {
        let _ = write!(text, " {}", verb.operands);
    }
    text.push('\n');
    if !verb.flags.is_empty() {
        let _ = write!(text, "\nFLAGS:\n{}\n", verb.flags);
    }
    text
}

fn help_of_all() -> String {
    let mut text = format!("{NAME}: an OCI runtime with runc's command line\n\nVERBS:\n");
    for verb in VERBS {
        let _ = writeln!(text, "    {:10}{}", verb.name, verb.summary);
    }
    let _ = write!(text, "\n{NAME} VERB --help tells more of one.\n\nGLOBAL FLAGS:\n{GLOBAL_FLAGS}\n");
    text
}

fn print(text: &str) -> Result<(), Error> {
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}
