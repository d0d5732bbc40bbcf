//! One pod under test: a shim in a folder of its own, with everything taken back at the end, also of a failed test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_runtime::shim::client::{self, Connection};
use berth_runtime::shim::protocol::{
    Answer, Call, ContainerState, Event, ExitRecord, Handler, LogSpec, NamespaceMode, SandboxNamespaces, SandboxSpec,
};
use serde_json::{Value, json};

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const BUSYBOX: &str = "/bin/busybox";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A sandbox with its shim.
pub(crate) struct Pod {
    /// The sandbox's directory.
    pub(crate) dir: PathBuf,
    /// Rootfs, bundles, logs.
    pub(crate) folder: tempfile::TempDir,
    pub(crate) spec: SandboxSpec,
}

/// What a pod is like unless a test says otherwise.
pub(crate) fn spec() -> SandboxSpec {
    let id = format!("berth-shim-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    SandboxSpec {
        uid_mappings: Vec::new(),
        gid_mappings: Vec::new(),
        cgroup: format!("/{id}"),
        id,
        hostname: "web-0".into(),
        namespaces: SandboxNamespaces {
            user: NamespaceMode::Host,
            net: NamespaceMode::New,
            ipc: NamespaceMode::New,
            uts: NamespaceMode::New,
            pid: NamespaceMode::Container,
        },
        sysctls: BTreeMap::new(),
        handler: std::env::var_os("BERTH_HANDLER").map(handler),
    }
}

/// Another OCI runtime.
pub(crate) fn handler(program: impl Into<PathBuf>) -> Handler {
    Handler { program: program.into(), root: None, args: Vec::new(), secs_max: None }
}

impl Pod {
    pub(crate) fn start() -> Self {
        Self::with(spec())
    }

    pub(crate) fn with(spec: SandboxSpec) -> Self {
        let pod = Self::unstarted(spec);
        client::start_shim(&Self::program(), &pod.dir, &pod.spec).unwrap();
        pod
    }

    pub(crate) fn unstarted(spec: SandboxSpec) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("rootfs/bin");
        for name in ["rootfs/proc", "rootfs/dev", "rootfs/tmp", "rootfs/sys", "rootfs/bin"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for applet in
            ["awk", "cat", "dd", "echo", "grep", "head", "hostname", "ifconfig", "kill", "printf", "ps", "readlink"]
        {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        for applet in ["seq", "sh", "sleep", "stty", "tr", "true", "yes"] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        Self { dir: folder.path().join("sandbox"), folder, spec }
    }

    /// The shim: this build's own, or one that was built otherwise, to be measured.
    pub(crate) fn program() -> PathBuf {
        std::env::var_os("BERTH_SHIM").map_or(env!("CARGO_BIN_EXE_berth-shim").into(), PathBuf::from)
    }

    pub(crate) fn connect(&self) -> Client {
        Client(Connection::connect(&self.dir, PATIENCE).unwrap())
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        client::living(&self.dir).unwrap().unwrap()
    }

    pub(crate) fn log_path(&self, container: &str) -> PathBuf {
        self.folder.path().join(format!("{container}.log"))
    }

    /// A bundle that runs a shell script.
    pub(crate) fn bundle(&self, container: &str, script: &str) -> PathBuf {
        self.bundle_with(container, &["/bin/sh", "-c", script], |_| {})
    }

    pub(crate) fn bundle_with(&self, container: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.folder.path().join("bundles").join(container);
        fs::create_dir_all(&bundle).unwrap();
        let pinned = |kind: &str, name: &str| json!({"type": kind, "path": self.dir.join("ns").join(name)});
        let pid = match self.spec.namespaces.pid {
            NamespaceMode::New => pinned("pid", "pid"),
            _ => json!({"type": "pid"}),
        };
        let mut config = json!({
            "ociVersion": "1.0.2",
            "root": {"path": self.folder.path().join("rootfs")},
            "process": process(args),
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {
                "cgroupsPath": format!("{}/{container}", self.spec.cgroup),
                "namespaces": [
                    pinned("network", "net"), pinned("ipc", "ipc"), pinned("uts", "uts"), pid, {"type": "mount"},
                ],
            },
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    /// Creates a container with a log.
    pub(crate) fn create(&self, client: &mut Client, container: &str, bundle: PathBuf) -> i32 {
        let log = LogSpec { path: self.log_path(container), max_bytes: 0, max_files: 1 };
        match client.ask(Call::create(container, bundle, Some(log))) {
            Answer::Created { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Creates and starts a container that runs a script.
    pub(crate) fn run(&self, client: &mut Client, container: &str, script: &str) -> i32 {
        let pid = self.create(client, container, self.bundle(container, script));
        client.ask(Call::Start { container: container.into() });
        pid
    }

    /// The lines of a log without their stamps: stream, tag and text.
    pub(crate) fn log(&self, container: &str) -> Vec<String> {
        let text = fs::read_to_string(self.log_path(container)).unwrap();
        text.lines().map(|line| unstamped(line).to_owned()).collect()
    }

    pub(crate) fn exit_record(&self, container: &str) -> Option<ExitRecord> {
        let content = fs::read(self.dir.join("exits").join(format!("{container}.json"))).ok()?;
        Some(serde_json::from_slice(&content).unwrap())
    }

    /// The containers of which something is kept.
    pub(crate) fn kept(&self) -> usize {
        let folder = match self.spec.handler {
            Some(_) => Handler::folder(&self.dir),
            None => self.dir.join("runtime"),
        };
        fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// The pod's cgroup folders that are there, in every hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let hierarchies = mounts.lines().filter(|line| line.contains(" - cgroup"));
        let roots = hierarchies.map(|line| Path::new(line.split(' ').nth(4).unwrap()));
        roots.map(|root| root.join(&self.spec.id)).filter(|path| path.exists()).collect()
    }

    /// Mounts below the pod's folder.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let own = self.folder.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(own)).map(str::to_owned).collect()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("shim.log")).unwrap_or_default();
            eprintln!("shim.log of {}:\n{log}", self.spec.id);
        }
        if let Ok(mut connection) = Connection::connect(&self.dir, Duration::from_secs(1)) {
            let _ = connection.call(Call::Shutdown, &[], PATIENCE);
        }
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(_)) = client::living(&self.dir)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Err(error) = client::reap_dead(&self.dir) {
            eprintln!("{error}");
        }
    }
}

/// The OCI process object of a command.
pub(crate) fn process(args: &[&str]) -> Value {
    json!({
        "args": args,
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "noNewPrivileges": true,
    })
}

/// A log line without its stamp, which is checked.
pub(crate) fn unstamped(line: &str) -> &str {
    let (stamp, rest) = line.split_once(' ').unwrap();
    assert!(stamp.len() == 30 && stamp.ends_with('Z') && stamp.parse::<jiff::Timestamp>().is_ok(), "{line:?}");
    rest
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process is there and not only a zombie.
pub(crate) fn lives(pid: i32) -> bool {
    berth_sys::proc::stat(pid).is_ok_and(|stat| !stat.is_dead())
}

/// A connection that panics at what a test does not expect.
pub(crate) struct Client(pub(crate) Connection);

impl Client {
    pub(crate) fn ask(&mut self, call: Call) -> Answer {
        self.try_ask(call).unwrap()
    }

    pub(crate) fn try_ask(&mut self, call: Call) -> Result<Answer, client::Error> {
        self.0.call(call, &[], PATIENCE)
    }

    pub(crate) fn event(&mut self) -> Event {
        self.0.next_event(PATIENCE).unwrap().expect("an event in time")
    }

    /// The end of a container; other events before it are dropped.
    pub(crate) fn exit_of(&mut self, wanted: &str) -> ExitRecord {
        loop {
            match self.event() {
                Event::Exited { container, exit } if container == wanted => return exit,
                _ => {}
            }
        }
    }

    pub(crate) fn state(&mut self) -> BTreeMap<String, ContainerState> {
        match self.ask(Call::State) {
            Answer::State { containers } => containers,
            other => panic!("{other:?}"),
        }
    }
}
