//! `events`: a container's figures at an interval, and its OOM kills, as lines of JSON.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use berth_runtime::Status;
use berth_sys::cgroup::oom::Tally;
use berth_sys::process;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::Host;
use crate::args::Events;
use crate::error::Error;
use berth_runtime::Stats;

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
    let mut tally = Tally::begin(host.runtime.cgroup(&args.id)?).map_err(berth_runtime::Error::from)?;
    // Who was killed before is no news.
    tally.look().map_err(berth_runtime::Error::from)?;
    let mut next = Instant::now() + args.interval;
    loop {
        let seen = wait(&pidfd, &tally, tally.again().map_or(next, |again| again.min(next))).map_err(Error::Attend)?;
        let is_fresh = if seen.oom { tally.notice() } else { tally.look() };
        // With the container its count is gone: then its end is what is left to tell.
        if is_fresh.unwrap_or(false) {
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

fn wait(pidfd: impl AsFd, tally: &Tally, until: Instant) -> io::Result<Seen> {
    let mut ready = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(tally.as_fd(), PollFlags::POLLIN)];
    let time = until.saturating_duration_since(Instant::now());
    // Rounded up, so that nothing is told before its time again and again; a longer wait is made of several.
    let timeout = u16::try_from(time.as_millis() + 1).unwrap_or(u16::MAX);
    match poll(&mut ready, PollTimeout::from(timeout)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let [end, oom] = ready.map(|fd| fd.any() == Some(true));
    Ok(Seen { end, oom })
}
