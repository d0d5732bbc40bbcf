//! Processes: made in new namespaces and cgroups; by their pidfd signalled, waited for, adopted.

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use std::{fmt, io, mem, ptr};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, stat, umask};
use nix::unistd::{Pid, getpid, getppid, pause};

use crate::signal;

/// Where a new process begins its life.
#[derive(Clone, Copy)]
pub struct Birth<'a> {
    /// The namespaces to make for it.
    pub namespaces: CloneFlags,
    /// The pid namespace to begin in, if it is neither new nor the caller's: an `nsfs` descriptor, or the pidfd of a
    /// process in it.
    pub pid_namespace: Option<BorrowedFd<'a>>,
    /// The cgroup of the unified hierarchy to begin in: a descriptor of its folder.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Namespaces that have to be entered before the new ones are made, in this order: those that belong to another
    /// user namespace, and last that one. It costs one more process, which is gone when [`spawn`] returns.
    pub entered_before: &'a [(CloneFlags, OwnedFd)],
    /// What is done before them, for the process to inherit: it is born with what this process may do and itself may
    /// not. It must not allocate, as `child` of [`spawn`].
    pub done_before: Option<&'a dyn Fn() -> nix::Result<()>>,
    /// The descriptors that the process keeps if it is made after them, in ascending order. Without, it begins with all.
    pub kept: &'a [i32],
}

impl Default for Birth<'_> {
    /// Where the caller is.
    fn default() -> Self {
        Self {
            namespaces: CloneFlags::empty(),
            pid_namespace: None,
            cgroup: None,
            entered_before: &[],
            done_before: None,
            kept: &[],
        }
    }
}

/// A child of the caller.
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: i32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
}

/// Makes a process by `clone3`, which runs `child` on a copy of the caller's memory and must end in `execve` or
/// `_exit`. A panic in it ends it with code 255.
///
/// `child` must not allocate nor take a lock if the caller has more than one thread: another thread may have held the
/// allocator's lock at the moment of the copy, and does not exist in the child to release it.
pub fn spawn(birth: &Birth<'_>, child: impl FnOnce() -> Infallible) -> io::Result<Child> {
    if !birth.entered_before.is_empty() {
        return spawn_between(birth, child);
    }
    let Some(namespace) = birth.pid_namespace else {
        return clone(birth, 0, child);
    };
    // A thread's children can be put into another pid namespace than its own: for the length of one clone.
    let own = crate::namespace::open("/proc/thread-self/ns/pid_for_children".as_ref()).map_err(io::Error::other)?;
    setns(namespace, CloneFlags::CLONE_NEWPID)?;
    let result = clone(birth, 0, child);
    setns(own, CloneFlags::CLONE_NEWPID)?;
    result
}

/// Makes a process that does nothing, in these new namespaces: for what needs one to hold on to. It has no descriptors
/// but the standard streams, and ends with the thread that made it at the latest, even if that is killed.
pub fn spawn_idle(namespaces: CloneFlags) -> io::Result<Child> {
    let maker = getpid();
    spawn(&Birth { namespaces, ..Birth::default() }, || {
        let _ = close_all_but(&[]);
        if die_with(maker).is_err() {
            exit_now(0);
        }
        idle()
    })
}

/// Does nothing until a signal ends the process.
pub fn idle() -> ! {
    loop {
        pause();
    }
}

/// Makes the process by way of another one, which enters namespaces that its maker could not come back from, makes it
/// as its own sibling, tells its id and ends.
fn spawn_between(birth: &Birth<'_>, child: impl FnOnce() -> Infallible) -> io::Result<Child> {
    let (told, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut kept: Vec<i32> = birth.kept.iter().copied().chain([tell.as_raw_fd()]).collect();
    kept.sort_unstable();
    // It is born into the cgroup, and the process inherits that: no descriptor of the cgroup has to be open then.
    let between = clone(&Birth { cgroup: birth.cgroup, ..Birth::default() }, 0, || {
        let pid = enter_and_clone(birth, &kept, child).unwrap_or_else(|errno| -(errno as i32));
        let _ = nix::unistd::write(&tell, &pid.to_ne_bytes());
        exit_now(0)
    })?;
    drop(tell);
    let mut answer = [0; size_of::<i32>()];
    let count = loop {
        match nix::unistd::read(&told, &mut answer) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    wait(&between.pidfd)?;
    match (count?, i32::from_ne_bytes(answer)) {
        (4, pid) if pid > 0 => {
            // It is our child: its id is nobody else's until we wait for it.
            Ok(Child { pid, pidfd: pidfd_open(pid)? })
        }
        (4, errno) => Err(io::Error::from_raw_os_error(-errno)),
        _ => Err(Errno::ECHILD.into()),
    }
}

fn enter_and_clone(birth: &Birth<'_>, kept: &[i32], child: impl FnOnce() -> Infallible) -> nix::Result<i32> {
    if let Some(work) = birth.done_before {
        work()?;
    }
    if let Some(namespace) = birth.pid_namespace {
        setns(namespace, CloneFlags::CLONE_NEWPID)?;
    }
    for (kind, namespace) in birth.entered_before {
        setns(namespace, *kind)?;
    }
    close_all_but(kept)?;
    match clone(&Birth { cgroup: None, ..*birth }, libc::CLONE_PARENT as u64, child) {
        Ok(child) => Ok(child.pid),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)),
    }
}

fn clone(birth: &Birth<'_>, more_flags: u64, child: impl FnOnce() -> Infallible) -> io::Result<Child> {
    /// linux/sched.h; libc's constants are of a type too narrow for them.
    const CLEAR_SIGHAND: u64 = 1 << 32;
    const INTO_CGROUP: u64 = 1 << 33;
    /// Dropped only by a panic of `child`, which must not unwind into the parent's code.
    struct NoReturn;
    impl Drop for NoReturn {
        fn drop(&mut self) {
            exit_now(255);
        }
    }
    let mut pidfd: i32 = -1;
    let into_cgroup = if birth.cgroup.is_some() { INTO_CGROUP } else { 0 };
    let namespaces = birth.namespaces.bits() as u32 as u64;
    // SAFETY: the structure is integers only, for which zero means absent.
    let mut how: libc::clone_args = unsafe { mem::zeroed() };
    how.flags = namespaces | more_flags | libc::CLONE_PIDFD as u64 | CLEAR_SIGHAND | into_cgroup;
    how.pidfd = &raw mut pidfd as u64;
    // A sibling ends with the signal of its maker.
    how.exit_signal = if more_flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    how.cgroup = birth.cgroup.map_or(0, |folder| folder.as_raw_fd() as u64);
    // SAFETY: without CLONE_VM the child has its own copy of all memory and of this stack, so nothing that Rust holds
    // is shared or aliased; it never returns from here. The structure and `pidfd` outlive the call.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw mut how, size_of_val(&how)) })?;
    if pid == 0 {
        let _no_return = NoReturn;
        #[allow(unreachable_code, reason = "that is what Infallible promises")]
        match child() {}
    }
    // SAFETY: the kernel stored a new descriptor there, owned by nobody else.
    Ok(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends the calling process at once, without any of the clean-up that belongs to its parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// A program with its arguments and environment, laid out so that executing it allocates nothing.
pub struct Program {
    candidates: Vec<CString>,
    // The pointers go into these strings, whose buffers stay where they are for as long as this value lives.
    _strings: Vec<CString>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("candidates", &self.candidates).finish_non_exhaustive()
    }
}

impl Program {
    /// A program to be sought at each of these paths in turn.
    pub fn new(candidates: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers =
            |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
        let (argument_pointers, environment_pointers) = (pointers(&arguments), pointers(&environment));
        let mut strings = arguments;
        strings.extend(environment);
        Self { candidates, _strings: strings, arguments: argument_pointers, environment: environment_pointers }
    }

    /// Replaces the calling process by the program. Returns only if that fails: with `EACCES` if any candidate was
    /// there but may not be executed, as execvp(3) does.
    pub fn execute(&self) -> Errno {
        let mut worst = Errno::ENOENT;
        for path in &self.candidates {
            match self.try_one(path) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => worst = Errno::EACCES,
                other => return other,
            }
        }
        worst
    }

    /// Whether there is such a program, before anything is executed: the error that [`Self::execute`] will end with. What
    /// cannot be told beforehand is none: a path that depends on the working folder, a file that only another user may
    /// look at. Allocates nothing.
    pub fn look_for(&self) -> nix::Result<()> {
        let mut worst = Errno::ENOENT;
        for path in &self.candidates {
            if !path.to_bytes().starts_with(b"/") {
                return Ok(());
            }
            match stat(path.as_c_str()) {
                Ok(status) if is_executable(status.st_mode) => return Ok(()),
                Ok(_) => worst = Errno::EACCES,
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(_) => return Ok(()),
            }
        }
        Err(worst)
    }

    fn try_one(&self, path: &CStr) -> Errno {
        // SAFETY: `new` made both arrays null-terminated and of strings that `self` keeps alive and unchanged.
        unsafe { libc::execve(path.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr()) };
        Errno::last()
    }
}

/// A regular file with a right to execute it for anybody.
fn is_executable(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFREG && mode & 0o111 != 0
}

/// How much of what a program said is kept.
pub const SAID_BYTES_MAX: usize = 1024;

/// What a pipe holds unless it is told otherwise (pipe(7)).
const PIPE_BYTES: usize = 1 << 16;

/// The end of what a program wrote to its standard error.
#[derive(Debug)]
pub struct Said {
    bytes: [u8; SAID_BYTES_MAX],
    length: usize,
}

impl Default for Said {
    fn default() -> Self {
        Self { bytes: [0; SAID_BYTES_MAX], length: 0 }
    }
}

impl Said {
    /// The last bytes, at most [`SAID_BYTES_MAX`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, more: &[u8]) {
        let more = &more[more.len().saturating_sub(SAID_BYTES_MAX)..];
        let kept = self.length.min(SAID_BYTES_MAX - more.len());
        self.bytes.copy_within(self.length - kept..self.length, 0);
        self.length = kept + more.len();
        self.bytes[kept..self.length].copy_from_slice(more);
    }

    /// Takes what is in a pipe, a part at a time; whether there may be more.
    fn hear(&mut self, pipe: &OwnedFd) -> bool {
        let mut part = [0; SAID_BYTES_MAX];
        match nix::unistd::read(pipe, &mut part) {
            Ok(0) => false,
            Ok(count) => {
                self.push(&part[..count]);
                true
            }
            Err(errno) => errno == Errno::EINTR,
        }
    }
}

/// Runs a program in a child of the caller, with `input` as its standard input, and waits for its end; killed after
/// `deadline_ms`, which is `ETIMEDOUT`, and with the calling thread. What it writes to its standard error is said to the
/// caller alone. Allocates nothing: what is between `clone3` and `execve` itself may call it.
pub fn run_program(program: &Program, input: impl AsFd, deadline_ms: i32, said: &mut Said) -> nix::Result<Exit> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let (pipe, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let caller = getpid();
    let child = clone(&Birth::default(), 0, || {
        // As any program begins, whatever this process blocks and ignores.
        umask(Mode::from_bits_truncate(0o022));
        let streams = signal::reset().and_then(|()| set_standard_stream(&input, 0));
        let streams = streams.and_then(|()| set_standard_stream(&theirs, 2));
        // Nobody would wait for it, nor keep its deadline.
        let streams = streams.and_then(|()| die_with(caller));
        let why = match streams.and_then(|()| close_on_exec_from(3)) {
            Ok(()) => program.execute(),
            Err(errno) => errno,
        };
        let _ = nix::unistd::write(&theirs, b"cannot be executed: ");
        let _ = nix::unistd::write(&theirs, why.desc().as_bytes());
        exit_now(127)
    })
    .map_err(errno)?;
    drop(theirs);
    let has_ended = hear_until_end(&child, &pipe, deadline_ms, said)?;
    let exit = if has_ended { wait(&child.pidfd) } else { kill_and_wait(&child.pidfd) }.map_err(errno)?;
    // What it made may write for ever: what was in the pipe when it ended is all that counts.
    for _ in 0..PIPE_BYTES / SAID_BYTES_MAX {
        let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::ZERO)? == 0 || !said.hear(&pipe) {
            break;
        }
    }
    if has_ended { Ok(exit) } else { Err(Errno::ETIMEDOUT) }
}

/// Empties the pipe until the child ends; whether it did in time.
fn hear_until_end(child: &Child, pipe: &OwnedFd, deadline_ms: i32, said: &mut Said) -> nix::Result<bool> {
    let deadline = Instant::now() + Duration::from_millis(u64::from(deadline_ms.unsigned_abs()));
    let mut is_open = true;
    loop {
        let mut watched =
            [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        let left = deadline.saturating_duration_since(Instant::now());
        // A pipe that nobody writes to any more would be ready for ever.
        match poll(&mut watched[..1 + usize::from(is_open)], PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) if watched[0].any() == Some(true) => return Ok(true),
            Ok(_) if left.is_zero() => return Ok(false),
            Ok(_) => {}
        }
        if is_open && watched[1].any() == Some(true) {
            is_open = said.hear(pipe);
        }
    }
}

/// Closes every descriptor but the standard streams and these, given in ascending order. Only for a process made by
/// [`spawn`], which never goes back to the code that owns the others.
pub fn close_all_but(needed: &[i32]) -> nix::Result<()> {
    let mut first = 3;
    for &fd in needed.iter().filter(|fd| **fd >= 3) {
        let fd = fd as u32;
        if first < fd {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Keeps every descriptor from `first` on out of the program that is executed next.
pub fn close_on_exec_from(first: u32) -> nix::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> nix::Result<()> {
    // SAFETY: touches no memory. Values that own a descriptor which is closed here are the caller's to forget: only a
    // new process, in which they are copies that are never dropped, is told to close any.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Makes `fd` descriptor number 0, 1 or 2 of this process, kept across `execve`.
pub fn set_standard_stream(fd: impl AsFd, number: i32) -> nix::Result<()> {
    if !(0..=2).contains(&number) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the three standard streams are owned by no Rust value, so nobody's descriptor is replaced.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop)
}

/// Closes a descriptor that is not needed any more, though a value that owns it lives on. Only for a process made by
/// [`spawn`], as [`close_all_but`].
pub fn forget(fd: impl AsFd) {
    // SAFETY: touches no memory. The owner is a copy in a new process and is never dropped.
    unsafe { libc::close(fd.as_fd().as_raw_fd()) };
}

/// A descriptor with a number that is at least `least`, close-on-exec: out of the way of those that [`place`] makes.
pub fn lift(fd: OwnedFd, least: i32) -> nix::Result<OwnedFd> {
    if fd.as_raw_fd() >= least {
        return Ok(fd);
    }
    // SAFETY: takes integers and gives a new descriptor or an error.
    let lifted = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(lifted) })
}

/// Makes copies of these the descriptors from `first` on, kept across `execve`, in place of what has these numbers now.
/// Only for a process made by [`spawn`], as [`close_all_but`]; the given ones must have higher numbers (`EINVAL`).
pub fn place(descriptors: &[OwnedFd], first: i32) -> nix::Result<()> {
    let end = first + descriptors.len() as i32;
    if descriptors.iter().any(|fd| fd.as_raw_fd() < end) {
        return Err(Errno::EINVAL);
    }
    for (number, fd) in (first..end).zip(descriptors) {
        // SAFETY: what had the number is the caller's to forget: it is a new process, which drops nothing.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    }
    Ok(())
}

/// Sets the NIS domain name of the calling thread's uts namespace.
pub fn set_domain_name(name: &CStr) -> nix::Result<()> {
    let bytes = name.to_bytes();
    // SAFETY: the kernel reads as many bytes as are given.
    Errno::result(unsafe { libc::setdomainname(bytes.as_ptr().cast(), bytes.len()) }).map(drop)
}

/// Whether the working directory lies below the root of this process, where `..` cannot lead out of it.
pub fn is_working_directory_inside() -> nix::Result<bool> {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the length given.
    Errno::result(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) })?;
    // Outside of the root the kernel gives `(unreachable)` and a path.
    Ok(path[0] == b'/')
}

/// Waits up to `milliseconds` for the process behind a pidfd to end; whether it did. Takes no status.
pub fn wait_for_end(pidfd: impl AsFd, milliseconds: u16) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(milliseconds)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Asks the kernel to kill this process when the thread that made it ends, or takes that back.
pub fn die_with_parent(yes: bool) -> nix::Result<()> {
    let signal = yes.then_some(nix::sys::signal::Signal::SIGKILL);
    nix::sys::prctl::set_pdeathsig(signal)
}

/// As [`die_with_parent`], for a child in its parent's pid namespace: `ESRCH` if the parent is dead already, whose death
/// will be no signal any more.
pub fn die_with(parent: Pid) -> nix::Result<()> {
    die_with_parent(true)?;
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// As shells and Kubernetes count: the code, or 128 and the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Whose end is asked for.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Anybodys,
    Pid(i32),
    Pidfd(RawFd),
}

/// Asks for the end of a child: whose it was, and how it ended; `None` if there is none yet. By the call itself, because
/// the wrapper knows only 31 signals and makes an error of the others' victims, which then nobody ever reaps.
fn ended(whose: Whose, options: i32) -> Result<Option<(i32, Exit)>, Errno> {
    let (kind, id) = match whose {
        Whose::Anybodys => (libc::P_ALL, 0),
        Whose::Pid(pid) => (libc::P_PID, pid as libc::id_t),
        Whose::Pidfd(fd) => (libc::P_PIDFD, fd as libc::id_t),
    };
    // SAFETY: all-zero is a valid `siginfo_t`, and tells no process.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: `info` is writable; the rest are integers.
    Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | options) })?;
    // SAFETY: waitid(2) filled these in, or left them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let exit = if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) };
    Ok((pid != 0).then_some((pid, exit)))
}

/// A descriptor of a process, which becomes readable when the process ends. `ESRCH` if there is none.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; the kernel returns a new descriptor (close-on-exec) or an error.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A copy of another process' descriptor, close-on-exec (pidfd_getfd(2)).
pub fn pidfd_getfd(pidfd: impl AsFd, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: integers only; the kernel returns a new descriptor or an error.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to the very process that the pidfd stands for; `ESRCH` if it has ended. Signal 0 only asks.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill it in itself; the rest are integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Waits for a child to end and takes its status.
pub fn wait(pidfd: impl AsFd) -> io::Result<Exit> {
    loop {
        match ended(Whose::Pidfd(pidfd.as_fd().as_raw_fd()), 0) {
            Ok(Some((_, exit))) => return Ok(exit),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills a child and takes its status. Not for one that may be frozen, which would not end.
pub fn kill_and_wait(pidfd: impl AsFd) -> io::Result<Exit> {
    pidfd_send_signal(&pidfd, libc::SIGKILL)?;
    wait(pidfd)
}

/// Takes a child's status if it has ended; `None` while it lives.
pub fn try_wait(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    Ok(ended(Whose::Pidfd(pidfd.as_fd().as_raw_fd()), libc::WNOHANG)?.map(|(_, exit)| exit))
}

/// Takes the status of any one child that has ended, adopted ones included; `None` if none has.
pub fn reap_any() -> io::Result<Option<(i32, Exit)>> {
    match ended(Whose::Anybodys, libc::WNOHANG) {
        Err(Errno::ECHILD) => Ok(None),
        other => Ok(other?),
    }
}

/// A child that has ended and whose status nobody took, adopted ones included; `None` if there is none. Takes nothing.
pub fn ended_child() -> io::Result<Option<i32>> {
    match ended(Whose::Anybodys, libc::WNOHANG | libc::WNOWAIT) {
        Err(Errno::ECHILD) => Ok(None),
        other => Ok(other?.map(|(pid, _)| pid)),
    }
}

/// Takes the status of this child if it has ended; `None` while it lives, and if it is no child.
pub fn reap(pid: i32) -> io::Result<Option<Exit>> {
    match ended(Whose::Pid(pid), libc::WNOHANG) {
        Err(Errno::ECHILD) => Ok(None),
        other => Ok(other?.map(|(_, exit)| exit)),
    }
}

/// Whether this process is a child of the caller's, alive or not waited for yet.
pub fn is_child(pid: i32) -> bool {
    ended(Whose::Pid(pid), libc::WNOHANG | libc::WNOWAIT).is_ok()
}

/// From now on the orphans among this process' descendants become its children.
pub fn set_child_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::zombie_processes, reason = "it is waited for by its pidfd")]
    fn victims_of_all_signals_are_reaped() {
        for signal in [libc::SIGKILL, 34, 64] {
            let child = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} $$")]).spawn().unwrap();
            let pid = child.id() as i32;
            let pidfd = pidfd_open(pid).unwrap();
            assert_eq!(wait(&pidfd).unwrap(), Exit::Signal(signal));
            assert_eq!((reap(pid).unwrap(), is_child(pid)), (None, false));
        }
    }
}
