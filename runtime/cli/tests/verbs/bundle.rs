//! A bundle with busybox in it, and the runtime that is called with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a condition may take. Generous: a loaded machine must not fail a right program.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a program does that waits for its end.
pub(crate) const WAIT: &str = "trap 'exit 7' TERM; echo ready > /there; while :; do sleep 0.05; done";

/// A folder with a bundle and the runtime's state.
pub(crate) struct Bundle {
    folder: TempDir,
    pub(crate) config: Value,
    /// Whether the runtime sees a machine with the unified hierarchy alone.
    pub(crate) unified: bool,
    cgroup: String,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Whether it failed with this code and a message that holds this.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, message: &str) {
        assert!(self.code == code && self.err.contains(message), "wanted {code} and {message:?}, got {self:?}");
    }
}

/// Whether the tests are held against runc, which is older.
pub(crate) fn is_runc() -> bool {
    std::env::var_os("RUNTIME").is_some()
}

fn runtime() -> PathBuf {
    std::env::var_os("RUNTIME").map_or_else(|| env!("CARGO_BIN_EXE_berth-runtime").into(), PathBuf::from)
}

impl Bundle {
    /// A bundle whose program is this shell script.
    pub(crate) fn of(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("berth-verbs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix("verbs").tempdir().unwrap();
        let mut this = Self { folder, config: Value::Null, unified: false, cgroup };
        this.runtime(&["spec", "--bundle", this.path("").to_str().unwrap()]).ok();
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(this.path("rootfs").join(name)).unwrap();
        }
        fs::copy("/bin/busybox", this.path("rootfs/bin/busybox")).unwrap();
        for name in
            ["sh", "sleep", "cat", "echo", "id", "stty", "tty", "true", "ls", "kill", "grep", "dd", "touch", "pwd"]
        {
            symlink("busybox", this.path("rootfs/bin").join(name)).unwrap();
        }
        this.config = serde_json::from_slice(&fs::read(this.path("config.json")).unwrap()).unwrap();
        this.config["process"]["terminal"] = json!(false);
        this.config["process"]["args"] = json!(["sh", "-c", script]);
        this.config["root"]["readonly"] = json!(false);
        this.config["linux"]["cgroupsPath"] = json!(format!("/{}", this.cgroup));
        this.save();
        this
    }

    /// Writes `config.json` as it is now.
    pub(crate) fn save(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A call of the runtime, in the bundle's folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "60"]);
        if self.unified {
            let mount = "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
            command.args(["unshare", "--mount", "sh", "-c", mount, "sh"]);
        }
        command.arg(runtime()).arg("--root").arg(self.path("state")).args(words);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// The same as a line for a shell.
    pub(crate) fn line(&self, words: &str) -> String {
        format!(
            "cd {} && {} --root {} {words}",
            self.path("").display(),
            runtime().display(),
            self.path("state").display()
        )
    }

    pub(crate) fn runtime(&self, words: &[&str]) -> Ended {
        ended(&mut self.command(words))
    }

    /// `create`: its standard streams live on in the container, so that nobody may wait for their end.
    pub(crate) fn create(&self, words: &[&str]) -> Ended {
        let (out, err) = (self.path("create.out"), self.path("create.err"));
        let mut command = self.command(&[&["create"], words].concat());
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let code = command.status().unwrap().code().unwrap_or(-1);
        Ended { code, out: fs::read_to_string(out).unwrap(), err: fs::read_to_string(err).unwrap() }
    }

    /// A container `a` that runs.
    pub(crate) fn running(script: &str) -> Self {
        let this = Self::of(script);
        this.create(&["a"]).ok();
        this.runtime(&["start", "a"]).ok();
        this
    }

    /// The folders of the containers' cgroup that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        hierarchies.map(|it| it.path().join(&self.cgroup)).filter(|folder| exists(folder)).collect()
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.runtime(&["state", id]).ok()).unwrap()
    }

    #[track_caller]
    pub(crate) fn await_status(&self, wanted: &str) {
        eventually(wanted, || self.state("a")["status"] == wanted);
    }

    /// Waits until the program has made this file in its root.
    #[track_caller]
    pub(crate) fn await_file(&self, name: &str) -> String {
        let path = self.path("rootfs").join(name);
        eventually(name, || fs::read(&path).is_ok_and(|content| content.ends_with(b"\n")));
        fs::read_to_string(path).unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for id in self.runtime(&["list", "--quiet"]).out.lines() {
            let _ = self.runtime(&["resume", id]);
            let _ = self.runtime(&["delete", "--force", id]);
        }
        self.cgroups().iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
