//! How long a container takes: by our command line and its peers', through the shim, and on the bare kernel; all in one
//! run, one after the other in turn, so that a busy machine is as busy for each. Then what shims cost in memory and
//! wake-ups, and how much they log.
//!
//! | room | what it measures |
//! |---|---|
//! | `command` | a runtime's command line: create, start, delete, the whole cycle, run, exec |
//! | `shim` | a shim, talked to |
//! | `pod` | the library in a shim: create and start, delete, exec |
//! | `crowd` | many idle shims, and as many conmons |
//! | `logs` | the output of a container, logged |
//! | `floor` | the kernel alone: the same namespaces, mounts and cgroups, with nothing around them |
//! | `figures` | medians and ratios |
//!
//! usage: `bench-runtime [ROUNDS]`. The programs are those beside this one, or where `BERTH_BIN` says; peers are `crun`,
//! `runc` and `conmon` in `PATH`. Bundles and state are on a tmpfs.
#![forbid(unsafe_code)]

mod command;
mod crowd;
mod figures;
mod floor;
mod logs;
mod pod;
mod shim;

use std::path::{Path, PathBuf};

use berth_runtime_tests::bundle::Bundle;
use figures::Figures;

/// How many rounds give the medians.
const ROUNDS: usize = 31;

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(command::PEAK_OF) => command::print_peak(arguments),
        Some(INSIDE) => measure(arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)),
        rounds => in_a_view_of_its_own(rounds),
    }
}

/// Says that this is the process in the mount namespace that was made for it.
const INSIDE: &str = "--inside";

/// crun does not know a machine whose cgroups are of both versions: everybody gets a view of the v1 hierarchies alone,
/// in a mount namespace of its own, if this machine is one.
fn in_a_view_of_its_own(rounds: Option<&str>) {
    let view = "set -e
        if [ -e /sys/fs/cgroup/unified ]; then
            mkdir -p /tmp/berth-bench-cgroup
            mount -t tmpfs -o mode=755 cgroup /tmp/berth-bench-cgroup
            for name in $(ls /sys/fs/cgroup); do
                [ $name != unified ] || continue
                mkdir /tmp/berth-bench-cgroup/$name
                mount --bind /sys/fs/cgroup/$name /tmp/berth-bench-cgroup/$name
            done
            umount -l /sys/fs/cgroup/unified
            mount --rbind /tmp/berth-bench-cgroup /sys/fs/cgroup
            umount -l /tmp/berth-bench-cgroup
        fi
        mkdir -p /tmp/berth-bench
        mount -t tmpfs tmpfs /tmp/berth-bench
        exec \"$@\"";
    let this = std::env::current_exe().expect("a program knows its own path");
    let status = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", view, "sh"])
        .arg(this)
        .arg(INSIDE)
        .args(rounds)
        .status()
        .expect("unshare is part of util-linux");
    std::process::exit(status.code().unwrap_or(1));
}

fn measure(rounds: usize) {
    nix::sys::prctl::set_child_subreaper(true).expect("every kernel has it");
    let folder = Path::new("/tmp/berth-bench");
    let bundle = Bundle::in_folder(&folder.join("bundle"), "bench", &["/bin/true"]);
    let sleeper = Bundle::in_folder(&folder.join("sleeper"), "sleeper", &["/bin/sleep", "1000"]);
    let (ours, shim) = (beside_this("berth-runtime"), beside_this("berth-shim"));
    let programs = [("berth", Some(ours.clone())), ("crun", found("crun")), ("runc", found("runc"))];
    let mut runtimes: Vec<command::Runtime> = programs
        .into_iter()
        .filter_map(|(name, path)| Some(command::Runtime::new(name, path?, folder, &bundle, &sleeper)))
        .collect();
    let mut pod = pod::Pod::start(&shim, folder, &bundle, &sleeper);
    let mut figures = Figures::default();
    for round in 0..=rounds {
        // The first round warms caches and does not count.
        let mut into = Figures::default();
        floor::measure(&bundle, &mut into);
        pod.measure(&mut into);
        runtimes.iter_mut().for_each(|runtime| runtime.measure(&mut into));
        if round > 0 {
            figures.take(into);
        }
    }
    figures.print();
    println!();
    for runtime in &runtimes {
        println!("peak memory of one {} create: {} KiB", runtime.name, runtime.peak_kib());
    }
    let ratio = |what: &str, than: &str, bar: f64| figures.compare(what, than, bar);
    println!();
    for (what, than, bar) in [
        ("berth cycle", "crun cycle", 0.5),
        ("berth run", "crun run", 0.6),
        ("shim create+start", "floor", 2.5),
        ("shim exec", "exec floor", 2.0 / 0.7),
    ] {
        ratio(what, than, bar);
    }
    println!();
    crowd::print_shims(&shim, folder, &sleeper);
    if let Some(conmon) = found("conmon") {
        crowd::print_conmons(&conmon, &ours, folder, &sleeper);
    }
    logs::print(&shim, folder);
}

fn beside_this(name: &str) -> PathBuf {
    let folder = std::env::var_os("BERTH_BIN").map(PathBuf::from);
    let folder = folder.or_else(|| Some(std::env::current_exe().ok()?.parent()?.to_owned()));
    folder.expect("a program knows its own path").join(name)
}

fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    if found.is_none() {
        println!("{name} is not installed, and left out");
    }
    found
}
