//! A container for one test: bundle, cgroup and state of its own, all gone when the test is.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_runtime::{Error, Launch, Runtime, Spawned, Stdio};
use berth_sys::process::{wait, wait_for_end};
use serde_json::{Value, json};

/// The longest that any test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

const APPLETS: [&str; 24] = [
    "sh", "cat", "sleep", "true", "false", "id", "mount", "ls", "dd", "hostname", "touch", "mkdir", "stat", "grep",
    "readlink", "echo", "test", "head", "tail", "chmod", "umount", "mknod", "nproc", "ulimit",
];

pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) spec: Value,
    pub(crate) runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Container {
    /// A container with the usual namespaces, mounts and masked paths, whose program is a shell script.
    pub(crate) fn new(script: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes containers: run it as root");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("berth-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("bundle/rootfs");
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        // By a process of its own: a child that another test clones meanwhile would hold our copy open for writing, and
        // what is open for writing cannot be executed.
        let copied = Command::new("cp").arg("/bin/busybox").arg(rootfs.join("bin")).status().unwrap();
        assert!(copied.success());
        APPLETS.iter().for_each(|name| symlink("busybox", rootfs.join("bin").join(name)).unwrap());
        let runtime = Runtime::new(folder.path().join("state"));
        let spec = spec(&id, script);
        Self { id, spec, runtime, folder }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a mount to the spec.
    pub(crate) fn mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Replaces a namespace of the spec by one with a path, or takes it away.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&str>) {
        let list = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|it| it["type"] != kind);
        list.extend(path.map(|path| json!({ "type": kind, "path": path })));
    }

    pub(crate) fn create_with(&self, launch: impl Into<Launch>) -> Result<Spawned, Error> {
        fs::write(self.bundle().join("config.json"), self.spec.to_string()).unwrap();
        self.runtime.create(&self.id, &self.bundle(), launch)
    }

    pub(crate) fn create(&self) -> Result<Spawned, Error> {
        self.create_with(Stdio::default())
    }

    /// Runs the program to its end: its exit code and what it wrote to its two streams.
    pub(crate) fn run(&self) -> (i32, String) {
        let (output, stdio) = output();
        let spawned = self.create_with(stdio).unwrap_or_else(|error| panic!("create: {}", describe(&error)));
        self.runtime.start(&self.id).unwrap_or_else(|error| panic!("start: {}", describe(&error)));
        (finish(&spawned), read(output))
    }

    /// What a successful program wrote.
    pub(crate) fn output(&self) -> String {
        let (code, output) = self.run();
        assert_eq!(code, 0, "{output}");
        output.trim().to_owned()
    }

    /// Starts the program and leaves it running.
    pub(crate) fn running(&self) -> Spawned {
        let spawned = self.create().unwrap_or_else(|error| panic!("create: {}", describe(&error)));
        self.runtime.start(&self.id).unwrap();
        spawned
    }

    /// Runs a shell script in the running container.
    pub(crate) fn exec(&self, script: &str) -> (i32, String) {
        let mut process = self.spec["process"].clone();
        process["args"] = json!(["/bin/sh", "-c", script]);
        let process = serde_json::from_value(process).unwrap();
        let (output, stdio) = output();
        let spawned = self.runtime.exec(&self.id, &process, stdio).unwrap_or_else(|e| panic!("exec: {}", describe(&e)));
        (finish(&spawned), read(output))
    }

    /// The folders of the container's cgroup that exist.
    pub(crate) fn cgroup_folders(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            found.extend([hierarchy.path().join(&self.id)].into_iter().filter(|folder| folder.exists()));
        }
        found
    }

    /// Asserts that nothing is left: no state, cgroup or mount.
    pub(crate) fn assert_gone(&self) {
        assert!(!self.folder.path().join("state").join(&self.id).exists(), "state is left");
        assert_eq!(self.cgroup_folders(), Vec::<PathBuf>::new(), "a cgroup is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.folder.path().to_str().unwrap()), "a mount is left");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.runtime.delete(&self.id);
    }
}

/// An error with all its causes, as a user would see it.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}

/// A pipe that takes both streams of a process.
pub(crate) fn output() -> (OwnedFd, Stdio) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let stdio = Stdio { stdin: None, stdout: Some(write.try_clone().unwrap()), stderr: Some(write) };
    (read, stdio)
}

pub(crate) fn read(output: OwnedFd) -> String {
    let mut text = String::new();
    File::from(output).read_to_string(&mut text).unwrap();
    text
}

/// Waits for a process to end and takes its exit code.
pub(crate) fn finish(spawned: &Spawned) -> i32 {
    assert!(wait_for_end(&spawned.pidfd, DEADLINE.as_millis() as u16).unwrap(), "the process does not end");
    wait(&spawned.pidfd).unwrap().code()
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spec(id: &str, script: &str) -> Value {
    let capabilities =
        json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.2.0",
        "hostname": "box",
        "root": { "path": "rootfs" },
        "process": {
            "args": ["/bin/sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/nothing"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
