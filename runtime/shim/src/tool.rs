//! Another OCI runtime's program: run in a child, and the files by which it tells what it did.

use std::ffi::{CString, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use berth_runtime::Stdio;
use berth_runtime::shim::protocol::{Fault, FaultKind, Handler};
use berth_sys::process::{self, Birth, Exit, Program};
use berth_sys::signal;
use nix::unistd::{AccessFlags, access, getpid};
use serde::Deserialize;

use crate::console::Console;
use crate::fault::{failed, fault};
use crate::limits::TOOL_OUTPUT_BYTES_MAX;
use crate::run::{Made, Report, Run};

/// What a program that could not be executed ends with, as shells say it.
const NOT_EXECUTED: i32 = 127;

/// The runtime of one sandbox.
#[derive(Debug)]
pub(crate) struct Tool {
    handler: Handler,
    dir: PathBuf,
    last_run: u64,
}

impl Tool {
    /// The runtime that the sandbox in `dir` names.
    pub(crate) fn new(handler: Handler, dir: PathBuf) -> io::Result<Self> {
        access(&handler.program, AccessFlags::X_OK)?;
        let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(&Handler::folder(&dir))?;
        private(&handler.root(&dir))?;
        Ok(Self { handler, dir, last_run: 0 })
    }

    /// Files for the next run, which concerns this container.
    pub(crate) fn files(&mut self, container: &str) -> Result<Files, Fault> {
        let folder = Handler::folder(&self.dir).join(container);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| failed(&format!("making {}", folder.display()), &error))?;
        self.last_run += 1;
        Ok(Files { folder, number: self.last_run })
    }

    /// Nothing is left of a container.
    pub(crate) fn forget(&self, container: &str) {
        let _ = fs::remove_dir_all(Handler::folder(&self.dir).join(container));
    }

    /// Runs the program with a verb and its arguments. Its own streams are the container's if `stdio` is given; otherwise
    /// they are kept in the files. `what` says what it is for.
    pub(crate) fn run(
        &self,
        what: String,
        (files, console): (Files, Option<Console>),
        arguments: impl IntoIterator<Item = OsString>,
        stdio: Option<Stdio>,
    ) -> Result<Run, Fault> {
        let begun = self.spawn(&files, arguments, stdio);
        let pid =
            begun.map_err(|error| failed(&format!("{what}: running {}", self.handler.program.display()), &error))?;
        Ok(Run::begun(pid, self.handler.time_max(), what, Report::Files(Leavings { files, console })))
    }

    fn spawn(
        &self,
        files: &Files,
        arguments: impl IntoIterator<Item = OsString>,
        stdio: Option<Stdio>,
    ) -> io::Result<i32> {
        let log = ["--log".into(), files.path("log").into(), "--log-format".into(), "json".into()];
        let program: OsString = self.handler.program.clone().into();
        let words = [program.clone()].into_iter().chain(self.handler.arguments(&self.dir)).chain(log).chain(arguments);
        let words = words.map(|word| CString::new(word.into_vec())).collect::<Result<Vec<_>, _>>()?;
        let path = CString::new("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")?;
        let program = Program::new(vec![CString::new(program.into_vec())?], words, vec![path]);
        let stdio = match stdio {
            Some(stdio) => stdio,
            None => Stdio { stdin: None, stdout: Some(files.create("out")?), stderr: Some(files.create("err")?) },
        };
        let null = || OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let or_null = |fd: Option<OwnedFd>| fd.map_or_else(null, Ok);
        let streams = [or_null(stdio.stdin)?, or_null(stdio.stdout)?, or_null(stdio.stderr)?];
        let shim = getpid();
        let child = process::spawn(&Birth::default(), || {
            let ready = || -> nix::Result<()> {
                signal::reset()?;
                for (number, fd) in streams.iter().enumerate() {
                    process::set_standard_stream(fd, number as i32)?;
                }
                process::close_on_exec_from(3)?;
                // A shim that is dead has somebody else clean up, who must not be disturbed.
                process::die_with(shim)
            };
            if ready().is_ok() {
                program.execute();
            }
            process::exit_now(NOT_EXECUTED)
        })?;
        Ok(child.pid)
    }
}

/// The files of one run, by kind: `log`, `out`, `err`, `pid`, `json`, `sock`. They go with this value.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    number: u64,
}

impl Files {
    const KINDS: [&str; 6] = ["log", "out", "err", "pid", "json", "sock"];

    /// Where a file of this kind is.
    pub(crate) fn path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.number))
    }

    /// Writes what the run shall read.
    pub(crate) fn write_json(&self, content: &impl serde::Serialize) -> Result<PathBuf, Fault> {
        let path = self.path("json");
        let written = serde_json::to_vec(content).map_err(io::Error::from).and_then(|text| fs::write(&path, text));
        written.map_err(|error| failed(&format!("writing {}", path.display()), &error))?;
        Ok(path)
    }

    fn create(&self, kind: &str) -> io::Result<OwnedFd> {
        let path = self.path(kind);
        Ok(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.into())
    }

    /// The end of a file, as much of it as makes sense to read; empty if there is none.
    fn read_end(&self, kind: &str) -> Vec<u8> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.path(kind))?;
            let beginning = file.metadata()?.len().saturating_sub(TOOL_OUTPUT_BYTES_MAX);
            file.seek(SeekFrom::Start(beginning))?;
            let mut content = Vec::new();
            file.take(TOOL_OUTPUT_BYTES_MAX).read_to_end(&mut content)?;
            Ok(content)
        };
        read().unwrap_or_default()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for kind in Self::KINDS {
            let _ = fs::remove_file(self.path(kind));
        }
    }
}

/// What a run of the program leaves.
#[derive(Debug)]
pub(crate) struct Leavings {
    files: Files,
    /// Where it is to send a terminal.
    console: Option<Console>,
}

/// A line of the program's log.
#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

impl Leavings {
    /// What it did, by how it ended.
    pub(crate) fn told(&self, exit: Exit) -> Result<Option<Made>, Fault> {
        let told = match exit {
            Exit::Code(0) => return self.made(),
            Exit::Code(NOT_EXECUTED) if self.complaint().is_empty() => "the runtime could not be executed".to_owned(),
            Exit::Code(code) if self.complaint().is_empty() => format!("the runtime ended with {code} and no word"),
            Exit::Code(_) => self.complaint(),
            Exit::Signal(signal) => format!("the runtime was killed by signal {signal}"),
        };
        // Runtimes have no codes for it: these are their words.
        let words = [": exec: \"", "executable file", "exec user process"];
        let is_command = words.iter().any(|words| told.contains(words));
        Err(fault(if is_command { FaultKind::BadCommand } else { FaultKind::Failed }, told))
    }

    /// The last error in its log, or else the last line that it wrote.
    fn complaint(&self) -> String {
        let log = self.files.read_end("log");
        let lines = log.split(|byte| *byte == b'\n').rev();
        let errors = lines.filter_map(|line| serde_json::from_slice::<LogLine>(line).ok());
        let mut errors = errors.filter(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic"));
        errors.next().map(|line| line.msg).unwrap_or_else(|| {
            let text = self.files.read_end("err");
            String::from_utf8_lossy(&text).trim().lines().next_back().unwrap_or_default().to_owned()
        })
    }

    /// The process that it made and left to the shim, and the terminal that it sent if it was to.
    fn made(&self) -> Result<Option<Made>, Fault> {
        let text = self.files.read_end("pid");
        let pid = str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).filter(|pid| *pid > 0);
        let Some(pid) = pid else { return Ok(None) };
        let terminal = self.console.as_ref().map(Console::take).transpose();
        Ok(Some(Made {
            pid,
            terminal: terminal.map_err(|error| failed("waiting for the runtime's terminal", &error))?,
        }))
    }
}
