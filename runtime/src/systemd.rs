//! A cgroup that systemd knows: a transient scope, asked for over D-Bus by `cgroups-rs`, so that systemd neither removes
//! nor rearranges what is in it.
//!
//! A scope begins with a process and ends with its last. A process that does nothing stands in for the container's until
//! that is in the cgroup; then it is ended, and the rest is as without systemd.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use berth_sys::cgroup::Cgroup;
use berth_sys::process::{self, Birth, Child};
use cgroups_rs::systemd::SystemdClient;
use cgroups_rs::systemd::props::PropertiesBuilder;

use crate::error::Error;

/// How long systemd may take to make a scope, and how often to look whether it has: it answers when the work is queued.
const SCOPE_DEADLINE: Duration = Duration::from_secs(25);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Who stands in for the first process of a scope; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct StandIn(Child);

impl StandIn {
    /// Has systemd make the scope at a cgroup's path, which is that of a unit in a slice.
    pub(crate) fn begin_scope(cgroup: &Cgroup) -> Result<Self, Error> {
        let path = cgroup.path();
        let name = |path: Option<&Path>| path?.file_name()?.to_str().map(str::to_owned);
        let unit = name(Some(path)).unwrap_or_default();
        let slice = name(path.parent()).unwrap_or_else(|| "-.slice".to_owned());
        let failed =
            |source: std::io::Error| Error::Setup { step: format!("ask systemd for the scope {unit}"), source };
        let wait_for_ever = || {
            loop {
                nix::unistd::pause();
            }
        };
        let stand_in = Self(process::spawn(&Birth::default(), wait_for_ever).map_err(Error::Spawn)?);
        let pid = stand_in.0.pid;
        let properties = PropertiesBuilder::default_cgroup(&slice, &unit).pids(vec![pid.unsigned_abs()]).build();
        SystemdClient::new(&unit, properties)
            .and_then(|client| client.start())
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let deadline = Instant::now() + SCOPE_DEADLINE;
        while !is_in(pid, path) {
            if Instant::now() > deadline {
                return Err(failed(std::io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(stand_in)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = process::pidfd_send_signal(&self.0.pidfd, nix::libc::SIGKILL);
        let _ = process::wait(&self.0.pidfd);
    }
}

/// Whether systemd has moved a process to a path, in the unified hierarchy or in its own.
fn is_in(pid: i32, path: &Path) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut systemd_s = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, own) = rest.split_once(':')?;
        (controllers.is_empty() || controllers == "name=systemd").then_some(own)
    });
    systemd_s.any(|own| Path::new(own) == path)
}

/// Has systemd forget a scope whose processes are gone; it does so by itself, but for one that failed.
pub(crate) fn forget_scope(cgroup: &Cgroup) {
    let unit = cgroup.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Ok(client) = SystemdClient::new(unit, Vec::new()) {
        let _ = client.stop();
    }
}
