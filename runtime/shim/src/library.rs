//! The library's verbs, each in a copy of the shim.
//!
//! Nearly every verb can wait: for a hook, for the freezer, for a cgroup to become empty, for a file of the container's
//! root whose server is slow. So all of them are done in a child, which is a plain fork, for the shim has one thread; that
//! is a fraction of a millisecond. What the child makes becomes the shim's when the child ends, for the shim is a
//! subreaper.
//!
//! ```text
//!   shim ──clone──▶ copy: only the descriptors that the verb needs; dies with the shim
//!    │               │ the verb
//!    │ ◀── packet ───┤ the process that it made and its terminal, or the fault
//!    │ ◀── SIGCHLD ──┘ met in `work`
//! ```

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use berth_runtime::shim::protocol::{Fault, FaultKind, PACKET_BYTES_MAX};
use berth_runtime::{Runtime, Spawned};
use berth_sys::presence::Presence;
use berth_sys::process::{self, Birth, Exit};
use berth_sys::socket;
use nix::unistd::getpid;

use crate::fault::{failed, fault, of_runtime};
use crate::limits::LIBRARY_TIME_MAX;
use crate::note::note;
use crate::run::{Made, Report, Run, Verb};

/// What a copy ends with that could not tell what it did.
const UNTOLD: i32 = 1;

/// Begins a verb. `presence` is kept open by the copy for as long as it lives.
pub(crate) fn begin(
    runtime: &Runtime,
    presence: &Presence,
    id: &str,
    verb: Verb<'_>,
    what: String,
) -> Result<Run, Fault> {
    let copying = |error| failed(&format!("{what}: making a copy of the shim"), &error);
    let (ours, theirs) = socket::pair().map_err(copying)?;
    let mut kept: Vec<i32> = verb.descriptors().map(AsRawFd::as_raw_fd).collect();
    kept.extend([theirs.as_raw_fd(), presence.as_fd().as_raw_fd()]);
    kept.sort_unstable();
    let shim = getpid();
    let child = process::spawn(&Birth::default(), || {
        // Others wait for the end of what the shim has open.
        let ready = process::close_all_but(&kept).and_then(|()| process::die_with(shim));
        if ready.is_err() {
            process::exit_now(UNTOLD);
        }
        let made = act(runtime, id, verb).map_err(|error| of_runtime(&error));
        let sent = tell(&theirs, &made);
        process::exit_now(if sent.is_ok() { 0 } else { UNTOLD })
    });
    Ok(Run::begun(child.map_err(copying)?.pid, LIBRARY_TIME_MAX, what, Report::Packet(ours)))
}

/// What a copy tells: the process that it made, if the verb makes one.
type Told = Result<Option<i32>, Fault>;

fn act(runtime: &Runtime, id: &str, verb: Verb<'_>) -> Result<Option<Spawned>, berth_runtime::Error> {
    let done = |()| None;
    let made = match verb {
        Verb::Create { bundle, stdio } => runtime.create(id, bundle, stdio).map(Some),
        Verb::Start => runtime.start(id).map(done),
        Verb::Kill { signal, all } => runtime.kill(id, signal, all).map(done),
        Verb::Delete => runtime.delete(id).map(|failures| {
            failures.iter().for_each(|failure| note(format_args!("deleting container {id}: {failure}")));
            None
        }),
        Verb::Exec { process, stdio } => runtime.exec(id, process, stdio).map(Some),
        Verb::Pause => runtime.pause(id).map(done),
        Verb::Resume => runtime.resume(id).map(done),
        Verb::Update(resources) => runtime.update(id, resources).map(done),
    }?;
    for warning in made.iter().flat_map(|made| &made.warnings) {
        note(format_args!("container {id}: {warning}"));
    }
    Ok(made)
}

fn tell(socket: &OwnedFd, made: &Result<Option<Spawned>, Fault>) -> io::Result<()> {
    let told: Told = made.as_ref().map(|made| made.as_ref().map(|made| made.pid)).map_err(Clone::clone);
    let terminal = made.iter().flatten().filter_map(|made| made.terminal.as_ref());
    let fds: Vec<_> = terminal.map(AsFd::as_fd).collect();
    socket::send(socket.as_fd(), &serde_json::to_vec(&told)?, &fds)
}

/// What a copy that has ended had told.
pub(crate) fn told(socket: &OwnedFd, exit: Exit) -> Result<Option<Made>, Fault> {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let got = socket::receive(socket.as_fd(), &mut packet).ok();
    let told = got.and_then(|got| Some((serde_json::from_slice::<Told>(&packet[..got.len]).ok()?, got.fds)));
    match told {
        Some((told, fds)) => Ok(told?.map(|pid| Made { pid, terminal: fds.into_iter().next() })),
        None => Err(fault(FaultKind::Failed, format!("the shim's copy ended without a word: {exit:?}"))),
    }
}
