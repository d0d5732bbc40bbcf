//! Where containers' logs are: `<pod_log_dir>/<namespace>_<name>_<uid>/<container>/<n>.log`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_api::id::PodId;

use super::desired::Desired;
use crate::config::Config;

/// The folder of a pod's logs.
fn folder(config: &Config, id: &PodId) -> PathBuf {
    config.pod_log_dir.join(folder_name(id))
}

/// The log of one run of a container.
pub(super) fn file(config: &Config, id: &PodId, container: &str, attempt: u32) -> PathBuf {
    folder(config, id).join(container).join(format!("{attempt}.log"))
}

/// Makes the folder of a pod's logs.
pub(super) fn make_folder(config: &Config, desired: &Desired) -> io::Result<()> {
    fs::create_dir_all(folder(config, &desired.id))
}

/// Makes the folder of a container's logs.
pub(super) fn prepare(config: &Config, id: &PodId, container: &str) -> io::Result<()> {
    fs::create_dir_all(folder(config, id).join(container))
}

/// Removes a pod's logs. What is gone is removed.
pub(super) fn remove(config: &Config, id: &PodId) -> io::Result<()> {
    if let Some(links) = &config.container_log_dir {
        remove_links(links, id)?;
    }
    match fs::remove_dir_all(folder(config, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the link that log collectors look for: `<pod>_<namespace>_<container>-<id>.log`.
pub(super) fn link(config: &Config, id: &PodId, container: &str, run: &str, log: &Path) -> io::Result<()> {
    let Some(links) = &config.container_log_dir else { return Ok(()) };
    fs::create_dir_all(links)?;
    let link = links.join(format!("{}_{}_{container}-{run}.log", id.name, id.namespace));
    match std::os::unix::fs::symlink(log, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Names cannot contain `_`, so no other pod's links begin the same.
fn remove_links(links: &Path, id: &PodId) -> io::Result<()> {
    let entries = match fs::read_dir(links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let prefix = format!("{}_{}_", id.name, id.namespace);
    let logs = folder_name(id);
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(&prefix);
        let target = fs::read_link(entry.path()).unwrap_or_default();
        // A pod of the same name may be there already: only links to this one's logs go.
        if ours && target.components().any(|part| part.as_os_str() == logs.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder_name(id: &PodId) -> String {
    format!("{}_{}_{}", id.namespace, id.name, id.uid)
}
