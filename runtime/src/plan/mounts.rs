//! The root file system and what is mounted in it.
//!
//! All copies of the machine's mounts are taken first, while they still are peers of the machine's: a mount that shall
//! propagate can, and every other one is cut off while it is detached. Then each is attached to a descriptor of its
//! target, found below the root.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::{Cgroup, Version};
use berth_sys::mount::{
    self, Attributes, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, Reach,
};
use nix::fcntl::AT_FDCWD;
use oci_spec::runtime::{Mount as MountSpec, Spec};

use super::options::{self, Options};
use super::users::UserNamespace;
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
pub(super) struct Mounts<'a> {
    /// Sources that are opened by the process itself.
    source_steps: Vec<Step>,
    /// Sources by slot: those that are opened already, because the process could not.
    sources: Vec<Option<OwnedFd>>,
    steps: Vec<Step>,
    /// To be made read-only once everything is in place.
    sealed: Vec<PathBuf>,
    cgroup: &'a Cgroup,
    users: &'a UserNamespace,
    bundle: &'a Path,
    mount_label: Option<&'a str>,
}

/// What the mounts come to.
pub(super) struct Mounted {
    /// Up to the change of the root.
    pub(super) steps: Vec<Step>,
    /// After it.
    pub(super) after_root: Option<Step>,
    pub(super) sources: Vec<Option<OwnedFd>>,
}

pub(super) fn plan(
    spec: &Spec,
    (bundle, rootfs): (&Path, &Path),
    cgroup: &Cgroup,
    users: &UserNamespace,
) -> Result<Mounted, Error> {
    let linux = spec::linux(spec)?;
    let mut mounts = Mounts {
        source_steps: Vec::new(),
        sources: Vec::new(),
        steps: Vec::new(),
        sealed: Vec::new(),
        cgroup,
        users,
        bundle,
        mount_label: linux.mount_label().as_deref().filter(|label| !label.is_empty()),
    };
    let root = mounts.source(rootfs, Reach::Tree, None)?;
    let null = mounts.source(Path::new("/dev/null"), Reach::One, None)?;
    debug_assert_eq!((root, null), (ROOT_SOURCE, MASK_SOURCE));
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        mounts.add(mount, &format!("mounts[{number}]"))?;
    }
    devices::plan(spec, linux, &mut mounts)?;
    let paths = |list: &Option<Vec<String>>, field: &str| -> Result<Vec<PathBuf>, Error> {
        list.iter().flatten().map(|path| spec::inside(Path::new(path), || field.to_owned())).collect()
    };
    mounts.steps.extend(paths(linux.readonly_paths(), "linux.readonlyPaths")?.into_iter().map(Step::ReadOnly));
    mounts.steps.extend(paths(linux.masked_paths(), "linux.maskedPaths")?.into_iter().map(Step::Mask));
    mounts.steps.extend(mounts.sealed.into_iter().map(Step::Seal));
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        mounts.steps.push(Step::ReadOnlyRoot);
    }
    let mut steps = mounts.source_steps;
    steps.push(Step::Detach);
    let (early, after_root) = root_propagation(linux.rootfs_propagation().as_deref())?;
    steps.push(Step::Root { slot: ROOT_SOURCE, path: text(rootfs, "root.path")?, propagation: early });
    steps.extend(mounts.steps);
    Ok(Mounted { steps, after_root, sources: mounts.sources })
}

impl Mounts<'_> {
    /// A slot for a copy of what is at a path of the machine. Who is root of a user namespace only may not be able to
    /// open it, and never to map its owners: then it is opened here.
    fn source(&mut self, path: &Path, reach: Reach, idmap: Option<(OwnedFd, Reach)>) -> Result<usize, Error> {
        let slot = self.sources.len();
        let text = text(path, "mounts.source")?;
        if idmap.is_none() && !self.users.is_own() {
            self.sources.push(None);
            self.source_steps.push(Step::Source { slot, path: text, reach });
            return Ok(slot);
        }
        let failed = |errno: nix::Error, action: &str| Error::Setup {
            step: format!("{action} the mount source {}", path.display()),
            source: errno.into(),
        };
        let source = mount::copy(AT_FDCWD, &text, reach).map_err(|errno| failed(errno, "open"))?;
        if let Some((namespace, reach)) = idmap {
            mount::map_owners(&source, namespace, reach).map_err(|errno| failed(errno, "map the owners of"))?;
        }
        self.sources.push(Some(source));
        Ok(slot)
    }

    fn add(&mut self, mount: &MountSpec, field: &str) -> Result<(), Error> {
        let path = spec::inside(&spec::cleaned(mount.destination()), || format!("{field}.destination"))?;
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
                let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
                let source = source.ok_or_else(|| Error::spec(format!("{field}.source"), "is missing"))?;
                let source = self.bundle.join(source);
                let idmap = self.idmap(mount, &options, field)?;
                self.bind(&source, reach, Target::new(path, false), &options, idmap)
            }
            (None, "cgroup" | "cgroup2") => self.cgroup(&path, &options),
            (None, "") => Err(Error::spec(format!("{field}.type"), "is missing, and the options have no bind")),
            (None, kind) => {
                if options.idmap.is_some() || mount.uid_mappings().is_some() {
                    return Err(Error::spec(format!("{field}.uidMappings"), "are for binds only"));
                }
                self.new_file_system(kind, mount.source().as_deref(), path, options, field)
            }
        }
    }

    /// What a bind's owners are mapped by: an option asks for it, or mappings of its own do.
    fn idmap(&self, mount: &MountSpec, options: &Options, field: &str) -> Result<Option<(OwnedFd, Reach)>, Error> {
        let filled = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let (uids, gids) = (mount.uid_mappings(), mount.gid_mappings());
        let reach = match options.idmap {
            Some(reach) => reach,
            None if filled(uids) || filled(gids) => options.bind.unwrap_or(Reach::One),
            None => return Ok(None),
        };
        let own = if filled(uids) || filled(gids) { (uids.as_deref(), gids.as_deref()) } else { (None, None) };
        Ok(Some((self.users.for_mount(own, field)?, reach)))
    }

    fn bind(
        &mut self,
        source: &Path,
        reach: Reach,
        target: Target,
        options: &Options,
        idmap: Option<(OwnedFd, Reach)>,
    ) -> Result<(), Error> {
        let slot = self.source(source, reach, idmap)?;
        let (mut attributes, mut recursive) = (options.attributes, options.recursive);
        // Unless it is asked for, nothing that is mounted on either side shows on the other.
        match options.propagation.unwrap_or((PRIVATE, Reach::Tree)) {
            (propagation, Reach::One) => attributes.propagation = propagation,
            (propagation, Reach::Tree) => recursive.propagation = propagation,
        }
        self.push(Mount { target, content: Content::Copy { slot }, attributes, recursive });
        Ok(())
    }

    /// A device of the machine, shown in the container: for who may not make nodes.
    pub(super) fn bind_device(&mut self, path: &Path, at: PathBuf) -> Result<(), Error> {
        self.bind(path, Reach::One, Target::new(at, false), &Options::default(), None)
    }

    /// Whether the container is in a user namespace.
    pub(super) fn has_users(&self) -> bool {
        self.users.is_own()
    }

    fn new_file_system(
        &mut self,
        kind: &str,
        source: Option<&Path>,
        path: PathBuf,
        mut options: Options,
        field: &str,
    ) -> Result<(), Error> {
        let no_links = matches!(kind, "proc" | "sysfs");
        let mut attributes = options.attributes.set | options.recursive.set;
        // Devices, folders and what is copied still have to be made in what is read-only in the end.
        let filled_later = path == Path::new("/dev") || options.copy_up;
        if filled_later && attributes & MOUNT_ATTR_RDONLY != 0 {
            attributes &= !MOUNT_ATTR_RDONLY;
            self.sealed.push(path.clone());
        }
        let text_of = |text: &str| CString::new(text).map_err(|_| Error::spec(field, "has a zero byte"));
        // What df(1) and mountinfo show.
        if let Some(source) = source.and_then(Path::to_str).filter(|source| !source.is_empty()) {
            options.data.insert(0, (c"source".to_owned(), Some(text_of(source)?)));
        }
        if let Some(label) = self.mount_label.filter(|_| kind == "tmpfs" || kind == "mqueue") {
            options.data.push((c"context".to_owned(), Some(text_of(label)?)));
        }
        if options.copy_up && kind != "tmpfs" {
            return Err(Error::spec(format!("{field}.options"), "tmpcopyup is for tmpfs only"));
        }
        let propagation = options.propagation.map_or(0, |(propagation, _)| propagation);
        let inherits_mode = kind == "tmpfs" && !options.data.iter().any(|(key, _)| key.as_c_str() == c"mode");
        // The mode is set when the file system is there.
        let late = if inherits_mode { attributes & MOUNT_ATTR_RDONLY } else { 0 };
        attributes &= !late;
        let target = Target::new(path, no_links);
        let copy_up = options.copy_up.then(|| Step::CopyUp(target.clone()));
        // The image's own folder has to be held before it is covered.
        self.steps.extend(copy_up);
        self.push(Mount {
            target,
            content: Content::New { kind: text_of(kind)?, options: options.data, attributes, inherits_mode },
            attributes: Attributes { propagation, set: late, clear: 0 },
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
            return self.bind(folder, Reach::Tree, Target::new(path.to_owned(), true), &bind, None);
        }
        let content = Content::New {
            kind: c"tmpfs".to_owned(),
            options: vec![(c"mode".to_owned(), Some(c"755".to_owned()))],
            attributes: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
            inherits_mode: false,
        };
        let (attributes, recursive) = Default::default();
        self.push(Mount { target: Target::new(path.to_owned(), true), content, attributes, recursive });
        for (root, folder, _) in folders {
            let Some(name) = root.file_name() else { continue };
            self.bind(&folder, Reach::Tree, Target::new(path.join(name), true), &bind, None)?;
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
        self.step(Step::Mount(Box::new(mount)));
    }

    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
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

/// How the root is mounted, and what is changed when it is the root: a copy that is shared with the machine would show
/// the container's mounts there.
fn root_propagation(name: Option<&str>) -> Result<(u64, Option<Step>), Error> {
    const SHARED: u64 = nix::mount::MsFlags::MS_SHARED.bits();
    const UNBINDABLE: u64 = nix::mount::MsFlags::MS_UNBINDABLE.bits();
    let name = name.unwrap_or_default();
    if name.is_empty() {
        return Ok((PRIVATE, None));
    }
    let flag = options::named_propagation(name.strip_prefix('r').unwrap_or(name))
        .ok_or_else(|| Error::spec("linux.rootfsPropagation", format!("{name:?} is no propagation")))?;
    match flag {
        SHARED | UNBINDABLE => Ok((PRIVATE, Some(Step::RootPropagation(flag)))),
        _ => Ok((flag, None)),
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
