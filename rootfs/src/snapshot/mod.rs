//! Roots: the layers of an image, an upper folder of its own, one overlay mount.
//!
//! What is written to a root is worth nothing after a loss of power, as its container is gone then: the mount is volatile
//! and waits for no disk, and a snapshot from before the machine's last start begins anew.

pub(crate) mod mend;
mod owners;
mod usage;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_sys::beneath::Root;
use berth_sys::file::{Durability, is_temporary, replace};
use berth_sys::mountinfo::{self, Mount};
use berth_sys::overlay::{self, Overlay, Upper};
use berth_sys::undo::Undo;
use berth_sys::xattr;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::store::layer::{self, TREE};
use crate::store::place::{Place, names, remove_tree};
use crate::unpack::OPAQUE_ATTRIBUTE;
use crate::{Access, MountOptions};

use self::owners::Views;
pub use self::owners::{IdMap, Owners};
pub use self::usage::Usage;

const UPPER: &str = "upper";
const WORK: &str = "work";
const EMPTY: &str = "empty";
const RECORD: &str = "snapshot.json";
/// A folder's name.
const KEY_BYTES_MAX: usize = 255;

/// What a snapshot was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    image: String,
    /// Diff ids, the lowest first: the sweep must leave these layers, whatever becomes of the image.
    layers: Vec<String>,
    boot_id: String,
    #[serde(flatten)]
    options: MountOptions,
}

/// Mounts a root of `image` with these `layers`, the lowest first, at `target`.
pub(crate) fn mount(
    place: &Place,
    image: &str,
    layers: &[String],
    key: &str,
    target: &Path,
    options: &MountOptions,
) -> Result<(), Error> {
    let folder = folder_of(place, key)?;
    let failed = |source| Error::Mount { action: "mount", key: key.to_owned(), target: target.to_owned(), source };
    let record = Record {
        image: image.to_owned(),
        layers: layers.to_vec(),
        boot_id: layer::boot_id()?,
        options: options.clone(),
    };
    if folder.exists() {
        let is_same = read_record(&folder).as_ref() == Some(&record);
        let mounts = mounts_of(&folder).map_err(failed)?;
        if !mounts.is_empty() {
            let stands = is_same && mounts.contains(&fs::canonicalize(target).map_err(failed)?);
            return if stands { Ok(()) } else { Err(failed(Errno::EBUSY.into())) };
        }
        // The kernel refuses a work folder that a volatile mount had before.
        remove_tree(&folder.join(WORK))?;
        if !is_same {
            remove(place, &folder)?;
        }
    }
    let mut undo = Undo::new();
    if !folder.exists() {
        make(place, &folder, &record)?;
        undo.push(|| drop(remove(place, &folder)));
    }
    let lower = lower_folders(place, &folder, &record)?;
    show(&folder, &lower, options, target).map_err(failed)?;
    undo.dismiss();
    Ok(())
}

/// The overlay mount itself.
fn show(folder: &Path, lower: &[PathBuf], options: &MountOptions, target: &Path) -> io::Result<()> {
    // Until the overlay stands.
    let mut views = options.owners.as_ref().map(|owners| Views::new(folder, owners)).transpose()?;
    let lower = lower.iter().map(|path| views.as_mut().map_or_else(|| Ok(path.clone()), |views| views.show(path)));
    let lower: Vec<PathBuf> = lower.collect::<io::Result<_>>()?;
    let (upper, work) = (folder.join(UPPER), folder.join(WORK));
    let source = source_of(folder);
    match options.access {
        Access::ReadOnly => {
            let lower: Vec<PathBuf> = [upper].into_iter().chain(lower).collect();
            overlay::mount(&Overlay { source: &source, lower: &lower, upper: None }, target)
        }
        Access::Writable => {
            fs::DirBuilder::new().mode(0o700).create(&work)?;
            let durability = overlay::Durability::Volatile;
            let upper = Upper { folder: &upper, work: &work, durability };
            overlay::mount(&Overlay { source: &source, lower: &lower, upper: Some(upper) }, target)
        }
    }
}

/// Takes the root off `target` and forgets what was written; gives the id of its image, if there was one.
pub(crate) fn unmount(place: &Place, key: &str, target: &Path) -> Result<Option<String>, Error> {
    let folder = folder_of(place, key)?;
    let failed = |source| Error::Mount { action: "unmount", key: key.to_owned(), target: target.to_owned(), source };
    take_off(&folder, target).map_err(failed)?;
    let image = read_record(&folder).map(|record| record.image);
    remove(place, &folder)?;
    Ok(image)
}

/// Unmounts a snapshot from `target`, and nothing else that is there.
fn take_off(folder: &Path, target: &Path) -> io::Result<()> {
    let target = match fs::canonicalize(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => target.to_owned(),
        other => other?,
    };
    let source = source_of(folder);
    let is_own = |mount: &Mount| mount.source == source;
    let mounts = mountinfo::read()?;
    let own = mounts.iter().filter(|mount| is_own(mount)).count();
    if own == 0 {
        return Ok(());
    }
    let on_top = mounts.iter().rfind(|mount| mount.target == target).is_some_and(is_own);
    if on_top {
        overlay::detach(&target)?;
    }
    // Where a mount is shared, its copies went with it.
    if (own == 1 && on_top) || mounts_of(folder)?.is_empty() { Ok(()) } else { Err(Errno::EBUSY.into()) }
}

/// The keys of all snapshots.
pub(crate) fn keys(place: &Place) -> Result<Vec<String>, Error> {
    let mut keys = names(&place.snapshots())?;
    keys.sort();
    Ok(keys)
}

/// What was written below `key`: disk blocks and names.
pub(crate) fn usage(place: &Place, key: &str) -> Result<Usage, Error> {
    let folder = folder_of(place, key)?;
    Usage::of(&folder, OsStr::new(UPPER)).map_err(Error::file("look into", folder))
}

/// The images that snapshots stand on, by id.
pub(crate) fn images_in_use(place: &Place) -> Result<HashSet<String>, Error> {
    let folders = names(&place.snapshots())?.into_iter().map(|name| place.snapshots().join(name));
    Ok(folders.filter_map(|folder| read_record(&folder)).map(|record| record.image).collect())
}

/// The diff ids of all layers that snapshots stand on.
pub(crate) fn layers_in_use(place: &Place) -> Result<Vec<String>, Error> {
    let folders = names(&place.snapshots())?.into_iter().map(|name| place.snapshots().join(name));
    Ok(folders.filter_map(|folder| read_record(&folder)).flat_map(|record| record.layers).collect())
}

fn folder_of(place: &Place, key: &str) -> Result<PathBuf, Error> {
    let bad = key.is_empty() || key == "." || key == ".." || key.contains(['/', '\0']) || is_temporary(key);
    if bad || key.len() > KEY_BYTES_MAX {
        return Err(Error::Key { key: key.chars().take(KEY_BYTES_MAX).collect() });
    }
    Ok(place.snapshots().join(key))
}

/// Made aside and then moved to its place: a snapshot that is there is whole.
fn make(place: &Place, folder: &Path, record: &Record) -> Result<(), Error> {
    let aside = place.temporary()?;
    let mut undo = Undo::new();
    undo.push(|| drop(remove_tree(&aside)));
    make_folder(&aside, 0o700)?;
    let path = aside.join(RECORD);
    let text = serde_json::to_vec(record).map_err(|error| Error::file("write", &path)(error.into()))?;
    replace(&path, &text, Durability::Process).map_err(Error::file("write", &path))?;
    make_folder(&aside.join(UPPER), 0o755)?;
    make_folder(&aside.join(EMPTY), 0o755)?;
    let layers = tree_folders(place, &record.image, &record.layers)?;
    let layers: Result<Vec<_>, Error> = layers.iter().map(|tree| mend::Layer::open(tree)).collect();
    mend::prepare(&layers?, &aside, OsStr::new(UPPER), record.options.owners.as_ref())?;
    fs::rename(&aside, folder).map_err(Error::file("make", folder))?;
    undo.dismiss();
    Ok(())
}

/// First out of sight, then gone: half a snapshot is never seen.
fn remove(place: &Place, folder: &Path) -> Result<(), Error> {
    owners::detach_views(folder).map_err(Error::file("unmount what is in", folder))?;
    place.doom(folder)?.map_or(Ok(()), |doomed| remove_tree(&doomed))
}

fn read_record(folder: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()
}

/// Whether the layers fit each other: what one links from below must be there.
pub(crate) fn check(place: &Place, image: &str, layers: &[String]) -> Result<(), Error> {
    let folders = tree_folders(place, image, layers)?;
    let layers: Result<Vec<_>, Error> = folders.iter().map(|tree| mend::Layer::open(tree)).collect();
    mend::check(&layers?)
}

/// The unpacked layers, the uppermost first.
fn tree_folders(place: &Place, image: &str, layers: &[String]) -> Result<Vec<PathBuf>, Error> {
    let mut folders = Vec::new();
    for layer in layers.iter().rev() {
        let diff_id: Digest = layer.parse().map_err(|why: &str| Error::manifest(image, why))?;
        if !layer::is_present(place, &diff_id) {
            return Err(Error::NoImage { name: image.to_owned() });
        }
        folders.push(place.layer(&diff_id).join(TREE));
    }
    Ok(folders)
}

fn lower_folders(place: &Place, folder: &Path, record: &Record) -> Result<Vec<PathBuf>, Error> {
    let mut lower = Vec::new();
    let mut seen = HashSet::new();
    // Overlayfs refuses a folder that comes twice, and its lower place would be hidden by its upper one anyway.
    let trees = tree_folders(place, &record.image, &record.layers)?.into_iter();
    for tree in trees.filter(|tree| seen.insert(tree.clone())) {
        let opaque = is_opaque(&tree)?;
        lower.push(tree);
        // Overlayfs asks the top folders of its layers nothing: a layer that hides all below it ends the chain.
        if opaque {
            break;
        }
    }
    if lower.is_empty() {
        lower.push(folder.join(EMPTY));
    }
    Ok(lower)
}

fn is_opaque(tree: &Path) -> Result<bool, Error> {
    let above = tree.parent().unwrap_or(tree);
    let root = Root::open(above).map_err(Error::file("open", above))?;
    let mark = xattr::get(root.folder(), OsStr::new(TREE), OsStr::new(OPAQUE_ATTRIBUTE));
    Ok(mark.map_err(Error::file("look at", tree))?.as_deref() == Some(b"y"))
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    fs::DirBuilder::new().mode(mode).create(path).map_err(Error::file("make", path))?;
    // Whatever the process's umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("set the mode of", path))
}

/// What the mounts of a snapshot say that they were mounted from: the kernel tells it as it was, whereas folders that were
/// named by descriptors are told as such.
fn source_of(folder: &Path) -> OsString {
    let name = folder.as_os_str();
    if name.len() <= overlay::SOURCE_BYTES_MAX {
        return name.to_owned();
    }
    Digest::of(name.as_bytes()).to_string().into()
}

/// Where a snapshot is mounted: once, unless somebody mounted it again.
fn mounts_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let source = source_of(folder);
    let mounts = mountinfo::read()?.into_iter().filter(|mount| mount.source == source);
    Ok(mounts.map(|mount| mount.target).collect())
}

/// Takes away the snapshots of earlier runs of the machine, and those whose making a loss of power undid.
pub(crate) fn doom_of_earlier_boots(place: &Place) -> Result<(), Error> {
    let boot_id = layer::boot_id()?;
    for name in names(&place.snapshots())? {
        let folder = place.snapshots().join(name);
        if read_record(&folder).is_none_or(|record| record.boot_id != boot_id) {
            place.doom(&folder)?;
        }
    }
    Ok(())
}
