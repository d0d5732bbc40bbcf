//! Where another OCI runtime sends the master of a terminal that it made (`--console-socket`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use berth_sys::socket;
use nix::libc;

/// A socket that one message with a descriptor is expected at.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    /// The way to the socket leads through it, for the socket's own path may be too long for an address.
    _folder: File,
    address: PathBuf,
}

impl Console {
    /// Listens at `path`.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
        let address = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), folder.as_raw_fd())).join(name);
        let listener = UnixListener::bind(&address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, _folder: folder, address })
    }

    /// What to connect to, for as long as this value lives.
    pub(crate) fn address(&self) -> &Path {
        &self.address
    }

    /// The terminal that was sent; `WouldBlock` if none was.
    pub(crate) fn take(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let received = socket::receive(stream.as_fd(), &mut [0; 256])?;
        received.fds.into_iter().next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor came"))
    }
}
