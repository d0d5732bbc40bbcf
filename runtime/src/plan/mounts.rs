//! The root file system and what is mounted in it.
//!
//! All copies of the machine's mounts are taken first, while they still are peers of the machine's: a mount that shall
//! propagate can, and every other one is cut off while it is detached. Then each is attached to a descriptor of its
//! target, found below the root.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::{Cgroup, Version};
use berth_sys::mount::{
    self, Attributes, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, Reach,
};
use nix::fcntl::AT_FDCWD;
use oci_spec::runtime::Spec;

use super::entry::{self, Entry, What};
use super::options::{self, Options};
use super::users::UserNamespace;
use super::{Content, Making, Mount, Step, Target, devices};
use crate::error::Error;
use crate::spec;

/// The slot of the root file system's copy.
const ROOT_SOURCE: usize = 0;

/// The slot of the null device's copy, which hides files.
pub(crate) const MASK_SOURCE: usize = 1;

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
    making: Making,
    /// What needs the cgroup, if that is made meanwhile.
    late: Vec<Step>,
    users: &'a UserNamespace,
    bundle: &'a Path,
    /// The SELinux context of new file systems.
    label: Option<CString>,
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
    (cgroup, making): (&Cgroup, Making),
    users: &UserNamespace,
) -> Result<Mounted, Error> {
    let linux = spec::linux(spec)?;
    let mut mounts = Mounts {
        source_steps: Vec::new(),
        sources: Vec::new(),
        steps: Vec::new(),
        sealed: Vec::new(),
        cgroup,
        making,
        late: Vec::new(),
        users,
        bundle,
        label: entry::label(linux)?,
    };
    let root = mounts.source(rootfs, Reach::Tree, None)?;
    let null = mounts.source(Path::new("/dev/null"), Reach::One, None)?;
    debug_assert_eq!((root, null), (ROOT_SOURCE, MASK_SOURCE));
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        mounts.add(Entry::of(mount, number, users.is_own())?)?;
    }
    devices::plan(spec, linux, &mut mounts)?;
    mounts.steps.extend(entry::paths(linux.readonly_paths(), "linux.readonlyPaths")?.into_iter().map(Step::ReadOnly));
    mounts.steps.extend(entry::paths(linux.masked_paths(), "linux.maskedPaths")?.into_iter().map(Step::Mask));
    if making == Making::Meanwhile {
        mounts.steps.push(Step::AwaitCgroup);
        mounts.steps.extend(enter(cgroup)?);
        mounts.steps.append(&mut mounts.late);
    }
    mounts.steps.extend(mounts.sealed.into_iter().map(Step::Seal));
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        mounts.steps.push(Step::ReadOnlyRoot);
    }
    let mut steps = mounts.source_steps;
    steps.push(Step::Detach);
    let (early, after_root) = root_propagation(linux.rootfs_propagation().as_deref())?;
    steps.push(Step::Root { slot: ROOT_SOURCE, path: entry::text(rootfs, "root.path")?, propagation: early });
    steps.extend(mounts.steps);
    Ok(Mounted { steps, after_root, sources: mounts.sources })
}

impl Mounts<'_> {
    /// A slot for a copy of what is at a path of the machine. Who is root of a user namespace only may not be able to
    /// open it, and never to map its owners: then it is opened here.
    fn source(&mut self, path: &Path, reach: Reach, idmap: Option<(OwnedFd, Reach)>) -> Result<usize, Error> {
        let slot = self.sources.len();
        let text = entry::text(path, "mounts.source")?;
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

    fn add(&mut self, entry: Entry<'_>) -> Result<(), Error> {
        let Entry { field, path, what, options } = entry;
        match what {
            What::Bind { source, reach, owners } => {
                let idmap = match owners {
                    Some((owners, reach)) => Some((self.users.for_mount(&owners, &field)?, reach)),
                    None => None,
                };
                self.bind(&self.bundle.join(source), reach, Target::new(path, false), &options, idmap)
            }
            What::Cgroup => self.add_cgroup(&path, &options),
            What::New { kind } => {
                self.new_file_system(kind, path, options);
                Ok(())
            }
        }
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

    fn new_file_system(&mut self, kind: CString, path: PathBuf, mut options: Options) {
        let is = |name: &CStr| *kind == *name;
        let no_links = is(c"proc") || is(c"sysfs");
        let mut attributes = options.attributes.set | options.recursive.set;
        // Devices, folders and what is copied still have to be made in what is read-only in the end.
        let filled_later = path == Path::new("/dev") || options.copy_up;
        if filled_later && attributes & MOUNT_ATTR_RDONLY != 0 {
            attributes &= !MOUNT_ATTR_RDONLY;
            self.sealed.push(path.clone());
        }
        if let Some(label) = self.label.as_ref().filter(|_| is(c"tmpfs") || is(c"mqueue")) {
            options.data.push((c"context".to_owned(), Some(label.clone())));
        }
        let propagation = options.propagation.map_or(0, |(propagation, _)| propagation);
        let inherits_mode = is(c"tmpfs") && !options.data.iter().any(|(key, _)| key.as_c_str() == c"mode");
        // The mode is set when the file system is there.
        let late = if inherits_mode { attributes & MOUNT_ATTR_RDONLY } else { 0 };
        attributes &= !late;
        let target = Target::new(path, no_links);
        let copy_up = options.copy_up.then(|| Step::CopyUp(target.clone()));
        // The image's own folder has to be held before it is covered.
        self.steps.extend(copy_up);
        self.push(Mount {
            target,
            content: Content::New { kind, options: options.data, attributes, inherits_mode },
            attributes: Attributes { propagation, set: late, clear: 0 },
            recursive: Attributes::default(),
        });
    }

    /// The cgroup's mounts, now or when it is there.
    fn add_cgroup(&mut self, path: &Path, options: &Options) -> Result<(), Error> {
        if self.making == Making::Before {
            return self.cgroup(path, options);
        }
        let (sources, steps) = (std::mem::take(&mut self.source_steps), std::mem::take(&mut self.steps));
        let added = self.cgroup(path, options);
        self.late.extend(std::mem::replace(&mut self.source_steps, sources));
        self.late.extend(std::mem::replace(&mut self.steps, steps));
        added
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

/// The ways into the cgroup's v1 folders, by their paths on the machine.
fn enter(cgroup: &Cgroup) -> Result<Vec<Step>, Error> {
    let v1 = cgroup.folders().filter(|(_, _, version)| *version == Version::V1);
    v1.map(|(_, folder, _)| Ok(Step::EnterCgroup { tasks: entry::text(&folder.join("tasks"), "linux.cgroupsPath")? }))
        .collect()
}

const PRIVATE: u64 = nix::mount::MsFlags::MS_PRIVATE.bits();

/// How the root is mounted, and what is changed when it is the root: a copy that is shared with the machine would show
/// the container's mounts there.
pub(super) fn root_propagation(name: Option<&str>) -> Result<(u64, Option<Step>), Error> {
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

impl Target {
    /// A target at a path that was made plain by [`spec::inside`].
    pub(crate) fn new(path: PathBuf, no_links: bool) -> Self {
        let name = path.file_name().unwrap_or_default().to_owned();
        Self { path, name, no_links }
    }

    /// The folders above it from the top down: path and name of each. Allocates nothing.
    pub(crate) fn above(&self) -> impl Iterator<Item = (&Path, &OsStr)> {
        let bytes = self.path.as_os_str().as_bytes();
        let slashes = bytes.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
        slashes.map(|(end, _)| {
            let folder = Path::new(OsStr::from_bytes(&bytes[..end]));
            (folder, folder.file_name().unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_knows_the_folders_above_it() {
        let check = |path: &str, expected: &[(&str, &str)]| {
            let target = Target::new(path.into(), false);
            let above: Vec<_> =
                target.above().map(|(path, name)| (path.to_str().unwrap(), name.to_str().unwrap())).collect();
            assert_eq!(above, expected, "{path}");
        };
        check("/a/b/c", &[("/a", "a"), ("/a/b", "b")]);
        check("/a", &[]);
        check("/", &[]);
        assert_eq!(Target::new("/a/b/c".into(), false).name, "c");
    }
}
