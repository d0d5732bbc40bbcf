//! What a layer says by way of the layers below it, which were not at hand when it was unpacked: put right in the upper
//! folder, from where it covers them all.
//!
//! A folder that a layer uses without describing it was made with made-up attributes, and overlayfs shows the uppermost
//! layer's: it gets a copy with the attributes of the layer that describes it. A hard link to a file of a layer below
//! becomes a copy of that file, under all names that are to be seen. A folder that only one layer has is shown as it is,
//! with its whiteouts, which hide nothing: it gets a copy too, so that overlayfs merges the two.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::beneath::{Folder, Root};
use berth_sys::xattr;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, lseek};

use super::Owners;
use crate::error::Error;
use crate::limits::SIGHTS_MAX;
use crate::store::layer::{HIDING, IMPLICIT, LINKS, TREE};
use crate::unpack::{OPAQUE_ATTRIBUTE, is_allowed, is_folder, is_whiteout, split};

/// One unpacked layer.
pub(crate) struct Layer {
    path: PathBuf,
    above: Root,
    implicit: HashSet<Vec<u8>>,
    /// Hard links to files of layers below: the target of each name.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Folders with whiteouts.
    hiding: Vec<Vec<u8>>,
}

/// What something looks like.
struct Looks {
    status: FileStat,
    attributes: Vec<(OsString, Vec<u8>)>,
}

/// What one layer has at a path.
enum Sight {
    /// Nothing; the layers below are seen.
    Nothing,
    /// A whiteout, or nothing inside what is no folder or an opaque one: the layers below are not seen.
    Hidden,
    /// No folder.
    Leaf,
    Folder {
        looks: Looks,
        hides_below: bool,
    },
}

impl Layer {
    /// The layer whose unpacked tree is `tree`.
    pub(crate) fn open(tree: &Path) -> Result<Self, Error> {
        let folder = tree.parent().unwrap_or(tree);
        let links = read_list(&folder.join(LINKS))?;
        Ok(Self {
            path: tree.to_owned(),
            above: Root::open(folder).map_err(Error::file("open", folder))?,
            implicit: read_list(&folder.join(IMPLICIT))?.into_iter().collect(),
            hiding: read_list(&folder.join(HIDING))?,
            links: links
                .chunks_exact(2)
                .filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone())))
                .collect(),
        })
    }

    fn sight(&self, path: &[u8]) -> io::Result<Sight> {
        let mut folder = self.above.open_folder(Path::new(""))?;
        let mut name = OsStr::new(TREE);
        let is_opaque = |folder: &Folder, name: &OsStr| {
            xattr::get(folder, name, OsStr::new(OPAQUE_ATTRIBUTE)).map(|mark| mark.is_some())
        };
        let mut hides_below = is_opaque(&folder, name)?;
        let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
        let mut walked = 0;
        while let Some(part) = parts.next() {
            folder = folder.folder(name)?;
            name = OsStr::from_bytes(part);
            walked += part.len() + usize::from(walked > 0);
            // A link to a file of a layer below stands in no tree.
            if path.get(..walked).is_some_and(|path| self.links.contains_key(path)) {
                return Ok(if parts.peek().is_some() { Sight::Hidden } else { Sight::Leaf });
            }
            match folder.status(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(if hides_below { Sight::Hidden } else { Sight::Nothing });
                }
                Ok(status) if is_folder(&status) => {}
                Ok(status) if is_whiteout(&status) || parts.peek().is_some() => return Ok(Sight::Hidden),
                other => return other.map(|_| Sight::Leaf),
            }
            hides_below |= is_opaque(&folder, name)?;
        }
        Ok(Sight::Folder { looks: Looks::of(&folder, name)?, hides_below })
    }

    /// What the layer links `path` to, if that is in a layer below.
    fn link(&self, path: &[u8]) -> Option<&[u8]> {
        self.links.get(path).map(Vec::as_slice)
    }

    /// The folder that a leaf is in, none of the folders to it being a link.
    fn folder_of(&self, path: &[u8]) -> io::Result<Folder> {
        let mut folder = self.above.folder().folder(OsStr::new(TREE))?;
        for part in split(path).0.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            folder = folder.folder(OsStr::from_bytes(part))?;
        }
        Ok(folder)
    }
}

/// A list of paths, each ended by a NUL; the top's is empty.
fn read_list(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let list = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::file("read", path))?,
    };
    let ended = list.strip_suffix(b"\0").map(|list| list.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect());
    Ok(ended.unwrap_or_default())
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

    fn give(&self, folder: &Folder, name: &OsStr, owners: Option<&Owners>) -> io::Result<()> {
        let (user, group) = (self.status.st_uid, self.status.st_gid);
        let (user, group) = owners.map_or((user, group), |owners| owners.outside(user, group));
        folder.set_owner(name, Uid::from_raw(user), Gid::from_raw(group))?;
        if self.status.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
            folder.set_mode(name, Mode::from_bits_truncate(self.status.st_mode & 0o7777))?;
        }
        self.attributes.iter().try_for_each(|(attribute, value)| xattr::set(folder, name, attribute, value))
    }

    fn give_time(&self, folder: &Folder, name: &OsStr) -> io::Result<()> {
        let modified = TimeSpec::new(self.status.st_mtime, self.status.st_mtime_nsec);
        folder.set_times(name, modified, modified)
    }
}

/// A hard link to be made in the upper folder.
struct Link<'l> {
    path: &'l [u8],
    target: &'l [u8],
    /// The layer that has the file, by its number, and its name there.
    source: (usize, &'l [u8]),
    /// Whether the target is seen under its own name too.
    target_is_seen: bool,
}

/// Gives the upper folder, `name` in `above`, the looks of the layers' top, and copies of what needs one. `layers`: the
/// uppermost first; `owners`: whom the image's owners are on the host, if not the same.
pub(crate) fn prepare(layers: &[Layer], above: &Path, name: &OsStr, owners: Option<&Owners>) -> Result<(), Error> {
    limit(layers)?;
    let links = links(layers)?;
    let mut copies = BTreeMap::new();
    let paths: HashSet<&[u8]> = layers.iter().flat_map(|layer| layer.implicit.iter().map(Vec::as_slice)).collect();
    // The top itself is always a copy: the mount shows the upper folder's own looks.
    for path in paths.into_iter().chain([&b""[..]]) {
        if let Some(looks) = described(layers, path)? {
            copies.insert(path.to_vec(), looks);
        }
    }
    let hiding: HashSet<&[u8]> = layers.iter().flat_map(|layer| layer.hiding.iter().map(Vec::as_slice)).collect();
    for path in hiding.into_iter().filter(|path| !path.is_empty()) {
        if let Some(looks) = alone(layers, path)? {
            copies.entry(path.to_vec()).or_insert(looks);
        }
    }
    let failed = Error::file("prepare", above.join(name));
    write(layers, copies, &links, owners, above, name).map_err(failed)
}

/// Whether every hard link of these layers has a target, and not too much is left to the layers below. `layers`: the
/// uppermost first.
pub(crate) fn check(layers: &[Layer]) -> Result<(), Error> {
    limit(layers)?;
    links(layers).map(drop)
}

/// Refuses images that are made to be looked into for ever.
fn limit(layers: &[Layer]) -> Result<(), Error> {
    let of_layer = |layer: &Layer| layer.implicit.len() + layer.links.len() + layer.hiding.len();
    let paths: usize = layers.iter().map(of_layer).sum();
    match (layers.first(), paths.saturating_mul(layers.len()) > SIGHTS_MAX) {
        (Some(layer), true) => Err(Error::manifest(
            format!("image with the layer at {}", layer.path.display()),
            format!(
                "{paths} links, whiteouts and folders without a description are too many in {} layers",
                layers.len()
            ),
        )),
        _ => Ok(()),
    }
}

/// The hard links to layers below that are seen, those of lower layers first.
fn links(layers: &[Layer]) -> Result<Vec<Link<'_>>, Error> {
    let mut links = Vec::new();
    for (index, layer) in layers.iter().enumerate().rev() {
        let (with_this, below) = layers.split_at(index + 1);
        let above = layers.get(..index).unwrap_or_default();
        for (path, target) in &layer.links {
            let missing = || {
                let link = format!("{} to {}", String::from_utf8_lossy(path), String::from_utf8_lossy(target));
                Error::manifest(
                    format!("layer at {}", layer.path.display()),
                    format!("the hard link {link} leads nowhere"),
                )
            };
            let (depth, name) = uppermost_leaf(below, target)?.ok_or_else(missing)?;
            if is_clear(above, path)? {
                // What the layer makes of the target's name after the link counts too.
                let target_is_seen = is_clear(with_this, target)?;
                links.push(Link { path, target, source: (index + 1 + depth, name), target_is_seen });
            }
        }
    }
    Ok(links)
}

/// Whether a path of the layers below shows through all of these.
fn is_clear(layers: &[Layer], path: &[u8]) -> Result<bool, Error> {
    for layer in layers {
        let sight = layer.sight(path).map_err(Error::file("look into", &layer.path))?;
        if !matches!(sight, Sight::Nothing) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The number of the layer that has a path as something that can be linked, and under which name.
fn uppermost_leaf<'l>(layers: &'l [Layer], path: &'l [u8]) -> Result<Option<(usize, &'l [u8])>, Error> {
    let mut path = path;
    for (depth, layer) in layers.iter().enumerate() {
        if let Some(target) = layer.link(path) {
            path = target;
            continue;
        }
        match layer.sight(path).map_err(Error::file("look into", &layer.path))? {
            Sight::Nothing => {}
            Sight::Leaf => return Ok(Some((depth, path))),
            Sight::Hidden | Sight::Folder { .. } => return Ok(None),
        }
    }
    Ok(None)
}

/// How the path looks where it is described, if the uppermost layer that has it does not describe it itself.
fn described(layers: &[Layer], path: &[u8]) -> Result<Option<Looks>, Error> {
    for (index, layer) in layers.iter().enumerate() {
        match layer.sight(path).map_err(Error::file("look into", &layer.path))? {
            Sight::Nothing => {}
            Sight::Hidden | Sight::Leaf => return Ok(None),
            Sight::Folder { looks, .. } if !layer.implicit.contains(path) => {
                return Ok(Some(looks).filter(|_| index > 0 || path.is_empty()));
            }
            Sight::Folder { hides_below: true, .. } => return Ok(None),
            Sight::Folder { .. } => {}
        }
    }
    Ok(None)
}

/// How a folder looks that is shown and that only one layer has.
fn alone(layers: &[Layer], path: &[u8]) -> Result<Option<Looks>, Error> {
    let mut only = None;
    for layer in layers {
        match layer.sight(path).map_err(Error::file("look into", &layer.path))? {
            Sight::Nothing => {}
            Sight::Hidden | Sight::Leaf => break,
            Sight::Folder { .. } if only.is_some() => return Ok(None),
            Sight::Folder { looks, hides_below } => {
                only = Some(looks);
                if hides_below {
                    break;
                }
            }
        }
    }
    Ok(only)
}

fn write(
    layers: &[Layer],
    copies: BTreeMap<Vec<u8>, Looks>,
    links: &[Link<'_>],
    owners: Option<&Owners>,
    above: &Path,
    name: &OsStr,
) -> io::Result<()> {
    let above = Root::open(above)?;
    let mut folders = copies;
    if !folders.contains_key(&b""[..]) {
        // Nobody describes the top: it is as it was made, but for its owner.
        folders.insert(Vec::new(), Looks::of(above.folder(), name)?);
    }
    let paths: Vec<Vec<u8>> = folders.keys().cloned().collect();
    let of_links = links.iter().flat_map(|link| [Some(link.path), Some(link.target).filter(|_| link.target_is_seen)]);
    for path in paths.iter().map(Vec::as_slice).chain(of_links.flatten()) {
        add_parents(layers, path, &mut folders)?;
    }
    let place = |path: &[u8]| -> PathBuf { Path::new(name).join(OsStr::from_bytes(path)) };
    // A shorter path sorts before a longer one that it begins.
    for (path, looks) in &folders {
        let full = place(path);
        let (folder, leaf) = above.parent(&full)?;
        if !path.is_empty() {
            folder.make_folder(leaf, Mode::S_IRWXU)?;
        }
        looks.give(&folder, leaf, owners)?;
    }
    // Where each file that is linked has its copy: the first link makes it.
    let mut copied: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut made = HashSet::new();
    for link in links {
        let (source, file) = link.file(layers)?;
        let looks = Looks::of(&source, file)?;
        let identity = (looks.status.st_dev, looks.status.st_ino);
        for path in
            [Some(link.target).filter(|_| link.target_is_seen), Some(link.path)].into_iter().flatten().map(place)
        {
            // Several links have one target, which is there by the first.
            if !made.insert(path.clone()) {
                continue;
            }
            let (folder, leaf) = above.parent(&path)?;
            match copied.get(&identity) {
                None => copy(&source, file, &looks, &folder, leaf, owners)?,
                Some(first) => {
                    let (first_folder, first_leaf) = above.parent(first)?;
                    folder.link(leaf, &first_folder, first_leaf)?;
                }
            }
            copied.entry(identity).or_insert(path);
        }
    }
    for (path, looks) in folders.iter().rev() {
        let full = place(path);
        let (folder, leaf) = above.parent(&full)?;
        looks.give_time(&folder, leaf)?;
    }
    Ok(())
}

/// The folders above a copy are copies too.
fn add_parents(layers: &[Layer], path: &[u8], folders: &mut BTreeMap<Vec<u8>, Looks>) -> io::Result<()> {
    for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let prefix = path.get(..slash).unwrap_or_default();
        if !folders.contains_key(prefix)
            && let Some(looks) = uppermost(layers, prefix)?
        {
            folders.insert(prefix.to_vec(), looks);
        }
    }
    Ok(())
}

impl<'l> Link<'l> {
    /// The folder and the name that the file has in its layer.
    fn file(&self, layers: &[Layer]) -> io::Result<(Folder, &'l OsStr)> {
        let (number, path) = self.source;
        let layer = layers.get(number).ok_or(io::ErrorKind::NotFound)?;
        Ok((layer.folder_of(path)?, OsStr::from_bytes(split(path).1)))
    }
}

/// Copies a file, whatever it is.
fn copy(
    source: &Folder,
    file: &OsStr,
    looks: &Looks,
    folder: &Folder,
    name: &OsStr,
    owners: Option<&Owners>,
) -> io::Result<()> {
    match SFlag::from_bits_truncate(looks.status.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => {
            let content = File::from(source.open(file, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
            copy_data(&content, &folder.create(name, Mode::S_IRUSR)?)?;
        }
        SFlag::S_IFLNK => folder.symlink(source.read_link(file)?.as_os_str(), name)?,
        kind => folder.make_node(name, kind, Mode::empty(), looks.status.st_rdev)?,
    }
    looks.give(folder, name, owners)?;
    looks.give_time(folder, name)
}

/// Copies what a file has, and leaves its holes holes.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let seek = |at: u64, whence| lseek(from, i64::try_from(at).unwrap_or(i64::MAX), whence);
    let mut at = 0;
    while at < length {
        let data = match seek(at, Whence::SeekData) {
            // A hole up to the end.
            Err(Errno::ENXIO) => break,
            other => other?.unsigned_abs(),
        };
        let hole = seek(data, Whence::SeekHole)?.unsigned_abs();
        (&mut &*from).seek(SeekFrom::Start(data))?;
        (&mut &*to).seek(SeekFrom::Start(data))?;
        io::copy(&mut from.take(hole.saturating_sub(data)), &mut &*to)?;
        at = hole.max(data + 1);
    }
    Ok(())
}

/// How a folder looks in the uppermost layer that has it.
fn uppermost(layers: &[Layer], path: &[u8]) -> io::Result<Option<Looks>> {
    for layer in layers {
        match layer.sight(path)? {
            Sight::Nothing => {}
            Sight::Hidden | Sight::Leaf => return Ok(None),
            Sight::Folder { looks, .. } => return Ok(Some(looks)),
        }
    }
    Ok(None)
}
