//! A cgroup that systemd knows: a transient scope, asked for over D-Bus ([`bus`]), so that systemd neither removes nor
//! rearranges what is in it (org.freedesktop.systemd1(5)).
//!
//! A scope begins with a process and ends with its last. A process that does nothing stands in for the container's until
//! that is in the cgroup; then it is ended, and the rest is as without systemd.

mod bus;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use berth_sys::cgroup::{Cgroup, Membership};
use berth_sys::process::{self, Child};
use nix::sched::CloneFlags;

use crate::error::Error;
use bus::{Body, Bus, Method, Value};

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
        let stand_in = Self(process::spawn_idle(CloneFlags::empty()).map_err(Error::Spawn)?);
        let pid = stand_in.0.pid;
        start(&unit, &slice, pid.unsigned_abs()).map_err(failed)?;
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
        let _ = process::kill_and_wait(&self.0.pidfd);
    }
}

/// Whether systemd has moved a process to a path, in the unified hierarchy or in its own.
fn is_in(pid: i32, path: &Path) -> bool {
    Membership::of(pid).is_ok_and(|own| [own.unified(), own.with("name=systemd")].contains(&Some(path)))
}

/// `StartTransientUnit` of systemd's manager: name, mode, properties, other units.
fn start_method() -> Method<'static> {
    method("StartTransientUnit", "ssa(sv)a(sa(sv))")
}

fn method(member: &'static str, signature: &'static str) -> Method<'static> {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
        signature,
    }
}

fn start(unit: &str, slice: &str, pid: u32) -> std::io::Result<()> {
    let description = format!("berth container {unit}");
    let pids = [pid];
    let yes = Value::Flag(true);
    let mut properties = vec![
        ("Description", Value::Text(&description)),
        ("DefaultDependencies", Value::Flag(false)),
        ("PIDs", Value::Numbers(&pids)),
    ];
    // A slice is in the slice that its name says.
    if unit.ends_with(".scope") {
        properties.extend([("Slice", Value::Text(slice)), ("Delegate", yes.clone())]);
    }
    properties.extend(["CPUAccounting", "MemoryAccounting", "TasksAccounting"].map(|name| (name, yes.clone())));
    let mut body = Body::default();
    body.text(unit);
    body.text("replace");
    body.properties(&properties);
    body.properties(&[]);
    Bus::connect()?.call(&start_method(), body)
}

/// Has systemd forget a scope whose processes are gone; it does so by itself, but for one that failed.
pub(crate) fn forget_scope(cgroup: &Cgroup) {
    let unit = cgroup.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut body = Body::default();
    body.text(unit);
    if let Ok(mut bus) = Bus::connect() {
        let _ = bus.call(&method("ResetFailedUnit", "s"), body);
    }
}
