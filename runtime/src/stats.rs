//! What a container has used, read by `cgroups-rs`, in the shape that runc's `events --stats` tells it: who reads that,
//! such as cAdvisor, reads this.

use std::collections::BTreeMap;

use berth_sys::cgroup::Cgroup;
use cgroups_rs::manager::{FsManager, Manager};
use cgroups_rs::stats::{BlkioStat, CpuCgroupStats, MemoryCgroupStats, MemoryStats};
use serde::Serialize;

/// What a container has used up to now. A figure that its kernel does not have is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub blkio: BlockIo,
    /// Huge pages by size.
    pub hugetlb: BTreeMap<String, Usage>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// How much.
    pub usage: CpuUsage,
    /// How often it had to wait for its quota.
    pub throttling: Throttling,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// By processor; empty on v2, which does not count that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// Waiting for a quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that passed.
    pub periods: u64,
    /// Those in which it had to wait.
    pub throttled_periods: u64,
    /// How long, in nanoseconds.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Of files.
    pub cache: u64,
    /// All.
    pub usage: Usage,
    /// v1: memory and swap together; v2: swap.
    pub swap: Usage,
    /// The kernel's, on the container's behalf.
    pub kernel: Usage,
    /// Every figure of the kernel's `memory.stat`, by its name.
    pub raw: BTreeMap<String, u64>,
}

/// A resource with a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The limit; [`u64::MAX`] for none.
    pub limit: u64,
    /// In use now.
    pub usage: u64,
    /// The most that ever was.
    pub max: u64,
    /// How often the limit was in the way.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; 0 for any number, as runc tells it.
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    /// Bytes.
    pub io_service_bytes_recursive: Vec<BlockEntry>,
    /// Requests.
    pub io_serviced_recursive: Vec<BlockEntry>,
}

/// A figure of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlockEntry {
    /// Its major number.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
    /// `Read`, `Write` and so on.
    pub op: String,
    /// The figure.
    pub value: u64,
}

impl Stats {
    /// What the processes of a cgroup have used, whoever made it: all that there is to read, for a file that is missing is
    /// no reason to tell nothing.
    pub fn of(cgroup: &Cgroup) -> Self {
        let path = cgroup.path().strip_prefix("/").unwrap_or(cgroup.path());
        let Ok(manager) = FsManager::new(&path.to_string_lossy()) else { return Self::default() };
        let read = manager.stats();
        let raw = raw_memory(cgroup);
        Self {
            cpu: cpu(read.cpu),
            memory: memory(read.memory, raw),
            pids: Pids { current: read.pids.current, limit: u64::try_from(read.pids.limit).unwrap_or(0) },
            blkio: BlockIo {
                io_service_bytes_recursive: block(read.blkio.io_service_bytes_recursive),
                io_serviced_recursive: block(read.blkio.io_serviced_recursive),
            },
            hugetlb: read
                .hugetlb
                .into_iter()
                .map(|(size, it)| {
                    (size, Usage { limit: u64::MAX, usage: it.usage, max: it.max_usage, failcnt: it.fail_cnt })
                })
                .collect(),
        }
    }
}

fn cpu(read: CpuCgroupStats) -> Cpu {
    let usage = read.cpu_acct.map(|it| CpuUsage {
        total: it.total_usage,
        percpu: it.usage_percpu,
        kernel: it.system_usage,
        user: it.user_usage,
    });
    let throttling = read.cpu_throttling.map(|it| Throttling {
        periods: it.periods,
        throttled_periods: it.throttled_periods,
        throttled_time: it.throttled_time,
    });
    Cpu { usage: usage.unwrap_or_default(), throttling: throttling.unwrap_or_default() }
}

fn memory(read: MemoryCgroupStats, raw: BTreeMap<String, u64>) -> Memory {
    let usage = |it: Option<MemoryStats>| {
        it.map_or_else(Usage::default, |it| Usage {
            limit: u64::try_from(it.limit).unwrap_or(u64::MAX),
            usage: it.usage,
            max: it.max_usage,
            failcnt: it.fail_cnt,
        })
    };
    let cache = raw.get("cache").or_else(|| raw.get("file")).copied().unwrap_or(0);
    Memory { cache, usage: usage(read.memory), swap: usage(read.memory_swap), kernel: usage(read.kernel_memory), raw }
}

/// Every line of `memory.stat`: new kernels count what no library knows yet.
fn raw_memory(cgroup: &Cgroup) -> BTreeMap<String, u64> {
    let Some((folder, _)) = cgroup.folder("memory") else { return BTreeMap::new() };
    let text = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let entry = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

fn block(entries: Vec<BlkioStat>) -> Vec<BlockEntry> {
    let entry = |it: BlkioStat| BlockEntry { major: it.major, minor: it.minor, op: it.op, value: it.value };
    entries.into_iter().map(entry).collect()
}
