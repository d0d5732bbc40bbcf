//! Sockets on which runtimes hand over descriptors: a terminal's master, a filter's listener.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::until;
use crate::until::DEADLINE;

/// A listening socket.
#[derive(Debug)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    listener: UnixListener,
}

/// The most that a message of a runtime may be: a filter's listener comes with the container's state.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

impl Socket {
    /// Listens on a new socket of a folder.
    #[track_caller]
    pub fn listen(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        Self { path, listener }
    }

    /// Its path as text.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Waits for somebody to connect, and takes the first message and its descriptors.
    #[track_caller]
    pub fn receive(&self) -> (String, Vec<OwnedFd>) {
        wait_readable(&self.listener, "nobody connects");
        let (stream, _) = self.listener.accept().unwrap();
        receive(&stream)
    }

    /// Takes the master of a terminal.
    #[track_caller]
    pub fn terminal(&self) -> Terminal {
        let (_, mut descriptors) = self.receive();
        assert_eq!(descriptors.len(), 1, "one terminal");
        Terminal { master: File::from(descriptors.remove(0)), shown: String::new() }
    }
}

fn receive(stream: &UnixStream) -> (String, Vec<OwnedFd>) {
    wait_readable(stream, "nothing is sent");
    let mut text = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    text.truncate(message.bytes);
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    (String::from_utf8_lossy(&text).into_owned(), rights.flatten().collect())
}

/// Waits until there is something to read.
#[track_caller]
pub fn wait_readable(descriptor: &impl AsFd, otherwise: &str) {
    let mut ready = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(DEADLINE).unwrap();
    assert_eq!(poll(&mut ready, timeout).unwrap(), 1, "{otherwise}");
}

/// A terminal's master.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    shown: String,
}

impl Terminal {
    /// Types.
    pub fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until the other side has closed the terminal, and gives all that was shown.
    #[track_caller]
    pub fn read_to_end(&mut self) -> String {
        while self.read_more() {}
        self.shown.clone()
    }

    /// Reads until a text is shown.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) {
        until(text, || self.shown.contains(text) || !self.read_more() || self.shown.contains(text));
        assert!(self.shown.contains(text), "{text}: {}", self.shown);
    }

    /// Whether there was more to read.
    fn read_more(&mut self) -> bool {
        wait_readable(&self.master, &format!("nothing more is shown: {}", self.shown));
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
                true
            }
            // A master's way to say that nobody has the other side open.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => panic!("{error}"),
        }
    }
}
