//! Those who are attached to a container: they hear what it writes, and have a way to what it reads.

use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::shim::protocol::{Answer, Fault, FaultKind};
use berth_sys::epoll::Interest;
use berth_sys::pty::{self, Size};
use nix::libc;

use crate::clients::Told;
use crate::container::{Container, Input, Life};
use crate::entry::Stream;
use crate::fault::{failed, fault};
use crate::limits::COPIES_MAX;
use crate::shim::Shim;
use crate::wake::Wake;

impl Shim {
    /// Copies the outputs that are asked for to `fds`, and gives a way to the input if that is.
    pub(crate) fn attach(
        &mut self,
        id: &str,
        stdin: bool,
        [stdout, stderr]: [bool; 2],
        fds: Vec<OwnedFd>,
    ) -> Result<Told, Fault> {
        let (number, container) = self.container(id)?;
        let streams = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)];
        let streams: Vec<_> = streams.into_iter().filter(|(wanted, _)| *wanted).map(|(_, stream)| stream).collect();
        if fds.len() != streams.len() {
            let message = format!("{} outputs are asked for, and {} descriptors came", streams.len(), fds.len());
            return Err(fault(FaultKind::Invalid, message));
        }
        let wrong = |what: &str| Err(fault(FaultKind::WrongState, format!("container {id} {what}")));
        if !matches!(container.life, Life::Alive) {
            return wrong("has ended");
        }
        let terminal = container.output.as_ref().is_some_and(|output| output.is_terminal());
        if terminal && stderr {
            return wrong("has a terminal, and so no standard error");
        }
        if container.output.is_none() && !streams.is_empty() {
            return wrong("has no log: its output goes nowhere");
        }
        let sources = container.output.iter().flat_map(|output| output.sources());
        if sources.into_iter().any(|(stream, source)| streams.contains(&stream) && source.copies.len() >= COPIES_MAX) {
            let message = format!("{COPIES_MAX} are attached to container {id} already");
            return Err(fault(FaultKind::Failed, message));
        }
        let input = if stdin { Some(container.give_input()?) } else { None };
        for (stream, fd) in streams.into_iter().zip(fds) {
            self.begin_copy(number, stream, fd).map_err(|error| failed("sharing output", &error))?;
        }
        Ok(Told::with(Answer::Attached { terminal }, input))
    }

    /// One that comes after the end of its stream is closed at once.
    fn begin_copy(&mut self, number: u32, stream: Stream, fd: OwnedFd) -> std::io::Result<()> {
        let output = self.containers.get_mut(&number).and_then(|container| container.output.as_mut());
        let Some(source) = output.and_then(|output| output.source(stream)) else { return Ok(()) };
        self.last_copy += 1;
        match self.poller.watch(&fd, Interest::HangUp, Wake::Copy(self.last_copy).token()) {
            // Files are never hung up.
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => return Err(error),
            _ => {}
        }
        Ok(source.copies.begin(self.last_copy, fd)?)
    }

    /// The reader of a copy has gone.
    pub(crate) fn end_copy(&mut self, copy: u32) {
        let outputs = self.containers.values_mut().filter_map(|container| container.output.as_mut());
        if let Some(fd) = outputs.into_iter().find_map(|output| output.detach(copy)) {
            let _ = self.poller.forget(fd);
        }
    }

    /// Lets a container's standard input end with those who have a way to it.
    pub(crate) fn close_stdin(&mut self, id: &str) -> Result<(), Fault> {
        let (_, container) = self.container(id)?;
        match &mut container.input {
            Some(input) => {
                *input = Input::Closed;
                Ok(())
            }
            None => {
                let message = format!("container {id} has no pipe for its standard input: a terminal's ends with ^D");
                Err(fault(FaultKind::WrongState, message))
            }
        }
    }

    /// Sets the size of a container's terminal.
    pub(crate) fn resize(&mut self, id: &str, columns: u16, rows: u16) -> Result<(), Fault> {
        let (_, container) = self.container(id)?;
        let Some(terminal) = container.output.as_ref().and_then(|output| output.terminal()) else {
            return Err(fault(FaultKind::WrongState, format!("container {id} has no terminal, or has ended")));
        };
        pty::resize(terminal, Size { rows, columns })
            .map_err(|errno| failed(&format!("resizing the terminal of container {id}"), &errno))
    }
}

impl Container {
    fn give_input(&mut self) -> Result<OwnedFd, Fault> {
        let copying = |error| failed("copying a descriptor", &error);
        if let Some(terminal) = self.output.as_ref().and_then(|output| output.terminal()) {
            return terminal.try_clone_to_owned().map_err(copying);
        }
        let none = |what: &str| fault(FaultKind::WrongState, format!("container {} {what}", self.id));
        match self.input.take_if(|input| !matches!(input, Input::Shared(_))) {
            Some(Input::Once(end)) => {
                self.input = Some(Input::Closed);
                Ok(end)
            }
            Some(_) => {
                self.input = Some(Input::Closed);
                Err(none("has its standard input closed"))
            }
            None => match &self.input {
                Some(Input::Shared(end)) => end.as_fd().try_clone_to_owned().map_err(copying),
                _ => Err(none("was created without a standard input")),
            },
        }
    }
}
