//! Where errors and warnings are told: standard error, and the file that the caller reads, in the two forms of the
//! library that runc logs with (logrus): `time="…" level=error msg="…"`, and JSON with the same three keys.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use jiff::{Timestamp, Unit};
use serde::Serialize;

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it is text or json"),
        }
    }
}

/// One line. containerd decodes it into exactly these (go-runc, `getLastRuntimeError`); podman takes the whole file for
/// one of them, so that what fails must not warn before.
#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    msg: &'a str,
    time: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<PathBuf>,
    format: Format,
}

impl Log {
    /// A log that goes to this file, which is made when there is something to tell; to standard error without one.
    pub(crate) fn new(file: Option<PathBuf>, format: Format) -> Self {
        Self { file, format }
    }

    /// Tells why nothing came of it: to people too, if the log goes elsewhere.
    pub(crate) fn error(&self, message: &str) {
        if self.write("error", message).is_err() || self.file.is_some() {
            let _ = writeln!(io::stderr(), "{message}");
        }
    }

    /// Tells what came out otherwise than it was asked for.
    pub(crate) fn warn(&self, message: &str) {
        if self.write("warning", message).is_err() {
            let _ = writeln!(io::stderr(), "{message}");
        }
    }

    fn write(&self, level: &'static str, message: &str) -> io::Result<()> {
        let line = self.line(&Line { level, msg: message, time: Timestamp::now() })?;
        match &self.file {
            Some(path) => OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        }
    }

    fn line(&self, line: &Line<'_>) -> io::Result<String> {
        let time = line.time.round(Unit::Second).unwrap_or(line.time);
        match self.format {
            Format::Json => Ok(serde_json::to_string(&Line { time, ..*line })? + "\n"),
            Format::Text => Ok(format!("time=\"{time}\" level={} msg={:?}\n", line.level, line.msg)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_runc() {
        let line = Line { level: "error", msg: "exec: \"x\"", time: "2026-08-20T01:02:03.4Z".parse().unwrap() };
        let written = |format| Log::new(None, format).line(&line).unwrap();
        assert_eq!(
            written(Format::Json),
            "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\"\",\"time\":\"2026-08-20T01:02:03Z\"}\n"
        );
        assert_eq!(written(Format::Text), "time=\"2026-08-20T01:02:03Z\" level=error msg=\"exec: \\\"x\\\"\"\n");
    }

    #[test]
    fn a_log_is_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.json");
        let log = Log::new(Some(path.clone()), Format::Json);
        log.warn("one");
        log.warn("two");
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
