//! The library in a shim, by its socket: no process is made but the containers'.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_runtime::shim::client::{self, Connection};
use berth_runtime::shim::protocol::{Call, Event, NamespaceMode, SandboxNamespaces, SandboxSpec};
use berth_runtime_tests::bundle::Bundle;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::figures::Figures;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shim and what is asked of it.
pub(crate) struct Pod {
    connection: Connection,
    bundle: PathBuf,
    round: u32,
}

impl Pod {
    pub(crate) fn start(program: &Path, folder: &Path, bundle: &Bundle) -> Self {
        let dir = folder.join("sandbox");
        let spec = SandboxSpec {
            id: "bench".into(),
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
            cgroup: "/berth-bench-pod".into(),
            sysctls: Default::default(),
            handler: None,
        };
        client::start_shim(program, &dir, &spec).unwrap_or_else(|error| panic!("{error}"));
        let mut connection = Connection::connect(&dir, PATIENCE).expect("the shim listens");
        ask(&mut connection, Call::Subscribe);
        let sleeper = Bundle::in_folder(&folder.join("pod-sleeper"), "pod-sleeper", &["/bin/sleep", "1000"]);
        ask(&mut connection, Call::create(sleeper_id(), sleeper.path.clone(), None));
        ask(&mut connection, Call::Start { container: sleeper_id() });
        Self { connection, bundle: bundle.path.clone(), round: 0 }
    }

    pub(crate) fn measure(&mut self, figures: &mut Figures) {
        self.round += 1;
        let id = format!("bench-{}-pod-{}", std::process::id(), self.round);
        let (connection, bundle) = (&mut self.connection, self.bundle.clone());
        figures.measure("shim create+start", || {
            ask(connection, Call::create(id.clone(), bundle, None));
            ask(connection, Call::Start { container: id.clone() });
        });
        while !matches!(event(connection), Event::Exited { .. }) {}
        figures.measure("shim delete", || ask(connection, Call::Delete { container: id.clone() }));
        let null = File::options().read(true).write(true).open("/dev/null").expect("every machine has it");
        let process = serde_json::from_value(serde_json::json!({
            "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
        }))
        .expect("it is a process");
        let call = Call::Exec { container: sleeper_id(), exec: id, process: Box::new(process) };
        figures.measure("shim exec", || {
            connection.call(call, &[null.as_fd(); 3], PATIENCE).expect("the shim runs it");
            while !matches!(event(connection), Event::ExecExited { .. }) {}
        });
    }
}

fn ask(connection: &mut Connection, call: Call) {
    connection.call(call, &[], PATIENCE).unwrap_or_else(|error| panic!("{error}"));
}

fn event(connection: &mut Connection) -> Event {
    connection.next_event(PATIENCE).expect("the shim lives").expect("an event comes")
}

impl Drop for Pod {
    fn drop(&mut self) {
        let pid = fs::read_to_string("/tmp/berth-bench/sandbox/shim.json").ok();
        ask(&mut self.connection, Call::Shutdown);
        let pid = pid.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()?["pid"].as_i64());
        if let Some(pid) = pid {
            let _ = waitpid(Pid::from_raw(pid as i32), None);
        }
    }
}

/// The container in which other processes are run.
fn sleeper_id() -> String {
    format!("bench-{}-pod-sleeper", std::process::id())
}
