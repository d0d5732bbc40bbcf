//! Whiteouts and opaque folders as overlayfs has them, beside what the same layer has of the same names.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::Folder;
use berth_sys::xattr;
use nix::sys::stat::{Mode, SFlag};

use super::{OPAQUE_ATTRIBUTE, Refusal, Unpacker, is_folder, is_whiteout, join, split, to};
use crate::error::UnpackError;

impl Unpacker<'_> {
    pub(super) fn make_opaque(&mut self, path: &[u8]) -> Result<(), Refusal> {
        let Some(name) = path.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty()) else {
            return self.mark_opaque(self.above, self.name, path);
        };
        let above = path.get(..path.len().saturating_sub(name.len() + 1)).unwrap_or_default();
        let above = self.root.open_folder(Path::new(OsStr::from_bytes(above))).map_err(to("open its folder"))?;
        self.mark_opaque(&above, OsStr::from_bytes(name), path)
    }

    pub(super) fn mark_opaque(&mut self, folder: &Folder, name: &OsStr, path: &[u8]) -> Result<(), Refusal> {
        let status = folder.status(name).map_err(to("look at the opaque folder"))?;
        if !is_folder(&status) {
            return Err("an opaque mark by way of a link".into());
        }
        xattr::set(folder, name, OsStr::new(OPAQUE_ATTRIBUTE), b"y").map_err(to("mark its folder opaque"))?;
        self.remember(path)?;
        self.opaque.insert(path.to_vec());
        Ok(())
    }

    pub(super) fn hide(&mut self, folder: &Folder, parent_path: &[u8], hidden: &[u8]) -> Result<(), Refusal> {
        let (path, name) = (join(parent_path, hidden), OsStr::from_bytes(hidden));
        match folder.status(name) {
            // What this layer itself has there stays, and hides what is below if it is no folder.
            Ok(status) if is_folder(&status) => self.mark_opaque(folder, name, &path),
            Ok(_) => Ok(()),
            Err(_) => {
                folder.make_node(name, SFlag::S_IFCHR, Mode::empty(), 0).map_err(to("make a whiteout"))?;
                self.remember(&path)?;
                self.whiteouts.insert(path);
                Ok(())
            }
        }
    }

    /// Takes whiteouts out of opaque folders and what is below these: they hide nothing there and would show. Gives the
    /// folders of the others.
    pub(super) fn drop_idle_whiteouts(&self) -> Result<Vec<Vec<u8>>, UnpackError> {
        let mut hiding = BTreeSet::new();
        for path in &self.whiteouts {
            let (above, name) = split(path);
            if !folders_above(path).any(|folder| self.opaque.contains(folder)) {
                hiding.insert(above.to_vec());
                continue;
            }
            if let Ok(folder) = self.root.open_folder(Path::new(OsStr::from_bytes(above)))
                && folder.status(OsStr::from_bytes(name)).is_ok_and(|status| is_whiteout(&status))
            {
                let done = folder.remove_file(OsStr::from_bytes(name));
                done.map_err(|error| Refusal::Write("remove a whiteout", error).of(path))?;
            }
        }
        Ok(hiding.into_iter().collect())
    }
}

/// The folders that a path is in, the top last.
fn folders_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(split(path).0), |folder| (!folder.is_empty()).then(|| split(folder).0))
}
