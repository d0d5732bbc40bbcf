//! An OCI seccomp profile (runtime spec, config-linux.md#seccomp) as rules by number.

use std::collections::BTreeMap;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use super::syscalls::Machine;
use crate::error::Error;
use crate::limits::SECCOMP_RULES_MAX;

/// What the kernel shall do: a `SECCOMP_RET_*` value with its data.
pub(super) type Verdict = u32;

/// What a filter answers to calls of another machine language.
pub(super) const KILL: Verdict = 0x8000_0000;

/// The error of a call that the kernel does not have.
pub(super) const NO_SUCH_CALL: Verdict = 0x0005_0000 | nix::errno::Errno::ENOSYS as u32;

const NOT_PERMITTED: u32 = nix::errno::Errno::EPERM as u32;

/// A comparison of one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) index: u32,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

/// How an argument is compared with the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal in the bits of this mask.
    Masked(u64),
}

/// A verdict for a call whose arguments meet all conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

/// The rules for one machine language, in order, by the number of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) machine: Machine,
    pub(super) rules: BTreeMap<u32, Vec<Rule>>,
    pub(super) default: Verdict,
    /// What calls answer that are younger than every call the profile names.
    pub(super) newer: Verdict,
}

/// Reads a profile. System calls and machine languages that this machine does not have are left out.
pub(super) fn parse(seccomp: &LinuxSeccomp) -> Result<Vec<Table>, Error> {
    let default = verdict(seccomp.default_action(), seccomp.default_errno_ret(), "linux.seccomp.defaultAction")?;
    let mut tables: Vec<Table> = machines(seccomp.architectures().as_deref().unwrap_or_default())
        .into_iter()
        .map(|machine| Table { machine, rules: BTreeMap::new(), default, newer: default })
        .collect();
    let mut room = SECCOMP_RULES_MAX;
    for (number, syscall) in seccomp.syscalls().iter().flatten().enumerate() {
        let field = |name: &str| format!("linux.seccomp.syscalls[{number}].{name}");
        let verdict = verdict(syscall.action(), syscall.errno_ret(), &field("action"))?;
        let alternatives = alternatives(syscall.args().as_deref().unwrap_or_default(), &field("args"))?;
        for table in &mut tables {
            for call in syscall.names().iter().filter_map(|name| table.machine.number(name)) {
                let known = table.rules.entry(call).or_default();
                // After a rule without conditions none counts.
                if known.last().is_some_and(|rule| rule.conditions.is_empty()) {
                    continue;
                }
                room = room.checked_sub(alternatives.len()).ok_or_else(|| too_many(&field("names")))?;
                known.extend(alternatives.iter().map(|conditions| Rule { conditions: conditions.clone(), verdict }));
            }
        }
    }
    // A program that tries a younger call expects "no such call" and falls back to an older one; "not permitted" from
    // a profile that was written before the call existed would break it.
    if matches!(default & 0xffff_0000, 0x0005_0000 | 0x8000_0000 | 0x0003_0000 | 0) {
        tables.iter_mut().for_each(|table| table.newer = NO_SUCH_CALL);
    }
    Ok(tables)
}

fn too_many(field: &str) -> Error {
    Error::spec(field, format!("more than {SECCOMP_RULES_MAX} rules, with those before"))
}

/// The languages that a profile names, as far as processes of this machine can speak them; its own always.
fn machines(named: &[Arch]) -> Vec<Machine> {
    if cfg!(target_arch = "x86_64") {
        let x86 = named.contains(&Arch::ScmpArchX86).then_some(Machine::X86);
        [Machine::X86_64].into_iter().chain(x86).collect()
    } else {
        vec![Machine::Aarch64]
    }
}

fn verdict(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<Verdict, Error> {
    let data = errno.unwrap_or(NOT_PERMITTED);
    if data > 0xffff {
        return Err(Error::spec(field, format!("error number {data} is above 65535")));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => KILL,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | data,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
    })
}

/// All conditions must hold; but several on the same argument are alternatives to one another, as every OCI runtime
/// takes them.
fn alternatives(args: &[LinuxSeccompArg], field: &str) -> Result<Vec<Vec<Condition>>, Error> {
    let conditions = args.iter().map(|arg| condition(arg, field)).collect::<Result<Vec<_>, _>>()?;
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, condition)| conditions[..at].iter().any(|other| other.index == condition.index));
    Ok(if repeated { conditions.into_iter().map(|condition| vec![condition]).collect() } else { vec![conditions] })
}

fn condition(arg: &LinuxSeccompArg, field: &str) -> Result<Condition, Error> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| Error::spec(field, format!("index {} is above 5", arg.index())))?;
    let value = arg.value();
    let (comparison, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => (Comparison::Equal, value),
        LinuxSeccompOperator::ScmpCmpNe => (Comparison::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (Comparison::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (Comparison::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (Comparison::Greater, value),
        LinuxSeccompOperator::ScmpCmpGe => (Comparison::GreaterOrEqual, value),
        // `value` is the mask here, and `valueTwo` what the argument must be under it.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (Comparison::Masked(value), arg.value_two().unwrap_or_default() & value)
        }
    };
    Ok(Condition { index, comparison, value })
}
