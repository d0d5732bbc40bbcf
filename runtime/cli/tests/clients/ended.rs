//! A command that has ended.

use std::process::{Command, Stdio};

/// Its code and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    line: String,
}

impl Ended {
    /// Runs a command to its end, without input; not for ever.
    pub(crate) fn of(command: &mut Command) -> Self {
        let line = format!("{command:?}");
        let mut limited = Command::new("timeout");
        limited.args(["--kill-after=5", "60"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                limited.env(name, value);
            }
        }
        let output = limited.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr), line }
    }

    /// What it wrote, if it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        self.failed_with(0).out
    }

    /// The same, if it ended with this code.
    #[track_caller]
    pub(crate) fn failed_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nstdout: {}\nstderr: {}", self.line, self.out, self.err);
        self
    }
}
