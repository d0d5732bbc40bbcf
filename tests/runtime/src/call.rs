//! One call of the runtime's binary: its arguments, its streams, and a deadline.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::machine;
use crate::runtime::runtime;
use crate::until::{DEADLINE, PAUSE};

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code, or 128 and the signal that ended it.
    pub code: i32,
    /// What it wrote to its output.
    pub out: String,
    /// What it wrote to its error stream.
    pub err: String,
}

impl Outcome {
    /// The output of a command that had to succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// The complaint of a command that had to fail.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_ne!(self.code, 0, "succeeded: {}{}", self.out, self.err);
        // Some count their own errors down from 255.
        assert!(self.code < 128 || self.code > 250, "was killed: {self:?}");
        assert!(!self.err.trim().is_empty(), "failed without a word");
        self.err
    }

    /// The output, read as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Both streams.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// A call of the runtime that is being put together.
#[derive(Debug)]
pub struct Call {
    folder: PathBuf,
    before: String,
    global: Vec<String>,
    arguments: Vec<String>,
    input: Option<String>,
    environment: Vec<(String, String)>,
}

impl Call {
    /// A call with these arguments, of a runtime whose state is in this folder.
    pub fn new(folder: &Path, arguments: &[&str]) -> Self {
        let global = vec!["--root".to_owned(), folder.join("state").display().to_string()];
        Self {
            folder: folder.to_owned(),
            before: String::new(),
            global,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            input: None,
            environment: Vec::new(),
        }
    }

    /// Options that stand before the command's name.
    pub fn global(mut self, options: &[&str]) -> Self {
        self.global.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Runs words of shell first, in the process that then becomes the runtime: to open files, set limits, change
    /// folders.
    pub fn after(mut self, shell: &str) -> Self {
        self.before = shell.to_owned();
        self
    }

    /// What the runtime reads from its input, which is empty otherwise.
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// A variable of its environment, which has nothing but `PATH` otherwise.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let shell = format!("{}\n{}\nexec \"$@\"", machine::view_of_cgroups(), self.before);
        let mut command = if shell.trim() == "exec \"$@\"" {
            Command::new(&runtime().path)
        } else {
            let mut command = Command::new("/bin/sh");
            command.args(["-e", "-c", &shell, "sh"]).arg(&runtime().path);
            command
        };
        if !machine::view_of_cgroups().is_empty() {
            let inner = command;
            command = Command::new("unshare");
            command.args(["--mount", "--propagation", "unchanged"]).arg(inner.get_program()).args(inner.get_args());
        }
        command.args(&self.global).args(&self.arguments);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder);
        command
    }

    /// Begins the call. Its streams are files, which a container may inherit and hold open for as long as it likes.
    #[track_caller]
    pub fn begin(self) -> Running {
        let mut command = self.command();
        let streams = tempfile::tempdir_in(&self.folder).unwrap();
        let stdin = match &self.input {
            Some(text) => {
                fs::write(streams.path().join("in"), text).unwrap();
                Stdio::from(File::open(streams.path().join("in")).unwrap())
            }
            None => Stdio::null(),
        };
        let stream = |name: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(streams.path().join(name))
                .expect("a new file in a new folder")
        };
        command.stdin(stdin).stdout(stream("out")).stderr(stream("err"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Running { child, streams, shown: format!("{:?} {:?}", self.global, self.arguments) }
    }

    /// Makes the call.
    #[track_caller]
    pub fn finish(self) -> Outcome {
        self.begin().wait()
    }
}

/// A call that is under way; ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    streams: tempfile::TempDir,
    shown: String,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it and the container that inherited its streams have written to the output by now.
    pub fn out(&self) -> String {
        self.stream("out")
    }

    /// As [`Self::out`], of the error stream.
    pub fn err(&self) -> String {
        self.stream("err")
    }

    fn stream(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.streams.path().join(name)).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the command's end, but for no longer than the deadline.
    #[track_caller]
    pub fn wait(self) -> Outcome {
        let (outcome, _) = self.wait_and_keep_streams();
        outcome
    }

    /// As [`Self::wait`], and gives the command back, whose streams a container may still write to.
    #[track_caller]
    pub fn wait_and_keep_streams(mut self) -> (Outcome, Self) {
        use std::os::unix::process::ExitStatusExt;
        let end = Instant::now() + DEADLINE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let _ = self.child.kill();
                    panic!("{} does not end: {}{}", self.shown, self.out(), self.err());
                }
                None => std::thread::sleep(PAUSE),
            }
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        (Outcome { code, out: self.out(), err: self.err() }, self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
