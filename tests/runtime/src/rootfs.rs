//! The root folder of a container: Debian's static busybox, and the probe with the libraries that it needs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::runtime::beside_the_tests;

const FOLDERS: [&str; 9] = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "data"];

const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000:worker:/home/worker:/bin/sh\n";
const GROUPS: &str = "root:x:0:\ntty:x:5:\nworker:x:1000:\nwheel:x:10:worker\n";

/// Fills a folder.
#[track_caller]
pub(crate) fn make(root: &Path) {
    FOLDERS.iter().for_each(|name| fs::create_dir_all(root.join(name)).unwrap());
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("etc/passwd"), USERS).unwrap();
    fs::write(root.join("etc/group"), GROUPS).unwrap();
    // By a process of its own: a child that another test forks meanwhile would hold our copy open for writing, and what
    // is open for writing cannot be executed.
    let mut copy = Command::new("cp");
    copy.args(["--dereference", "/bin/busybox"]).arg(beside_the_tests("probe")).arg(root.join("bin"));
    assert!(copy.status().unwrap().success(), "busybox-static is needed, and the probe from the same build");
    let mut copy = Command::new("cp");
    copy.args(["--dereference", "--parents"]).args(libraries()).arg(root);
    assert!(copy.status().unwrap().success(), "the probe's libraries");
    applets().iter().filter(|name| *name != "busybox").for_each(|name| {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    });
}

fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox-static is installed");
        String::from_utf8_lossy(&list.stdout).lines().map(str::to_owned).collect()
    })
}

/// The shared libraries of the probe, by the names under which it looks for them.
fn libraries() -> &'static [PathBuf] {
    static LIBRARIES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        let list = Command::new("ldd").arg(beside_the_tests("probe")).output().expect("ldd belongs to the C library");
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        paths.map(PathBuf::from).collect()
    })
}
