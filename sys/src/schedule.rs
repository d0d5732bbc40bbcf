//! How the calling thread is scheduled: policy, I/O priority, processors, memory nodes; and its personality. Nothing
//! here allocates.

use nix::errno::Errno;

/// A scheduling policy with its parameters, laid out as `struct sched_attr` (sched_setattr(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Scheduler {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

impl Scheduler {
    /// `policy` is `SCHED_*`, `flags` are `SCHED_FLAG_*`; `priority` counts for real-time policies, `nice` for the others,
    /// and the times (runtime, deadline, period, in nanoseconds) for `SCHED_DEADLINE`.
    pub fn new(policy: u32, flags: u64, nice: i32, priority: u32, times_ns: [u64; 3]) -> Self {
        let [runtime_ns, deadline_ns, period_ns] = times_ns;
        let size = size_of::<Self>() as u32;
        Self { size, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns }
    }
}

/// Takes on a scheduling policy.
pub fn set_scheduler(scheduler: &Scheduler) -> nix::Result<()> {
    // SAFETY: the structure is laid out as the kernel's, tells its size, and outlives the call, which only reads it.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(scheduler), 0) }).map(drop)
}

/// Takes on an I/O priority: class 1 (real-time), 2 (best effort) or 3 (idle), and a level from 0 to 7 (ioprio_set(2)).
pub fn set_io_priority(class: u16, level: u16) -> nix::Result<()> {
    const WHO_PROCESS: i32 = 1;
    const CLASS_SHIFT: u16 = 13;
    let value = i32::from(class << CLASS_SHIFT | level);
    // SAFETY: integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// A set of processors, or of memory nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberSet([u64; Self::WORDS]);

impl NumberSet {
    const WORDS: usize = 16;

    /// One more than the highest number.
    pub const NUMBERS_MAX: usize = Self::WORDS * 64;

    /// Parses a list such as `0-3,7`; `None` for anything else, and for an empty one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = [0; Self::WORDS];
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || last >= Self::NUMBERS_MAX {
                return None;
            }
            (first..=last).for_each(|number| words[number / 64] |= 1 << (number % 64));
        }
        Some(Self(words))
    }
}

/// Runs on these processors only.
pub fn set_affinity(processors: &NumberSet) -> nix::Result<()> {
    let bytes = size_of_val(&processors.0);
    // SAFETY: the kernel reads as many bytes as are given.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, processors.0.as_ptr()) }).map(drop)
}

/// Takes memory by this policy: `MPOL_*` with its flags, and the nodes that it is about (set_mempolicy(2)).
pub fn set_memory_policy(mode: i32, nodes: Option<&NumberSet>) -> nix::Result<()> {
    let (mask, bits) = nodes.map_or((std::ptr::null(), 0), |nodes| (nodes.0.as_ptr(), NumberSet::NUMBERS_MAX + 1));
    // SAFETY: the mask is null with length zero, or as long as is told: the kernel counts from one.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Sets the execution domain and its flags (personality(2)).
pub fn set_personality(persona: u32) -> nix::Result<()> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(persona)) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_read_as_the_kernel_writes_them() {
        let words = |text| NumberSet::parse(text).map(|set| (set.0[0], set.0[1]));
        assert_eq!(words("0"), Some((1, 0)));
        assert_eq!(words("0-3,7"), Some((0b1000_1111, 0)));
        assert_eq!(words("63-64"), Some((1 << 63, 1)));
        for bad in ["", ",", "a", "3-1", "0-", "-1", "1024", "0,,1", "0x1"] {
            assert_eq!(words(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_thread_can_be_bound_to_its_first_processor() {
        std::thread::spawn(|| {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let allowed = |status: &str| {
                status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t").map(str::to_owned)).unwrap()
            };
            let first = allowed(&status).split([',', '-']).next().unwrap().to_owned();
            set_affinity(&NumberSet::parse(&first).unwrap()).unwrap();
            assert_eq!(allowed(&std::fs::read_to_string("/proc/thread-self/status").unwrap()), first);
            set_io_priority(2, 5).unwrap();
            set_personality(0).unwrap();
        })
        .join()
        .unwrap();
    }
}
