//! Limits of a cgroup, and the control files of either version that they are written to.

use std::borrow::Cow;

use super::{Cgroup, Error, Version, read, write};

/// What a cgroup may use; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The share of the processors under contention, in v1's units: 2 to 262144, by default 1024.
    pub cpu_shares: Option<u64>,
    /// Processor time per period, in microseconds; -1 for no limit.
    pub cpu_quota_us: Option<i64>,
    /// The length of that period, in microseconds; by default 100000.
    pub cpu_period_us: Option<u64>,
    /// How much unused quota may be saved up, in microseconds.
    pub cpu_burst_us: Option<u64>,
    /// Run only when nobody else wants the processor.
    pub cpu_idle: Option<bool>,
    /// The processors that may be used, such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that may be used.
    pub cpuset_mems: Option<String>,
    /// Memory in bytes; -1 for no limit.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together in bytes; -1 for no limit.
    pub memory_swap_bytes: Option<i64>,
    /// Memory that is taken last under pressure, in bytes.
    pub memory_reservation_bytes: Option<i64>,
    /// The number of processes and threads; 0 or less for no limit.
    pub pids: Option<i64>,
    /// Huge pages by size.
    pub hugepages: Vec<HugepageLimit>,
    /// v1: how willingly memory is swapped out, 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// v1: whether processes that run out of memory wait, and are not killed.
    pub oom_waits: Option<bool>,
    /// v1: memory of TCP buffers, in bytes; -1 for no limit.
    pub memory_tcp_bytes: Option<i64>,
    /// v1: processor time of real-time threads per period, in microseconds.
    pub cpu_realtime_runtime_us: Option<i64>,
    /// v1: the length of that period, in microseconds.
    pub cpu_realtime_period_us: Option<u64>,
    /// Block devices.
    pub block_io: BlockIo,
    /// v1: the class of its packets for traffic control.
    pub net_class: Option<u32>,
    /// v1: the priority of its packets by interface.
    pub net_priorities: Vec<(String, u32)>,
    /// RDMA devices by name: handles and objects.
    pub rdma: Vec<(String, Option<u32>, Option<u32>)>,
}

/// How block devices may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// The share under contention, 10 to 1000.
    pub weight: Option<u16>,
    /// v1: the same in competition with the cgroup's children.
    pub leaf_weight: Option<u16>,
    /// Shares by device.
    pub device_weights: Vec<(Device, u16)>,
    /// v1: the same in competition with the cgroup's children.
    pub device_leaf_weights: Vec<(Device, u16)>,
    /// Bytes read per second.
    pub read_bytes: Vec<(Device, u64)>,
    /// Bytes written per second.
    pub write_bytes: Vec<(Device, u64)>,
    /// Reads per second.
    pub reads: Vec<(Device, u64)>,
    /// Writes per second.
    pub writes: Vec<(Device, u64)>,
}

/// A block device: major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device(pub i64, pub i64);

/// A limit of huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugepageLimit {
    /// The size as the kernel writes it, such as `2MB`.
    pub size: String,
    /// How much of them, in bytes.
    pub bytes: u64,
}

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
    /// Whether a kernel without this file is good enough (swap accounting can be compiled out or switched off).
    pub(super) optional: bool,
}

impl Limits {
    /// The controllers that these limits need beyond those that every cgroup has.
    pub fn controllers(&self) -> Vec<&'static str> {
        let wanted = [
            (!self.hugepages.is_empty(), "hugetlb"),
            (self.net_class.is_some(), "net_cls"),
            (!self.net_priorities.is_empty(), "net_prio"),
            (!self.rdma.is_empty(), "rdma"),
        ];
        wanted.into_iter().filter_map(|(wanted, name)| wanted.then_some(name)).collect()
    }

    fn settings(&self, version: impl Fn(&str) -> Option<Version>) -> Vec<Setting> {
        let mut settings = Vec::new();
        self.cpu(&mut settings, version("cpu"));
        for (file, value) in [("cpuset.cpus", &self.cpuset_cpus), ("cpuset.mems", &self.cpuset_mems)] {
            put(&mut settings, "cpuset", file, value.clone());
        }
        self.memory(&mut settings, version("memory"));
        let pids = self.pids.map(|limit| if limit > 0 { limit.to_string() } else { "max".into() });
        put(&mut settings, "pids", "pids.max", pids);
        for HugepageLimit { size, bytes } in &self.hugepages {
            let file = match version("hugetlb") {
                Some(Version::V2) => format!("hugetlb.{size}.max"),
                _ => format!("hugetlb.{size}.limit_in_bytes"),
            };
            settings.push(Setting { controller: "hugetlb", file, value: bytes.to_string(), optional: *bytes == 0 });
        }
        self.block_io.put(&mut settings, version("io").or_else(|| version("blkio")));
        put(&mut settings, "net_cls", "net_cls.classid", self.net_class.map(|class| class.to_string()));
        for (interface, priority) in &self.net_priorities {
            put(&mut settings, "net_prio", "net_prio.ifpriomap", Some(format!("{interface} {priority}")));
        }
        for (device, handles, objects) in &self.rdma {
            let amount = |amount: &Option<u32>| amount.map_or("max".to_owned(), |amount| amount.to_string());
            let value = format!("{device} hca_handle={} hca_object={}", amount(handles), amount(objects));
            put(&mut settings, "rdma", "rdma.max", Some(value));
        }
        settings
    }

    fn cpu(&self, settings: &mut Vec<Setting>, version: Option<Version>) {
        let idle = self.cpu_idle.map(|idle| u8::from(idle).to_string());
        let burst = self.cpu_burst_us.map(|burst| burst.to_string());
        if version == Some(Version::V2) {
            let weight = self.cpu_shares.filter(|&shares| shares > 0).map(weight_of_shares);
            put(settings, "cpu", "cpu.weight", weight.map(|weight| weight.to_string()));
            if self.cpu_quota_us.is_some() || self.cpu_period_us.is_some() {
                let quota =
                    self.cpu_quota_us.filter(|&quota| quota > 0).map_or("max".into(), |quota| quota.to_string());
                // Without a period the kernel keeps the one that it has.
                let period = self.cpu_period_us.filter(|&period| period > 0);
                put(
                    settings,
                    "cpu",
                    "cpu.max",
                    Some(period.map_or(quota.clone(), |period| format!("{quota} {period}"))),
                );
            }
            put(settings, "cpu", "cpu.max.burst", burst);
        } else {
            let shares = self.cpu_shares.filter(|&shares| shares > 0);
            put(settings, "cpu", "cpu.shares", shares.map(|shares| shares.to_string()));
            let period = self.cpu_period_us.filter(|&period| period > 0);
            put(settings, "cpu", "cpu.cfs_period_us", period.map(|period| period.to_string()));
            let quota = self.cpu_quota_us.filter(|&quota| quota != 0);
            put(settings, "cpu", "cpu.cfs_quota_us", quota.map(|quota| quota.to_string()));
            put(settings, "cpu", "cpu.cfs_burst_us", burst);
            let period = self.cpu_realtime_period_us.filter(|&period| period > 0);
            put(settings, "cpu", "cpu.rt_period_us", period.map(|period| period.to_string()));
            let runtime = self.cpu_realtime_runtime_us.filter(|&runtime| runtime != 0);
            put(settings, "cpu", "cpu.rt_runtime_us", runtime.map(|runtime| runtime.to_string()));
        }
        put(settings, "cpu", "cpu.idle", idle);
    }

    fn memory(&self, settings: &mut Vec<Setting>, version: Option<Version>) {
        let (limit, both) = (self.memory_bytes.filter(|&b| b != 0), self.memory_swap_bytes.filter(|&b| b != 0));
        // No limit of memory is no limit of both, unless somebody says otherwise.
        let both = both.or(limit.filter(|&limit| limit < 0));
        let reservation = self.memory_reservation_bytes;
        if version == Some(Version::V2) {
            put(settings, "memory", "memory.max", limit.map(max_or));
            put(settings, "memory", "memory.low", reservation.map(max_or));
            // v2 counts swap apart from memory.
            let swap = both.map(|both| match limit {
                Some(limit) if both > 0 && limit > 0 => both.saturating_sub(limit).max(0),
                _ => both,
            });
            put_optional(settings, "memory", "memory.swap.max", swap.map(max_or));
        } else {
            put(settings, "memory", "memory.limit_in_bytes", limit.map(|limit| limit.to_string()));
            put(settings, "memory", "memory.soft_limit_in_bytes", reservation.map(|bytes| bytes.to_string()));
            put_optional(settings, "memory", "memory.memsw.limit_in_bytes", both.map(|both| both.to_string()));
            put(settings, "memory", "memory.swappiness", self.memory_swappiness.map(|it| it.to_string()));
            let waits = self.oom_waits.map(|waits| u8::from(waits).to_string());
            put(settings, "memory", "memory.oom_control", waits);
            let tcp = self.memory_tcp_bytes.filter(|&bytes| bytes != 0);
            put_optional(settings, "memory", "memory.kmem.tcp.limit_in_bytes", tcp.map(|bytes| bytes.to_string()));
        }
    }
}

fn max_or(bytes: i64) -> String {
    if bytes < 0 { "max".into() } else { bytes.to_string() }
}

pub(super) fn put(settings: &mut Vec<Setting>, controller: &'static str, file: &str, value: Option<String>) {
    settings.extend(value.map(|value| Setting { controller, file: file.to_owned(), value, optional: false }));
}

pub(super) fn put_optional(settings: &mut Vec<Setting>, controller: &'static str, file: &str, value: Option<String>) {
    settings.extend(value.map(|value| Setting { controller, file: file.to_owned(), value, optional: true }));
}

/// v1's shares (2 to 262144, 1024 by default) as v2's weight (1 to 10000, 100 by default): the curve through these
/// three points, exponential in the square of the logarithm, that the OCI runtimes agree on since 2025.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // 1024 must give exactly 100, whatever the last bit of the arithmetic says.
            ((10_f64.powf(exponent) - 1e-6).ceil() as u64).clamp(1, 10_000)
        }
    }
}

impl Cgroup {
    /// Writes the limits. A limit whose controller this machine does not have is an error.
    ///
    /// What the kernel refuses is tried once more after the others: of limits that bound one another (memory and swap,
    /// quota and period) which has to move first depends on the way.
    pub fn set(&self, limits: &Limits) -> Result<(), Error> {
        let limits = self.with_memory(limits)?;
        let mut refused = Vec::new();
        for setting in limits.settings(|controller| self.folder(controller).map(|(_, version)| version)) {
            let Some((folder, _)) = self.folder(setting.controller) else {
                if setting.optional {
                    continue;
                }
                return Err(Error::NoController { controller: setting.controller.to_owned() });
            };
            let path = folder.join(&setting.file);
            if (!setting.optional || path.exists()) && write(&path, &setting.value).is_err() {
                refused.push((path, setting.value));
            }
        }
        refused.iter().try_for_each(|(path, value)| write(path, value))
    }

    /// v2 counts swap apart from memory: a limit of both together stands for the rest beyond the limit of memory, which is
    /// the one that is there if no other is given.
    fn with_memory<'a>(&self, limits: &'a Limits) -> Result<Cow<'a, Limits>, Error> {
        let has = |bytes: Option<i64>| bytes.is_some_and(|bytes| bytes != 0);
        let Some((folder, Version::V2)) = self.folder("memory") else { return Ok(Cow::Borrowed(limits)) };
        let is_told = has(limits.memory_bytes) || limits.memory_swap_bytes.is_none_or(|both| both <= 0);
        if is_told || !folder.join("memory.swap.max").exists() {
            return Ok(Cow::Borrowed(limits));
        }
        let path = folder.join("memory.max");
        let memory_bytes = Some(read(&path)?.trim().parse().map_err(|_| Error::SwapAlone { path })?);
        Ok(Cow::Owned(Limits { memory_bytes, ..limits.clone() }))
    }

    /// Writes a value to a file of the unified hierarchy, as the OCI's `unified` map asks.
    pub fn set_unified(&self, file: &str, value: &str) -> Result<(), Error> {
        let folder = self.unified().ok_or_else(|| Error::NoController { controller: "unified".to_owned() })?;
        let path = folder.join(file);
        if file.is_empty() || file.contains('/') || file == ".." || file == "." {
            return Err(Error::Path { path: file.into() });
        }
        write(&path, value)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Folder;
    use super::*;

    fn check(version: Version, limits: Limits, expected: &[(&str, &str)]) {
        let settings = limits.settings(|_| Some(version));
        let seen: Vec<_> = settings.iter().map(|it| (it.file.as_str(), it.value.as_str())).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn each_version_has_its_own_files() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_bytes: Some(1 << 20),
            memory_swap_bytes: Some(3 << 20),
            pids: Some(10),
            ..Limits::default()
        };
        check(
            Version::V1,
            limits.clone(),
            &[
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("memory.limit_in_bytes", "1048576"),
                ("memory.memsw.limit_in_bytes", "3145728"),
                ("pids.max", "10"),
            ],
        );
        check(
            Version::V2,
            limits,
            &[
                ("cpu.weight", "100"),
                ("cpu.max", "50000 100000"),
                ("memory.max", "1048576"),
                ("memory.swap.max", "2097152"),
                ("pids.max", "10"),
            ],
        );
    }

    #[test]
    fn no_limit_is_written_as_each_version_writes_it() {
        let limits = Limits { cpu_quota_us: Some(-1), memory_bytes: Some(-1), pids: Some(-1), ..Limits::default() };
        let swap = ("memory.swap.max", "max");
        check(Version::V2, limits.clone(), &[("cpu.max", "max"), ("memory.max", "max"), swap, ("pids.max", "max")]);
        let both = ("memory.memsw.limit_in_bytes", "-1");
        let quota = ("cpu.cfs_quota_us", "-1");
        check(Version::V1, limits, &[quota, ("memory.limit_in_bytes", "-1"), both, ("pids.max", "max")]);
    }

    #[test]
    fn swap_is_what_both_may_be_beyond_the_memory_that_is_given_or_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let controllers = vec!["memory".to_owned()];
        let in_folder = Folder { root: path.clone(), path: path.clone(), controllers, version: Version::V2 };
        let cgroup = Cgroup { path: path.clone(), folders: vec![in_folder] };
        let set = |there: &str, memory_bytes: Option<i64>, both: i64| {
            fs::write(path.join("memory.max"), there).unwrap();
            fs::write(path.join("memory.swap.max"), "").unwrap();
            cgroup.set(&Limits { memory_bytes, memory_swap_bytes: Some(both), ..Limits::default() })?;
            Ok::<_, Error>(fs::read_to_string(path.join("memory.swap.max")).unwrap())
        };
        assert_eq!(set("1000\n", None, 3000).unwrap(), "2000");
        assert_eq!(set("1000\n", Some(2500), 3000).unwrap(), "500");
        assert_eq!(set("1000\n", None, -1).unwrap(), "max");
        assert_eq!(set("max\n", None, -1).unwrap(), "max");
        assert!(matches!(set("max\n", None, 3000), Err(Error::SwapAlone { .. })));
        fs::remove_file(path.join("memory.swap.max")).unwrap();
        let both = Limits { memory_swap_bytes: Some(3000), ..Limits::default() };
        assert!(cgroup.set(&both).is_ok(), "a kernel that does not count swap limits none");
    }

    #[test]
    fn shares_and_weights_meet_at_their_ends_and_defaults() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert!((2..262_144).step_by(97).is_sorted_by_key(weight_of_shares));
    }
}
