//! `exec`: one more process in a container.

use std::fs;
use std::io;
use std::path::Path;

use berth_sys::{process, pty};
use oci_spec::runtime::{Box as ConsoleSize, BoxBuilder, Capability, LinuxCapabilities, Process};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use crate::Host;
use crate::args::Exec;
use crate::error::Error;
use crate::foreground::{self, Signals};
use crate::launch;
use crate::relay::Relay;
use berth_runtime::{Error as RuntimeError, ExecOptions, Status};

/// Runs a process and, unless detached, stays with it to its end. Returns its program's code.
pub(crate) fn exec(host: &Host<'_>, args: &Exec) -> Result<u8, Error> {
    let mut process = match &args.process {
        Some(path) => read(path)?,
        None => derive(host, args)?,
    };
    if process.terminal() == Some(true) && process.console_size().is_none() {
        process.set_console_size(own_size());
    }
    launch::check_terminal(&args.launching, process.terminal() == Some(true))?;
    // Before there is a process whose end could be missed.
    let signals = match args.launching.detach {
        true => None,
        false => Some(Signals::hold().map_err(Error::Attend)?),
    };
    let options = ExecOptions {
        launch: launch::prepare(&args.launching)?,
        sub_cgroup: args.cgroup.clone(),
        even_if_paused: args.ignore_paused,
    };
    let mut spawned = host.runtime.exec(&args.id, &process, options).map_err(reworded)?;
    let terminal = launch::announce(&args.launching, &mut spawned).inspect_err(|_| {
        let _ = process::kill_and_wait(&spawned.pidfd);
    })?;
    host.warn(&spawned.warnings);
    match signals {
        Some(signals) => {
            let relay = terminal.map(Relay::begin).transpose().map_err(Error::Attend)?;
            foreground::attend(&spawned, &signals, relay).map_err(Error::Attend)
        }
        None => Ok(0),
    }
}

/// The program looks at it before we can follow ours.
fn own_size() -> Option<ConsoleSize> {
    let own = pty::size(io::stdin()).ok()?;
    BoxBuilder::default().height(own.rows).width(own.columns).build().ok()
}

fn reworded(error: RuntimeError) -> Error {
    match error {
        RuntimeError::WrongState { status: Status::Paused, .. } => Error::ExecInPaused,
        RuntimeError::WrongState { .. } => Error::ExecInStopped,
        other => other.into(),
    }
}

fn read(path: &Path) -> Result<Process, Error> {
    let text = fs::read(path).map_err(Error::file("read", path))?;
    berth_runtime::read_process(&text).map_err(|source| Error::Process { path: path.to_owned(), source })
}

/// The container's own process, but for what the flags say.
fn derive(host: &Host<'_>, args: &Exec) -> Result<Process, Error> {
    let spec = host.runtime.spec(&args.id)?;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(args.command.clone())).set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(forbidden) = args.no_new_privs {
        process.set_no_new_privileges(Some(forbidden));
    }
    process.env_mut().get_or_insert_default().extend_from_slice(&args.env);
    set_user(&mut process, args);
    if !args.caps.is_empty() {
        let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
        args.caps.iter().try_for_each(|name| add_capability(&mut sets, name))?;
        process.set_capabilities(Some(sets));
    }
    Ok(process)
}

fn set_user(process: &mut Process, args: &Exec) {
    let identity = process.user_mut();
    if let Some(user) = args.user {
        identity.set_uid(user.uid);
        identity.set_gid(user.gid.unwrap_or(identity.gid()));
    }
    if !args.additional_gids.is_empty() {
        identity.additional_gids_mut().get_or_insert_default().extend_from_slice(&args.additional_gids);
    }
}

/// oci-spec's default has some.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    none
}

/// Into the sets that let the process use it, and not into those that its own programs would inherit (CVE-2022-29162).
fn add_capability(sets: &mut LinuxCapabilities, name: &str) -> Result<(), Error> {
    let parsed: Result<Capability, ValueError> = Capability::deserialize(name.into_deserializer());
    let capability = parsed.map_err(|error| Error::value("cap", name, &error))?;
    let with = |set: &Option<_>| {
        let mut set: oci_spec::runtime::Capabilities = set.clone().unwrap_or_default();
        set.insert(capability);
        Some(set)
    };
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    Ok(())
}
