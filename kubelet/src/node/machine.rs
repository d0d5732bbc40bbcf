//! What the machine is, and how much of it is left: read from the kernel, never cached.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use nix::sys::statvfs::statvfs;
use nix::unistd::SysconfVar;

/// An address that is nobody's (RFC 5737, RFC 3849). Nothing is sent to it: the kernel is only asked for the way there.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// What does not change while the agent runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// Processors.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of the file system that holds the pods.
    pub storage_bytes: u64,
    /// Kernel, architecture, ids.
    pub info: NodeSystemInfo,
}

/// Something of which there is so much, and so much of it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// What is left.
    pub available: u64,
    /// The whole.
    pub capacity: u64,
}

/// How much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readings {
    /// Memory in bytes.
    pub memory: Level,
    /// Disk in bytes.
    pub disk: Level,
    /// Inodes.
    pub inodes: Level,
    /// Process numbers.
    pub pids: Level,
}

impl Machine {
    /// Looks at the machine. `state_dir` is where the pods live.
    pub(crate) fn read(state_dir: &Path) -> io::Result<Self> {
        let cpus = nix::unistd::sysconf(SysconfVar::_NPROCESSORS_ONLN)?.unwrap_or(1);
        Ok(Self {
            cpus: u64::try_from(cpus).unwrap_or(1),
            memory_bytes: memory()?.capacity,
            storage_bytes: disk(state_dir)?.0.capacity,
            info: system_info()?,
        })
    }
}

impl Readings {
    /// Looks at the machine.
    pub(crate) fn read(state_dir: &Path) -> io::Result<Self> {
        let (disk, inodes) = disk(state_dir)?;
        Ok(Self { memory: memory()?, disk, inodes, pids: pids()? })
    }
}

/// The addresses from which this machine reaches others, the one that leads to the default route first.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let routed: Vec<IpAddr> = ELSEWHERE.iter().filter_map(|target| source_address(target).ok()).collect();
    if !routed.is_empty() {
        return routed;
    }
    // No default route: any address that is not this machine's own business.
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()))
    });
    let own = addresses.find(|address| !address.is_loopback());
    // A machine without any network is still its own whole cluster.
    vec![own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))]
}

fn source_address(target: &str) -> io::Result<IpAddr> {
    let target: SocketAddr = target.parse().map_err(io::Error::other)?;
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    let address = socket.local_addr()?.ip();
    if address.is_unspecified() || address.is_loopback() {
        return Err(io::Error::other("no way out"));
    }
    Ok(address)
}

fn memory() -> io::Result<Level> {
    let text = read("/proc/meminfo")?;
    let level = Level {
        capacity: meminfo_bytes(&text, "MemTotal").unwrap_or(0),
        available: meminfo_bytes(&text, "MemAvailable").unwrap_or(0),
    };
    Ok(level)
}

/// One line of `/proc/meminfo`, `Name:   123 kB`.
fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes and inodes of the file system that `path` is on.
fn disk(path: &Path) -> io::Result<(Level, Level)> {
    let stat = statvfs(path)
        .map_err(|errno| io::Error::new(io::Error::from(errno).kind(), format!("{}: {errno}", path.display())))?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    let inodes = Level { available: stat.files_available(), capacity: stat.files() };
    Ok((Level { available: bytes(stat.blocks_available()), capacity: bytes(stat.blocks()) }, inodes))
}

fn pids() -> io::Result<Level> {
    let limit = |path| -> io::Result<u64> { read(path)?.trim().parse().map_err(io::Error::other) };
    let capacity = limit("/proc/sys/kernel/pid_max")?.min(limit("/proc/sys/kernel/threads-max")?);
    let used = threads(&read("/proc/loadavg")?).unwrap_or(0);
    Ok(Level { available: capacity.saturating_sub(used), capacity })
}

/// The second number of `1/234` in `/proc/loadavg`: all threads there are.
fn threads(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn system_info() -> io::Result<NodeSystemInfo> {
    let uname = nix::sys::utsname::uname()?;
    let line = |path: &str| read(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let version = concat!("berth://", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(NodeSystemInfo {
        architecture: architecture(&uname.machine().to_string_lossy()).to_owned(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: version,
        kernel_version: uname.release().to_string_lossy().into_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: format!("v{}", env!("CARGO_PKG_VERSION")),
        machine_id: line("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: os_image(&read("/etc/os-release").unwrap_or_default()),
        system_uuid: line("/sys/class/dmi/id/product_uuid"),
        ..NodeSystemInfo::default()
    })
}

/// Go's word for an architecture, which is what Kubernetes and image indexes say.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" => "386",
        other => other,
    }
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel() {
        let meminfo = "MemTotal:        8039256 kB\nMemFree:  1 kB\nMemAvailable:    4000000 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(8_039_256 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(4_000_000 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "Swap"), None);
        assert_eq!(threads("0.00 0.01 0.05 2/345 6789\n"), Some(345));
        assert_eq!(threads(""), None);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_image(""), "Linux");
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(Path::new("/")).unwrap();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.storage_bytes > 0);
        let readings = Readings::read(Path::new("/")).unwrap();
        assert!(readings.memory.available <= readings.memory.capacity && readings.pids.capacity > 0);
        assert!(Machine::read(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
    }
}
