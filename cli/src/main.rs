//! The `berth` command: parse, run, exit code. It wires the crates together and decides nothing.
#![forbid(unsafe_code)]

mod args;
mod credentials;
mod detach;
mod down;
mod exec;
mod image;
mod inspect;
mod logs;
mod node;
mod output;
mod presence;
mod ps;
mod up;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use berth_cni::plugin;
use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    if let Some(arguments) = runtime_arguments() {
        return berth_runtime_cli::run(arguments).into();
    }
    if let Some(plugin) = called_as().and_then(|name| plugin::NAMES.iter().find(|plugin| **plugin == name)) {
        return plugin::main(Some(plugin));
    }
    let args = Args::parse();
    output::start_logging(args.verbose);
    match run(args.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("berth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The name by which this program was called.
fn called_as() -> Option<OsString> {
    std::env::args_os().next().and_then(|path| Path::new(&path).file_name().map(OsString::from))
}

/// The command line of the OCI runtime, if this is one: its flags are runc's, also those that `berth` has otherwise.
fn runtime_arguments() -> Option<impl Iterator<Item = OsString>> {
    let mut arguments = std::env::args_os().peekable();
    if called_as().is_some_and(|name| name == "runc") {
        return Some(arguments);
    }
    arguments.next()?;
    (arguments.peek()? == "runtime").then_some(arguments)
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => up::run(options),
        Command::Down(options) => down::run(&options),
        Command::Node(options) => node::run(options),
        Command::Master(options) => up::run_master(options),
        Command::IssueNode(options) => credentials::run(&options),
        Command::Ps(options) => ps::run(&options),
        Command::Logs(options) => logs::run(&options),
        Command::Exec(options) => exec::run(&options),
        Command::Image(options) => image::run(options),
        Command::Cni => Ok(plugin::main(None)),
        Command::Runtime { arguments } => {
            Ok(berth_runtime_cli::run([OsString::new()].into_iter().chain(arguments)).into())
        }
    }
}
