//! Local sockets that keep packets whole (`AF_UNIX`, `SOCK_SEQPACKET`): descriptors travel beside a packet, and the
//! kernel vouches for who is at the other end. Nothing here waits, but [`connect_stream`]: a call that would have to says
//! [`io::ErrorKind::WouldBlock`].

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};

/// How many descriptors one packet can carry.
pub const FDS_MAX: usize = 8;

/// The longest path that fits into a socket's address (`sun_path`, with its closing zero).
const PATH_BYTES_MAX: usize = 107;

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 64;

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// A packet that was received into the caller's buffer.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of the buffer it fills; 0 when the other end is closed.
    pub len: usize,
    /// The descriptors that came with it, closed on exec.
    pub fds: Vec<OwnedFd>,
    /// Whether bytes or descriptors were cut off because there was no room.
    pub truncated: bool,
}

/// The process at the other end, as the kernel saw it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id in the caller's pid namespace; 0 if it has none there.
    pub pid: i32,
    /// Its effective user id in the caller's user namespace.
    pub uid: u32,
    /// Its effective group id in the caller's user namespace.
    pub gid: u32,
}

/// Listens at `path`, which must not exist; its permissions follow the umask.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
    let (address, _folder) = address(path)?;
    socket::bind(socket.as_raw_fd(), &address)?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

/// The next client of a listening socket.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = socket::accept4(listener.as_raw_fd(), FLAGS)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects to who listens at `path`. `WouldBlock` means that too many wait there already; `ConnectionRefused` that
/// nobody listens any more.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
    let (address, _folder) = address(path)?;
    socket::connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// Connects a stream to who listens at `path`. Neither this nor what is read and written later waits longer than the
/// deadline at a time: `WouldBlock` then.
pub fn connect_stream(path: &Path, deadline: Duration) -> io::Result<UnixStream> {
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(socket);
    // The kernel waits for room in the listener's queue as long as for sending.
    stream.set_write_timeout(Some(deadline))?;
    stream.set_read_timeout(Some(deadline))?;
    let (address, _folder) = address(path)?;
    socket::connect(stream.as_raw_fd(), &address)?;
    Ok(stream)
}

/// Two connected sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, FLAGS)?)
}

/// Who is at the other end.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let seen = socket::getsockopt(&socket, socket::sockopt::PeerCredentials)?;
    Ok(Peer { pid: seen.pid(), uid: seen.uid(), gid: seen.gid() })
}

/// Sends one whole packet and copies of `fds`, at most [`FDS_MAX`]. Never raises SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a packet carries at most {FDS_MAX} files")));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [socket::ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = socket::MsgFlags::MSG_NOSIGNAL | socket::MsgFlags::MSG_DONTWAIT;
    loop {
        let sent = socket::sendmsg::<()>(socket.as_raw_fd(), &[io::IoSlice::new(packet)], control, flags, None);
        match sent {
            Err(nix::Error::EINTR) => {}
            // A packet socket takes all or nothing.
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// As [`send`] with one descriptor, without allocating.
pub fn send_one(socket: BorrowedFd<'_>, packet: &[u8], fd: BorrowedFd<'_>) -> nix::Result<()> {
    let mut control = Control { bytes: [0; CONTROL_BYTES], _align: [] };
    let mut vector = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.as_mut_ptr().cast();
    const FD_BYTES: u32 = size_of::<RawFd>() as u32;
    // SAFETY: computes with integers only.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(FD_BYTES) } as _;
    // SAFETY: the control bytes are aligned and have room for one message with one descriptor; the macros stay in it.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
        libc::CMSG_DATA(message).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
    }
    // SAFETY: `header` points at `vector` and `control`, which outlive the call, with their true lengths; the kernel only
    // reads the packet.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
    nix::errno::Errno::result(sent).map(drop)
}

/// Receives one packet into `buffer`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control { bytes: [0; CONTROL_BYTES], _align: [] };
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    let len = loop {
        // SAFETY: `header` points at `vector` and `control`, which outlive the call, with their true lengths.
        let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match usize::try_from(len) {
            Ok(len) => break len,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    };
    let truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    // SAFETY: the kernel has just filled `header` and what it points at.
    let fds = unsafe { take_fds(&header) };
    Ok(Received { len, fds, truncated })
}

/// Room for one control message with [`FDS_MAX`] descriptors, and to spare: what does not fit is closed by the kernel.
const CONTROL_BYTES: usize = 64;

#[repr(C)]
struct Control {
    bytes: [u8; CONTROL_BYTES],
    _align: [libc::cmsghdr; 0],
}

/// Takes over every descriptor in a received message, also those of one that was cut off.
///
/// # Safety
/// `header` must have been filled by a successful `recvmsg`, whose descriptors nobody has taken yet.
unsafe fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the caller vouches for `header`; the macros stay within the control bytes that the kernel filled, whose
    // length it wrote; a message of type SCM_RIGHTS holds descriptors that are ours alone.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(message).cast::<RawFd>();
                let bytes = ((*message).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    fds
}

/// The address of `path`. One that is too long for an address goes by way of its opened folder, which has to stay open
/// until the address was used.
fn address(path: &Path) -> io::Result<(UnixAddr, Option<File>)> {
    if path.as_os_str().as_bytes().len() <= PATH_BYTES_MAX {
        return Ok((UnixAddr::new(path)?, None));
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket's path needs a folder and a name"));
    };
    let folder = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd())).join(name);
    Ok((UnixAddr::new(&short)?, Some(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_listener_that_takes_nobody_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        let listener = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let first = connect_stream(&path, Duration::from_secs(60)).unwrap();
        let error = connect_stream(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert_eq!(
            connect_stream(Path::new("/none"), Duration::from_secs(60)).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn packets_stay_whole_and_descriptors_arrive() {
        let (a, b) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(a.as_fd(), b"one", &[]).unwrap();
        send(a.as_fd(), b"second", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().len, 3);
        let got = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..got.len], got.fds.len(), got.truncated), (&b"second"[..], 1, false));
        File::from(got.fds.into_iter().next().unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().len, 0);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), &[7; 100], &[]).unwrap();
        let mut buffer = [0; 10];
        let got = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((got.len, got.truncated), (10, true));
    }

    #[test]
    fn a_long_path_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(128)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("s.sock");
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = listen(&path).unwrap();
        let client = connect(&path).unwrap();
        let server = accept(listener.as_fd()).unwrap();
        assert_eq!(peer(server.as_fd()).unwrap().pid, std::process::id() as i32);
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop((listener, client));
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_dead_peer_is_an_error_and_no_signal() {
        let (a, b) = pair().unwrap();
        drop(b);
        assert_eq!(send(a.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
