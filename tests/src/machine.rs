//! A machine for one test: its own network, mount, host name and process namespaces on this kernel.
//!
//! The first process in its process namespace is held by the test. When that ends, however it ends, the kernel ends all
//! processes of the machine and drops its mounts and links; only its cgroups have to be removed by hand.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the machine's first process does: it makes the folders of a fresh machine, then holds the namespaces and, as the
/// first process of any machine, buries the orphans.
/// `/run`, `/var/lib`, `/var/log` and `/etc/cni`, where other tools may have left networks, are the machine's own,
/// everything else is this machine's.
const FIRST_PROCESS: &str = "set -e
ip link set lo up
hostname \"$0\"
for folder in /run /var/lib /var/log; do mount -t tmpfs tmpfs $folder; done
if [ -d /etc/cni ]; then mount -t tmpfs tmpfs /etc/cni; fi
echo ready
exec >&-
sleep infinity &
while :; do wait; done";

/// A machine; gone when dropped.
#[derive(Debug)]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// The cgroup below each hierarchy's root that its pods live in.
    pub cgroup: String,
    holder: Child,
    first: u32,
}

impl Machine {
    /// Starts a machine.
    pub fn start(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces, mounts and cgroups: run it as root");
        let cgroup = format!("/berth-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut holder = Command::new("unshare")
            .args(["--fork", "--kill-child", "--pid", "--mount-proc", "--net", "--uts", "--ipc", "sh", "-c"])
            .args([FIRST_PROCESS, name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is part of Debian's util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("read a line");
        assert_eq!(line, "ready\n", "the machine's first process could not set it up");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let children = fs::read_to_string(children).expect("the kernel lists children");
        let first = children.trim().parse().expect("unshare has one child");
        Self { name: name.to_owned(), cgroup, holder, first }
    }

    /// The machine's first process, as this machine numbers it.
    pub fn first_process(&self) -> u32 {
        self.first
    }

    /// A command that will run on the machine.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first)).args(["--all", "--"]).arg(program).env("HOME", "/run");
        command
    }

    /// Runs a program on the machine to its end.
    pub fn output(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).stdin(Stdio::null()).output().expect("nsenter is part of util-linux")
    }

    /// Runs a shell script on the machine; it succeeds, and this is what it printed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        succeeded(&self.output("sh", &["-euc", script]), script)
    }

    /// A path of the machine, as this machine sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.first.to_string()).join("root").join(path.trim_start_matches('/'))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        remove_cgroups(&self.cgroup);
    }
}

/// What a program printed; the test fails if the program did.
#[track_caller]
pub fn succeeded(output: &Output, what: &str) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// Every hierarchy's folder of a cgroup, on v1, v2 and the mixed layout.
pub fn cgroup_folders(cgroup: &str) -> Vec<PathBuf> {
    let below = |root: &Path| root.join(cgroup.trim_start_matches('/'));
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = hierarchies.filter(|path| path.join("cgroup.procs").exists()).chain([root.to_owned()]);
    all.map(|hierarchy| below(&hierarchy)).filter(|folder| folder.is_dir()).collect()
}

/// Removes a cgroup and those below it, once the kernel has reaped their last processes.
fn remove_cgroups(cgroup: &str) {
    let gone = |folder: &Path| -> std::io::Result<()> {
        fn remove(folder: &Path) -> std::io::Result<()> {
            for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
                remove(&entry.path())?;
            }
            fs::remove_dir(folder)
        }
        remove(folder)
    };
    for folder in cgroup_folders(cgroup) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while gone(&folder).is_err() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
