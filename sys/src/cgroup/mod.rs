//! Control groups, of both versions and of machines that mix them: one [`Cgroup`] is the same path below every
//! hierarchy that matters.
//!
//! | file | what |
//! |---|---|
//! | `hierarchy` | where the controllers of this machine are |
//! | `limits`, `block` | limits and the files they are written to |
//! | `end` | killing what is inside, removing the folders |
//! | `freeze` | stopping what is inside, and letting it go on |
//! | `membership` | which cgroups a process is in |
//! | [`oom`] | being told of the OOM killer |
//! | [`device`] | which devices may be used: a list on v1, a BPF program on v2 |
//!
//! On v1 a folder is made only where a controller is wanted: each hierarchy that a process has to be moved into costs
//! about 0.25 ms. Into the unified hierarchy a process is born.

mod block;
pub mod device;
mod end;
mod freeze;
mod hierarchy;
mod limits;
mod membership;
pub mod oom;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

pub use end::END_DEADLINE;
pub use hierarchy::{Hierarchies, Version};
pub use limits::{BlockIo, Device, HugepageLimit, Limits, weight_of_shares};
pub use membership::Membership;

/// What a thread writes to a door of [`Cgroup::open_doors`] to go in.
pub const DOOR_KEY: &[u8] = b"0";

/// The longest control file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How often enabling controllers is tried against somebody who disables them.
const ENABLE_TRIES: usize = 10;

/// What can go wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that is not absolute below the hierarchies' roots, or leaves them.
    #[error("cgroup path {path:?} is not absolute, or has empty, `.` or `..` parts")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The machine mounts no hierarchy with this controller.
    #[error("no cgroup hierarchy with the {controller} controller is mounted")]
    NoController {
        /// Its name.
        controller: String,
    },
    /// A folder or file of the cgroup file system.
    #[error("cannot {action} {path}")]
    File {
        /// `make`, `read`, `write "…" to`, `remove` …
        action: String,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// v2: memory and swap together shall have a limit, and memory has none.
    #[error("memory and swap together cannot be limited where {path} is no limit")]
    SwapAlone {
        /// The file that tells the limit of memory.
        path: PathBuf,
    },
    /// There are still processes inside.
    #[error("cgroup {path} still has processes after {seconds} s")]
    Busy {
        /// The cgroup.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
}

impl Error {
    fn file(action: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action: action.into(), path: path.to_owned(), source }
    }
}

/// One cgroup: its folder in each hierarchy that berth uses. It may or may not exist.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
    folders: Vec<Folder>,
}

/// A cgroup's folder in one hierarchy.
#[derive(Debug, Clone)]
struct Folder {
    /// Where the hierarchy is mounted.
    root: PathBuf,
    /// The cgroup's folder.
    path: PathBuf,
    /// v1: what is mounted there; v2: what it can control.
    controllers: Vec<String>,
    version: Version,
}

impl Cgroup {
    /// The cgroup at `path`, absolute below the root of each hierarchy, with the folders that `wanted` controllers
    /// are in (all that berth limits if empty) and the unified hierarchy's. Touches nothing.
    pub fn new(hierarchies: &Hierarchies, path: &Path, wanted: &[&str]) -> Result<Self, Error> {
        let relative = relative(path)?;
        let folders = hierarchies
            .serving(wanted)
            .map(|hierarchy| Folder {
                root: hierarchy.root.clone(),
                path: hierarchy.root.join(relative),
                controllers: hierarchy.controllers_for(wanted),
                version: hierarchy.version,
            })
            .collect();
        Ok(Self { path: path.to_owned(), folders })
    }

    /// The path it was named by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folders, and those above them. Controllers of the unified hierarchy are enabled down to this cgroup;
    /// v1 cpusets, which begin empty and then hold nobody, get what their parent has. Made already is success.
    pub fn make(&self) -> Result<(), Error> {
        self.folders.iter().try_for_each(Folder::make)
    }

    /// Makes the folder in the unified hierarchy, as [`Self::make`] does: what a process can be born into.
    pub fn make_unified(&self) -> Result<(), Error> {
        self.folders.iter().filter(|folder| folder.version == Version::V2).try_for_each(Folder::make)
    }

    /// The folder in the hierarchy with this controller, and that hierarchy's version.
    pub fn folder(&self, controller: &str) -> Option<(&Path, Version)> {
        let of = |folder: &&Folder| folder.controllers.iter().any(|name| name == controller);
        self.folders.iter().find(of).map(|folder| (folder.path.as_path(), folder.version))
    }

    /// The folder in the unified hierarchy, with or without controllers.
    pub fn unified(&self) -> Option<&Path> {
        self.folders.iter().find(|folder| folder.version == Version::V2).map(|folder| folder.path.as_path())
    }

    /// Every folder with the name that its hierarchy goes by below `/sys/fs/cgroup`, the unified one first.
    pub fn folders(&self) -> impl Iterator<Item = (&Path, &Path, Version)> {
        self.folders.iter().map(|folder| (folder.root.as_path(), folder.path.as_path(), folder.version))
    }

    /// Whether any of its folders exists.
    pub fn exists(&self) -> bool {
        self.folders.iter().any(|folder| folder.path.exists())
    }

    /// The unified folder opened, for `clone3` to begin a process in.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>, Error> {
        self.unified().map(|path| open_folder(path).map_err(Error::file("open", path))).transpose()
    }

    /// Opens the door to each v1 folder, for a process of one thread to go in itself by [`DOOR_KEY`] (into the unified
    /// one it should be born).
    ///
    /// Who is moved by another waits for the whole machine: the kernel takes a lock against every fork and exec, up to
    /// some ten milliseconds. A thread that moves itself by the `tasks` file takes none.
    pub fn open_doors(&self) -> Result<Vec<(PathBuf, OwnedFd)>, Error> {
        let v1 = self.folders.iter().filter(|folder| folder.version == Version::V1);
        v1.map(|folder| {
            let path = folder.path.join("tasks");
            let door = OpenOptions::new().write(true).open(&path).map_err(Error::file("open", &path))?;
            Ok((folder.path.clone(), door.into()))
        })
        .collect()
    }

    /// Makes the folders that are missing, and moves the processes of the cgroup into them: for a controller that is
    /// wanted when they run already. Slow, see [`Self::open_doors`].
    pub fn join_missing(&self) -> Result<(), Error> {
        let missing: Vec<&Folder> = self.folders.iter().filter(|folder| !folder.path.exists()).collect();
        missing.iter().try_for_each(|folder| folder.make())?;
        for folder in missing {
            let inside = folder.path.join("cgroup.procs");
            // Who is born meanwhile begins where its parent is: after one look that finds nobody new, all are there.
            while let Some(pid) = {
                let there = processes_in(&folder.path)?;
                self.processes()?.into_iter().find(|pid| !there.contains(pid))
            } {
                match write(&inside, &pid.to_string()) {
                    Err(Error::File { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// The cgroup at a relative path below this one, in the hierarchies of these controllers; in all if none are named.
    pub fn below(&self, path: &Path, controllers: &[&str]) -> Result<Self, Error> {
        let relative = relative(&Path::new("/").join(path))?.to_owned();
        if let Some(missing) = controllers.iter().find(|name| self.folder(name).is_none()) {
            return Err(Error::NoController { controller: (*missing).to_owned() });
        }
        let is_meant = |folder: &Folder| {
            controllers.is_empty() || folder.controllers.iter().any(|name| controllers.contains(&name.as_str()))
        };
        let folders = self.folders.iter().map(|folder| {
            let path = if is_meant(folder) { folder.path.join(&relative) } else { folder.path.clone() };
            Folder { path, ..folder.clone() }
        });
        Ok(Self { path: self.path.join(&relative), folders: folders.collect() })
    }

    /// Every process in this cgroup and in those below, as any one hierarchy knows them, in ascending order.
    pub fn all_processes(&self) -> Result<Vec<i32>, Error> {
        let Some(folder) = self.folders.first() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        for folder in end::tree(&folder.path)? {
            pids.extend(processes_in(&folder)?);
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// The processes in this very cgroup (not in those below), as any one hierarchy knows them.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        match self.folders.first() {
            Some(folder) => processes_in(&folder.path),
            None => Ok(Vec::new()),
        }
    }
}

impl Folder {
    fn make(&self) -> Result<(), Error> {
        match fs::create_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for folder in self.chain() {
                    let result = fs::create_dir(folder);
                    ignoring(result, io::ErrorKind::AlreadyExists).map_err(Error::file("make", folder))?;
                    self.prepare(folder)?;
                }
                Ok(())
            }
            other => {
                ignoring(other, io::ErrorKind::AlreadyExists).map_err(Error::file("make", &self.path))?;
                self.prepare(&self.path)
            }
        }
    }

    /// The folders from just below the hierarchy's root down to this one.
    fn chain(&self) -> Vec<&Path> {
        let mut chain: Vec<&Path> = self.path.ancestors().take_while(|folder| *folder != self.root).collect();
        chain.reverse();
        chain
    }

    fn prepare(&self, folder: &Path) -> Result<(), Error> {
        match self.version {
            Version::V1 if self.controllers.iter().any(|name| name == "cpuset") => inherit_cpuset(folder),
            Version::V1 => Ok(()),
            Version::V2 => self.enable_controllers(folder),
        }
    }

    /// A folder has the controllers that its parent gives in `cgroup.subtree_control`.
    fn enable_controllers(&self, folder: &Path) -> Result<(), Error> {
        if self.controllers.is_empty() {
            return Ok(());
        }
        let present = read(&folder.join("cgroup.controllers"))?;
        let missing = |name: &&String| !present.split_ascii_whitespace().any(|word| word == name.as_str());
        let command: Vec<String> = self.controllers.iter().filter(missing).map(|name| format!("+{name}")).collect();
        if command.is_empty() {
            return Ok(());
        }
        let givers = self.chain_to(folder);
        while_taken_back(|| {
            givers.iter().try_for_each(|giver| write(&giver.join("cgroup.subtree_control"), &command.join(" ")))
        })
    }

    /// From the hierarchy's root to the parent of `folder`.
    fn chain_to<'a>(&self, folder: &'a Path) -> Vec<&'a Path> {
        let mut chain: Vec<&Path> =
            folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)).collect();
        chain.reverse();
        chain
    }
}

/// Enables from the root down, and again from there when somebody else disabled a controller above meanwhile: then the
/// kernel says that it does not exist. systemd takes back from the root what no unit of its own needs, as long as no
/// cgroup below gives it on: once the chain is whole it stays.
fn while_taken_back(mut enable: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    for _ in 1..ENABLE_TRIES {
        match enable() {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    enable()
}

fn inherit_cpuset(folder: &Path) -> Result<(), Error> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(&folder.join(file))?.trim().is_empty() {
            write(&folder.join(file), read(&parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

fn relative(path: &Path) -> Result<&Path, Error> {
    let wrong = || Error::Path { path: path.to_owned() };
    let text = path.to_str().ok_or_else(wrong)?;
    let relative = path.strip_prefix("/").map_err(|_| wrong())?;
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    // `components` hides `.` and empty parts, which the same cgroup must not be named by.
    let written_so = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|p| !p.is_empty() && p != "."));
    if plain && written_so && !text.contains(['\0', '\n']) { Ok(relative) } else { Err(wrong()) }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)?;
    Ok(file.into())
}

fn processes_in(folder: &Path) -> Result<Vec<i32>, Error> {
    let path = folder.join("cgroup.procs");
    match read(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // ENODEV: the cgroup was removed between open and read.
        Err(Error::File { source, .. }) if is_gone(&source) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn ignoring(result: io::Result<()>, kind: io::ErrorKind) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let bytes = crate::file::read_limited(path, FILE_BYTES_MAX).map_err(Error::file("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Control files take a value in one `write`.
fn write(path: &Path, value: &str) -> Result<(), Error> {
    write_each(path, [value])
}

fn write_each<'a>(path: &Path, values: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    use io::Write;
    let mut file: Option<File> = None;
    for value in values {
        let failed = |error| Error::file(format!("write {value:?} to"), path)(error);
        let file = match &mut file {
            Some(file) => file,
            None => file.insert(OpenOptions::new().write(true).open(path).map_err(failed)?),
        };
        file.write_all(value.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_name_a_cgroup() {
        for good in ["/a", "/kubepods/burstable/pod1/c"] {
            assert!(relative(Path::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "/a/../b", "/a//b", "/a/", "/./a", "/..", "/a\n", "/a\0"] {
            assert!(relative(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_controller_that_is_taken_back_is_enabled_again_but_not_for_ever() {
        let tries = |failures: usize, errno: i32| {
            let mut count = 0;
            let result = while_taken_back(|| {
                count += 1;
                let path = Path::new("/cgroup.subtree_control");
                let error = Error::file("write to", path)(io::Error::from_raw_os_error(errno));
                if count <= failures { Err(error) } else { Ok(()) }
            });
            (result.is_ok(), count)
        };
        assert_eq!(tries(0, libc::ENOENT), (true, 1));
        assert_eq!(tries(2, libc::ENOENT), (true, 3));
        assert_eq!(tries(usize::MAX, libc::ENOENT), (false, ENABLE_TRIES));
        assert_eq!(tries(usize::MAX, libc::EBUSY), (false, 1));
    }
}
