//! `events`: a container's figures at an interval, and its OOM kills, as lines of JSON.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use berth_runtime::Status;
use berth_sys::cgroup::Cgroup;
use berth_sys::cgroup::oom::Watch;
use berth_sys::process;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::Host;
use crate::args::Events;
use crate::error::Error;
use berth_runtime::Stats;

/// How often, and after what time each, to look for a victim when memory ran out.
const LOOKS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

pub(crate) fn print(host: &Host<'_>, args: &Events) -> Result<(), Error> {
    let state = host.runtime.state(&args.id)?;
    if state.status == Status::Stopped {
        return Err(Error::NotRunning);
    }
    if args.once {
        return print_stats(host, &args.id);
    }
    let Ok(pidfd) = process::pidfd_open(state.pid) else { return Ok(()) };
    let cgroup = host.runtime.cgroup(&args.id)?;
    let watch = cgroup.watch_oom().map_err(berth_runtime::Error::from)?;
    let mut kills = Kills { told: count(&cgroup)?, cgroup, looks: 0 };
    let mut next = Instant::now() + args.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let seen = wait(&pidfd, &watch, kills.pause().map_or(left, |pause| pause.min(left))).map_err(Error::Attend)?;
        if seen.oom {
            watch.clear().map_err(Error::Attend)?;
            kills.looks = LOOKS;
        }
        if kills.look() {
            print_event(&Event { r#type: "oom", id: &args.id, data: None })?;
        }
        if seen.end {
            return Ok(());
        }
        if Instant::now() >= next {
            print_stats(host, &args.id)?;
            next += args.interval;
        }
    }
}

fn count(cgroup: &Cgroup) -> Result<u64, Error> {
    Ok(cgroup.oom_kill_count().map_err(berth_runtime::Error::from)?)
}

/// The OOM killer's victims. The old hierarchy tells that memory ran out before the kernel has chosen one, the new one
/// tells of more than that.
struct Kills {
    cgroup: Cgroup,
    told: u64,
    /// How often to look again.
    looks: usize,
}

impl Kills {
    /// Whether there are new ones.
    fn look(&mut self) -> bool {
        let fresh = self.looks > 0 && count(&self.cgroup).is_ok_and(|now| std::mem::replace(&mut self.told, now) < now);
        self.looks = if fresh { 0 } else { self.looks.saturating_sub(1) };
        fresh
    }

    /// How long to wait before looking again.
    fn pause(&self) -> Option<Duration> {
        (self.looks > 0).then_some(PAUSE)
    }
}

fn print_stats(host: &Host<'_>, id: &str) -> Result<(), Error> {
    print_event(&Event { r#type: "stats", id, data: Some(host.runtime.stats(id)?) })
}

fn print_event(event: &Event<'_>) -> Result<(), Error> {
    let line = serde_json::to_string(event).map_err(|error| Error::Output(error.into()))? + "\n";
    let mut out = io::stdout();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}

struct Seen {
    end: bool,
    oom: bool,
}

fn wait(pidfd: impl AsFd, watch: &Watch, time: Duration) -> io::Result<Seen> {
    let mut ready = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    // Rounded up, so that nothing is told before its time again and again; a longer wait is made of several.
    let timeout = u16::try_from(time.as_millis() + 1).unwrap_or(u16::MAX);
    match poll(&mut ready, PollTimeout::from(timeout)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let [end, oom] = ready.map(|fd| fd.any() == Some(true));
    Ok(Seen { end, oom })
}
