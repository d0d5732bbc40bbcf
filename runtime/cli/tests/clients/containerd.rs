//! containerd 1.6, started for one test: the daemon, and `ctr`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::ended::Ended;
use crate::eventually::eventually;
use crate::{image, leftovers, runtime};

/// The namespace of containerd that the tests work in.
const NAMESPACE: &str = "clients";

/// A daemon with folders of its own, and an image in them.
pub(crate) struct Containerd {
    folder: TempDir,
    daemon: Child,
    cgroup: String,
}

impl Containerd {
    pub(crate) fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::Builder::new().prefix("containerd").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("containerd.sock"),
        );
        fs::write(at("config.toml"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let mut command = Command::new("containerd");
        command.args(["--config", &at("config.toml")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let this = Self { folder, daemon, cgroup: format!("berth-containerd-{}-{number}", std::process::id()) };
        eventually("containerd answers", || match this.ctr(&["version"]) {
            Ended { code: 0, .. } => Ok(()),
            Ended { err, .. } => Err(err),
        });
        let archive = image::archive(this.folder.path());
        this.ctr(&["image", "import", "--snapshotter=native", archive.to_str().unwrap()]).ok();
        this
    }

    pub(crate) fn ctr(&self, words: &[&str]) -> Ended {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.folder.path().join("containerd.sock")).args(["--namespace", NAMESPACE]);
        Ended::of(command.args(words))
    }

    /// `ctr run` with these flags, id and command.
    pub(crate) fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Ended {
        let binary = format!("--runc-binary={}", runtime().display());
        let root = format!("--runc-root={}", self.folder.path().join("runtime").display());
        let cgroup = format!("--cgroup=/{}/{id}", self.cgroup);
        let fixed = ["run", "--runtime=io.containerd.runc.v2", "--snapshotter=native", &binary, &root, &cgroup];
        self.ctr(&[&fixed, flags, &[image::NAME, id], command].concat())
    }

    /// The status of a container's task.
    pub(crate) fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr(&["task", "ls"]).ok();
        let mut cells = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        cells.find(|cells| cells[0] == id).map(|cells| cells[2].to_owned())
    }

    #[track_caller]
    pub(crate) fn await_status(&self, id: &str, wanted: &str) {
        eventually(&format!("{id} is {wanted}"), || match self.status(id) {
            Some(status) if status == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in self.ctr(&["task", "ls", "--quiet"]).out.lines() {
            let _ = self.ctr(&["task", "resume", id]);
            let _ = self.ctr(&["task", "rm", "--force", id]);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        leftovers::unmount_below(self.folder.path());
        leftovers::remove_cgroup(&self.cgroup);
    }
}
