//! Folders that a layer uses without describing them: in the mounted root they must look as the layer below them has it.
//!
//! Since layers are unpacked apart, such a folder was made with made-up attributes, and overlayfs shows the uppermost
//! layer's. A copy in the upper folder, with the attributes of the layer that describes it, puts that right.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::beneath::{Folder, Root};
use berth_sys::xattr;
use nix::sys::stat::{FileStat, Mode};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use crate::error::Error;
use crate::store::layer::{IMPLICIT, TREE};
use crate::unpack::{OPAQUE_ATTRIBUTE, is_allowed, is_folder};

/// One unpacked layer.
pub(crate) struct Layer {
    path: PathBuf,
    above: Root,
    implicit: HashSet<Vec<u8>>,
}

/// What a folder looks like.
struct Looks {
    status: FileStat,
    attributes: Vec<(std::ffi::OsString, Vec<u8>)>,
}

/// What one layer has at a path.
enum Sight {
    /// Nothing; the layers below are seen.
    Nothing,
    /// Something that ends the search: no folder, a whiteout, or nothing inside an opaque folder.
    End,
    Folder {
        looks: Looks,
        hides_below: bool,
    },
}

impl Layer {
    /// The layer whose unpacked tree is `tree`.
    pub(crate) fn open(tree: &Path) -> Result<Self, Error> {
        let folder = tree.parent().unwrap_or(tree);
        let list = folder.join(IMPLICIT);
        let list = fs::read(&list).map_err(Error::file("read", list))?;
        // Each path is ended by a NUL; the top's is empty.
        let ended = list.strip_suffix(b"\0").map(|list| list.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect());
        Ok(Self {
            path: tree.to_owned(),
            above: Root::open(folder).map_err(Error::file("open", folder))?,
            implicit: ended.unwrap_or_default(),
        })
    }

    fn sight(&self, path: &[u8]) -> io::Result<Sight> {
        let mut folder = self.above.open_folder(Path::new(""))?;
        let mut name = OsStr::new(TREE);
        let mut hides_below = false;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            folder = folder.folder(name)?;
            name = OsStr::from_bytes(part);
            match folder.status(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(if hides_below { Sight::End } else { Sight::Nothing });
                }
                Ok(status) if !is_folder(&status) => return Ok(Sight::End),
                other => drop(other?),
            }
            hides_below |= xattr::get(&folder, name, OsStr::new(OPAQUE_ATTRIBUTE))?.is_some();
        }
        Ok(Sight::Folder { looks: Looks::of(&folder, name)?, hides_below })
    }
}

impl Looks {
    fn of(folder: &Folder, name: &OsStr) -> io::Result<Self> {
        let mut attributes = Vec::new();
        for attribute in xattr::list(folder, name)?.into_iter().filter(|name| is_allowed(name.as_bytes())) {
            if let Some(value) = xattr::get(folder, name, &attribute)? {
                attributes.push((attribute, value));
            }
        }
        Ok(Self { status: folder.status(name)?, attributes })
    }

    fn give(&self, folder: &Folder, name: &OsStr) -> io::Result<()> {
        folder.set_owner(name, Uid::from_raw(self.status.st_uid), Gid::from_raw(self.status.st_gid))?;
        folder.set_mode(name, Mode::from_bits_truncate(self.status.st_mode & 0o7777))?;
        self.attributes.iter().try_for_each(|(attribute, value)| xattr::set(folder, name, attribute, value))
    }

    fn give_time(&self, folder: &Folder, name: &OsStr) -> io::Result<()> {
        let modified = TimeSpec::new(self.status.st_mtime, self.status.st_mtime_nsec);
        folder.set_times(name, modified, modified)
    }
}

/// Gives the upper folder, `name` in `above`, the looks of the layers' top, and copies of the folders that need one.
/// `layers`: the uppermost first.
pub(crate) fn prepare(layers: &[Layer], above: &Path, name: &OsStr) -> Result<(), Error> {
    let mut copies = BTreeMap::new();
    let paths: HashSet<&[u8]> = layers.iter().flat_map(|layer| layer.implicit.iter().map(Vec::as_slice)).collect();
    // The top itself is always a copy: the mount shows the upper folder's own looks.
    for path in paths.into_iter().chain([&b""[..]]) {
        if let Some(looks) = described(layers, path)? {
            copies.insert(path.to_vec(), looks);
        }
    }
    let failed = Error::file("prepare", above.join(name));
    write(layers, copies, above, name).map_err(failed)
}

/// How the path looks where it is described, if the uppermost layer that has it does not describe it itself.
fn described(layers: &[Layer], path: &[u8]) -> Result<Option<Looks>, Error> {
    for (index, layer) in layers.iter().enumerate() {
        match layer.sight(path).map_err(Error::file("look into", &layer.path))? {
            Sight::Nothing => {}
            Sight::End => return Ok(None),
            Sight::Folder { looks, .. } if !layer.implicit.contains(path) => {
                return Ok(Some(looks).filter(|_| index > 0 || path.is_empty()));
            }
            Sight::Folder { hides_below: true, .. } => return Ok(None),
            Sight::Folder { .. } => {}
        }
    }
    Ok(None)
}

fn write(layers: &[Layer], copies: BTreeMap<Vec<u8>, Looks>, above: &Path, name: &OsStr) -> io::Result<()> {
    let above = Root::open(above)?;
    // The folders above a copy are copies too; a shorter path sorts before a longer one that it begins.
    let mut all = BTreeMap::new();
    for (path, looks) in copies {
        for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let prefix = path.get(..slash).unwrap_or_default();
            if !all.contains_key(prefix)
                && let Some(looks) = uppermost(layers, prefix)?
            {
                all.insert(prefix.to_vec(), looks);
            }
        }
        all.insert(path, looks);
    }
    let place = |path: &[u8]| -> PathBuf { Path::new(name).join(OsStr::from_bytes(path)) };
    for (path, looks) in &all {
        let full = place(path);
        let (folder, leaf) = above.parent(&full)?;
        if !path.is_empty() {
            folder.make_folder(leaf, Mode::S_IRWXU)?;
        }
        looks.give(&folder, leaf)?;
    }
    for (path, looks) in all.iter().rev() {
        let full = place(path);
        let (folder, leaf) = above.parent(&full)?;
        looks.give_time(&folder, leaf)?;
    }
    Ok(())
}

/// How a folder looks in the uppermost layer that has it.
fn uppermost(layers: &[Layer], path: &[u8]) -> io::Result<Option<Looks>> {
    for layer in layers {
        match layer.sight(path)? {
            Sight::Nothing => {}
            Sight::End => return Ok(None),
            Sight::Folder { looks, .. } => return Ok(Some(looks)),
        }
    }
    Ok(None)
}
