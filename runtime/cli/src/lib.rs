//! runc's command line on berth's OCI runtime, so that podman, containerd and everything else that calls `runc` can
//! call this instead and notice nothing. The behaviour follows runc 1.1 and 1.2: flags, output, exit codes, and those
//! error messages that callers look for.
//!
//! | file | what it owns |
//! |---|---|
//! | `args` | what was typed, as values |
//! | `signal`, `user`, `quantity` | the notations of signals, users, sizes and times |
//! | `launch` | what `create`, `run` and `exec` give a process besides its spec, and whom they tell of it |
//! | `create`, `run`, `exec` | the verbs that make processes |
//! | `foreground`, `relay` | staying with a process: its signals, its end, its terminal |
//! | `control` | the verbs that change a container: start, kill, delete, pause, resume, update |
//! | `state`, `list`, `ps`, `events` | the verbs that show one |
//! | `template`, `about` | what needs no container: a new `config.json`, version, features, help |
//! | `error`, `phrase`, `log` | what went wrong, in runc's words, where the caller wants to read it |
#![forbid(unsafe_code)]

mod about;
mod args;
mod control;
mod create;
mod error;
mod events;
mod exec;
mod foreground;
mod launch;
mod list;
mod log;
mod phrase;
mod ps;
mod quantity;
mod relay;
mod run;
mod signal;
mod state;
mod template;
mod user;

use std::ffi::OsString;

use crate::args::{Command, Global, Words};
use crate::error::Error;
use crate::log::Log;
use berth_runtime::{Runtime, Settings};

/// Does what a command line of runc's says; the first of `args` is the program's own name. The result is the code to
/// exit with: 0, runc's code for what failed (1, or 255 for `exec`), or the code of the process that was waited for.
///
/// Verbs that put a process into a container execute this program anew first, from a place where the container cannot
/// write to it ([`berth_sys::selfexec`]): call it before anything that this would lose.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let mut words = Words::new(args.skip(1));
    let global = match Global::parse(&mut words) {
        Ok(global) => global,
        Err(error) => return fail(&Log::default(), &error),
    };
    let log = Log::new(global.log.clone(), global.log_format);
    if let Err(errno) = berth_sys::signal::heed_children() {
        log.error(&format!("heeding the ends of children: {errno}"));
        return 1;
    }
    match Command::parse(&mut words).and_then(|command| obey(command, global, &log)) {
        Ok(code) => code,
        Err(error) => fail(&log, &error),
    }
}

/// The one place where errors are told.
fn fail(log: &Log, error: &Error) -> u8 {
    log.error(&error::chain(error));
    error.exit_code()
}

/// What every verb works with.
struct Host<'a> {
    runtime: Runtime,
    log: &'a Log,
}

fn obey(command: Command, global: Global, log: &Log) -> Result<u8, Error> {
    if command.makes_processes() {
        berth_sys::selfexec::protect().map_err(Error::Protect)?;
    }
    let settings = Settings { systemd_cgroup: global.systemd_cgroup };
    let host = Host { runtime: Runtime::with(global.root, settings), log };
    let done = match command {
        Command::Create(args) => return create::create(&host, &args).map_err(Error::of("create", 1)),
        Command::Run(args) => return run::run(&host, &args).map_err(Error::of("run", 1)),
        Command::Exec(args) => return exec::exec(&host, &args).map_err(Error::of("exec", 255)),
        Command::Start { id } => control::start(&host, &id),
        Command::Kill(args) => control::kill(&host, &args),
        Command::Delete(args) => control::delete(&host, &args),
        Command::Pause { id } => control::pause(&host, &id),
        Command::Resume { id } => control::resume(&host, &id),
        Command::Update(args) => control::update(&host, &args),
        Command::State { id } => state::print(&host, &id),
        Command::List(args) => list::print(&host, &args),
        Command::Ps(args) => ps::print(&host, &args),
        Command::Events(args) => events::print(&host, &args),
        Command::Spec(args) => template::write(&args),
        Command::Features => about::features(),
        Command::Version => about::version(),
        Command::Help(verb) => about::help(verb),
    };
    done.map(|()| 0)
}
