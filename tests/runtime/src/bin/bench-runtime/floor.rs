//! What the kernel alone takes for the same: a process in new namespaces and cgroups, the standard mounts, the program
//! executed and waited for, the cgroups removed. There is no configuration, no filter, no state, and nobody to talk to.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::path::Path;

use berth_runtime_tests::bundle::Bundle;
use berth_sys::cgroup::{Cgroup, DOOR_KEY, Hierarchies};
use berth_sys::mount::{self, Reach};
use berth_sys::process::{Birth, Program, exit_now, spawn, wait};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

use crate::figures::Figures;

const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// The file systems of every container, and where.
const MOUNTS: [(&CStr, &CStr); 6] = [
    (c"proc", c"/proc"),
    (c"tmpfs", c"/dev"),
    (c"devpts", c"/dev/pts"),
    (c"tmpfs", c"/dev/shm"),
    (c"mqueue", c"/dev/mqueue"),
    (c"sysfs", c"/sys"),
];

pub(crate) fn measure(bundle: &Bundle, figures: &mut Figures) {
    let root = CString::new(bundle.path.join("rootfs").to_str().expect("the path is text")).expect("it has no zero");
    let program = || Program::new(vec![c"/bin/true".into()], vec![c"/bin/true".into()], Vec::new());
    let hierarchies = Hierarchies::of_machine().expect("the kernel tells its mounts");
    let cgroup = Cgroup::new(hierarchies, Path::new("/berth-bench-floor"), &[]).expect("the path is plain");
    figures.measure("floor", || {
        cgroup.make().expect("the cgroup can be made");
        let doors = cgroup.open_doors().expect("it is there");
        let folder = cgroup.open_unified().expect("it is there");
        let birth =
            Birth { namespaces: ALL, cgroup: folder.as_ref().map(std::os::fd::AsFd::as_fd), ..Birth::default() };
        let program = program();
        let child = spawn(&birth, || {
            let entered = doors.iter().all(|(_, door)| nix::unistd::write(door, DOOR_KEY).is_ok());
            if entered && furnish(&root).is_ok() {
                program.execute();
            }
            exit_now(99)
        })
        .expect("the kernel makes a process");
        assert_eq!(wait(&child.pidfd).expect("it is our child").code(), 0, "the floor's process failed");
        cgroup.remove().expect("the cgroup is empty");
    });
    figures.measure("exec floor", || {
        let busybox = Program::new(vec![c"/bin/busybox".into()], vec![c"true".into()], Vec::new());
        let child = spawn(&Birth::default(), || -> Infallible {
            busybox.execute();
            exit_now(99)
        })
        .expect("the kernel makes a process");
        assert_eq!(wait(&child.pidfd).expect("it is our child").code(), 0);
    });
}

fn furnish(root: &CStr) -> nix::Result<()> {
    let private = mount::Attributes { propagation: nix::mount::MsFlags::MS_PRIVATE.bits(), ..Default::default() };
    let place = |path: &CStr| open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    mount::set_attributes(place(c"/")?, &private, Reach::Tree)?;
    let copy = mount::copy(AT_FDCWD, root, Reach::Tree)?;
    mount::attach(&copy, place(root)?)?;
    mount::pivot(&copy)?;
    for (kind, target) in MOUNTS {
        let made = mount::new_mount(kind, [], 0)?;
        if target.to_bytes().starts_with(b"/dev/") {
            nix::unistd::mkdir(target, Mode::from_bits_truncate(0o755))?;
        }
        mount::attach(made, place(target)?)?;
    }
    Ok(())
}
