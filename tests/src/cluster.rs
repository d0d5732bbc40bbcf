//! berth on machines, and kubectl to talk to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::eventually::{check, eventually};
use crate::images;
use crate::machine::{Machine, succeeded};

/// Where `berth up` writes the administrator's kubeconfig.
pub const KUBECONFIG: &str = "/var/lib/berth/master/admin.kubeconfig";

/// The folder of the built programs: that of the test programs, or what BERTH_BIN says.
pub fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("BERTH_BIN") {
        return std::path::absolute(folder).expect("this folder has a path");
    }
    let this = std::env::current_exe().expect("a program has a path");
    let folder = this.parent().expect("a program is in a folder");
    // Test programs are in target/<profile>/deps, benchmarks beside berth in target/<profile>.
    if folder.ends_with("deps") { folder.parent().expect("deps is in a folder") } else { folder }.to_owned()
}

/// One of the built programs.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.exists(), "{} is not built: make test builds it", path.display());
    path
}

/// One machine that runs berth.
#[derive(Debug)]
pub struct Node {
    /// The machine.
    pub machine: Machine,
    agent: Option<Child>,
    master: Option<Child>,
    arguments: Vec<String>,
}

impl Node {
    /// `berth up` on a machine of its own, Ready, with a busybox image.
    pub fn up(name: &str) -> Self {
        Self::up_on(Machine::start(name), &[])
    }

    /// `berth up` on a machine, Ready, with a busybox image.
    pub fn up_on(machine: Machine, more: &[&str]) -> Self {
        let fixed = ["up", "--cgroup-root", &machine.cgroup.clone()].map(str::to_owned);
        let mut node = Self {
            machine,
            agent: None,
            master: None,
            arguments: fixed.into_iter().chain(more.iter().map(|&one| one.to_owned())).collect(),
        };
        node.import_busybox();
        node.start();
        node.wait_ready(&node.machine.name);
        node
    }

    /// `berth node` on a machine that joins the master with the credentials in a folder of the machine.
    pub fn join(machine: Machine, credentials: &str) -> Self {
        let arguments = ["node", "--cgroup-root", &machine.cgroup.clone(), "--credentials", credentials];
        let mut node = Self { arguments: arguments.map(str::to_owned).into(), machine, agent: None, master: None };
        node.import_busybox();
        node.start();
        node
    }

    /// A master and a node of it as two processes of one machine, the node Ready.
    pub fn beside_its_master(name: &str) -> Self {
        let machine = Machine::start(name);
        let log = std::fs::File::create(machine.path("/run/master.log")).expect("the machine's /run can be written");
        let mut master = machine.command(program("berth"));
        master
            .args(["master", "--run-dir", "/run/berth-master"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let master = master.spawn().expect("nsenter is part of util-linux");
        eventually("the master has made its kubeconfig", || {
            check(machine.path(KUBECONFIG).exists(), "it is not there")
        });
        let server = "https://127.0.0.1:6443";
        let issue = ["issue-node", name, "--node-ip", "127.0.0.1", "--server", server, "--out", "/run/credentials"];
        succeeded(&machine.output(program("berth"), &issue), "berth issue-node");
        let mut node = Self::join(machine, "/run/credentials");
        node.master = Some(master);
        node.wait_ready(name);
        node
    }

    fn import_busybox(&self) {
        let folder = images::busybox().to_str().expect("a plain path").to_owned();
        let output = self.berth(&["image", "import", &folder, "busybox:1", "--cmd", "sh"]);
        succeeded(&output, "berth image import");
    }

    /// Starts the agent (again).
    pub fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.machine.path("/run/agent.log"));
        let agent = self
            .machine
            .command(program("berth"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the machine's /run can be written"))
            .spawn()
            .expect("nsenter is part of util-linux");
        self.agent = Some(agent);
    }

    /// What the agent said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.machine.path("/run/agent.log")).unwrap_or_default()
    }

    /// Ends the agent as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.machine.shell("kill -KILL $(cat /run/berth/berth.pid)");
        if let Some(mut agent) = self.agent.take() {
            agent.wait().expect("the agent was this test's child");
        }
    }

    /// Runs berth on the machine.
    pub fn berth(&self, arguments: &[&str]) -> Output {
        self.machine.output(program("berth"), arguments)
    }

    /// kubectl, on the machine.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).output().expect("nsenter is part of util-linux")
    }

    /// kubectl on the machine, not started yet.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.machine.command("kubectl");
        command.arg("--kubeconfig").arg(KUBECONFIG).args(arguments).stdin(Stdio::null());
        command
    }

    /// What kubectl prints; it succeeds.
    #[track_caller]
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        succeeded(&self.kubectl(arguments), &format!("kubectl {}", arguments.join(" ")))
    }

    /// Applies a manifest.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        succeeded(&self.apply_raw(manifest), "kubectl apply")
    }

    /// Applies a manifest, which may be refused.
    pub fn apply_raw(&self, manifest: &str) -> Output {
        let path = self.machine.path("/run/manifest.yaml");
        write(&path, manifest);
        self.kubectl(&["apply", "-f", "/run/manifest.yaml"])
    }

    /// One field of an object, by JSON path.
    pub fn field(&self, object: &str, path: &str) -> String {
        let output = self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")]);
        String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr }).into_owned()
    }

    /// Waits until a field of an object has a value.
    #[track_caller]
    pub fn wait_field(&self, object: &str, path: &str, expected: &str) {
        eventually(&format!("{object} {path} = {expected}"), || {
            let found = self.field(object, path);
            check(found == expected, format!("{found:?}\n{}", self.explain(object)))
        });
    }

    /// Waits until pods are Ready.
    #[track_caller]
    pub fn wait_pods_ready(&self, pods: &[&str]) {
        for pod in pods {
            self.wait_field(&format!("pod/{pod}"), ".status.conditions[?(@.type==\"Ready\")].status", "True");
        }
    }

    /// Waits until a node is Ready.
    #[track_caller]
    pub fn wait_ready(&self, node: &str) {
        self.wait_field(&format!("node/{node}"), ".status.conditions[?(@.type==\"Ready\")].status", "True");
    }

    fn explain(&self, object: &str) -> String {
        let description = self.kubectl(&["describe", object]);
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        format!(
            "{}{}\nagent:\n{tail}",
            String::from_utf8_lossy(&description.stdout),
            String::from_utf8_lossy(&description.stderr)
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for mut process in [self.agent.take(), self.master.take()].into_iter().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the machine's /run can be written");
}

/// The manifest of a busybox pod that runs a shell script.
pub fn pod(name: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).expect("text is JSON");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: main\n    image: busybox:1\n    imagePullPolicy: IfNotPresent\n    \
         command: [sh, -c, {script}]\n{more}"
    )
}
