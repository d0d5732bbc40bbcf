//! Which devices a cgroup may use: rules folded as the v1 controller folds them, then written to its files, or compiled
//! to a BPF program for the unified hierarchy, which has no files for it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{Cgroup, Error, Version, open_folder, write_each};

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Block device.
    Block,
    /// Character device.
    Char,
}

/// Reading, writing, making nodes; any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    // The bits of BPF_DEVCG_ACC_*, linux/bpf.h.
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

    /// All three.
    pub const ALL: Self = Self(7);

    /// Parses letters of `rwm`; `None` for any other.
    pub fn parse(letters: &str) -> Option<Self> {
        let bit = |letter| Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
        letters.chars().try_fold(0, |all, letter| Some(all | bit(letter)?)).map(Self)
    }

    fn letters(self) -> String {
        Self::LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(letter, _)| letter).collect()
    }
}

/// One rule, in the order that the OCI's `linux.resources.devices` lists them: a later one overrules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether to allow or to deny.
    pub allow: bool,
    /// The kind; `None` for every device there is, which forgets all rules before.
    pub kind: Option<Kind>,
    /// The major number; `None` for any.
    pub major: Option<u32>,
    /// The minor number; `None` for any.
    pub minor: Option<u32>,
    /// What is allowed or denied.
    pub access: Access,
}

type Device = (Kind, Option<u32>, Option<u32>);

/// Rules folded to a default and its exceptions. Without any rule everything is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    allow_by_default: bool,
    exceptions: BTreeMap<Device, u8>,
}

impl Policy {
    /// Folds rules, as the kernel's v1 controller does when they are written to it one after the other. A rule that would
    /// take something out of a wider one before it can be told to neither version: the error is its number.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Result<Self, usize> {
        let mut policy = Self::default();
        for (number, rule) in rules.into_iter().enumerate() {
            match rule.kind {
                None => policy = Self { allow_by_default: rule.allow, exceptions: BTreeMap::new() },
                Some(kind) => policy.fold((kind, rule.major, rule.minor), rule).ok_or(number)?,
            }
        }
        policy.exceptions.retain(|_, access| *access != 0);
        Ok(policy)
    }

    fn fold(&mut self, device: Device, rule: Rule) -> Option<()> {
        if rule.allow != self.allow_by_default {
            *self.exceptions.entry(device).or_default() |= rule.access.0;
            return Some(());
        }
        for (known, access) in self.exceptions.iter_mut().filter(|(_, access)| **access & rule.access.0 != 0) {
            if covers(&device, known) {
                *access &= !rule.access.0;
            } else if covers(known, &device) {
                return None;
            }
        }
        Some(())
    }

    /// Lines for `devices.allow` and `devices.deny`, the default first.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let (default, exception) =
            if self.allow_by_default { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        let number = |number: &Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let mut lines = vec![(default, "a".to_owned())];
        lines.extend(self.exceptions.iter().map(|((kind, major, minor), access)| {
            let kind = if *kind == Kind::Block { 'b' } else { 'c' };
            (exception, format!("{kind} {}:{} {}", number(major), number(minor), Access(*access).letters()))
        }));
        lines
    }
}

/// Whether one names every device that the other names.
fn covers(one: &Device, other: &Device) -> bool {
    let number = |one: Option<u32>, other: Option<u32>| one.is_none() || one == other;
    one.0 == other.0 && number(one.1, other.1) && number(one.2, other.2)
}

impl Cgroup {
    /// Lets this cgroup use exactly the devices of the policy.
    pub fn set_devices(&self, policy: &Policy) -> Result<(), Error> {
        match (self.folder("devices"), self.unified()) {
            (Some((folder, Version::V1)), _) => {
                let lines = policy.lines();
                // One opened file for all exceptions: they are a dozen for every container.
                lines.chunk_by(|(one, _), (other, _)| one == other).try_for_each(|lines| {
                    let path = folder.join(lines[0].0);
                    let texts = lines.iter().map(|(_, line)| line.as_str());
                    write_each(&path, texts)
                })
            }
            (_, Some(folder)) => {
                let attach = || attach(&load(&compile(policy))?, &open_folder(folder)?);
                attach().map_err(Error::file("attach a device program to", folder))
            }
            _ => Err(Error::NoController { controller: "devices".to_owned() }),
        }
    }
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

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
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
    let attributes = Load {
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
    // SAFETY: the structure is the beginning of `union bpf_attr` with its size given; the instructions and the string
    // that it points to outlive the call, which only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach(program: &OwnedFd, folder: &OwnedFd) -> io::Result<()> {
    /// The part of `union bpf_attr` that `BPF_PROG_ATTACH` needs.
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    const PROG_ATTACH: i32 = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let attributes = Attach {
        target: folder.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the structure is the beginning of `union bpf_attr` with its size given, and is only read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>()) };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: Option<Kind>, numbers: (Option<u32>, Option<u32>), access: &str) -> Rule {
        Rule { allow, kind, major: numbers.0, minor: numbers.1, access: Access::parse(access).unwrap() }
    }

    fn lines(rules: &[Rule]) -> Vec<String> {
        Policy::new(rules.iter().copied())
            .unwrap()
            .lines()
            .iter()
            .map(|(file, line)| format!("{file} {line}"))
            .collect()
    }

    #[test]
    fn rules_fold_to_a_default_and_exceptions() {
        let null = (Some(1), Some(3));
        let char = Some(Kind::Char);
        assert_eq!(lines(&[]), ["devices.deny a"]);
        assert_eq!(
            lines(&[rule(false, None, (None, None), "rwm"), rule(true, char, null, "r"), rule(true, char, null, "w")]),
            ["devices.deny a", "devices.allow c 1:3 rw"]
        );
        assert_eq!(
            lines(&[rule(true, char, null, "rwm"), rule(false, char, null, "rwm")]),
            ["devices.deny a"],
            "a denial of what was allowed leaves nothing"
        );
        assert_eq!(
            lines(&[rule(true, None, (None, None), "rwm"), rule(false, Some(Kind::Block), (Some(8), None), "w")]),
            ["devices.allow a", "devices.deny b 8:* w"]
        );
    }

    #[test]
    fn what_would_make_a_hole_in_a_wider_rule_is_refused() {
        let char = Some(Kind::Char);
        let none = rule(false, None, (None, None), "rwm");
        let all = rule(true, char, (None, None), "rwm");
        let fuse = rule(false, char, (Some(10), Some(229)), "rw");
        assert_eq!(Policy::new([none, all, fuse]), Err(2));
        assert_eq!(Policy::new([none, rule(true, char, (None, None), "m"), fuse]).map(|_| ()), Ok(()));
        let allowed = rule(true, char, (Some(10), Some(229)), "rw");
        assert_eq!(lines(&[none, allowed, rule(false, char, (Some(10), None), "rw")]), ["devices.deny a"]);
    }

    #[test]
    fn a_denied_letter_is_no_access() {
        assert_eq!(Access::parse("rwm"), Some(Access::ALL));
        assert_eq!(Access::parse("rx"), None);
        assert_eq!(Access::parse("mw").unwrap().letters(), "wm");
    }

    #[test]
    fn every_jump_of_a_program_stays_inside() {
        let rules =
            [rule(true, Some(Kind::Char), (Some(1), None), "rw"), rule(true, Some(Kind::Block), (None, None), "m")];
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
}
