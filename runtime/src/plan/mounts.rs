//! The root file system and what is mounted in it.
//!
//! All copies of the machine's mounts are taken first, while they still are peers of the machine's: a mount that shall
//! propagate can, and every other one is cut off while it is detached. Then each is attached to a descriptor of its
//! target, found below the root.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::{Cgroup, Version};
use berth_sys::mount::{Attributes, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, Reach};
use oci_spec::runtime::{Mount as MountSpec, Spec};

use super::options::{self, Options};
use super::{Content, Mount, Step, Target, devices};
use crate::error::Error;
use crate::spec;

/// The slot of the root file system's copy.
const ROOT_SOURCE: usize = 0;

/// The slot of the null device's copy, which hides files.
pub(crate) const MASK_SOURCE: usize = 1;

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

/// The steps under construction.
struct Mounts<'a> {
    sources: Vec<Step>,
    steps: Vec<Step>,
    /// To be made read-only once everything is in place.
    sealed: Vec<PathBuf>,
    cgroup: &'a Cgroup,
}

/// Adds the steps to `setup`; returns how many sources they open.
pub(super) fn plan(spec: &Spec, rootfs: &Path, cgroup: &Cgroup, setup: &mut Vec<Step>) -> Result<usize, Error> {
    let linux = spec::linux(spec)?;
    let mut mounts = Mounts { sources: Vec::new(), steps: Vec::new(), sealed: Vec::new(), cgroup };
    let root = mounts.source(rootfs, Reach::Tree)?;
    let null = mounts.source(Path::new("/dev/null"), Reach::One)?;
    debug_assert_eq!((root, null), (ROOT_SOURCE, MASK_SOURCE));
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        mounts.add(mount, &format!("mounts[{number}]"))?;
    }
    mounts.steps.extend(devices::plan(spec, linux)?);
    let paths = |list: &Option<Vec<String>>, field: &str| -> Result<Vec<PathBuf>, Error> {
        list.iter().flatten().map(|path| spec::inside(Path::new(path), || field.to_owned())).collect()
    };
    mounts.steps.extend(paths(linux.readonly_paths(), "linux.readonlyPaths")?.into_iter().map(Step::ReadOnly));
    mounts.steps.extend(paths(linux.masked_paths(), "linux.maskedPaths")?.into_iter().map(Step::Mask));
    mounts.steps.extend(mounts.sealed.into_iter().map(Step::Seal));
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        mounts.steps.push(Step::ReadOnlyRoot);
    }
    let count = mounts.sources.len();
    setup.extend(mounts.sources);
    setup.push(Step::Detach);
    let propagation = root_propagation(linux.rootfs_propagation().as_deref())?;
    setup.push(Step::Root { slot: ROOT_SOURCE, path: text(rootfs, "root.path")?, propagation });
    setup.extend(mounts.steps);
    setup.push(Step::Pivot);
    Ok(count)
}

impl Mounts<'_> {
    fn source(&mut self, path: &Path, reach: Reach) -> Result<usize, Error> {
        let slot = self.sources.len();
        self.sources.push(Step::Source { slot, path: text(path, "mounts.source")?, reach });
        Ok(slot)
    }

    fn add(&mut self, mount: &MountSpec, field: &str) -> Result<(), Error> {
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(Error::unsupported(format!("{field}.uidMappings")));
        }
        let path = spec::inside(mount.destination(), || format!("{field}.destination"))?;
        if path == Path::new("/") {
            return Err(Error::spec(format!("{field}.destination"), "is the container's root; that is root.path"));
        }
        let options = options::parse(mount.options().as_deref().unwrap_or_default())
            .map_err(|reason| Error::spec(format!("{field}.options"), reason))?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        let bind = options.bind.or((kind == "bind").then_some(Reach::One));
        check_proc(&path, kind, bind.is_some(), field)?;
        match (bind, kind) {
            (Some(reach), _) => {
                let source = mount.source().as_ref().filter(|source| source.is_absolute());
                let source = source.ok_or_else(|| {
                    Error::spec(format!("{field}.source"), "is not an absolute path, as a bind needs")
                })?;
                self.bind(source, reach, Target::new(path, false), &options)
            }
            (None, "cgroup" | "cgroup2") => self.cgroup(&path, &options),
            (None, "") => Err(Error::spec(format!("{field}.type"), "is missing, and the options have no bind")),
            (None, kind) => self.new_file_system(kind, path, options, field),
        }
    }

    fn bind(&mut self, source: &Path, reach: Reach, target: Target, options: &Options) -> Result<(), Error> {
        let slot = self.source(source, reach)?;
        let (mut attributes, mut recursive) = (options.attributes, options.recursive);
        // Unless it is asked for, nothing that is mounted on either side shows on the other.
        match options.propagation.unwrap_or((PRIVATE, Reach::Tree)) {
            (propagation, Reach::One) => attributes.propagation = propagation,
            (propagation, Reach::Tree) => recursive.propagation = propagation,
        }
        self.push(Mount { target, content: Content::Copy { slot }, attributes, recursive });
        Ok(())
    }

    fn new_file_system(&mut self, kind: &str, path: PathBuf, options: Options, field: &str) -> Result<(), Error> {
        let no_links = matches!(kind, "proc" | "sysfs");
        let mut attributes = options.attributes.set | options.recursive.set;
        // Devices and folders still have to be made in a /dev that is read-only in the end.
        if path == Path::new("/dev") && attributes & MOUNT_ATTR_RDONLY != 0 {
            attributes &= !MOUNT_ATTR_RDONLY;
            self.sealed.push(path.clone());
        }
        let kind = CString::new(kind).map_err(|_| Error::spec(format!("{field}.type"), "has a zero byte"))?;
        let (propagation, _) = options.propagation.unwrap_or((0, Reach::One));
        self.push(Mount {
            target: Target::new(path, no_links),
            content: Content::New { kind, options: options.data, attributes },
            attributes: Attributes { propagation, ..Attributes::default() },
            recursive: Attributes::default(),
        });
        Ok(())
    }

    /// The container's own cgroup and nothing above it: its folder on v2, a folder of its folders on v1.
    fn cgroup(&mut self, path: &Path, options: &Options) -> Result<(), Error> {
        let folders: Vec<_> = self
            .cgroup
            .folders()
            .map(|(root, folder, version)| (root.to_owned(), folder.to_owned(), version))
            .collect();
        let bind = Options { propagation: None, attributes: options.attributes, ..Options::default() };
        if let [(_, folder, Version::V2)] = folders.as_slice() {
            return self.bind(folder, Reach::Tree, Target::new(path.to_owned(), true), &bind);
        }
        let content = Content::New {
            kind: c"tmpfs".to_owned(),
            options: vec![(c"mode".to_owned(), Some(c"755".to_owned()))],
            attributes: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        };
        let (attributes, recursive) = Default::default();
        self.push(Mount { target: Target::new(path.to_owned(), true), content, attributes, recursive });
        for (root, folder, _) in folders {
            let Some(name) = root.file_name() else { continue };
            self.bind(&folder, Reach::Tree, Target::new(path.join(name), true), &bind)?;
            for controller in name.to_str().unwrap_or_default().split(',').filter(|part| *part != name) {
                let to = CString::new(name.as_bytes()).unwrap_or_default();
                self.steps.push(Step::Link { at: Target::new(path.join(controller), true), to });
            }
        }
        if options.attributes.set & MOUNT_ATTR_RDONLY != 0 {
            self.sealed.push(path.to_owned());
        }
        Ok(())
    }

    fn push(&mut self, mount: Mount) {
        self.steps.push(Step::Mount(Box::new(mount)));
    }
}

const PRIVATE: u64 = nix::mount::MsFlags::MS_PRIVATE.bits();

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

fn root_propagation(name: Option<&str>) -> Result<u64, Error> {
    match name.unwrap_or_default() {
        "" => Ok(PRIVATE),
        name => options::named_propagation(name.strip_prefix('r').unwrap_or(name))
            .ok_or_else(|| Error::spec("linux.rootfsPropagation", format!("{name:?} is no propagation"))),
    }
}

pub(super) fn text(path: &Path, field: &str) -> Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::spec(field, "has a zero byte"))
}

impl Target {
    /// A target at a path that was made plain by [`spec::inside`].
    pub(crate) fn new(path: PathBuf, no_links: bool) -> Self {
        let mut above: Vec<_> = path
            .ancestors()
            .skip(1)
            .filter_map(|folder| Some((folder.to_owned(), folder.file_name()?.to_owned())))
            .collect();
        above.reverse();
        let name = path.file_name().unwrap_or_default().to_owned();
        Self { path, above, name, no_links }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_knows_the_folders_above_it() {
        let target = Target::new("/a/b/c".into(), false);
        let above: Vec<_> =
            target.above.iter().map(|(path, name)| (path.to_str().unwrap(), name.to_str().unwrap())).collect();
        assert_eq!(above, [("/a", "a"), ("/a/b", "b")]);
        assert_eq!(target.name, "c");
    }

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
