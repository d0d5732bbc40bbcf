//! A runtime's command line, called as containerd and podman call it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_runtime_tests::bundle::Bundle;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::figures::Figures;

/// Asks this program to run a command and print the most memory that it had.
pub(crate) const PEAK_OF: &str = "--peak-of";

/// One runtime.
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    program: PathBuf,
    root: PathBuf,
    bundle: PathBuf,
    round: u32,
    sleeper: String,
}

impl Runtime {
    pub(crate) fn new(name: &'static str, program: PathBuf, folder: &Path, bundle: &Bundle, sleeper: &Bundle) -> Self {
        let root = folder.join(format!("state-{name}"));
        let this = Self {
            name,
            program,
            root,
            bundle: bundle.path.clone(),
            round: 0,
            sleeper: format!("bench-{}-{name}-sleeper", std::process::id()),
        };
        this.call(&["create", "--bundle", sleeper.path.to_str().expect("the path is text"), &this.sleeper]);
        this.call(&["start", &this.sleeper]);
        this
    }

    pub(crate) fn measure(&mut self, figures: &mut Figures) {
        self.round += 1;
        let name = self.name;
        let id = format!("bench-{}-{name}-{}", std::process::id(), self.round);
        let bundle = self.bundle.to_str().expect("the path is text").to_owned();
        let parts = ["create", "start", "delete"].map(|verb| format!("{name} {verb}"));
        figures.measure(&parts[0], || self.call(&["create", "--bundle", &bundle, &id]));
        figures.measure(&parts[1], || self.call(&["start", &id]));
        reap_orphans();
        figures.measure(&parts[2], || self.call(&["delete", "--force", &id]));
        figures.sum(&format!("{name} cycle"), &parts);
        figures.measure(format!("{name} run"), || self.call(&["run", "--bundle", &bundle, &id]));
        figures.measure(format!("{name} exec"), || self.call(&["exec", &self.sleeper, "/bin/true"]));
    }

    /// The most memory that one process of `create` had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let this = std::env::current_exe().expect("a program knows its own path");
        let id = format!("bench-{}-{}-peak", std::process::id(), self.name);
        let output = Command::new(this)
            .arg(PEAK_OF)
            .arg(&self.program)
            .arg("--root")
            .arg(&self.root)
            .args(["create", "--bundle"])
            .arg(&self.bundle)
            .arg(&id)
            .output()
            .expect("this program runs");
        self.call(&["delete", "--force", &id]);
        let said = String::from_utf8_lossy(&output.stderr);
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_else(|_| panic!("{}: {said}", self.name))
    }

    fn call(&self, arguments: &[&str]) {
        let status = Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        assert!(status.success(), "{} {arguments:?}: {status}", self.program.display());
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.call(&["delete", "--force", &self.sleeper]);
    }
}

/// The containers' processes are this program's, once their makers have ended: it waits for them to end, as an engine
/// would.
fn reap_orphans() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            // The sleepers stay.
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Runs a command and prints the most memory that any process of it had, in KiB.
pub(crate) fn print_peak(mut arguments: impl Iterator<Item = String>) {
    let program = arguments.next().expect("a command is given");
    // What is left of it would hold the streams open.
    let mut command = Command::new(program);
    let status = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()));
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN).expect("every kernel has it").max_rss());
}
