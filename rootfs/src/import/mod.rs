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

pub(crate) use self::layout::{FULL_NAME, NAME};
use self::members::{Members, folder_has};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{LAYER_BYTES_MAX, LAYERS_AT_ONCE};
use crate::reference::Reference;
use crate::store::layer::{self, Expected};
use crate::store::part::Part;
use crate::store::place::Place;
use crate::store::worker::Claim;
use crate::store::{Shared, inflate};
use crate::{Image, ImportConfig};

/// An image found in a source, before its layers are unpacked.
struct Found {
    /// The source's own names for it.
    names: Vec<Reference>,
    manifest: Vec<u8>,
    /// What the source calls it by: the index's digest if it has one.
    target: Digest,
    config: Vec<u8>,
    config_digest: Digest,
    layers: Vec<FoundLayer>,
    size_bytes: u64,
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
        let members = Members::of_folder(source)?;
        let Members::Folder { root, .. } = &members else { return Ok(Vec::new()) };
        if folder_has(root, "oci-layout") && folder_has(root, "index.json") {
            return bring_in_all(store, &claim, &members, layout::images(&members)?, name);
        }
        return plain::folder(store, &claim, source, root.folder(), name, config).map(|image| vec![image]);
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

fn bring_in_all(
    store: &Shared,
    claim: &Claim,
    members: &Members,
    found: Vec<Found>,
    name: Option<&Reference>,
) -> Result<Vec<Image>, Error> {
    if found.is_empty() || (found.len() > 1 && name.is_some()) {
        let why = format!("it holds {} images, which cannot all have the one name given", found.len());
        let why = if found.is_empty() { "there is no image in it".to_owned() } else { why };
        return Err(Error::Import { path: members.path().to_owned(), why });
    }
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
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let results: Vec<Result<(), Error>> = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or(Err(Error::Stopped { doing: "unpacking a layer" })))
            .collect();
        results.into_iter().collect()
    })
}

/// The tar as a file without compression: a compressed one is inflated into a file without a name, since its parts are
/// needed in another order than they come in.
fn plain_tar(place: &Place, source: &Path) -> Result<File, Error> {
    let mut file = File::open(source).map_err(Error::file("open", source))?;
    let mut head = Vec::new();
    (&mut file).take(4).read_to_end(&mut head).map_err(Error::file("read", source))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::file("read", source))?;
    if !inflate::is_compressed(&head) {
        return Ok(file);
    }
    let path = place.temporary()?;
    let mut inflated =
        File::options().create_new(true).read(true).write(true).open(&path).map_err(Error::file("make", &path))?;
    std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    let mut reader = inflate::decoder(&head.clone(), file).map_err(Error::file("read", source))?.take(LAYER_BYTES_MAX);
    io::copy(&mut reader, &mut inflated).map_err(Error::file("inflate", source))?;
    inflated.seek(SeekFrom::Start(0)).map_err(Error::file("read", source))?;
    Ok(inflated)
}
