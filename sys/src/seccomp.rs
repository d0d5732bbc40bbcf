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

/// Filters every later system call of the calling thread. Needs no-new-privileges or `CAP_SYS_ADMIN`.
pub fn load(program: &[Instruction], flags: u32) -> nix::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let filter = sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `Instruction` has the layout of `sock_filter`; the kernel copies `len` of them and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    Errno::result(result).map(drop)
}

/// From now on no `execve` of the calling thread gives it more privileges.
pub fn set_no_new_privileges() -> nix::Result<()> {
    nix::sys::prctl::set_no_new_privs()
}
