//! A terminal made in the container's own devpts (runtime spec, config.md#process), used by descriptor throughout: the
//! image has no say in which device it is (CVE-2025-52565).

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::beneath::Root;
use berth_sys::mount::{Reach, attach, copy};
use berth_sys::process;
use berth_sys::pty::{self, Size};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, fchown};

use super::Progress;
use super::target::{self, Kind};
use crate::sync::{self, Message};

impl Progress<'_> {
    pub(super) fn make_terminal(
        &self,
        size: Option<Size>,
        owner: u32,
        is_console: bool,
        maker: &OwnedFd,
    ) -> nix::Result<()> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = openat(AT_FDCWD, c"/dev/ptmx", flags, Mode::empty())?;
        let slave = pty::slave(&master)?;
        if let Some(size) = size.filter(|size| size.rows > 0 && size.columns > 0) {
            pty::resize(&master, size)?;
        }
        if let (true, Some(root)) = (is_console, &self.root) {
            cover_console(root, &slave)?;
        }
        // A user namespace may not know the owner of its own files: then it stays as it is.
        match fchown(&slave, Some(Uid::from_raw(owner)), None) {
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
        pty::control(&slave)?;
        for number in 0..=2 {
            process::set_standard_stream(&slave, number)?;
        }
        sync::send_with(maker, Message::Terminal, &master)
    }
}

/// `/dev/console` is the container's terminal.
fn cover_console(root: &Root, slave: &OwnedFd) -> nix::Result<()> {
    let target = match target::find(root, Path::new("/dev/console")) {
        Err(Errno::ENOENT) => {
            let folder = root.open_folder(Path::new("/dev")).map_err(super::errno)?;
            match folder.create("console".as_ref(), Mode::from_bits_truncate(0o620)) {
                Ok(_) => target::find(root, Path::new("/dev/console"))?,
                // A folder of the machine's that is read-only is one without a console.
                Err(_) => return Ok(()),
            }
        }
        other => other?,
    };
    match Kind::of(&target)? {
        Kind::File => attach(copy(slave, c"", Reach::One)?, target),
        Kind::Folder => Err(Errno::EISDIR),
    }
}
