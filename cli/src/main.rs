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

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
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
    }
}
