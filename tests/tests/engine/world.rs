//! What a test of the engine starts from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_engine::{ContainerConfig, Engine, EngineConfig, Event, PodNetwork, SandboxConfig, SandboxId, SandboxStatus};
use berth_rootfs::ImportConfig;
use berth_tests::cluster::program;
use berth_tests::eventually::{check, within};
use berth_tests::images;
use berth_tests::machine::{Machine, cgroup_folders, succeeded};

/// Tells the test program that it runs on its machine already: the machine's cgroup.
const ON_THE_MACHINE: &str = "BERTH_TEST_CGROUP";

/// The engine of a test and what it may use.
pub struct World {
    pub engine: Engine,
    cgroup: String,
    logs: PathBuf,
}

/// Runs a test in this program again, on a machine made for it: the engine works in the namespaces of its process.
pub fn on_a_machine(test: &str, body: impl AsyncFnOnce(World)) {
    if let Ok(cgroup) = std::env::var(ON_THE_MACHINE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(async { body(World::new(cgroup).await).await });
    }
    let machine = Machine::start("engine");
    let mut again = machine.command(std::env::current_exe().expect("a test program has a path"));
    again.args(["--exact", test, "--nocapture"]).env(ON_THE_MACHINE, &machine.cgroup);
    let output = again.output().expect("nsenter is part of util-linux");
    succeeded(&output, test);
}

async fn open() -> Engine {
    let config = EngineConfig {
        state_dir: "/var/lib/berth".into(),
        run_dir: "/run/berth".into(),
        shim: program("berth-shim"),
        cni_bin_dirs: Vec::new(),
        cni_conf_dir: "/run/no-configuration".into(),
        insecure_registries: Vec::new(),
        registry_config_dir: None,
        log_max_bytes: 10 << 20,
        log_max_files: 5,
    };
    std::fs::create_dir_all(&config.state_dir).expect("/var/lib is the machine's own");
    Engine::open(config).await.expect("the engine opens")
}

impl World {
    async fn new(cgroup: String) -> Self {
        let world = Self { engine: open().await, cgroup, logs: "/var/log/pods".into() };
        world.set_pod_network().await;
        let (store, name) = (world.engine.store(), "busybox:1".parse().expect("a name"));
        store.import(&images::busybox(), Some(&name), &ImportConfig::default()).await.expect("an image");
        world
    }

    /// Sets the pod network, for the first time or again.
    pub async fn set_pod_network(&self) {
        let network = PodNetwork {
            bridge: "berth0".into(),
            pod_cidrs: vec!["10.99.0.0/24".parse().expect("a network")],
            mtu: None,
        };
        self.engine.set_pod_network(network).await.expect("a network");
    }

    /// Drops the engine, as the end of its process would, and opens it again.
    pub async fn reopen(&mut self) {
        self.engine = open().await;
    }

    pub fn sandbox(&self, name: &str) -> SandboxConfig {
        SandboxConfig {
            name: name.into(),
            namespace: "default".into(),
            uid: name.into(),
            hostname: name.into(),
            cgroup: format!("{}/pod{name}", self.cgroup),
            dns: berth_engine::config::DnsConfig { servers: vec!["192.0.2.53".into()], ..Default::default() },
            ..SandboxConfig::default()
        }
    }

    pub fn container(&self, name: &str, script: &str) -> ContainerConfig {
        std::fs::create_dir_all(&self.logs).expect("/var/log is the machine's own");
        ContainerConfig {
            name: name.into(),
            image: "busybox:1".into(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: self.logs.join(format!("{name}.log")),
            ..ContainerConfig::default()
        }
    }

    /// Waits for events until the only sandbox is as it should be.
    pub async fn until(&self, holds: impl Fn(&SandboxStatus) -> bool) {
        let mut events = self.engine.events();
        let wait = async {
            while !holds(&self.engine.sandboxes().await[0]) {
                let event: Event = events.recv().await.expect("the engine lives");
                drop(event);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("in time");
    }

    /// Makes a sandbox's record what it is while the sandbox is being made.
    pub fn pretend_half_made(&self, sandbox: &SandboxId) {
        let path = format!("/run/berth/records/sandboxes/{}.json", sandbox.as_str());
        let record = std::fs::read_to_string(&path).expect("a record");
        let half_made = record.replace("\"phase\":\"ready\"", "\"phase\":\"making\"");
        assert_ne!(half_made, record);
        std::fs::write(path, half_made).expect("/run is the machine's own");
    }

    /// Sends a signal to a sandbox's shim.
    pub fn signal_shim(&self, sandbox: &SandboxId, signal: &str) {
        let record = format!("/run/berth/sandboxes/{}/shim.json", sandbox.as_str());
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).expect("a shim")).expect("JSON");
        let status =
            Command::new("kill").args([&format!("-{signal}"), &record["pid"].to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// No process of this command line is there, or stays.
    pub fn assert_no_process(&self, command: &str) {
        within(Duration::from_secs(20), "the process is gone", || {
            let processes = processes();
            check(!processes.lines().any(|line| line == command), &processes)
        });
    }

    /// Nothing of any sandbox is left: no process, mount, link, file or cgroup.
    pub fn assert_nothing_left(&self) {
        within(Duration::from_secs(20), "nothing is left", || {
            let mut left = Vec::new();
            for folder in ["records/sandboxes", "records/containers", "sandboxes", "pods", "bundles"] {
                left.extend(entries(&Path::new("/run/berth").join(folder)));
            }
            left.extend(entries(Path::new("/var/lib/berth/images/snapshots")));
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
            left.extend(mounts.lines().filter(|line| line.contains("/run/berth")).map(str::to_owned));
            let links = Command::new("ip").args(["-brief", "link", "show", "type", "veth"]).output().expect("ip");
            left.extend(String::from_utf8_lossy(&links.stdout).lines().map(str::to_owned));
            let processes = processes();
            let ours = |line: &&str| line.contains("berth-shim") || line.contains("sleep 1000");
            left.extend(processes.lines().filter(ours).map(str::to_owned));
            for folder in cgroup_folders(&self.cgroup) {
                // The pod's own folder is its maker's to remove, who in these tests is nobody.
                left.extend(entries(&folder).into_iter().flat_map(|pod| folders(Path::new(&pod))));
            }
            check(left.is_empty(), left.join("\n"))
        });
    }
}

/// The command lines of all processes.
fn processes() -> String {
    let output = Command::new("ps").args(["-eo", "args"]).output().expect("ps");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

fn folders(folder: &Path) -> Vec<String> {
    entries(folder).into_iter().filter(|path| Path::new(path).is_dir()).collect()
}
