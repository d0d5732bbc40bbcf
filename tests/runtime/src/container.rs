//! One container under the runtime: its bundle, its life, and its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::call::{Call, Outcome, Running};
use crate::cgroup::Cgroup;
use crate::report::Report;
use crate::{machine, rootfs, spec, until};

/// A container of a test, gone when this is dropped.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: String,
    /// What its `config.json` will be.
    pub spec: Value,
    folder: tempfile::TempDir,
    /// The call that made it, whose streams it has.
    maker: Mutex<Option<Running>>,
}

impl Container {
    /// A container whose program is a shell script.
    pub fn new(script: &str) -> Self {
        Self::with_arguments(&["/bin/sh", "-c", script])
    }

    /// A container whose program tells what it sees.
    pub fn probe() -> Self {
        Self::with_arguments(&["/bin/probe"])
    }

    /// A container whose program waits for ever.
    pub fn sleeper() -> Self {
        // A shell does not forward signals: the process itself has to be one that TERM ends.
        Self::with_arguments(&["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"])
    }

    /// A container that runs the same in the root folder of another, which has to live longer.
    pub fn sharing(other: &Self) -> Self {
        let mut this = Self::without_root(&[]);
        let own = this.spec["linux"]["cgroupsPath"].clone();
        this.spec = other.spec.clone();
        this.spec["linux"]["cgroupsPath"] = own;
        this.spec["root"]["path"] = json!(other.rootfs());
        this
    }

    fn with_arguments(arguments: &[&str]) -> Self {
        let this = Self::without_root(arguments);
        rootfs::make(&this.rootfs());
        this
    }

    fn without_root(arguments: &[&str]) -> Self {
        adopt_orphans();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("suite-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix(&format!("{id}-")).tempdir().unwrap();
        // The container's other users have to reach its root.
        let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(folder.path(), open).unwrap();
        fs::create_dir(folder.path().join("bundle")).unwrap();
        let spec = spec::usual(&id, arguments);
        Self { id, spec, folder, maker: Mutex::new(None) }
    }

    /// The container with another configuration.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Adds a mount to the configuration.
    pub fn mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Replaces a namespace of the configuration by one with a path, or takes it away.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) {
        let list = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|it| it["type"] != kind);
        list.extend(path.map(|path| json!({ "type": kind, "path": path })));
    }

    /// Gives the program these capabilities, besides the usual ones.
    pub fn grant(&mut self, names: &[&str]) {
        for set in ["bounding", "effective", "permitted"] {
            let list = self.spec["process"]["capabilities"][set].as_array_mut().unwrap();
            list.extend(names.iter().map(|name| json!(name)));
        }
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The bundle.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    /// The container's root folder.
    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// Gives the container's root folder, and all in it, to a user.
    #[track_caller]
    pub fn chown(&self, id: u32) {
        let mut chown = Command::new("chown");
        chown.args(["-hR", &format!("{id}:{id}")]).arg(self.rootfs());
        assert!(chown.status().unwrap().success());
    }

    /// Its control group.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::new(self.spec["linux"]["cgroupsPath"].as_str().unwrap_or(&self.id))
    }

    /// A call of the runtime that holds this container.
    pub fn call(&self, arguments: &[&str]) -> Call {
        Call::new(self.folder.path(), arguments)
    }

    /// A command that takes the container's id as its only argument.
    #[track_caller]
    pub fn verb(&self, verb: &str) -> Outcome {
        self.call(&[verb, &self.id]).finish()
    }

    /// Writes the configuration where the runtime reads it.
    pub fn write(&self) {
        fs::write(self.bundle().join("config.json"), self.spec.to_string()).unwrap();
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("pid")
    }

    /// The call that makes the container, with further options.
    pub fn create_call(&self, options: &[&str]) -> Call {
        self.write();
        let (bundle, pid_file) = (self.bundle(), self.pid_file());
        let mut arguments =
            vec!["create", "--bundle", bundle.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap()];
        arguments.extend(options);
        arguments.push(&self.id);
        self.call(&arguments)
    }

    /// Makes the container by a call, keeping the streams.
    #[track_caller]
    pub fn create_by(&self, call: Call) -> Outcome {
        let (outcome, maker) = call.begin().wait_and_keep_streams();
        *self.maker.lock().unwrap() = Some(maker);
        outcome
    }

    /// Tries to make it.
    #[track_caller]
    pub fn try_create(&self) -> Outcome {
        self.create_by(self.create_call(&[]))
    }

    /// Makes it.
    #[track_caller]
    pub fn create(&self) {
        self.try_create().ok();
    }

    /// Starts what was made.
    #[track_caller]
    pub fn start(&self) {
        self.verb("start").ok();
    }

    /// Makes and starts it.
    #[track_caller]
    pub fn running(self) -> Self {
        self.create();
        self.start();
        self
    }

    /// Runs it to its end by create and start: the program's exit code, and what it wrote.
    #[track_caller]
    pub fn run(&self) -> Outcome {
        self.create();
        self.start();
        let code = self.wait();
        Outcome { code, out: self.out(), err: self.err() }
    }

    /// The output of a program that ends well.
    #[track_caller]
    pub fn output(&self) -> String {
        self.run().ok().trim().to_owned()
    }

    /// What the probe sees in the container.
    #[track_caller]
    pub fn seen(&self) -> Report {
        report(&self.output())
    }

    /// What the program has written to its output by now.
    pub fn out(&self) -> String {
        self.maker.lock().unwrap().as_ref().map(Running::out).unwrap_or_default()
    }

    /// As [`Self::out`], of the error stream.
    pub fn err(&self) -> String {
        self.maker.lock().unwrap().as_ref().map(Running::err).unwrap_or_default()
    }

    /// The program's process, as the runtime's pid file says.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.pid_file()).unwrap().trim().parse().unwrap()
    }

    /// Waits for the program's end: its exit code, or 128 and the signal that ended it.
    #[track_caller]
    pub fn wait(&self) -> i32 {
        exit_code(self.pid())
    }

    /// Runs a shell script in the running container.
    #[track_caller]
    pub fn exec(&self, script: &str) -> Outcome {
        self.exec_with(&[], &["/bin/sh", "-c", script])
    }

    /// Runs a program in the running container, with options of the command line.
    #[track_caller]
    pub fn exec_with(&self, options: &[&str], program: &[&str]) -> Outcome {
        self.exec_call(options, program).finish()
    }

    /// The call for [`Self::exec_with`].
    pub fn exec_call(&self, options: &[&str], program: &[&str]) -> Call {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        arguments.push(&self.id);
        arguments.extend(program);
        self.call(&arguments)
    }

    /// Runs a process of the configuration's kind in the running container.
    #[track_caller]
    pub fn exec_process(&self, process: &Value) -> Outcome {
        let path = self.folder.path().join("process.json");
        fs::write(&path, process.to_string()).unwrap();
        self.exec_with(&["--process", path.to_str().unwrap()], &[])
    }

    /// What the runtime says of the container.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.verb("state").json()
    }

    /// Its status: `created`, `running`, `paused`, `stopped`.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Sends a signal.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Outcome {
        self.call(&["kill", &self.id, signal]).finish()
    }

    /// Deletes the container with force, and asserts that nothing is left: no state, control group, mount or process.
    #[track_caller]
    pub fn delete(&self) {
        self.call(&["delete", "--force", &self.id]).finish().ok();
        self.assert_gone();
    }

    /// Asserts that nothing is left of the container on the machine.
    #[track_caller]
    pub fn assert_gone(&self) {
        assert!(!self.folder.path().join("state").join(&self.id).exists(), "state is left");
        assert_eq!(self.cgroup().folders(), Vec::<PathBuf>::new(), "a control group is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // The root may be another's.
        let root = self.bundle().join(self.spec["root"]["path"].as_str().unwrap_or_default());
        assert!(!mounts.contains(root.to_str().unwrap()), "a mount is left");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let freezer = self.cgroup().folder("freezer");
        let _ = fs::write(freezer.join("freezer.state"), "THAWED");
        let _ = fs::write(freezer.join("cgroup.freeze"), "0");
        if self.folder.path().join("state").join(&self.id).exists() {
            // In a thread: its deadline's panic must not come on top of another one.
            let call = self.call(&["delete", "--force", &self.id]);
            let _ = std::thread::scope(|scope| scope.spawn(|| call.finish().code).join());
        }
        self.cgroup().remove();
        machine::unmount_below(self.folder.path());
    }
}

/// What a probe printed.
#[track_caller]
pub fn report(output: &str) -> Report {
    let line = output.lines().next_back().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// Waits for a process that a runtime left to us.
#[track_caller]
pub fn exit_code(pid: i32) -> i32 {
    let mut code = None;
    until("the process has ended", || {
        code = match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
            Ok(_) => None,
            Err(error) => panic!("process {pid} is not our child: {error}"),
        };
        code.is_some()
    });
    code.unwrap_or_default()
}

/// Whether a process is there, and more than the entry of one that has ended.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// Sends a signal to a process of the test's own.
pub fn signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

/// Lets this process become the parent of the containers' programs when the runtime that made them has ended, as a
/// container engine's shim does: so their exit codes are known.
fn adopt_orphans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| nix::sys::prctl::set_child_subreaper(true).unwrap());
}
