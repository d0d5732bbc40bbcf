//! OCI seccomp profiles compiled to the kernel's classic BPF.
//!
//! Why not `seccompiler`: one of its filters knows a single action besides the default and kills every process of
//! another machine language, while the profiles of Kubernetes' runtimes mix actions (`clone3` answers ENOSYS among
//! calls that answer EPERM) and let 32-bit programs run.
//!
//! | file | what |
//! |---|---|
//! | `profile` | the OCI's words to rules by number, for each machine language |
//! | `compile` | rules to a program: a binary search by number, then the arguments |
//! | `listener` | the one who answers calls that the filter leaves to it |
//! | `syscalls` | names and numbers |

mod compile;
mod listener;
mod profile;
mod syscalls;

use berth_sys::seccomp::{Instruction, NEW_LISTENER};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, Spec};

pub(crate) use listener::{Listener, ListenerSpec, listener_of};

use crate::error::Error;
use crate::spec;

/// Calls that may not be left to a listener: by them a new process tells that it has one.
pub(crate) const NOT_NOTIFIED: [&str; 4] = ["write", "read", "poll", "ppoll"];

/// A filter that is ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) program: Vec<Instruction>,
    pub(crate) flags: u32,
}

/// The filter that a container's specification asks for.
pub(crate) fn of_spec(spec: &Spec) -> Result<Option<Filter>, Error> {
    spec::linux(spec)?.seccomp().as_ref().map(filter).transpose()
}

/// Compiles a profile.
pub(crate) fn filter(seccomp: &LinuxSeccomp) -> Result<Filter, Error> {
    let program = compile::compile(&profile::parse(seccomp)?)
        .ok_or_else(|| Error::spec("linux.seccomp.syscalls", "more rules than fit into a filter"))?;
    let mut flags = if has_notify(seccomp)? { NEW_LISTENER } else { 0 };
    for flag in seccomp.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
            // The filter's one thread is all there is to synchronize.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            // Without a listener there is nothing to wait for, and the kernel refuses it.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => match flags & NEW_LISTENER {
                0 => 0,
                _ => 32,
            },
        };
    }
    Ok(Filter { program, flags })
}

fn has_notify(seccomp: &LinuxSeccomp) -> Result<bool, Error> {
    let notify = LinuxSeccompAction::ScmpActNotify;
    if seccomp.default_action() == notify {
        return Err(Error::spec("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be the default"));
    }
    let mut found = false;
    for (number, rule) in seccomp.syscalls().iter().flatten().enumerate().filter(|(_, rule)| rule.action() == notify) {
        if let Some(name) = rule.names().iter().find(|name| NOT_NOTIFIED.contains(&name.as_str())) {
            let reason =
                format!("SCMP_ACT_NOTIFY cannot be used for {name}, by which the runtime hands the listener over");
            return Err(Error::spec(format!("linux.seccomp.syscalls[{number}]"), reason));
        }
        found = true;
    }
    Ok(found)
}

/// As kept on disk: the flags, then the instructions.
pub(crate) fn to_bytes(filter: &Filter) -> Vec<u8> {
    let mut bytes = filter.flags.to_le_bytes().to_vec();
    for it in &filter.program {
        bytes.extend(it.code.to_le_bytes());
        bytes.extend([it.when_true, it.when_false]);
        bytes.extend(it.operand.to_le_bytes());
    }
    bytes
}

/// Takes back what [`to_bytes`] gave; `None` for anything else.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Filter> {
    let (flags, rest) = bytes.split_first_chunk::<4>()?;
    let (instructions, tail) = rest.as_chunks::<8>();
    let program = instructions.iter().map(|&[a, b, when_true, when_false, c, d, e, f]| Instruction {
        code: u16::from_le_bytes([a, b]),
        when_true,
        when_false,
        operand: u32::from_le_bytes([c, d, e, f]),
    });
    (tail.is_empty()).then(|| Filter { program: program.collect(), flags: u32::from_le_bytes(*flags) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_file_is_a_filter_or_none(bytes in any::<Vec<u8>>()) {
            match from_bytes(&bytes) {
                Some(filter) => prop_assert_eq!(to_bytes(&filter), bytes),
                None => prop_assert!(bytes.len() % 8 != 4),
            }
        }
    }
}
