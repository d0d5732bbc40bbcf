//! A bundle that stays where it is, without a container around it: for measuring.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{rootfs, spec};

/// A root folder and a configuration.
#[derive(Debug)]
pub struct Bundle {
    /// The folder of both.
    pub path: PathBuf,
}

impl Bundle {
    /// A bundle in a folder, of a container with the usual configuration that runs this program.
    #[track_caller]
    pub fn in_folder(path: &Path, id: &str, arguments: &[&str]) -> Self {
        fs::create_dir_all(path.join("rootfs")).unwrap();
        rootfs::make(&path.join("rootfs"));
        let mut config = spec::usual(id, arguments);
        // Of whom there may be many: each makes its cgroup by its own name.
        config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        Self { path: path.to_owned() }
    }
}
