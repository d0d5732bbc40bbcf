//! An entry of `mounts`, understood: what is mounted where, and how. Nothing is opened for it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::mount::Reach;
use oci_spec::runtime::{Linux, Mount};

use super::options::{self, Options};
use super::users::{self, Owners};
use crate::error::Error;
use crate::limits::MACHINE_PATH_BYTES_MAX;
use crate::spec;

/// The files below `/proc` that something may be mounted on: what lxcfs replaces. Anything else would let an image's
/// volume stand in for the kernel's word.
const MASKABLE_PROC_FILES: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// One entry.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Its field, such as `mounts[3]`.
    pub(super) field: String,
    /// Where in the container: absolute and plain.
    pub(super) path: PathBuf,
    pub(super) what: What<'a>,
    pub(super) options: Options,
}

/// What is mounted.
#[derive(Debug)]
pub(super) enum What<'a> {
    /// What is at a path of the machine, as the bundle sees it.
    Bind { source: &'a Path, reach: Reach, owners: Option<(Owners, Reach)> },
    /// The container's own cgroup.
    Cgroup,
    /// A new file system of this type; its options have its source.
    New { kind: CString },
}

impl<'a> Entry<'a> {
    /// Reads entry `number`; whether the container is in a user namespace says if there is something to map owners by.
    pub(super) fn of(mount: &'a Mount, number: usize, has_users: bool) -> Result<Self, Error> {
        let field = format!("mounts[{number}]");
        let path = spec::inside(&spec::cleaned(mount.destination()), || format!("{field}.destination"))?;
        if path == Path::new("/") {
            return Err(Error::spec(format!("{field}.destination"), "is the container's root; that is root.path"));
        }
        let mut options = options::parse(mount.options().as_deref().unwrap_or_default())
            .map_err(|reason| Error::spec(format!("{field}.options"), reason))?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        let bind = options.bind.or((kind == "bind").then_some(Reach::One));
        check_proc(&path, kind, bind.is_some(), &field)?;
        let what = match (bind, kind) {
            (Some(reach), _) => {
                let source = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
                let source = source.ok_or_else(|| Error::spec(format!("{field}.source"), "is missing"))?;
                text(source, &format!("{field}.source"))?;
                What::Bind { source, reach, owners: owners(mount, &options, has_users, &field)? }
            }
            (None, "cgroup" | "cgroup2") => What::Cgroup,
            (None, "") => return Err(Error::spec(format!("{field}.type"), "is missing, and the options have no bind")),
            (None, kind) => new(mount, kind, &mut options, &field)?,
        };
        Ok(Self { field, path, what, options })
    }
}

/// What a bind's owners are mapped by: an option asks for it, or mappings of its own do.
fn owners(mount: &Mount, options: &Options, has_users: bool, field: &str) -> Result<Option<(Owners, Reach)>, Error> {
    let has_own = users::is_filled(mount.uid_mappings()) || users::is_filled(mount.gid_mappings());
    let reach = match options.idmap {
        Some(reach) => reach,
        None if has_own => options.bind.unwrap_or(Reach::One),
        None => return Ok(None),
    };
    match Owners::of(mount, field)? {
        Owners::Container if !has_users => Err(users::no_mappings(field)),
        owners => Ok(Some((owners, reach))),
    }
}

/// A new file system.
fn new<'a>(mount: &Mount, kind: &str, options: &mut Options, field: &str) -> Result<What<'a>, Error> {
    if options.idmap.is_some() || mount.uid_mappings().is_some() {
        return Err(Error::spec(format!("{field}.uidMappings"), "are for binds only"));
    }
    if options.copy_up && kind != "tmpfs" {
        return Err(Error::spec(format!("{field}.options"), "tmpcopyup is for tmpfs only"));
    }
    // What df(1) and mountinfo show.
    if let Some(source) = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty()) {
        options.data.insert(0, (c"source".to_owned(), Some(text(source, &format!("{field}.source"))?)));
    }
    let kind = CString::new(kind).map_err(|_| Error::spec(format!("{field}.type"), "has a zero byte"))?;
    Ok(What::New { kind })
}

/// What may be mounted on `/proc` or below.
fn check_proc(path: &Path, kind: &str, bind: bool, field: &str) -> Result<(), Error> {
    let itself = path == Path::new("/proc");
    let allowed = if itself {
        bind || kind == "proc"
    } else {
        !path.starts_with("/proc") || bind && MASKABLE_PROC_FILES.iter().any(|file| path == Path::new(file))
    };
    if allowed {
        return Ok(());
    }
    let reason = format!("{} must be the kernel's own", path.display());
    Err(Error::spec(format!("{field}.destination"), reason))
}

/// The SELinux context of new file systems of the container.
pub(super) fn label(linux: &Linux) -> Result<Option<CString>, Error> {
    let label = linux.mount_label().as_deref().filter(|label| !label.is_empty());
    label.map(|label| CString::new(label).map_err(|_| Error::spec("linux.mountLabel", "has a zero byte"))).transpose()
}

/// Paths in the container.
pub(super) fn paths(list: &Option<Vec<String>>, field: &str) -> Result<Vec<PathBuf>, Error> {
    let one = |(number, path): (usize, &String)| spec::inside(Path::new(path), || format!("{field}[{number}]"));
    list.iter().flatten().enumerate().map(one).collect()
}

/// A path of the machine as the kernel takes it.
pub(super) fn text(path: &Path, field: &str) -> Result<CString, Error> {
    if path.as_os_str().len() > MACHINE_PATH_BYTES_MAX {
        return Err(Error::spec(field, "is too long"));
    }
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::spec(field, "has a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_the_kernel_s() {
        let allowed = |path: &str, kind: &str, bind| check_proc(Path::new(path), kind, bind, "mounts[0]").is_ok();
        assert!(allowed("/proc", "proc", false));
        assert!(allowed("/proc", "bind", true));
        assert!(allowed("/proc/meminfo", "bind", true));
        assert!(allowed("/process", "tmpfs", false));
        assert!(!allowed("/proc", "tmpfs", false));
        assert!(!allowed("/proc/self/attr", "bind", true));
        assert!(!allowed("/proc/meminfo", "tmpfs", false));
    }
}
