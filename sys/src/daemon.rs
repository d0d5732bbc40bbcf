//! What a single-threaded daemon is made of: a fork that is refused to threaded processes, standard streams that lead
//! nowhere, memory given back, and the least init of a pid namespace.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{self, Gid, Uid};

use crate::process;

/// The user that a pid namespace's init runs as, as the usual pause containers do.
pub const NOBODY: u32 = 65535;

/// Which of the two processes returned from [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The one that called.
    Parent {
        /// The new process.
        child: i32,
    },
    /// The new one.
    Child,
}

/// Makes a copy of this process. Refused if it has more than one thread: the others' locks would stay locked in the
/// copy for ever.
pub fn fork() -> io::Result<Forked> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a process with threads cannot be forked"));
    }
    // SAFETY: this is the only thread, as was just seen, and only a thread can start another: the child finds every
    // lock free and every structure whole.
    match unsafe { unistd::fork() }? {
        unistd::ForkResult::Parent { child } => Ok(Forked::Parent { child: child.as_raw() }),
        unistd::ForkResult::Child => Ok(Forked::Child),
    }
}

/// Leaves the terminal and the standard streams: a new session, `/` as the folder, nothing to read, output to nowhere
/// and complaints to `log`.
pub fn detach(log: &File) -> io::Result<()> {
    unistd::setsid()?;
    unistd::chdir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    Ok(unistd::dup2_stderr(log)?)
}

/// Gives the allocator's free memory back to the kernel. Worth its while after work that is rare and large.
pub fn give_memory_back() {
    // Other C libraries have nothing like it, and give back by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes this process, the first of a new pid namespace, the least init there is: it has an empty root folder, no
/// descriptors, no capabilities and another user, the kernel reaps its children for it, and it ends with its parent.
///
/// `parent` is a pipe whose other end, `parents_end`, the parent holds open while it lives: a parent that died before
/// its death could become a signal would be missed otherwise. `failure` takes the reason why no init could be made; it is
/// closed without a word when one was.
pub fn become_init(parent: io::PipeReader, parents_end: &io::PipeWriter, mut failure: io::PipeWriter) -> ! {
    // This copy of it would keep the pipe open. Its owner is a value of the parent's that is never dropped here.
    let _ = unistd::close(parents_end.as_raw_fd());
    if let Err(error) = prepare_init(parent) {
        let _ = write!(failure, "{error}");
        process::exit_now(1);
    }
    // SAFETY: closes every descriptor; no value that owns one is used after this, for the loop below never ends.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    loop {
        unistd::pause();
    }
}

fn prepare_init(parent: io::PipeReader) -> io::Result<()> {
    prctl::set_name(c"pause")?;
    SigSet::all().thread_block()?;
    // SAFETY: an ignored SIGCHLD is a disposition without a handler; the kernel then reaps children by itself.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    empty_root()?;
    unistd::setgroups(&[])?;
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    unistd::setresgid(group, group, group)?;
    // Leaving user 0 for good takes every capability along, and makes the process invisible to ptrace.
    unistd::setresuid(user, user, user)?;
    // After the change of user, which forgets it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    match poll(&mut [PollFd::new(parent.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the parent died")),
    }
}

/// Leaves the host's files behind for an empty read-only folder, in a mount namespace of this process' own.
fn empty_root() -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("pause"), "/proc", Some("tmpfs"), flags, Some("size=4k,nr_inodes=1,mode=555"))?;
    unistd::chdir("/proc")?;
    // The old root is stacked on the new one, and taken off.
    unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    unistd::chdir("/")
}
