//! Pseudo-terminals, made from a container's own `/dev/ptmx` and used by descriptor: no path of the container is
//! resolved twice. Nothing here allocates.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, makedev};

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Makes the slave of a master that was just opened. `ENODEV` if it is no master: whatever stands at `/dev/ptmx` was
/// chosen by the image.
pub fn slave(master: impl AsFd) -> nix::Result<OwnedFd> {
    let status = fstat(&master)?;
    let is_char = status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    // tty(4), pts(4): the multiplexer's number, of the kernel's old node and of each devpts.
    if !is_char || status.st_rdev != makedev(5, 2) {
        return Err(Errno::ENODEV);
    }
    let unlocked: i32 = 0;
    // SAFETY: the request reads one integer, which outlives the call.
    Errno::result(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes an integer and gives a new descriptor or an error.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a terminal the controlling one of the calling process, which leads a session without one.
pub fn control(terminal: impl AsFd) -> nix::Result<()> {
    // SAFETY: the request takes an integer.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets the size; the processes in its foreground are told by `SIGWINCH`.
pub fn resize(terminal: impl AsFd, size: Size) -> nix::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one structure, which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// The size of a terminal; `ENOTTY` if it is none.
pub fn size(terminal: impl AsFd) -> nix::Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one structure, which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_pair_is_made_and_sized_and_another_device_is_none() {
        let master = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        let slave = slave(&master).unwrap();
        resize(&master, Size { rows: 24, columns: 80 }).unwrap();
        assert_eq!(size(&slave).unwrap(), Size { rows: 24, columns: 80 });
        assert_eq!(super::slave(File::open("/dev/null").unwrap()).unwrap_err(), Errno::ENODEV);
        assert_eq!(size(File::open("/dev/null").unwrap()).unwrap_err(), Errno::ENOTTY);
    }
}
