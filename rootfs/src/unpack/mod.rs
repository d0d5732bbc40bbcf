//! A layer's archive, which is a stranger's, into a folder of its own, as overlayfs wants a lower folder to be.
//!
//! Every folder on the way to an entry is walked by [`berth_sys::beneath`], so no link leads out; every change is made on
//! a name in an open folder and follows nothing. Whiteouts become devices 0:0, opaque folders get their attribute. Devices
//! of the archive are not made unless that is wanted: containers get theirs from the runtime, and one in the store would
//! be the host's. The layers below are not at hand, since each layer is unpacked by itself: hard links into them, folders
//! that the archive does not describe and folders with whiteouts are listed, so that a mount can make them what they are
//! with the layers below.

mod attributes;
mod folders;
mod marks;
mod pax;
mod sparse;
pub(crate) mod tar;
mod whiteout;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::{Folder, Root};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::time::TimeSpec;

pub(crate) use self::attributes::is_allowed;
use self::tar::{Archive, Entry, Kind, damaged, printable};
pub(crate) use self::whiteout::parts;
use self::whiteout::{Meaning, meaning};
use crate::error::UnpackError;
use crate::limits::{DEPTH_MAX, ENTRIES_MAX, LAYER_BYTES_MAX, LINKS_MAX, PATH_BYTES_MAX, REMEMBERED_BYTES_MAX};

/// The attribute by which overlayfs knows a folder that hides all below it.
pub(crate) const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// Folders that nobody described, until somebody does.
const IMPLICIT_MODE: Mode = Mode::from_bits_truncate(0o755);
const COPY_BYTES: usize = 256 << 10;
/// What a path takes beside its letters.
const REMEMBERING_BYTES: usize = 64;

/// What becomes of the device files of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Devices {
    /// They are left out, with a warning: a container has the devices that its runtime gives it.
    #[default]
    LeaveOut,
    /// They are made as the layer has them, but for 0:0, which is overlayfs's sign for a removed name.
    Make,
}

/// What came of unpacking.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Folders that the archive uses and does not describe, `` for the top.
    pub(crate) implicit: Vec<Vec<u8>>,
    /// Hard links to what is not in this layer, and so in one below: name and target.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Folders with whiteouts in them.
    pub(crate) hiding: Vec<Vec<u8>>,
    /// Devices that were left out.
    pub(crate) devices: u64,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

/// Unpacks `archive` into the folder `name`, made new in `above`. What the reader still holds after the archive's end is
/// left in it.
pub(crate) fn unpack<R: Read>(
    archive: R,
    above: &Folder,
    name: &OsStr,
    devices: Devices,
) -> Result<(R, Unpacked), UnpackError> {
    unpack_at_most(archive, above, name, devices, ENTRIES_MAX)
}

fn unpack_at_most<R: Read>(
    archive: R,
    above: &Folder,
    name: &OsStr,
    devices: Devices,
    max: u64,
) -> Result<(R, Unpacked), UnpackError> {
    let mut unpacker = Unpacker::new(above, name, devices).map_err(|source| UnpackError::Write {
        path: String::new(),
        action: "make the layer's folder",
        source,
    })?;
    let mut archive = Archive::new(archive);
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        if entries > max {
            return Err(UnpackError::Limit { what: "entries", max });
        }
        unpacker.take(&entry, &mut archive).map_err(|refusal| refusal.of(&entry.path))?;
    }
    Ok((archive.into_inner(), unpacker.finish()?))
}

/// Why an entry is refused, before its path is known.
enum Refusal {
    Entry(&'static str),
    Write(&'static str, io::Error),
    Whole(UnpackError),
}

impl Refusal {
    fn of(self, path: &[u8]) -> UnpackError {
        match self {
            Self::Entry(why) => UnpackError::Entry { path: printable(path), why },
            Self::Write(action, source) => UnpackError::Write { path: printable(path), action, source },
            Self::Whole(error) => error,
        }
    }
}

impl From<&'static str> for Refusal {
    fn from(why: &'static str) -> Self {
        Self::Entry(why)
    }
}

impl From<(&'static str, io::Error)> for Refusal {
    fn from((action, source): (&'static str, io::Error)) -> Self {
        Self::Write(action, source)
    }
}

fn to(action: &'static str) -> impl FnOnce(io::Error) -> Refusal {
    move |source| Refusal::Write(action, source)
}

struct Unpacker<'f> {
    above: &'f Folder,
    name: &'f OsStr,
    allowed: Devices,
    root: Root,
    /// The folder that the last entry went to, by the archive's name and by its own: entries come folder by folder.
    last: Option<(Vec<u8>, Vec<u8>, Folder)>,
    /// Times of folders, set at the end because each new name in a folder changes its time.
    times: BTreeMap<Vec<u8>, TimeSpec>,
    implicit: BTreeSet<Vec<u8>>,
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    /// Devices left out: hard links to them are left out too.
    devices: BTreeSet<Vec<u8>>,
    /// Hard links to what only a layer below can have, by name.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: u64,
    /// What the paths in all these take.
    remembered_bytes: usize,
    buffer: Vec<u8>,
}

impl<'f> Unpacker<'f> {
    fn new(above: &'f Folder, name: &'f OsStr, allowed: Devices) -> io::Result<Self> {
        above.make_folder(name, IMPLICIT_MODE)?;
        above.set_mode(name, IMPLICIT_MODE)?;
        Ok(Self {
            above,
            name,
            allowed,
            root: Root::from_folder(above.folder(name)?),
            last: None,
            times: BTreeMap::new(),
            implicit: BTreeSet::from([Vec::new()]),
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            devices: BTreeSet::new(),
            links: BTreeMap::new(),
            bytes: 0,
            remembered_bytes: 0,
            buffer: vec![0; COPY_BYTES],
        })
    }

    fn take<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), Refusal> {
        if entry.path.len() > PATH_BYTES_MAX || entry.path.contains(&0) {
            return Err("its path is too long or has a NUL in it".into());
        }
        if entry.target.len() > PATH_BYTES_MAX || entry.target.contains(&0) {
            return Err("the target of its link is too long or has a NUL in it".into());
        }
        let parts = parts(&entry.path)?;
        if parts.len() > DEPTH_MAX {
            return Err(Refusal::Whole(UnpackError::Limit { what: "folders above an entry", max: DEPTH_MAX as u64 }));
        }
        let Some((name, folders)) = parts.split_last() else {
            return self.take_top(entry);
        };
        let archives = folders.join(&b'/');
        let (parent_path, folder) = self.folder(&archives)?;
        let result = match meaning(name)? {
            Meaning::Note => Ok(()),
            Meaning::Opaque => self.make_opaque(&parent_path),
            Meaning::Hides(hidden) => self.hide(&folder, &parent_path, hidden),
            Meaning::Thing => self.make(entry, &folder, OsStr::from_bytes(name), join(&parent_path, name), archive),
        };
        self.last = Some((archives, parent_path, folder));
        result
    }

    /// The entry `./`: the layer's own top.
    fn take_top(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if entry.kind != Kind::Folder {
            return Err("it takes the place of the layer's top folder".into());
        }
        attributes::apply(self.above, self.name, entry)?;
        self.describe(Vec::new(), entry)
    }

    fn describe(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), Refusal> {
        self.remember(&path)?;
        self.implicit.remove(&path);
        self.times.insert(path, attributes::time_of(entry));
        Ok(())
    }

    /// Notes that a path is kept until the end: millions of long ones would take all memory.
    fn remember(&mut self, path: &[u8]) -> Result<(), Refusal> {
        self.remembered_bytes = self.remembered_bytes.saturating_add(path.len() + REMEMBERING_BYTES);
        if self.remembered_bytes > REMEMBERED_BYTES_MAX {
            let (what, max) = ("bytes of paths of folders, links and whiteouts", REMEMBERED_BYTES_MAX as u64);
            return Err(Refusal::Whole(UnpackError::Limit { what, max }));
        }
        Ok(())
    }

    fn make<R: Read>(
        &mut self,
        entry: &Entry,
        folder: &Folder,
        name: &OsStr,
        path: Vec<u8>,
        archive: &mut Archive<R>,
    ) -> Result<(), Refusal> {
        match entry.kind {
            Kind::File => self.make_file(entry, folder, name, &path, archive),
            Kind::Folder => self.make_folder(entry, folder, name, path),
            Kind::SymbolicLink => {
                if entry.target.is_empty() {
                    return Err("a link without a target".into());
                }
                self.clear(folder, name, &path)?;
                folder.symlink(OsStr::from_bytes(&entry.target), name).map_err(to("make the link"))?;
                self.finish_leaf(entry, folder, name)
            }
            Kind::Fifo => {
                self.clear(folder, name, &path)?;
                folder.make_node(name, SFlag::S_IFIFO, Mode::empty(), 0).map_err(to("make the fifo"))?;
                self.finish_leaf(entry, folder, name)
            }
            Kind::HardLink => self.link(entry, folder, name, path),
            // A character device 0:0 is a whiteout to overlayfs.
            Kind::Device(kind, number) if self.allowed == Devices::Make && number != 0 => {
                self.clear(folder, name, &path)?;
                folder.make_node(name, kind, Mode::empty(), number).map_err(to("make the device"))?;
                self.finish_leaf(entry, folder, name)
            }
            Kind::Device(..) => {
                self.clear(folder, name, &path)?;
                self.remember(&path)?;
                self.devices.insert(path);
                Ok(())
            }
        }
    }

    fn finish_leaf(&mut self, entry: &Entry, folder: &Folder, name: &OsStr) -> Result<(), Refusal> {
        attributes::apply(folder, name, entry)?;
        attributes::apply_time(folder, name, attributes::time_of(entry))?;
        Ok(())
    }

    fn make_folder(&mut self, entry: &Entry, folder: &Folder, name: &OsStr, path: Vec<u8>) -> Result<(), Refusal> {
        match folder.status(name) {
            Ok(status) if is_folder(&status) => {}
            before => {
                let was_hidden = before.is_ok_and(|status| is_whiteout(&status));
                self.clear(folder, name, &path)?;
                folder.make_folder(name, Mode::S_IRWXU).map_err(to("make the folder"))?;
                if was_hidden {
                    self.mark_opaque(folder, name, &path)?;
                }
            }
        }
        attributes::apply(folder, name, entry)?;
        self.describe(path, entry)
    }

    fn make_file<R: Read>(
        &mut self,
        entry: &Entry,
        folder: &Folder,
        name: &OsStr,
        path: &[u8],
        archive: &mut Archive<R>,
    ) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(entry.stored);
        if self.bytes > LAYER_BYTES_MAX {
            return Err(Refusal::Whole(UnpackError::Limit { what: "bytes", max: LAYER_BYTES_MAX }));
        }
        self.links.remove(path);
        self.devices.remove(path);
        let mut file = match folder.create(name, Mode::S_IRUSR) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(folder, name, path)?;
                folder.create(name, Mode::S_IRUSR)
            }
            other => other,
        }
        .map_err(to("make the file"))?;
        match &entry.pieces {
            None => self.copy(archive, &mut file, entry.stored)?,
            Some(pieces) => {
                for (offset, length) in &pieces.list {
                    file.seek(SeekFrom::Start(*offset)).map_err(to("write"))?;
                    self.copy(archive, &mut file, *length)?;
                }
                file.set_len(pieces.size).map_err(to("set its size"))?;
            }
        }
        Ok(attributes::apply_to_file(&file, entry)?)
    }

    fn copy<R: Read>(&mut self, archive: &mut Archive<R>, file: &mut File, length: u64) -> Result<(), Refusal> {
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let part = self.buffer.get_mut(..most).unwrap_or_default();
            let count = match archive.read(part) {
                Ok(0) => return Err(Refusal::Whole(damaged("it ends inside a file"))),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Refusal::Whole(UnpackError::Read { source })),
            };
            file.write_all(part.get(..count).unwrap_or_default()).map_err(to("write"))?;
            left -= count as u64;
        }
        Ok(())
    }

    fn link(&mut self, entry: &Entry, folder: &Folder, name: &OsStr, path: Vec<u8>) -> Result<(), Refusal> {
        let target = parts(&entry.target)?;
        let Some((target_name, target_folders)) = target.split_last() else {
            return Err("a hard link to the layer's top".into());
        };
        let target_name = OsStr::from_bytes(target_name);
        let target_folder = self.root.open_folder(Path::new(OsStr::from_bytes(&target_folders.join(&b'/'))));
        let target_path = match &target_folder {
            Ok(folder) => join(&self.path_of(folder)?, target_name.as_bytes()),
            Err(_) => target.join(&b'/'),
        };
        if target_path == path {
            return Ok(());
        }
        if self.devices.contains(&target_path) {
            self.remember(&path)?;
            self.devices.insert(path);
            return Ok(());
        }
        if let Some(below) = self.links.get(&target_path).cloned() {
            return self.link_below(folder, name, path, below);
        }
        let Ok(target_folder) = target_folder else {
            return self.link_below(folder, name, path, target_path);
        };
        let Ok(status) = target_folder.status(target_name) else {
            return self.link_below(folder, name, path, target_path);
        };
        if is_whiteout(&status) {
            return Err("a hard link to what this layer hides".into());
        }
        if is_folder(&status) {
            return Err("a hard link to a folder".into());
        }
        self.clear(folder, name, &path)?;
        folder.link(name, &target_folder, target_name).map_err(to("make the hard link"))
    }

    /// A hard link to what this layer does not have: one below must, which is not at hand.
    fn link_below(&mut self, folder: &Folder, name: &OsStr, path: Vec<u8>, target: Vec<u8>) -> Result<(), Refusal> {
        self.clear(folder, name, &path)?;
        self.remember(&path)?;
        self.remember(&target)?;
        self.links.insert(path, target);
        if self.links.len() > LINKS_MAX {
            return Err(Refusal::Whole(UnpackError::Limit {
                what: "hard links to layers below",
                max: LINKS_MAX as u64,
            }));
        }
        Ok(())
    }

    /// Takes away what has the name, so that something else can have it.
    fn clear(&mut self, folder: &Folder, name: &OsStr, path: &[u8]) -> Result<(), Refusal> {
        self.whiteouts.remove(path);
        self.devices.remove(path);
        self.links.remove(path);
        if folder.status(name).is_ok_and(|status| is_folder(&status)) {
            self.forget(path);
        }
        folder.remove_tree(name).map_err(to("replace what is there"))
    }

    /// Nothing is known any more of a folder, nor of what is below it.
    fn forget(&mut self, path: &[u8]) {
        // Whatever is below a path sorts between it with a slash and it with the next byte.
        let below = [path, b"/"].concat()..[path, b"0"].concat();
        for set in [&mut self.implicit, &mut self.whiteouts, &mut self.opaque, &mut self.devices] {
            set.remove(path);
            for gone in set.range(below.clone()).cloned().collect::<Vec<_>>() {
                set.remove(&gone);
            }
        }
        self.times.remove(path);
        for gone in self.times.range(below.clone()).map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.times.remove(&gone);
        }
        for gone in self.links.range(below).map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.links.remove(&gone);
        }
    }

    /// What waits for the last entry: idle whiteouts, and the times of folders.
    fn finish(self) -> Result<Unpacked, UnpackError> {
        let hiding = self.drop_idle_whiteouts()?;
        for (path, time) in &self.times {
            self.set_time(path, *time).map_err(|refusal| refusal.of(path))?;
        }
        let implicit: Vec<_> = self.implicit.into_iter().collect();
        let links = self.links.into_iter().collect();
        Ok(Unpacked { implicit, links, hiding, devices: self.devices.len() as u64, bytes: self.bytes })
    }

    fn set_time(&self, path: &[u8], time: TimeSpec) -> Result<(), Refusal> {
        let (above, name) = split(path);
        if name.is_empty() {
            return Ok(attributes::apply_time(self.above, self.name, time)?);
        }
        // A folder that was replaced later by something else has no time any more.
        let Ok(folder) = self.root.open_folder(Path::new(OsStr::from_bytes(above))) else { return Ok(()) };
        match folder.status(OsStr::from_bytes(name)) {
            Ok(status) if is_folder(&status) => Ok(attributes::apply_time(&folder, OsStr::from_bytes(name), time)?),
            _ => Ok(()),
        }
    }
}

pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

pub(crate) fn is_folder(status: &FileStat) -> bool {
    status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Overlayfs's sign for a name that is gone.
pub(crate) fn is_whiteout(status: &FileStat) -> bool {
    status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && status.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One block again and again.
    struct Repeated([u8; 512], usize);

    impl Read for Repeated {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.get(self.1..).unwrap_or_default().read(buffer)?;
            self.1 = (self.1 + count) % self.0.len();
            Ok(count)
        }
    }

    #[test]
    fn an_archive_without_end_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let above = Root::open(above.path()).unwrap();
        // A note of another filesystem, which is nothing to unpack: the count alone ends this.
        let mut header = ::tar::Header::new_ustar();
        header.set_path(".wh..wh.plnk").unwrap();
        header.set_size(0);
        header.set_cksum();
        let archive = Repeated(*header.as_bytes(), 0);
        let unpacked = unpack_at_most(archive, above.folder(), OsStr::new("layer"), Devices::LeaveOut, 1000);
        let error = unpacked.map(drop).unwrap_err();
        assert!(matches!(error, UnpackError::Limit { what: "entries", max: 1000 }), "{error}");
    }

    #[test]
    fn paths_are_remembered_up_to_a_limit() {
        let above = tempfile::tempdir().unwrap();
        let above = Root::open(above.path()).unwrap();
        let mut unpacker = Unpacker::new(above.folder(), OsStr::new("layer"), Devices::LeaveOut).unwrap();
        let path = vec![b'x'; PATH_BYTES_MAX];
        let remembered = (0..REMEMBERED_BYTES_MAX).take_while(|_| unpacker.remember(&path).is_ok()).count();
        assert_eq!(remembered, REMEMBERED_BYTES_MAX / (PATH_BYTES_MAX + REMEMBERING_BYTES));
    }
}
