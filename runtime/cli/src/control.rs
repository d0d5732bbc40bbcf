//! The verbs that change a container.

use std::fs;
use std::io::{self, Read};

use berth_runtime::{Error as RuntimeError, Status};
use oci_spec::runtime::LinuxResources;
use serde_json::Value;

use crate::Host;
use crate::args::{Delete, Kill, Source, Update};
use crate::error::Error;

/// How much a description of limits may be.
const RESOURCES_BYTES_MAX: u64 = 1 << 20;

/// Zeroes that mean something; any other is what runc leaves as it is.
const MEANT_ZEROES: &[&str] = &["idle", "burst"];

pub(crate) fn start(host: &Host<'_>, id: &str) -> Result<(), Error> {
    host.runtime.start(id).map_err(|error| match error {
        RuntimeError::WrongState { status: Status::Stopped, .. } => Error::AlreadyStopped,
        RuntimeError::WrongState { .. } => Error::AlreadyRunning,
        other => other.into(),
    })
}

/// A single process that has ended is an error, as everybody who calls runc knows; of all of them, it is none.
pub(crate) fn kill(host: &Host<'_>, args: &Kill) -> Result<(), Error> {
    if !args.all && host.runtime.state(&args.id)?.status == Status::Stopped {
        return Err(Error::NotRunning);
    }
    Ok(host.runtime.kill(&args.id, args.signal.0, args.all)?)
}

pub(crate) fn delete(host: &Host<'_>, args: &Delete) -> Result<(), Error> {
    let warnings = if args.force {
        host.runtime.delete_anyway(&args.id)?
    } else {
        let state = host.runtime.state(&args.id)?;
        if !matches!(state.status, Status::Stopped | Status::Created | Status::Creating) {
            return Err(Error::NotStopped { id: state.id, status: state.status.to_string() });
        }
        host.runtime.delete(&args.id)?
    };
    host.warn(&warnings);
    Ok(())
}

pub(crate) fn pause(host: &Host<'_>, id: &str) -> Result<(), Error> {
    host.runtime.pause(id).map_err(|error| match error {
        RuntimeError::WrongState { .. } => Error::NotRunning,
        other => other.into(),
    })
}

pub(crate) fn resume(host: &Host<'_>, id: &str) -> Result<(), Error> {
    host.runtime.resume(id).map_err(|error| match error {
        RuntimeError::WrongState { .. } => Error::NotPaused,
        other => other.into(),
    })
}

pub(crate) fn update(host: &Host<'_>, args: &Update) -> Result<(), Error> {
    let resources = match &args.source {
        Source::Flags(resources) => resources.as_ref().clone(),
        Source::File(path) => {
            let file = fs::File::open(path).map_err(Error::file("open", path))?;
            read(file, path.as_ref())?
        }
        Source::StandardInput => read(io::stdin(), "standard input".as_ref())?,
    };
    host.runtime.update(&args.id, &resources).map_err(|error| match error {
        RuntimeError::WrongState { .. } => Error::NotRunning,
        other => other.into(),
    })
}

fn read(source: impl Read, name: &std::path::Path) -> Result<LinuxResources, Error> {
    let mut text = Vec::new();
    source.take(RESOURCES_BYTES_MAX).read_to_end(&mut text).map_err(Error::file("read", name))?;
    let json = |source| Error::Json { path: name.to_owned(), source };
    let mut value: Value = serde_json::from_slice(&text).map_err(json)?;
    forget_zeroes(&mut value);
    serde_json::from_value(value).map_err(json)
}

fn forget_zeroes(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    fields.retain(|name, value| {
        let zero = value.as_i64() == Some(0) || value.as_str() == Some("") || value.is_null();
        !zero || MEANT_ZEROES.contains(&name.as_str())
    });
    fields.values_mut().for_each(forget_zeroes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_stays_as_it_is() {
        let text = r#"{"memory":{"limit":0,"reservation":5},"cpu":{"shares":0,"idle":0,"cpus":""},"pids":null}"#;
        let resources = read(text.as_bytes(), "x".as_ref()).unwrap();
        let (memory, cpu) = (resources.memory().unwrap(), resources.cpu().as_ref().unwrap());
        assert_eq!((memory.limit(), memory.reservation()), (None, Some(5)));
        assert_eq!((cpu.shares(), cpu.idle(), cpu.cpus().as_ref()), (None, Some(0), None));
        assert!(resources.pids().is_none());
        assert!(read("{".as_bytes(), "x".as_ref()).is_err());
    }
}
