//! How long an image takes from its registry to a root that can be mounted, by us and by what people use today: all in
//! one run, one after the other in turn, so that a busy machine is as busy for each.
//!
//! | room | what it does |
//! |---|---|
//! | `images` | one root filesystem of Debian as three images in a registry: one gzip layer, five, one of zstd |
//! | `tools` | berth, containerd's ctr and buildah, each with a store of its own |
//!
//! usage: `bench-rootfs FOLDER [ROUNDS]`. Images and registry are kept in FOLDER for the next run. The stores are on an
//! ext4 in a file on a tmpfs: a disk that nobody shares. The program is the `berth` beside this one, or where BERTH_BIN
//! says.
#![forbid(unsafe_code)]

mod images;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use tools::{Cost, Tool};

/// How many rounds give the medians.
const ROUNDS: usize = 5;
/// Says that this is the process in the mount namespace that was made for it.
const INSIDE: &str = "--inside";
/// Where the stores are, inside.
const DISK: &str = "/tmp/berth-bench-rootfs";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [INSIDE, folder, rounds] => measure(Path::new(folder), rounds.parse().unwrap_or(ROUNDS)),
        [folder] => return on_a_disk_of_its_own(folder, &ROUNDS.to_string()),
        [folder, rounds] => return on_a_disk_of_its_own(folder, rounds),
        _ => {
            eprintln!("usage: bench-rootfs FOLDER [ROUNDS]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// A mount namespace goes with its last process, and what is mounted in it.
fn on_a_disk_of_its_own(folder: &str, rounds: &str) -> ExitCode {
    let disk = format!(
        "set -e
        mkdir -p {DISK}
        mount -t tmpfs -o size=8g tmpfs {DISK}
        truncate --size=6G {DISK}/image
        mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {DISK}/image
        mkdir {DISK}/disk
        mount -o loop {DISK}/image {DISK}/disk
        exec \"$@\""
    );
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &disk, "sh"])
        .arg(std::env::current_exe().expect("a program knows its own path"))
        .args([INSIDE, folder, rounds])
        .status()
        .expect("unshare is part of util-linux");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(folder: &Path, rounds: usize) {
    let registry = images::Registry::filled(folder);
    let disk = Path::new(DISK).join("disk");
    let mut tools = Tool::all(&beside_this("berth"), &disk);
    println!("{:<22}{:<10}{:>12}{:>12}{:>12}{:>12}", "image", "tool", "median s", "least s", "CPU s", "peak MiB");
    for image in images::KINDS {
        let name = registry.name(image);
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); tools.len()];
        for _ in 0..rounds {
            for (tool, costs) in tools.iter_mut().zip(&mut costs) {
                costs.push(tool.pull(&name));
                tool.forget(&name);
            }
        }
        let medians: Vec<Duration> = costs.iter().map(|costs| median(costs, |cost| cost.wall)).collect();
        for ((tool, costs), wall) in tools.iter().zip(&costs).zip(&medians) {
            let least = costs.iter().map(|cost| cost.wall).min().unwrap_or_default();
            let peak = costs.iter().map(|cost| cost.peak_kib).max().unwrap_or_default() as f64 / 1024.0;
            let cpu = median(costs, |cost| cost.cpu);
            let [wall, least, cpu] = [*wall, least, cpu].map(|time| time.as_secs_f64());
            println!("{image:<22}{:<10}{wall:>12.2}{least:>12.2}{cpu:>12.2}{peak:>12.1}", tool.name());
        }
        for (tool, wall) in tools.iter().zip(&medians).skip(1) {
            let times = wall.as_secs_f64() / medians[0].as_secs_f64();
            println!("{image:<22}{:<10}takes {times:.1} times as long as berth", tool.name());
        }
    }
}

fn median(costs: &[Cost], part: impl Fn(&Cost) -> Duration) -> Duration {
    let mut all: Vec<Duration> = costs.iter().map(part).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn beside_this(name: &str) -> PathBuf {
    let folder = std::env::var_os("BERTH_BIN").map(PathBuf::from);
    let folder = folder.or_else(|| Some(std::env::current_exe().ok()?.parent()?.to_owned()));
    folder.expect("a program knows its own path").join(name)
}
