//! Processes that join a container.

use std::fs;
use std::os::fd::OwnedFd;

use berth_runtime::Stdio;
use berth_runtime::shim::protocol::{Answer, Fault, FaultKind};
use berth_sys::{proc, process};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::Process;

use crate::clients::{Asker, Told};
use crate::container::{Exec, Life};
use crate::control::Outcome;
use crate::fault::fault;
use crate::limits::{EXECS_MAX, SIGNALS_WAITING_MAX};
use crate::request::check_name;
use crate::run::{Made, Verb};
use crate::shim::Shim;
use crate::work::Goal;

impl Shim {
    /// Runs a process on the caller's descriptors, or on a terminal whose master goes to the caller.
    pub(crate) fn exec(
        &mut self,
        asker: Asker,
        id: &str,
        exec: String,
        process: &Process,
        fds: Vec<OwnedFd>,
    ) -> Outcome {
        check_name("exec name", &exec)?;
        let (number, container) = self.container(id)?;
        let stdio = stdio(process, fds)?;
        if !matches!(container.life, Life::Alive) || container.started_at.is_none() {
            return Err(fault(FaultKind::WrongState, format!("container {id} does not run")));
        }
        if container.execs.contains_key(&exec) {
            return Err(fault(FaultKind::Exists, format!("exec {exec} runs in container {id} already")));
        }
        if container.execs.len() >= EXECS_MAX {
            let message = format!("{EXECS_MAX} execs run in container {id} already");
            return Err(fault(FaultKind::Failed, message));
        }
        container.execs.insert(exec.clone(), Exec::Making { signals: Vec::new() });
        let begun = self.begin(number, Verb::Exec { process, stdio }, Goal::Exec { asker, exec: exec.clone() });
        begun.map(|()| None).inspect_err(|_| drop(self.forget_exec(number, &exec)))
    }

    /// An exec was made, or not: its caller is told, and then those who had signals for it.
    pub(crate) fn exec_ended(&mut self, asker: Asker, number: u32, exec: &str, made: Result<Made, Fault>) {
        let pid = made.as_ref().ok().map(|made| made.pid);
        let told = made.map(|Made { pid, terminal }| Told::with(Answer::Executed { pid }, terminal));
        self.clients.answer(&self.poller, asker, told);
        let signals = match self.forget_exec(number, exec) {
            Some(Exec::Making { signals }) => signals,
            _ => Vec::new(),
        };
        if let (Some(pid), Some(container)) = (pid, self.containers.get_mut(&number)) {
            container.execs.insert(exec.to_owned(), Exec::Running { pid });
        }
        for (asker, signal) in signals {
            let done = pid.map_or_else(|| Err(no_exec(exec)), |pid| signal_exec(pid, signal));
            self.clients.answer(&self.poller, asker, done.map(|()| Answer::Done));
        }
    }

    fn forget_exec(&mut self, number: u32, exec: &str) -> Option<Exec> {
        self.containers.get_mut(&number)?.execs.remove(exec)
    }

    /// Signals a process that joined, when it is there; killed, it takes its descendants along.
    pub(crate) fn exec_kill(&mut self, asker: Asker, id: &str, exec: &str, signal: i32) -> Outcome {
        let (_, container) = self.container(id)?;
        match container.execs.get_mut(exec) {
            Some(Exec::Running { pid }) => signal_exec(*pid, signal).map(|()| Some(Answer::Done.into())),
            Some(Exec::Making { signals }) if signals.len() < SIGNALS_WAITING_MAX => {
                signals.push((asker, signal));
                Ok(None)
            }
            Some(Exec::Making { .. }) => {
                let message = format!("{SIGNALS_WAITING_MAX} signals wait for exec {exec} already");
                Err(fault(FaultKind::Failed, message))
            }
            None => Err(no_exec(exec)),
        }
    }
}

fn no_exec(exec: &str) -> Fault {
    fault(FaultKind::NotFound, format!("no exec {exec} runs in the container"))
}

fn signal_exec(pid: i32, signal: i32) -> Result<(), Fault> {
    let unknown = |_| fault(FaultKind::Invalid, format!("signal: there is no number {signal}"));
    let named = Signal::try_from(signal).map_err(unknown)?;
    let descendants = if named == Signal::SIGKILL { descendants(pid) } else { Vec::new() };
    // The child is not reaped yet, so its id stands for nobody else.
    let _ = kill(Pid::from_raw(pid), named);
    for descendant in descendants {
        descendant.kill();
    }
    Ok(())
}

/// The descriptors of a process, if it has no terminal for them.
fn stdio(process: &Process, fds: Vec<OwnedFd>) -> Result<Stdio, Fault> {
    if process.terminal() == Some(true) {
        return match fds.as_slice() {
            [] => Ok(Stdio::default()),
            _ => Err(fault(FaultKind::Invalid, "an exec with a terminal takes no descriptors")),
        };
    }
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds)
        .map_err(|_| fault(FaultKind::Invalid, "an exec needs three descriptors: stdin, stdout, stderr"))?;
    Ok(Stdio { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) })
}

/// A process that somebody else will reap: its id may be given to another at any time.
struct Descendant {
    pid: i32,
    start_time: u64,
}

impl Descendant {
    /// Kills it, unless it has ended.
    fn kill(&self) {
        let Ok(pidfd) = process::pidfd_open(self.pid) else { return };
        if proc::start_time(self.pid).is_ok_and(|time| time == self.start_time) {
            let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
        }
    }
}

/// The children of a process, their children, and so on, as of now. An orphan has a new parent and is not found.
fn descendants(pid: i32) -> Vec<Descendant> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let families: Vec<(i32, Descendant)> = pids.filter_map(family).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(families.iter().filter(|(of, _)| *of == parent).map(|(_, child)| child.pid));
        next += 1;
    }
    families.into_iter().map(|(_, child)| child).filter(|child| found[1..].contains(&child.pid)).collect()
}

/// A process and its parent.
fn family(pid: i32) -> Option<(i32, Descendant)> {
    let stat = proc::stat(pid).ok()?;
    Some((stat.parent, Descendant { pid, start_time: stat.start_time }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grandchildren_are_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 100 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let mine = descendants(std::process::id() as i32);
        let below = descendants(child.id() as i32);
        below.iter().for_each(Descendant::kill);
        let _ = child.wait();
        let pids = |all: &[Descendant]| all.iter().map(|one| one.pid).collect::<Vec<_>>();
        let (mine, below) = (pids(&mine), pids(&below));
        assert_eq!(below.len(), 1);
        assert!(mine.contains(&(child.id() as i32)) && mine.contains(&below[0]), "{mine:?} {below:?}");
    }
}
