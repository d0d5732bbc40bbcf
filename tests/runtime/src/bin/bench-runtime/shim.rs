//! A shim under measurement, by its socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_runtime::shim::client::{self, Connection};
use berth_runtime::shim::protocol::{Call, Event, LogSpec, NamespaceMode, SandboxNamespaces, SandboxSpec};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A shim, which ends with this value.
pub(crate) struct Shim {
    pub(crate) connection: Connection,
    pub(crate) dir: PathBuf,
    pub(crate) pid: i32,
}

impl Shim {
    /// The shim of a sandbox by this name, below `folder`, whose events are heard.
    pub(crate) fn start(program: &Path, folder: &Path, name: &str) -> Self {
        let dir = folder.join("sandboxes").join(name);
        fs::create_dir_all(folder.join("sandboxes")).expect("the folder can be made");
        let spec = SandboxSpec {
            id: name.into(),
            hostname: "bench".into(),
            // Each container makes all of its namespaces, as the command line's and the floor's do.
            namespaces: SandboxNamespaces {
                user: NamespaceMode::Host,
                net: NamespaceMode::Host,
                ipc: NamespaceMode::Host,
                uts: NamespaceMode::Host,
                pid: NamespaceMode::Container,
            },
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            cgroup: format!("/berth-bench-{}-{name}", std::process::id()),
            sysctls: Default::default(),
            handler: None,
        };
        client::start_shim(program, &dir, &spec).unwrap_or_else(|error| panic!("{error}"));
        let pid = client::read_record(&dir).expect("it is ready").pid;
        let connection = Connection::connect(&dir, PATIENCE).expect("the shim listens");
        let mut this = Self { connection, dir, pid };
        this.ask(Call::Subscribe);
        this
    }

    /// Creates and starts a container whose output is logged beside the sandbox.
    pub(crate) fn run(&mut self, id: &str, bundle: &Path) {
        let log = LogSpec { path: self.dir.with_extension("log"), max_bytes: 10 << 20, max_files: 5 };
        self.ask(Call::create(id, bundle, Some(log)));
        self.ask(Call::Start { container: id.into() });
    }

    pub(crate) fn ask(&mut self, call: Call) {
        self.connection.call(call, &[], PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn event(&mut self) -> Event {
        self.connection.next_event(PATIENCE).expect("the shim lives").expect("an event comes")
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.connection.call(Call::Shutdown, &[], PATIENCE);
        let _ = waitpid(Pid::from_raw(self.pid), None);
    }
}
