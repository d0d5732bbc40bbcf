//! Who pulls: each with an empty store, and what a pull cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::images::run;

/// How long containerd may take to answer.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// What the kernel counts CPU time of a process in, for every program.
const TICKS_PER_SEC: u64 = 100;

/// What one pull cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Of the process that does the work, the largest so far.
    pub(crate) peak_kib: u64,
}

/// A program that pulls images.
pub(crate) enum Tool {
    Berth { program: PathBuf, store: PathBuf },
    Containerd { daemon: Child, socket: PathBuf },
    Buildah { store: PathBuf },
}

impl Tool {
    /// All that are installed, ours first; their stores on `disk`.
    pub(crate) fn all(berth: &Path, disk: &Path) -> Vec<Self> {
        let mut tools = vec![Self::Berth { program: berth.to_owned(), store: disk.join("berth") }];
        if is_installed("containerd") {
            tools.push(containerd(&disk.join("containerd")));
        }
        if is_installed("buildah") {
            tools.push(Self::Buildah { store: disk.join("buildah") });
        }
        tools
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Berth { .. } => "berth",
            Self::Containerd { .. } => "containerd",
            Self::Buildah { .. } => "buildah",
        }
    }

    /// Pulls and unpacks an image.
    pub(crate) fn pull(&mut self, image: &str) -> Cost {
        let cpu_before = self.daemon_cpu();
        let cost = watched(&mut self.command_to_pull(image));
        let Self::Containerd { daemon, .. } = self else { return cost };
        let peak_kib = status_kib(daemon.id(), "VmHWM:");
        Cost { cpu: cost.cpu + self.daemon_cpu().saturating_sub(cpu_before), peak_kib, ..cost }
    }

    fn command_to_pull(&self, image: &str) -> Command {
        let mut command;
        match self {
            Self::Berth { program, store } => {
                command = Command::new(program);
                command.args(["image", "pull", "--state-dir"]).arg(store).arg(image);
            }
            Self::Containerd { socket, .. } => {
                command = ctr(socket);
                command.args(["images", "pull", "--plain-http", image]);
            }
            Self::Buildah { store } => {
                command = buildah(store);
                command.args(["pull", "--quiet", "--tls-verify=false", image]);
            }
        }
        command
    }

    /// Makes the store as it was, and lets the disk come to rest.
    pub(crate) fn forget(&mut self, image: &str) {
        match self {
            Self::Berth { store, .. } => drop(fs::remove_dir_all(store)),
            Self::Containerd { socket, .. } => {
                run(ctr(socket).args(["images", "rm", "--sync", image]).stdout(Stdio::null()))
            }
            Self::Buildah { store } => run(buildah(store).args(["rmi", "--all"]).stdout(Stdio::null())),
        }
        nix::unistd::sync();
    }

    fn daemon_cpu(&self) -> Duration {
        let Self::Containerd { daemon, .. } = self else { return Duration::ZERO };
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SEC)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Self::Containerd { daemon, .. } = self {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Runs a command to its end, looking at its size now and then: the most that it ever had, as the kernel keeps it.
fn watched(command: &mut Command) -> Cost {
    let (cpu, began) = (cpu_of_children(), Instant::now());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is there");
    let mut peak_kib = 0;
    loop {
        peak_kib = peak_kib.max(status_kib(child.id(), "VmHWM:"));
        match child.try_wait().expect("it is our child") {
            Some(status) => {
                assert!(status.success(), "{command:?}: {status}");
                return Cost { wall: began.elapsed(), cpu: cpu_of_children().saturating_sub(cpu), peak_kib };
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
    value.unwrap_or_default()
}

fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("every kernel has it");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

fn containerd(store: &Path) -> Tool {
    fs::create_dir_all(store).expect("the disk can be written to");
    let (config, socket) = (store.join("config.toml"), store.join("containerd.sock"));
    let text = format!(
        "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{}'\n",
        store.join("root").display(),
        store.join("state").display(),
        socket.display()
    );
    fs::write(&config, text).expect("the disk can be written to");
    let mut command = Command::new("containerd");
    command.arg("--config").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = command.spawn().expect("containerd is installed");
    let end = Instant::now() + START_TIME_MAX;
    while !ctr(&socket)
        .args(["version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
    {
        assert!(Instant::now() < end, "containerd does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Tool::Containerd { daemon, socket }
}

fn ctr(socket: &Path) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket);
    command
}

fn buildah(store: &Path) -> Command {
    let mut command = Command::new("buildah");
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    command.args(["--storage-driver", "overlay"]);
    command
}

fn is_installed(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').any(|folder| Path::new(folder).join(name).exists());
    if !found {
        println!("{name} is not installed, and left out");
    }
    found
}
