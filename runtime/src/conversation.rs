//! The maker's side of a new process' set-up: makes it, does for it what only the maker can, and hears how it went.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::cgroup::{Cgroup, END_DEADLINE};
use berth_sys::namespace;
use berth_sys::process::{self, Birth, Child, pidfd_send_signal, spawn, wait};
use berth_sys::socket;
use nix::errno::Errno;

use crate::Spawned;
use crate::error::Error;
use crate::init::{self, Init, Start};
use crate::plan::Plan;
use crate::seccomp::Listener;
use crate::sync::{self, Message};

/// A new process and its maker's end of their conversation. Dropped, it kills the process.
pub(crate) struct Conversation<'a> {
    plan: &'a Plan,
    child: Option<Child>,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// What the maker does on the way.
pub(crate) trait Duties {
    /// The namespaces of the process are there, and nothing is mounted.
    fn run_hooks(&mut self, pid: i32) -> Result<(), Error>;

    /// The process' filter has a listener, which has to go to whoever answers.
    fn hand_over(&mut self, pid: i32, listener: OwnedFd) -> Result<(), Error>;
}

impl<'a> Conversation<'a> {
    /// Makes the process.
    pub(crate) fn begin(plan: &'a Plan, cgroup: &Cgroup, start: Start) -> Result<Self, Error> {
        let (ours, theirs) = socket::pair().map_err(Error::Spawn)?;
        let theirs = process::lift(theirs, plan.first_free).map_err(|errno| Error::Spawn(errno.into()))?;
        let folder = cgroup.open_unified()?;
        let init = Init::new(plan, start, theirs)?;
        let kept = init.needed().to_vec();
        let birth = Birth {
            namespaces: plan.namespaces,
            pid_namespace: plan.pid_namespace.as_ref().map(AsFd::as_fd),
            cgroup: folder.as_ref().map(AsFd::as_fd),
            entered_before: &plan.entered_before,
            kept: &kept,
            done_before: Some(&|| init::run_before(&plan.before)),
        };
        let child = spawn(&birth, || init.run()).map_err(|source| match plan.entered_before.is_empty() {
            true => Error::Spawn(source),
            false => Error::Setup { step: "enter the namespaces that are given by path".into(), source },
        })?;
        let this = Self { plan, child: Some(child), socket: ours, terminal: None };
        if let Some(users) = &plan.users {
            namespace::map_users(this.pid(), &users.uids, &users.gids)
                .map_err(|source| Error::Setup { step: "map the users of the new user namespace".into(), source })?;
            this.go_on();
        }
        Ok(this)
    }

    /// Its id, in the maker's pid namespace.
    pub(crate) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    /// Accompanies the process until it is set up.
    pub(crate) fn until_ready(&mut self, duties: &mut impl Duties) -> Result<(), Error> {
        match self.until_news(duties, "set up")? {
            Some(Message::Ready) => Ok(()),
            _ => Err(Error::Died { phase: "set up" }),
        }
    }

    /// Accompanies the process until it executes its program.
    pub(crate) fn until_executed(mut self, duties: &mut impl Duties) -> Result<Spawned, Error> {
        match self.until_news(duties, "set up")? {
            Some(Message::Going) => {}
            _ => return Err(Error::Died { phase: "set up" }),
        }
        match self.until_news(duties, "started")? {
            None => self.release(),
            Some(_) => Err(Error::Died { phase: "started" }),
        }
    }

    /// Lets the process outlive this call.
    pub(crate) fn keep(self) -> Result<Spawned, Error> {
        sync::send(&self.socket, Message::GoOn).map_err(|_| Error::Died { phase: "set up" })?;
        self.release()
    }

    /// Lets the process execute its program after `ready` was called with it; returns when it did, or why it could not.
    pub(crate) fn let_go<E: From<Error>>(
        mut self,
        ready: impl FnOnce(&mut Spawned) -> Result<(), E>,
    ) -> Result<Spawned, E> {
        let phase = "started";
        let child = self.child.as_ref().ok_or(Error::Died { phase })?;
        let pidfd = child.pidfd.try_clone().map_err(Error::Spawn)?;
        let warnings = self.plan.warnings.clone();
        let mut spawned = Spawned { pid: child.pid, pidfd, terminal: self.terminal.take(), warnings };
        ready(&mut spawned)?;
        self.go_on();
        let heard = sync::receive(&self.socket, phase, self.plan.patience())?;
        match heard.message {
            None => {
                self.child = None;
                Ok(spawned)
            }
            Some(Message::Failed { step, errno }) => Err(self.plan.failure(step, errno, heard.words).into()),
            Some(_) => Err(Error::Died { phase }.into()),
        }
    }

    /// Does what the process asks for until it has something to tell; nothing once it has closed its end.
    fn until_news(&mut self, duties: &mut impl Duties, phase: &'static str) -> Result<Option<Message>, Error> {
        loop {
            let heard = sync::receive(&self.socket, phase, self.plan.patience())?;
            match heard.message {
                Some(Message::Hooks) => {
                    duties.run_hooks(self.pid())?;
                    self.go_on();
                }
                Some(Message::Terminal) => self.terminal = heard.descriptor,
                Some(Message::Listener { number }) => {
                    let child = self.child.as_ref().ok_or(Error::Died { phase })?;
                    duties.hand_over(child.pid, Listener::take(&child.pidfd, number)?)?;
                    self.go_on();
                }
                Some(Message::Failed { step, errno }) => return Err(self.plan.failure(step, errno, heard.words)),
                other => return Ok(other),
            }
        }
    }

    /// What the process waits for is done. If it has failed meanwhile, it has said so; one that cannot be told would wait
    /// in vain, and so would its maker.
    pub(crate) fn go_on(&self) {
        if sync::send(&self.socket, Message::GoOn).is_err()
            && let Some(child) = &self.child
        {
            let _ = pidfd_send_signal(&child.pidfd, nix::libc::SIGKILL);
        }
    }

    fn release(mut self) -> Result<Spawned, Error> {
        let child = self.child.take().ok_or(Error::Died { phase: "set up" })?;
        let warnings = self.plan.warnings.clone();
        Ok(Spawned { pid: child.pid, pidfd: child.pidfd, terminal: self.terminal.take(), warnings })
    }
}

impl Drop for Conversation<'_> {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            let _ = pidfd_send_signal(&child.pidfd, nix::libc::SIGKILL);
            // One that somebody froze does not end before it is thawed.
            if process::wait_for_end(&child.pidfd, END_DEADLINE.as_millis() as u16).unwrap_or(false) {
                let _ = wait(&child.pidfd);
            }
        }
    }
}

impl Plan {
    fn failure(&self, step: u16, errno: i32, story: String) -> Error {
        failure(self.step(step).map(ToString::to_string), &self.program_name, errno, story)
    }
}

/// What failed: a step, one of its hooks, or the execution of the program.
pub(crate) fn failure(step: Option<String>, program: &str, errno: i32, story: String) -> Error {
    match step {
        _ if !story.is_empty() => Error::Hook { story },
        Some(step) => Error::Setup { step, source: std::io::Error::from_raw_os_error(errno) },
        None => Error::Exec { path: program.to_owned(), errno: Errno::from_raw(errno) },
    }
}
