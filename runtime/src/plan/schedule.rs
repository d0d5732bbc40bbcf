//! How a process is scheduled: policy, I/O priority, processors, memory; its personality and its security labels.

use berth_sys::schedule::{NumberSet, Scheduler};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, Process,
};

use super::{Proc, Step};
use crate::error::Error;
use crate::limits::NUMBERS_BYTES_MAX;

/// Which label a process takes on when it executes its program: files below `/proc/self/attr`.
const APPARMOR: &[&str] = &["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];
const SELINUX: &[&str] = &["/proc/self/attr/exec"];

/// What is set before the process is in its cgroup: `execCPUAffinity.initial`, for one more process alone.
pub(super) fn before_cgroup(process: &Process) -> Result<Option<Step>, Error> {
    let initial = process.exec_cpu_affinity().as_ref().and_then(|it| it.initial().as_deref());
    initial.map(|list| affinity(list, "process.execCPUAffinity.initial")).transpose()
}

/// What is set once it is there. The affinity is for one more process alone.
pub(super) fn after_cgroup(process: &Process, is_first: bool) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let last = process.exec_cpu_affinity().as_ref().and_then(|it| it.cpu_affinity_final().as_deref());
    if let Some(list) = last.filter(|_| !is_first) {
        steps.push(affinity(list, "process.execCPUAffinity.final")?);
    }
    if let Some(scheduler) = process.scheduler() {
        let scheduler = Scheduler::new(
            policy(*scheduler.policy())?,
            scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | scheduler_flag(flag)),
            scheduler.nice().unwrap_or(0),
            u32::try_from(scheduler.priority().unwrap_or(0))
                .map_err(|_| Error::spec("process.scheduler.priority", "is negative"))?,
            [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|time| time.unwrap_or(0)),
        );
        steps.push(Step::Scheduler(scheduler));
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u16::try_from(priority.priority()).ok().filter(|level| *level <= 7);
        let level = level.ok_or_else(|| {
            Error::spec("process.ioPriority.priority", format!("{} is not 0 to 7", priority.priority()))
        })?;
        steps.push(Step::IoPriority { class, level });
    }
    Ok(steps)
}

/// What a container's first process passes on to all others.
pub(super) fn of_container(linux: &Linux) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    if let Some(personality) = linux.personality() {
        if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            return Err(Error::unsupported("linux.personality.flags"));
        }
        // linux/personality.h
        steps.push(Step::Personality(match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        }));
    }
    if let Some(policy) = linux.memory_policy() {
        // linux/mempolicy.h
        let mode = match policy.mode() {
            MemoryPolicyModeType::MpolDefault => 0,
            MemoryPolicyModeType::MpolPreferred => 1,
            MemoryPolicyModeType::MpolBind => 2,
            MemoryPolicyModeType::MpolInterleave => 3,
            MemoryPolicyModeType::MpolLocal => 4,
            MemoryPolicyModeType::MpolPreferredMany => 5,
            MemoryPolicyModeType::MpolWeightedInterleave => 6,
        };
        let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
            flags
                | match flag {
                    MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
                    MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                    MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                }
        });
        let nodes = policy.nodes().as_deref().filter(|nodes| !nodes.is_empty());
        let nodes = nodes.map(|list| numbers(list, "linux.memoryPolicy.nodes")).transpose()?;
        steps.push(Step::MemoryPolicy { mode: mode | flags, nodes });
    }
    Ok(steps)
}

/// Opens the files of the security labels while the machine's `/proc` is in sight; what is written later counts for the
/// program that is executed next.
pub(super) fn labels(process: &Process, proc: Proc) -> Vec<Step> {
    let wanted = [(process.apparmor_profile(), APPARMOR, "exec "), (process.selinux_label(), SELINUX, "")];
    wanted
        .into_iter()
        .filter_map(|(label, files, prefix)| {
            let label = label.as_ref().filter(|label| !label.is_empty())?;
            Some(Step::OpenLabel { files, label: format!("{prefix}{label}"), proc })
        })
        .collect()
}

fn affinity(list: &str, field: &str) -> Result<Step, Error> {
    Ok(Step::Affinity { processors: numbers(list, field)?, list: list.to_owned() })
}

fn numbers(list: &str, field: &str) -> Result<NumberSet, Error> {
    let set = if list.len() <= NUMBERS_BYTES_MAX { NumberSet::parse(list) } else { None };
    set.ok_or_else(|| Error::spec(field, format!("{list:?} is no list of numbers such as 0-3,7")))
}

fn policy(policy: LinuxSchedulerPolicy) -> Result<u32, Error> {
    Ok(match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::spec("process.scheduler.policy", "SCHED_ISO is in no kernel"));
        }
    })
}

/// sched_setattr(2)
fn scheduler_flag(flag: &LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}
