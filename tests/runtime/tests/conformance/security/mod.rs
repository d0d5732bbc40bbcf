//! Attacks that worked on some runtime once. Each test tries one, and shows that the machine is as it was.
//!
//! | file | what is attacked |
//! |---|---|
//! | `links` | what is made in the image: destinations of mounts, devices, files, by way of the image's links |
//! | `kernel_files` | what protects `/proc`: its masks, its parameters, the terminal |
//! | `leaks` | what a program gets with its life: descriptors, capabilities, folders, the runtime itself |

mod kernel_files;
mod leaks;
mod links;

use std::fs;
use std::path::Path;

use berth_runtime_tests::Container;

/// A folder of the machine that nothing may be made in.
struct Outside(tempfile::TempDir);

impl Outside {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("suite-outside-").tempdir().unwrap();
        fs::write(folder.path().join("file"), "untouched").unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Whether anything was made, changed or mounted.
    fn is_touched(&self) -> bool {
        let names: Vec<_> = fs::read_dir(self.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        names != ["file"]
            || fs::read_to_string(self.path().join("file")).unwrap() != "untouched"
            || mounts.contains(self.path().to_str().unwrap())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert!(!self.is_touched(), "{:?}", fs::read_dir(self.path()).unwrap().flatten().collect::<Vec<_>>());
    }
}

/// Runs what may be refused, and gives what it wrote if it is not.
fn attempt(container: &Container) -> String {
    if container.try_create().code != 0 || container.verb("start").code != 0 {
        return String::new();
    }
    container.wait();
    container.out() + &container.err()
}
