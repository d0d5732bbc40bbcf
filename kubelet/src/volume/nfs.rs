//! NFS by the kernel's own mount call: the options that a mount program would put together.

use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use berth_sys::mountinfo;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount as mount_call};

use super::VolumeError;
use super::recipe::Export;

const NFS_PORT: u16 = 2049;
/// The newest first.
const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];

/// One try to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    /// `server:path`.
    source: String,
    /// The options of nfs(5) as the kernel takes them.
    options: String,
}

/// Mounts an export, unless something is mounted there already. May take as long as the server does.
pub(super) fn mount(path: &Path, export: &Export) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(VolumeError::file("make", path))?;
    let real = fs::canonicalize(path).map_err(VolumeError::file("look at", path))?;
    let failed = |message: String| VolumeError::Mount {
        what: format!("nfs {}:{}", export.server, export.path),
        path: path.to_owned(),
        message,
    };
    if mountinfo::is_mounted(&real).map_err(|error| failed(error.to_string()))? {
        return Ok(());
    }
    if !kernel_has_nfs() {
        return Err(failed(NO_NFS.to_owned()));
    }
    let server = resolve(&export.server).map_err(failed)?;
    let client = local_address(server);
    let flags = if export.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let mut last = Errno::ENODEV;
    for attempt in attempts(export, server, client) {
        let options = Some(attempt.options.as_str());
        match mount_call(Some(attempt.source.as_str()), path, Some("nfs"), flags, options) {
            Ok(()) => return Ok(()),
            // The server, or the kernel, does not know this version: an older one may do.
            Err(errno @ (Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP)) => last = errno,
            Err(Errno::ENODEV) => return Err(failed(NO_NFS.to_owned())),
            Err(errno) => return Err(failed(errno.desc().to_owned())),
        }
    }
    Err(failed(format!("{} (versions {} were tried)", last.desc(), VERSIONS.join(", "))))
}

const NO_NFS: &str = "this node's kernel has no NFS client: load the modules nfs, nfsv4 and nfsv3, or use a kernel with \
                      CONFIG_NFS_FS";

/// Whether the kernel knows the file system, or can load it as a module when it is asked to mount one.
fn kernel_has_nfs() -> bool {
    let listed = fs::read_to_string("/proc/filesystems").is_ok_and(|text| lists_nfs(&text));
    // Without modules, what is not listed is not there.
    listed || Path::new("/proc/modules").exists()
}

fn lists_nfs(filesystems: &str) -> bool {
    filesystems.lines().filter_map(|line| line.split_whitespace().last()).any(|name| name.starts_with("nfs"))
}

/// The tries, best first.
fn attempts(export: &Export, server: IpAddr, client: Option<IpAddr>) -> Vec<Attempt> {
    let host = match export.server.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => export.server.clone(),
    };
    let source = format!("{host}:{}", export.path);
    let options = |version: &str| {
        let proto = if server.is_ipv6() { "tcp6" } else { "tcp" };
        let mut options = vec![format!("vers={version}"), format!("proto={proto}"), format!("addr={server}")];
        match version {
            // The kernel asks the server's mount daemon itself. There is no lock daemon here to talk to.
            "3" => options.extend([format!("mountaddr={server}"), "nolock".to_owned()]),
            // Where a server of 4.0 calls back.
            "4.0" => options.extend(client.map(|client| format!("clientaddr={client}"))),
            _ => {}
        }
        options.join(",")
    };
    VERSIONS.iter().map(|version| Attempt { source: source.clone(), options: options(version) }).collect()
}

fn resolve(server: &str) -> Result<IpAddr, String> {
    if let Ok(address) = server.parse() {
        return Ok(address);
    }
    let found = (server, NFS_PORT).to_socket_addrs().map_err(|error| format!("server {server:?}: {error}"))?;
    let mut found: Vec<_> = found.map(|address| address.ip()).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found.first().copied().ok_or_else(|| format!("server {server:?} has no address"))
}

/// The address that packets to the server leave from. Nothing is sent.
fn local_address(server: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = if server.is_ipv6() { "[::]:0".parse().ok()? } else { "0.0.0.0:0".parse().ok()? };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((server, NFS_PORT)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: &str, address: &str, expected: [(&str, &str); 4]) {
        let export = Export { server: server.to_owned(), path: "/data".to_owned(), read_only: false };
        let tries = attempts(&export, address.parse().unwrap(), Some("192.0.2.9".parse().unwrap()));
        let got: Vec<_> = tries.iter().map(|one| (one.source.as_str(), one.options.as_str())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn the_newest_version_is_tried_first() {
        let source = "files.example:/data";
        check(
            "files.example",
            "192.0.2.1",
            [
                (source, "vers=4.2,proto=tcp,addr=192.0.2.1"),
                (source, "vers=4.1,proto=tcp,addr=192.0.2.1"),
                (source, "vers=4.0,proto=tcp,addr=192.0.2.1,clientaddr=192.0.2.9"),
                (source, "vers=3,proto=tcp,addr=192.0.2.1,mountaddr=192.0.2.1,nolock"),
            ],
        );
    }

    #[test]
    fn an_address_of_six_is_bracketed() {
        let export = Export { server: "2001:db8::1".to_owned(), path: "/d".to_owned(), read_only: true };
        let first = attempts(&export, "2001:db8::1".parse().unwrap(), None).remove(0);
        assert_eq!(first.source, "[2001:db8::1]:/d");
        assert_eq!(first.options, "vers=4.2,proto=tcp6,addr=2001:db8::1");
    }

    #[test]
    fn the_kernels_list_is_read() {
        assert!(lists_nfs("nodev\ttmpfs\nnodev\tnfs4\n"));
        assert!(!lists_nfs("nodev\ttmpfs\n\text4\n"));
    }
}
