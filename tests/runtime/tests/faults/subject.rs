//! The containers that faults happen to: a plain one, and one that has all that takes steps of its own.

use std::fs;

use berth_runtime_tests::call::Call;
use berth_runtime_tests::machine::NetDevice;
use berth_runtime_tests::socket::Socket;
use berth_runtime_tests::{Container, until};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The usual.
    Plain,
    /// With limits of every kind, hooks of every kind, a filter with a listener, a terminal, a mapped mount, a time
    /// namespace and a network device.
    Laden,
    /// The same in a new user namespace.
    Mapped,
}

/// The machine's number of a mapped container's root.
const FIRST: u32 = 200_000;

/// A variable that all processes of a test have, by which they are found.
const MARK: &str = "FAULTS_OF";

/// A container, with what it is connected to.
pub(crate) struct Subject {
    pub(crate) container: Container,
    console: Option<Socket>,
    _listener: Option<Socket>,
    device: Option<NetDevice>,
}

impl Kind {
    /// One whose root folder serves all the others: there will be thousands.
    pub(crate) fn first(self, program: Container) -> Container {
        if self == Self::Mapped {
            program.chown(FIRST);
        }
        program
    }

    /// One that shares the root folder of the first.
    pub(crate) fn sharing(self, first: &Container) -> Subject {
        let mut subject = Subject::plain(Container::sharing(first));
        if self != Self::Plain {
            subject.load();
        }
        if self == Self::Mapped {
            let linux = &mut subject.container.spec["linux"];
            linux["namespaces"].as_array_mut().expect("it has some").push(json!({ "type": "user" }));
            (linux["uidMappings"], linux["gidMappings"]) = (mapping(), mapping());
        }
        subject
    }
}

impl Subject {
    fn plain(mut container: Container) -> Self {
        let environment = container.spec["process"]["env"].as_array_mut().expect("it has some");
        environment.push(json!(format!("{MARK}={}", container.id)));
        Self { container, console: None, _listener: None, device: None }
    }

    fn load(&mut self) {
        let container = &mut self.container;
        let mark = format!("{MARK}={}", container.id);
        for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            container.spec["hooks"][kind] =
                json!([{ "path": "/bin/busybox", "args": ["true"], "env": [mark], "timeout": 10 }]);
        }
        container.spec["process"]["terminal"] = json!(true);
        container.mount(json!({ "destination": "/data", "source": container.folder(), "options": ["bind", "idmap"],
            "uidMappings": mapping(), "gidMappings": mapping() }));
        let listener = Socket::listen(container.folder(), "listener");
        let linux = &mut container.spec["linux"];
        linux["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": listener.name(),
            "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_NOTIFY" }] });
        linux["namespaces"].as_array_mut().expect("it has some").push(json!({ "type": "time" }));
        linux["timeOffsets"] = json!({ "boottime": { "secs": 1000 } });
        linux["resources"] = json!({
            "devices": [{ "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }],
            "memory": { "limit": 256 << 20, "swap": 512 << 20, "reservation": 128 << 20, "swappiness": 10 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 100 },
            "blockIO": { "weight": 300 },
        });
        self.device = NetDevice::new();
        if let Some(device) = &self.device {
            linux["netDevices"] = json!({ &device.name: { "name": inner(device) } });
        }
        self._listener = Some(listener);
        self.console = Some(Socket::listen(container.folder(), "console"));
    }

    /// A call whose process, and whose children, can be found.
    fn marked(&self, call: Call) -> Call {
        call.variable(MARK, &self.container.id)
    }

    /// Options of a call that makes a process with a terminal.
    fn console(&self) -> Vec<&str> {
        self.console.iter().flat_map(|socket| ["--console-socket", socket.name()]).collect()
    }

    pub(crate) fn create_call(&self) -> Call {
        self.marked(self.container.create_call(&self.console()))
    }

    pub(crate) fn exec_call(&self) -> Call {
        let mut options = self.console();
        options.extend(self.console.iter().map(|_| "--tty"));
        options.push("--detach");
        self.marked(self.container.exec_call(&options, &["/bin/sleep", "1000"]))
    }

    pub(crate) fn run_call(&self) -> Call {
        self.container.write();
        let bundle = self.container.bundle();
        self.call(&["run", "--bundle", bundle.to_str().expect("its path is text"), &self.container.id])
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Call {
        self.marked(self.container.call(arguments))
    }

    #[track_caller]
    pub(crate) fn create(&self) {
        self.container.create_by(self.create_call()).ok();
    }

    #[track_caller]
    pub(crate) fn run(&self) {
        self.create();
        self.container.start();
    }

    /// Deletes the container as its engine would: one who takes the status of what has ended. Without, the namespace of
    /// the container's processes could not end.
    #[track_caller]
    pub(crate) fn delete(&self) {
        let mut call = self.call(&["delete", "--force", &self.container.id]).begin();
        until("the container is deleted", || {
            reap();
            call.ended()
        });
        call.wait().ok();
    }

    /// Asserts that nothing is left: no file, control group, mount, network device or process, and so no namespace.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        self.container.assert_gone();
        let left: Vec<_> =
            fs::read_dir(self.container.folder().join("state")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "files are left: {left:?}");
        if let Some(device) = &self.device {
            assert!(
                !fs::exists(format!("/sys/class/net/{}", inner(device))).expect("it can be told"),
                "a device is left"
            );
        }
        until("no process is left", || {
            reap();
            !children().any(|pid| self.is_ours(pid))
        });
    }

    /// Whether a process is of this test, and more than the entry of one that has ended.
    fn is_ours(&self, pid: i32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|it| it == format!("{MARK}={}", self.container.id).as_bytes())
    }
}

/// What a device is called in the container.
fn inner(device: &NetDevice) -> String {
    format!("{}i", device.name)
}

fn mapping() -> Value {
    json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }])
}

/// Takes the status of children of this process that began in a container, and have ended.
fn reap() {
    // By the many ids that they have.
    let is_nested = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() > 2)
    };
    for pid in children().filter(is_nested) {
        let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// The children of this process, those among them that lost their parents.
fn children() -> impl Iterator<Item = i32> {
    let threads = fs::read_dir("/proc/self/task").expect("every kernel has it").flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
}
