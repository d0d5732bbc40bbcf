//! The files that every container of a pod is shown: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::{NetworkMode, SandboxConfig};

/// Writes the three files into `folder`, which is made.
pub(crate) fn write(folder: &Path, config: &SandboxConfig, ips: &[IpAddr]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let hosts = match config.network {
        NetworkMode::Pod => hosts(config, ips),
        NetworkMode::Host => fs::read_to_string("/etc/hosts")? + &aliases(config),
    };
    let hostname = if config.hostname.is_empty() {
        fs::read_to_string("/proc/sys/kernel/hostname")?
    } else {
        format!("{}\n", config.hostname)
    };
    for (name, content) in [("hosts", hosts), ("resolv.conf", resolv_conf(config)), ("hostname", hostname)] {
        let path = folder.join(name);
        fs::write(&path, content)?;
        // Whoever the container's process is, it must be able to read them; only root may write, as on any machine.
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn hosts(config: &SandboxConfig, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = writeln!(text, "{ip}\t{}", config.hostname);
    }
    text + &aliases(config)
}

fn aliases(config: &SandboxConfig) -> String {
    config.host_aliases.iter().fold(String::new(), |mut text, alias| {
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
        text
    })
}

fn resolv_conf(config: &SandboxConfig) -> String {
    let mut text = String::new();
    if !config.dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", config.dns.searches.join(" "));
    }
    for server in &config.dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !config.dns.options.is_empty() {
        let _ = writeln!(text, "options {}", config.dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DnsConfig, HostAlias};

    #[test]
    fn a_pods_files_say_who_it_is_and_whom_it_asks() {
        let folder = tempfile::tempdir().unwrap();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let config = SandboxConfig {
            hostname: "web-0".into(),
            dns: DnsConfig { servers: words("10.96.0.10"), searches: words("a.svc b.svc"), options: words("ndots:5") },
            host_aliases: vec![HostAlias { ip: "10.1.2.3".parse().unwrap(), hostnames: words("db db.local") }],
            ..SandboxConfig::default()
        };
        write(folder.path(), &config, &["10.0.0.7".parse().unwrap()]).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("hosts").ends_with("10.0.0.7\tweb-0\n10.1.2.3\tdb\tdb.local\n"));
        assert_eq!(read("resolv.conf"), "search a.svc b.svc\nnameserver 10.96.0.10\noptions ndots:5\n");
        assert_eq!(read("hostname"), "web-0\n");
    }
}
