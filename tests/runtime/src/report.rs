//! What a process can see of itself and of the world around it.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// A process's own view, read from `/proc`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its working folder.
    pub folder: String,
    /// Real, effective, saved and file system's user id.
    pub uids: Vec<u32>,
    /// As [`Self::uids`], of the group.
    pub gids: Vec<u32>,
    /// Supplementary groups, in order.
    pub groups: Vec<u32>,
    /// The five sets, by the names `inheritable`, `permitted`, `effective`, `bounding` and `ambient`: capability names.
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// The lines of `/proc/self/status`.
    pub status: BTreeMap<String, String>,
    /// Soft and hard limits, by the names of `/proc/self/limits`.
    pub limits: BTreeMap<String, (String, String)>,
    /// Its mounts, in the order of mounting.
    pub mounts: Vec<Mount>,
    /// Namespace numbers by kind, `net:[…]`.
    pub namespaces: BTreeMap<String, String>,
    /// What its open descriptors are.
    pub descriptors: BTreeMap<u32, String>,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: i32,
    /// The fields of `/proc/self/stat` that follow the name.
    pub stat: Vec<String>,
    /// `/proc/self/personality`, a hexadecimal number.
    pub personality: String,
    /// Other small files, by path; missing if they cannot be read.
    pub files: BTreeMap<String, String>,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Mount {
    /// Which part of the file system is mounted.
    pub root: String,
    /// Where.
    pub target: String,
    /// The options of the mount.
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`.
    pub propagation: Vec<String>,
    /// The kind of file system.
    pub kind: String,
    /// Its source.
    pub source: String,
    /// The options of the file system.
    pub super_options: Vec<String>,
}

impl Mount {
    /// Whether the mount, not the file system, has all these options.
    pub fn has(&self, options: &[&str]) -> bool {
        options.iter().all(|option| self.options.iter().any(|own| own == option))
    }
}

const FILES: [&str; 10] = [
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/self/cgroup",
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    "/proc/self/setgroups",
    "/proc/self/timens_offsets",
    "/proc/self/numa_maps",
    "/proc/self/loginuid",
    "/proc/uptime",
];

impl Report {
    /// What this process sees now.
    pub fn take() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let status = fields(&read("/proc/self/status").unwrap_or_default());
        let numbers = |name: &str| {
            let words = status.get(name).map(String::as_str).unwrap_or_default().split_whitespace();
            words.filter_map(|word| word.parse().ok()).collect()
        };
        let sets = [
            ("inheritable", "CapInh"),
            ("permitted", "CapPrm"),
            ("effective", "CapEff"),
            ("bounding", "CapBnd"),
            ("ambient", "CapAmb"),
        ];
        let set = |name: &str| capability_names(status.get(name).map(String::as_str).unwrap_or_default());
        let stat = read("/proc/self/stat").unwrap_or_default();
        Self {
            arguments: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            environment: std::env::vars_os()
                .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
                .collect(),
            folder: std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
            uids: numbers("Uid"),
            gids: numbers("Gid"),
            groups: numbers("Groups"),
            capabilities: sets.into_iter().map(|(name, line)| (name.to_owned(), set(line))).collect(),
            limits: read("/proc/self/limits").unwrap_or_default().lines().skip(1).filter_map(limit).collect(),
            mounts: read("/proc/self/mountinfo").unwrap_or_default().lines().filter_map(mount).collect(),
            namespaces: links("/proc/self/ns").into_iter().collect(),
            descriptors: links("/proc/self/fd")
                .into_iter()
                .filter_map(|(name, target)| Some((name.parse().ok()?, target)))
                // The descriptor through which they are listed.
                .filter(|(_, target)| !(target.starts_with("/proc/") && target.ends_with("/fd")))
                .collect(),
            oom_score_adj: read("/proc/self/oom_score_adj")
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(i32::MIN),
            stat: stat.rsplit(") ").next().unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            personality: read("/proc/self/personality").unwrap_or_default().trim().to_owned(),
            files: FILES.iter().filter_map(|path| Some(((*path).to_owned(), read(path)?))).collect(),
            status,
        }
    }

    /// A small file's text without the white space at its ends.
    pub fn file(&self, path: &str) -> &str {
        self.files.get(path).map(|text| text.trim()).unwrap_or_default()
    }

    /// What is mounted on top at a place.
    pub fn mount(&self, target: &str) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.target == target)
    }

    /// As [`Self::mount`], where something must be.
    #[track_caller]
    pub fn mounted(&self, target: &str) -> &Mount {
        self.mount(target).unwrap_or_else(|| panic!("nothing on {target}: {:#?}", self.mounts))
    }

    /// A field of `/proc/self/stat` by its number in proc(5), which counts from one.
    pub fn stat(&self, number: usize) -> &str {
        // The first two are the process's number and name.
        self.stat.get(number - 3).map(String::as_str).unwrap_or_default()
    }

    /// A set of capabilities.
    pub fn set(&self, name: &str) -> Vec<&str> {
        self.capabilities.get(name).into_iter().flatten().map(String::as_str).collect()
    }
}

fn fields(status: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    status.lines().filter_map(pair).collect()
}

fn links(folder: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), target.display().to_string()))
    };
    entries.filter_map(link).collect()
}

/// `Max open files            1024                 4096                 files`: the name may have spaces, but not two.
fn limit(line: &str) -> Option<(String, (String, String))> {
    let (name, rest) = line.split_once("  ")?;
    let mut values = rest.split_whitespace().map(str::to_owned);
    Some((name.to_owned(), (values.next()?, values.next()?)))
}

fn mount(line: &str) -> Option<Mount> {
    let (own, of_file_system) = line.split_once(" - ")?;
    let mut own = own.split(' ').skip(3);
    let mut rest = of_file_system.split(' ');
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Mount {
        root: own.next()?.to_owned(),
        target: own.next()?.to_owned(),
        options: list(own.next()?),
        propagation: own.map(str::to_owned).collect(),
        kind: rest.next()?.to_owned(),
        source: rest.next()?.to_owned(),
        super_options: list(rest.next()?),
    })
}

/// By their numbers in linux/capability.h.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn capability_names(mask: &str) -> Vec<String> {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    let name = |number: usize| match CAPABILITIES.get(number) {
        Some(name) => format!("CAP_{name}"),
        None => format!("CAP_{number}"),
    };
    (0..64).filter(|number| mask >> number & 1 == 1).map(name).collect()
}
