//! podman 4.3: containers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::ended::Ended;
use crate::eventually::eventually;
use crate::{image, leftovers, runtime};

/// No limits of podman's own: some machines do not allow to raise any. Locks in files: those in shared memory would be
/// the machine's.
const SETTINGS: &str = "[containers]\ndefault_ulimits = []\n[engine]\nlock_type = \"file\"\n";

/// What podman tells a program to do until somebody ends it.
pub(crate) const WAIT: &str = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done";

/// podman with folders of its own, and an image `busybox` in them.
pub(crate) struct Podman {
    folder: TempDir,
    cgroup: String,
}

impl Podman {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let podman = Self {
            folder: tempfile::Builder::new().prefix("podman").tempdir().unwrap(),
            cgroup: format!("berth-podman-{}-{number}", std::process::id()),
        };
        fs::write(podman.folder.path().join("containers.conf"), SETTINGS).unwrap();
        let rootfs = image::rootfs(podman.folder.path());
        podman.podman(&["import", rootfs.to_str().unwrap(), "busybox"]).ok();
        podman
    }

    /// The command with these words.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", at("containers.conf"));
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"]);
        command.arg("--runtime").arg(runtime()).args(words);
        command
    }

    pub(crate) fn podman(&self, words: &[&str]) -> Ended {
        Ended::of(&mut self.command(words))
    }

    /// `podman run` without a network, with these flags, image and command.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        let parent = format!("--cgroup-parent=/{}", self.cgroup);
        self.podman(&[&["run", "--network=none", &parent], words].concat())
    }

    /// A container `box` whose program waits for its end; no image has an id that begins so.
    pub(crate) fn run_waiting(&self, flags: &[&str]) {
        self.run(&[&["--detach", "--name=box"], flags, &["busybox", "sh", "-c", WAIT]].concat()).ok();
        eventually("the program has begun", || self.logs_of("box", "ready\n"));
    }

    pub(crate) fn logs_of(&self, name: &str, wanted: &str) -> Result<(), String> {
        // A terminal ends lines as typewriters do.
        let logs = self.podman(&["logs", name]).ok().replace('\r', "");
        if logs == wanted { Ok(()) } else { Err(logs) }
    }

    pub(crate) fn status(&self, name: &str) -> String {
        self.podman(&["inspect", "--format={{.State.Status}}", name]).ok().trim().to_owned()
    }

    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.podman(&["unpause", "--all"]);
        let _ = self.podman(&["pod", "rm", "--all", "--force", "--time=0"]);
        let _ = self.podman(&["rm", "--all", "--force", "--time=0"]);
        leftovers::unmount_below(self.folder.path());
        leftovers::remove_cgroup(&self.cgroup);
    }
}

#[test]
fn a_command_runs_and_its_code_comes_back() {
    let podman = Podman::new();
    assert_eq!(podman.run(&["--rm", "busybox", "echo", "hello"]).ok(), "hello\n");
    podman.run(&["--rm", "busybox", "sh", "-c", "exit 9"]).failed_with(9);
    podman.run(&["--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).failed_with(137);
    let err = podman.run(&["--rm", "busybox", "sh", "-c", "echo wrong >&2"]).failed_with(0).err;
    assert_eq!(err, "wrong\n");
}

#[test]
fn what_cannot_be_executed_is_told() {
    let podman = Podman::new();
    let missing = podman.run(&["--rm", "busybox", "nosuch"]).failed_with(127);
    assert!(missing.err.contains("executable file not found"), "{}", missing.err);
    podman.run(&["--rm", "busybox", "/nosuch"]).failed_with(127);
    podman.run(&["--rm", "busybox", "/etc/passwd"]).failed_with(126);
    podman.run_waiting(&[]);
    podman.podman(&["exec", "box", "nosuch"]).failed_with(127);
    podman.podman(&["exec", "box", "/etc/passwd"]).failed_with(126);
}

#[test]
fn a_container_lives_in_the_background() {
    let podman = Podman::new();
    podman.run_waiting(&[]);
    assert_eq!(podman.status("box"), "running");
    let exec = podman.podman(&["exec", "--env=A=b", "--workdir=/tmp", "box", "sh", "-c", "echo $A $PWD; exit 4"]);
    assert_eq!(exec.failed_with(4).out, "b /tmp\n");
    assert!(podman.podman(&["top", "box", "pid", "args"]).ok().contains("sleep"));
    podman.podman(&["exec", "--detach", "box", "touch", "/tmp/there"]).ok();
    eventually("the file is there", || match podman.podman(&["exec", "box", "ls", "/tmp/there"]) {
        Ended { code: 0, .. } => Ok(()),
        Ended { err, .. } => Err(err),
    });
    podman.podman(&["stop", "--time=30", "box"]).ok();
    assert_eq!(podman.podman(&["wait", "box"]).ok(), "7\n");
    podman.logs_of("box", "ready\nbye\n").unwrap();
    podman.podman(&["exec", "box", "true"]).failed_with(255);
    podman.podman(&["start", "box"]).ok();
    eventually("it runs again", || podman.logs_of("box", "ready\nbye\nready\n"));
    podman.podman(&["kill", "--signal=KILL", "box"]).ok();
    assert_eq!(podman.podman(&["wait", "box"]).ok(), "137\n");
    podman.podman(&["rm", "box"]).ok();
    podman.podman(&["inspect", "box"]).failed_with(125);
}

#[test]
fn a_container_is_removed_while_it_runs() {
    let podman = Podman::new();
    podman.run_waiting(&[]);
    podman.podman(&["rm", "--force", "--time=0", "box"]).ok();
    assert_eq!(podman.podman(&["ps", "--all", "--quiet"]).ok(), "");
}

#[test]
fn a_container_is_frozen_and_thawed() {
    let podman = Podman::new();
    podman.run_waiting(&[]);
    podman.podman(&["pause", "box"]).ok();
    assert_eq!(podman.status("box"), "paused");
    podman.podman(&["exec", "box", "true"]).failed_with(255);
    podman.podman(&["unpause", "box"]).ok();
    assert_eq!(podman.status("box"), "running");
    podman.podman(&["exec", "box", "true"]).ok();
}

#[test]
fn signals_arrive() {
    let podman = Podman::new();
    let program = "trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.1; done";
    podman.run(&["--detach", "--name=box", "busybox", "sh", "-c", program]).ok();
    eventually("the program has begun", || podman.logs_of("box", "ready\n"));
    podman.podman(&["kill", "--signal=USR1", "box"]).ok();
    eventually("it heard the signal", || podman.logs_of("box", "ready\ngot usr1\n"));
}

#[test]
fn limits_are_set_and_figures_read() {
    let podman = Podman::new();
    podman.run_waiting(&["--memory=64m", "--memory-swap=64m", "--cpus=0.5", "--pids-limit=50", "--cpu-shares=512"]);
    let read = |path: &str| podman.podman(&["exec", "box", "cat", &format!("/sys/fs/cgroup/{path}")]).ok();
    assert_eq!(read("memory/memory.limit_in_bytes"), "67108864\n");
    assert_eq!(read("pids/pids.max"), "50\n");
    assert_eq!((read("cpu/cpu.cfs_quota_us"), read("cpu/cpu.cfs_period_us")), ("50000\n".into(), "100000\n".into()));
    assert_eq!(read("cpu/cpu.shares"), "512\n");
    let stats = podman.podman(&["stats", "--no-stream", "--format={{.PIDs}} {{.MemUsage}}", "box"]).ok();
    assert!(stats.contains("67.11MB"), "{stats}");
    let own = podman.podman(&["exec", "box", "cat", "/proc/self/cgroup"]).ok();
    assert!(own.contains(podman.cgroup()) || own.contains(":/\n"), "{own}");
}

#[test]
fn health_is_checked_by_exec() {
    let podman = Podman::new();
    podman.run_waiting(&["--health-cmd=test -e /tmp/well", "--health-interval=disable"]);
    podman.podman(&["healthcheck", "run", "box"]).failed_with(1);
    podman.podman(&["exec", "box", "touch", "/tmp/well"]).ok();
    podman.podman(&["healthcheck", "run", "box"]).ok();
}

#[test]
fn an_image_is_made_of_a_container() {
    let podman = Podman::new();
    podman.run(&["--name=box", "busybox", "touch", "/made"]).ok();
    podman.podman(&["commit", "--quiet", "box", "made"]).ok();
    podman.run(&["--rm", "made", "ls", "/made"]).ok();
}

#[test]
fn a_container_is_made_first_and_begun_later_and_again() {
    let podman = Podman::new();
    let parent = format!("--cgroup-parent=/{}", podman.cgroup());
    let program = "echo begun; exit 4";
    podman.podman(&["create", "--network=none", &parent, "--name=box", "busybox", "sh", "-c", program]).ok();
    podman.podman(&["init", "box"]).ok();
    assert_eq!(podman.status("box"), "initialized");
    assert_eq!(podman.podman(&["start", "--attach", "box"]).failed_with(4).out, "begun\n");
    podman.podman(&["restart", "box"]).ok();
    eventually("it ran twice", || podman.logs_of("box", "begun\nbegun\n"));
    let last = podman.podman(&["logs", "--tail=1", "box"]).ok();
    assert_eq!(last, "begun\n");
}

#[test]
fn what_runs_is_shown_changed_and_joined() {
    let podman = Podman::new();
    podman.run_waiting(&["--env=A=b"]);
    let shown = podman.podman(&["top", "box", "pid", "args"]).ok();
    assert!(shown.lines().any(|line| line.trim_start().starts_with("1 ") && line.contains("trap")), "{shown}");
    podman.podman(&["update", "--cpus=0.25", "--memory=48m", "--memory-swap=48m", "box"]).ok();
    let read = |path: &str| podman.podman(&["exec", "box", "cat", &format!("/sys/fs/cgroup/{path}")]).ok();
    assert_eq!(
        (read("cpu/cpu.cfs_quota_us"), read("memory/memory.limit_in_bytes")),
        ("25000\n".into(), "50331648\n".into())
    );
    let flags = ["exec", "--env=C=d", "--workdir=/tmp", "box", "sh", "-c", "echo $A $C; pwd; exit 6"];
    assert_eq!(podman.podman(&flags).failed_with(6).out, "b d\n/tmp\n");
    podman.podman(&["exec", "box", "nosuch"]).failed_with(127);
    podman.podman(&["exec", "--detach", "box", "touch", "/tmp/made"]).ok();
    eventually("what was left to itself has run", || match podman.podman(&["exec", "box", "ls", "/tmp/made"]).code {
        0 => Ok(()),
        code => Err(code),
    });
}
