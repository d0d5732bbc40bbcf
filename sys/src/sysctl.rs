//! Kernel parameters that belong to a namespace.

use std::path::PathBuf;
use std::{fs, io};

use crate::namespace::Kind;

/// The namespace that a parameter belongs to; `None` for one of the whole machine.
pub fn namespace(name: &str) -> Option<Kind> {
    let name = name.replace('/', ".");
    match name.as_str() {
        "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni"
        | "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced" => Some(Kind::Ipc),
        "kernel.domainname" => Some(Kind::Uts),
        _ if name.starts_with("fs.mqueue.") => Some(Kind::Ipc),
        _ if name.starts_with("net.") => Some(Kind::Net),
        _ => None,
    }
}

/// The file of a parameter. As in sysctl(8) the first separator decides: in `net.ipv4.conf.eth0/1.forwarding` a slash
/// stands for a dot inside a name. `None` for what could lead elsewhere.
pub fn path(name: &str) -> Option<PathBuf> {
    let dots = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        Some(_) => name.to_owned(),
        None => return None,
    };
    let sane = dots.split('/').all(|part| !part.is_empty() && part != "." && part != "..") && !dots.contains('\0');
    sane.then(|| PathBuf::from(format!("/proc/sys/{dots}")))
}

/// Sets a parameter in the namespaces of the calling thread.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    let path = path(name).ok_or(io::ErrorKind::InvalidInput)?;
    fs::write(path, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_below_proc_sys_only() {
        let path_of = |name| path(name).map(|path| path.display().to_string());
        assert_eq!(path_of("net.ipv4.ip_forward").as_deref(), Some("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(path_of("net/ipv4/ip_forward").as_deref(), Some("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(path_of("net.ipv4.conf.eth0/1.rp").as_deref(), Some("/proc/sys/net/ipv4/conf/eth0.1/rp"));
        for bad in ["", "net", "net..x", "net/../../x", "../x", "net.//.x", "a.b\0"] {
            assert_eq!(path_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_namespaced_ones_have_a_namespace() {
        assert_eq!(namespace("net.core.somaxconn"), Some(Kind::Net));
        assert_eq!(namespace("kernel/shmmax"), Some(Kind::Ipc));
        assert_eq!(namespace("fs.mqueue.msg_max"), Some(Kind::Ipc));
        assert_eq!(namespace("kernel.panic"), None);
        assert_eq!(namespace("vm.swappiness"), None);
    }
}
