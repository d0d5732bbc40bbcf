//! Owners as a user namespace has them: folders shown through mappings, so that on the disk they stay as the image has them.
//!
//! Overlayfs takes its folders only from mounts that are attached, so each layer gets one below the snapshot until the
//! overlay stands. They are read-only: whatever comes in between, no layer can be lost through them. The upper folder is
//! not shown so: overlayfs makes files there as whoever mounts it, who has no id in such a mapping (`EOVERFLOW`). What is
//! written belongs to the ids of the host.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, Attributes, MOUNT_ATTR_RDONLY, Reach};
use berth_sys::{namespace, overlay};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::store::place::names;

/// Where the mounts are, in a snapshot's folder.
const VIEWS: &str = "views";

/// Who owns what has no owner in a mapping, as the kernel shows it.
const OVERFLOW_ID: u32 = 65_534;

/// Ids that are the same number of ids elsewhere, as user_namespaces(7) has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMap {
    /// The first id in the image and in the container.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// What the owners in an image are on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// User ids.
    pub users: Vec<IdMap>,
    /// Group ids.
    pub groups: Vec<IdMap>,
}

impl Owners {
    /// What a user and a group of the image are on the host.
    pub(super) fn outside(&self, user: u32, group: u32) -> (u32, u32) {
        (outside(&self.users, user), outside(&self.groups, group))
    }
}

fn outside(maps: &[IdMap], id: u32) -> u32 {
    let find = |map: &IdMap| map.outside.checked_add(id.checked_sub(map.inside).filter(|nth| *nth < map.count)?);
    maps.iter().find_map(find).unwrap_or(OVERFLOW_ID)
}

/// Folders shown with other owners. Dropped, they are gone; a mount that was made of them keeps them.
pub(super) struct Views<'f> {
    folder: &'f Path,
    namespace: OwnedFd,
    count: usize,
}

impl<'f> Views<'f> {
    pub(super) fn new(folder: &'f Path, owners: &Owners) -> io::Result<Self> {
        detach_views(folder)?;
        let namespace = namespace::new_user(&lines(&owners.users), &lines(&owners.groups))?;
        fs::DirBuilder::new().mode(0o700).recursive(true).create(folder.join(VIEWS))?;
        Ok(Self { folder, namespace, count: 0 })
    }

    /// Shows `path` elsewhere, with the owners that it has in the namespace.
    pub(super) fn show(&mut self, path: &Path) -> io::Result<PathBuf> {
        let view = self.folder.join(VIEWS).join(self.count.to_string());
        self.count += 1;
        fs::DirBuilder::new().mode(0o700).create(&view)?;
        let copy = mount::copy(open(path)?, c"", Reach::One)?;
        mount::map_owners(&copy, &self.namespace, Reach::One)?;
        let read_only = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
        mount::set_attributes(&copy, &read_only, Reach::One)?;
        mount::attach(&copy, open(&view)?)?;
        Ok(view)
    }
}

impl Drop for Views<'_> {
    fn drop(&mut self) {
        if let Err(error) = detach_views(self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "mounts for mapped owners are left until the root goes");
        }
    }
}

/// Takes away what [`Views`] made, or a process that was killed meanwhile.
pub(super) fn detach_views(folder: &Path) -> io::Result<()> {
    let views = folder.join(VIEWS);
    for name in names(&views).map_err(io::Error::other)? {
        overlay::detach(&views.join(&name))?;
        fs::remove_dir(views.join(name))?;
    }
    match fs::remove_dir(&views) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn lines(maps: &[IdMap]) -> String {
    maps.iter().fold(String::new(), |mut lines, map| {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{} {} {}", map.inside, map.outside, map.count);
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_or_nobodys() {
        let maps = [IdMap { inside: 0, outside: 1000, count: 10 }, IdMap { inside: 100, outside: 5, count: 1 }];
        for (inside, wanted) in
            [(0, 1000), (9, 1009), (10, OVERFLOW_ID), (99, OVERFLOW_ID), (100, 5), (101, OVERFLOW_ID)]
        {
            assert_eq!(outside(&maps, inside), wanted, "{inside}");
        }
    }
}
