//! The program of a cgroup of the unified hierarchy that decides over its devices (`BPF_PROG_TYPE_CGROUP_DEVICE`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{Access, Kind, Policy};

/// How many programs the kernel attaches to one cgroup (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;

/// `BPF_CGROUP_DEVICE`, of `enum bpf_attach_type`.
const CGROUP_DEVICE: u32 = 6;

/// Lets a policy decide over a cgroup, by its open folder, in place of whatever has decided up to now. One program takes
/// the other's place in one step: beside it, of all that are attached the strictest would decide, and between them nobody.
pub(super) fn replace(policy: &Policy, folder: &OwnedFd) -> io::Result<()> {
    let program = load(&compile(policy))?;
    let mut old = attached(folder)?.into_iter();
    attach(&program, folder, old.next())?;
    Ok(old.try_for_each(|program| detach(&program, folder))?)
}

/// `struct bpf_insn`, linux/bpf.h; the registers are two halves of a byte, which every architecture with berth on it
/// (little-endian ones) orders in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

// Instruction codes of linux/bpf_common.h and linux/bpf.h, as they are combined below.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const MOVE_CONSTANT: u8 = 0xb4;
const AND_CONSTANT: u8 = 0x54;
const SHIFT_RIGHT_CONSTANT: u8 = 0x74;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF: u8 = 0x15;
const EXIT: u8 = 0x95;

// Registers of the program below.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The context is `struct bpf_cgroup_dev_ctx`: kind in the low and access in the high half of a word, major, minor.
fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE, ACCESS, KIND, 0, 0),
        instruction(AND_CONSTANT, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_CONSTANT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    let verdict =
        |allow: bool| [instruction(MOVE_CONSTANT, VERDICT, 0, 0, allow.into()), instruction(EXIT, 0, 0, 0, 0)];
    for ((kind, major, minor), access) in &policy.exceptions {
        // BPF_DEVCG_DEV_BLOCK and _CHAR.
        let kind = if *kind == Kind::Block { 1 } else { 2 };
        let mut tests = vec![vec![instruction(JUMP_IF_NOT, KIND, 0, 0, kind)]];
        for (register, number) in [(MAJOR, major), (MINOR, minor)] {
            tests.extend(number.map(|number| vec![instruction(JUMP_IF_NOT, register, 0, 0, number as i32)]));
        }
        // An allowance must cover all that is asked for; a denial counts if it covers any of it.
        let (mask, miss) = if policy.allow_by_default {
            (i32::from(*access), JUMP_IF)
        } else {
            (i32::from(!*access & Access::ALL.0), JUMP_IF_NOT)
        };
        tests.push(vec![
            instruction(MOVE, SCRATCH, ACCESS, 0, 0),
            instruction(AND_CONSTANT, SCRATCH, 0, 0, mask),
            instruction(miss, SCRATCH, 0, 0, 0),
        ]);
        let mut block = tests.concat();
        block.extend(verdict(!policy.allow_by_default));
        let end = block.len();
        for (at, jump) in block.iter_mut().enumerate().filter(|(_, it)| matches!(it.code, JUMP_IF | JUMP_IF_NOT)) {
            jump.offset = (end - at - 1) as i16;
        }
        program.extend(block);
    }
    program.extend(verdict(policy.allow_by_default));
    program
}

fn load(program: &[Instruction]) -> nix::Result<OwnedFd> {
    /// The part of `union bpf_attr` that `BPF_PROG_LOAD` needs; the kernel takes the rest as zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        length: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const PROG_LOAD: i32 = 5;
    const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let mut attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        length: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the instructions and the string that the structure points to outlive the call, which only reads them.
    let fd = unsafe { bpf(PROG_LOAD, &mut attributes) }?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The device programs of this very cgroup. One that goes meanwhile is left out.
fn attached(folder: &OwnedFd) -> nix::Result<Vec<OwnedFd>> {
    /// The part of `union bpf_attr` that `BPF_PROG_QUERY` needs.
    #[repr(C)]
    struct Query {
        target: u32,
        kind: u32,
        flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        _padding: u32,
    }
    const PROG_QUERY: i32 = 16;
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut attributes = Query {
        target: folder.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        _padding: 0,
    };
    // SAFETY: the kernel writes at most `count` ids, for which there is room, and the number of them.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let open = ids.iter().take(attributes.count as usize).map(|id| open(*id));
    open.filter(|program| !matches!(program, Err(Errno::ENOENT))).collect()
}

fn open(mut id: u32) -> nix::Result<OwnedFd> {
    const PROG_GET_FD_BY_ID: i32 = 13;
    // SAFETY: `union bpf_attr` begins with the id here, which is only read.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut id) }?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The part of `union bpf_attr` that `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` need.
#[repr(C)]
struct Attachment {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

fn attach(program: &OwnedFd, folder: &OwnedFd, replaced: Option<OwnedFd>) -> nix::Result<()> {
    const PROG_ATTACH: i32 = 8;
    const ALLOW_MULTI: u32 = 2;
    const REPLACE: u32 = 4;
    let mut attributes = Attachment {
        target: folder.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: if replaced.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
        replaced: replaced.as_ref().map_or(0, |program| program.as_raw_fd() as u32),
    };
    // SAFETY: integers only.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

fn detach(program: &OwnedFd, folder: &OwnedFd) -> nix::Result<()> {
    const PROG_DETACH: i32 = 9;
    let (target, program) = (folder.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let mut attributes = Attachment { target, program, kind: CGROUP_DEVICE, flags: 0, replaced: 0 };
    // SAFETY: integers only.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

/// `bpf(2)`.
///
/// # Safety
///
/// The structure must be the beginning of `union bpf_attr` for this command, without room that nothing was written to,
/// and what it points to must be there for the kernel to read or to fill.
unsafe fn bpf<T>(command: i32, attributes: &mut T) -> nix::Result<i32> {
    // SAFETY: the structure is borrowed for the call, and its size is given; the rest is promised by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    Errno::result(result).map(|result| result as i32)
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::*;
    use crate::cgroup::{Cgroup, Hierarchies};

    #[test]
    fn every_jump_of_a_program_stays_inside() {
        let allow = |kind, major, access| Rule {
            allow: true,
            kind: Some(kind),
            major,
            minor: None,
            access: Access::parse(access).unwrap(),
        };
        let rules = [allow(Kind::Char, Some(1), "rw"), allow(Kind::Block, None, "m")];
        let program = compile(&Policy::new(rules).unwrap());
        for (at, instruction) in program.iter().enumerate() {
            assert!(
                at + 1 + instruction.offset.max(0) as usize <= program.len() - 2
                    || instruction.offset == 0
                    || instruction.code == LOAD_WORD
            );
        }
        assert_eq!(program.last().map(|it| it.code), Some(EXIT));
    }

    #[test]
    fn one_program_is_left_however_many_there_were() {
        struct Gone(Cgroup);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = self.0.remove();
            }
        }
        let path = format!("/berth-sys-programs-{}", std::process::id());
        let cgroup = Gone(Cgroup::new(Hierarchies::of_machine().unwrap(), path.as_ref(), &[]).unwrap());
        cgroup.0.make_unified().unwrap();
        let Some(folder) = cgroup.0.open_unified().unwrap() else { return eprintln!("SKIPPED: no unified hierarchy") };
        let policy = Policy::default();
        replace(&policy, &folder).unwrap();
        replace(&policy, &folder).unwrap();
        assert_eq!(attached(&folder).unwrap().len(), 1);
        for _ in 0..2 {
            attach(&load(&compile(&policy)).unwrap(), &folder, None).unwrap();
        }
        assert_eq!(attached(&folder).unwrap().len(), 3);
        replace(&policy, &folder).unwrap();
        assert_eq!(attached(&folder).unwrap().len(), 1);
    }
}
