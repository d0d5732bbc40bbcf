//! Loading a finished seccomp program. Compiling one is the runtime's.

use libc::{sock_filter, sock_fprog};
use nix::errno::Errno;

/// One BPF instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when true.
    pub when_true: u8,
    /// How many to skip when false.
    pub when_false: u8,
    /// The operand.
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<sock_filter>());

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Asks [`load`] for a listener, who answers the calls that the filter leaves to it.
pub const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

/// Filters every later system call of the calling thread. Needs no-new-privileges or `CAP_SYS_ADMIN`. With
/// [`NEW_LISTENER`] among the flags it gives the number of the listener's descriptor, close-on-exec; else 0.
pub fn load(program: &[Instruction], flags: u32) -> nix::Result<i32> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let filter = sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `Instruction` has the layout of `sock_filter`; the kernel copies `len` of them and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    Errno::result(result).map(|number| number as i32)
}

/// From now on no `execve` of the calling thread gives it more privileges.
pub fn set_no_new_privileges() -> nix::Result<()> {
    nix::sys::prctl::set_no_new_privs()
}
