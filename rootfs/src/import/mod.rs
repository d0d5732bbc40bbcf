//! Images from files: an OCI layout, a docker archive, or a plain root filesystem, each a folder or a tar, and a tar
//! compressed or not.

mod docker;
mod layout;
mod members;
mod pack;
mod plain;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use berth_sys::beneath::Root;

pub(crate) use self::layout::{FULL_NAME, NAME};
use self::members::{Members, folder_has};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{LAYER_BYTES_MAX, LAYERS_AT_ONCE};
use crate::reference::Reference;
use crate::store::layer::{self, Expected, expansion_limit};
use crate::store::part::Part;
use crate::store::place::Place;
use crate::store::worker::Claim;
use crate::store::{Shared, inflate};
use crate::{Image, ImportConfig};

/// An image found in a source, before its layers are unpacked.
struct Found {
    /// The source's own names for it.
    names: Vec<Reference>,
    /// A name of it that is only a tag.
    tag: Option<String>,
    manifest: Vec<u8>,
    /// What the source calls it by: the index's digest if it has one.
    target: Digest,
    config: Vec<u8>,
    config_digest: Digest,
    layers: Vec<FoundLayer>,
    size_bytes: u64,
}

impl Found {
    /// What to call it by in a message.
    fn called(&self) -> Vec<String> {
        let names: Vec<String> = self.names.iter().map(Reference::to_string).chain(self.tag.clone()).collect();
        if names.is_empty() { vec![self.target.to_string()] } else { names }
    }
}

/// One layer: the file that holds it, and what it must be.
struct FoundLayer {
    file: String,
    diff_id: Digest,
    expected: Expected,
}

/// Brings in what lies at `source`. Blocking.
pub(crate) fn import(
    store: &Shared,
    source: &Path,
    name: Option<&Reference>,
    config: &ImportConfig,
) -> Result<Vec<Image>, Error> {
    let claim = store.place.claim()?;
    let status = source.metadata().map_err(Error::file("open", source))?;
    if status.is_dir() {
        let root = Root::open(source).map_err(Error::file("open", source))?;
        if !(folder_has(&root, "oci-layout") && folder_has(&root, "index.json")) {
            return plain::folder(store, &claim, source, root.folder(), name, config).map(|image| vec![image]);
        }
        let members = Members::Folder { path: source.to_owned(), root };
        return bring_in_all(store, &claim, &members, layout::images(&members)?, name);
    }
    let mut file = plain_tar(&store.place, source)?;
    let listed = file.try_clone().map_err(Error::file("read", source))?;
    if let Some(members) = Members::of_tar(source, listed)? {
        if members.has("oci-layout") && members.has("index.json") {
            return bring_in_all(store, &claim, &members, layout::images(&members)?, name);
        }
        if let Some(found) = docker::images(&members)? {
            return bring_in_all(store, &claim, &members, found, name);
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(Error::file("read", source))?;
    plain::tar(store, &claim, source, file, name, config).map(|image| vec![image])
}

/// Of several images, only the one that has the wanted name in the source.
fn wanted(members: &Members, mut found: Vec<Found>, name: Option<&Reference>) -> Result<Vec<Found>, Error> {
    let refused = |why: String| Err(Error::Import { path: members.path().to_owned(), why });
    let Some(name) = name.filter(|_| found.len() > 1) else {
        return if found.is_empty() { refused("there is no image in it".to_owned()) } else { Ok(found) };
    };
    let all: Vec<String> = found.iter().flat_map(Found::called).collect();
    found.retain(|image| image.names.contains(name) || image.tag.as_deref().is_some_and(|tag| name.tag() == Some(tag)));
    match found.len() {
        1 => Ok(found),
        _ => refused(format!("it holds several images ({}), of which none or not only one is {name}", all.join(", "))),
    }
}

fn bring_in_all(
    store: &Shared,
    claim: &Claim,
    members: &Members,
    found: Vec<Found>,
    name: Option<&Reference>,
) -> Result<Vec<Image>, Error> {
    let found = wanted(members, found, name)?;
    let bring_in = |found: Found| {
        bring_in_layers(&store.place, claim, members, &found.layers)?;
        let names = name.map_or(found.names, |name| vec![name.clone()]);
        let layers = found.layers.into_iter().map(|layer| layer.diff_id).collect();
        store.publish(crate::store::Arrival {
            manifest: found.manifest,
            target: found.target,
            config: found.config,
            config_digest: found.config_digest,
            layers,
            size_bytes: found.size_bytes,
            names,
        })
    };
    found.into_iter().map(bring_in).collect()
}

/// Unpacks those layers that are not there, several at the same time.
fn bring_in_layers(place: &Place, claim: &Claim, members: &Members, layers: &[FoundLayer]) -> Result<(), Error> {
    claim.add(layers.iter().map(|layer| &layer.diff_id), &place.lease()?)?;
    let mut missing: Vec<&FoundLayer> =
        layers.iter().filter(|layer| !layer::is_present(place, &layer.diff_id)).collect();
    missing.sort_by(|one, other| one.diff_id.cmp(&other.diff_id));
    missing.dedup_by(|one, other| one.diff_id == other.diff_id);
    let workers = missing.len().min(LAYERS_AT_ONCE);
    let queue = Mutex::new(missing);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some(found) = next() {
            let opened = members.open(&found.file)?;
            let (label, part) = (found.diff_id.to_string(), Part::new(place)?);
            layer::bring_in(place, claim, &label, part, opened.reader, &found.expected)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let begin = |_| thread::Builder::new().spawn_scoped(scope, work).map_err(Error::file("unpack", members.path()));
        let workers: Vec<_> = (0..workers).map(begin).collect();
        let stopped = |_| Err(Error::Stopped { doing: "unpacking a layer" });
        let ended = workers.into_iter().map(|worker| worker?.join().unwrap_or_else(stopped));
        // Each is waited for, whatever became of the others.
        ended.collect::<Vec<Result<(), Error>>>().into_iter().collect()
    })
}

/// The tar as a file without compression, whose parts are needed in another order than they come in: one that is
/// compressed, or comes through a pipe, is first written to a file without a name.
fn plain_tar(place: &Place, source: &Path) -> Result<File, Error> {
    let mut file = File::open(source).map_err(Error::file("open", source))?;
    if !file.metadata().map_err(Error::file("open", source))?.is_file() {
        file = spooled(place, source, file, LAYER_BYTES_MAX)?;
    }
    let blob_bytes = file.metadata().map_err(Error::file("read", source))?.len();
    let mut head = Vec::new();
    (&mut file).take(inflate::HEAD_BYTES as u64).read_to_end(&mut head).map_err(Error::file("read", source))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::file("read", source))?;
    if !inflate::is_compressed(&head) {
        return Ok(file);
    }
    let inflated = inflate::decoder(&head, file).map_err(Error::file("read", source))?;
    spooled(place, source, inflated, expansion_limit(blob_bytes))
}

/// All that `reader` gives, at most so much, as a file that goes with its descriptor.
fn spooled(place: &Place, source: &Path, reader: impl Read, bytes_max: u64) -> Result<File, Error> {
    let path = place.temporary()?;
    let file = File::options().create_new(true).read(true).write(true).open(&path);
    let mut file = file.map_err(Error::file("make", &path))?;
    std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    let read = io::copy(&mut reader.take(bytes_max.saturating_add(1)), &mut file);
    if read.map_err(Error::file("read all of", source))? > bytes_max {
        let why = format!("it is more than {bytes_max} bytes without compression");
        return Err(Error::Import { path: source.to_owned(), why });
    }
    file.seek(SeekFrom::Start(0)).map_err(Error::file("read", source))?;
    Ok(file)
}
