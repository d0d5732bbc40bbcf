//! Images as an OCI layout in a tar (image-spec `image-layout.md`), with docker's `manifest.json` beside it so that
//! `docker load` takes it too. Every blob is verified on its way out.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};

use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use serde_json::{Value, json};
use tar::{Builder, Header};

use crate::digest::{Digest, Hasher, Hashing};
use crate::error::Error;
use crate::import::{FULL_NAME, NAME};
use crate::limits::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::manifest::{self, Document};
use crate::reference::Reference;
use crate::store::Shared;
use crate::store::index::Record;
use crate::store::layer::Note;

/// One image, with blobs that the store has.
struct Outgoing {
    manifest: Vec<u8>,
    manifest_digest: Digest,
    media_type: String,
    tags: Vec<String>,
    config: Vec<u8>,
    config_digest: Digest,
    layers: Vec<Descriptor>,
}

/// Writes the images of these names to `out`. Blocking.
pub(crate) fn export(store: &Shared, names: &[String], out: impl Write) -> Result<(), Error> {
    let claim = store.place.claim()?;
    let lease = store.place.lease()?;
    let records = store.index.load()?;
    let find = |name: &String| {
        let record = records.find(name)?.ok_or_else(|| Error::NoImage { name: name.clone() })?;
        let layers: Vec<Digest> = record.layers.iter().filter_map(|layer| layer.parse().ok()).collect();
        claim.add(&layers, &lease)?;
        // An image asked for by its id goes with all its tags, one asked for by a tag with that.
        let tag = name.parse::<Reference>().ok().and_then(|reference| reference.tagged());
        let tags = tag.filter(|tag| record.tags.contains(tag)).map_or_else(|| record.tags.clone(), |tag| vec![tag]);
        outgoing(store, record, tags)
    };
    let images: Vec<Outgoing> = names.iter().map(find).collect::<Result<_, Error>>()?;
    drop(lease);
    write(store, &images, out)
}

fn outgoing(store: &Shared, record: &Record, tags: Vec<String>) -> Result<Outgoing, Error> {
    let what = format!("manifest of {}", record.id);
    let digest: Digest = record.manifest.parse().map_err(|why: &str| Error::manifest(&what, why))?;
    let manifest = small_blob(store, &digest, MANIFEST_BYTES_MAX)?;
    let Document::Manifest(found) = manifest::parse(&what, &manifest, None)? else {
        return Err(Error::manifest(what, "it is no manifest"));
    };
    let has = |descriptor: &Descriptor| {
        manifest::digest_of(&what, descriptor).is_ok_and(|digest| store.place.blob(&digest).exists())
    };
    let described: Result<Vec<Descriptor>, Error> = found
        .layers()
        .iter()
        .zip(&record.layers)
        .map(|(layer, diff_id)| if has(layer) { Ok(layer.clone()) } else { other_blob(store, record, diff_id) })
        .collect();
    let layers = described?;
    let (manifest, manifest_digest) = if layers == *found.layers() {
        (manifest, digest)
    } else {
        // A layer came with another image, compressed in another way: the manifest has to name the blob that is here.
        let manifest = rewritten(&manifest, &layers).map_err(|error| Error::manifest(&what, error.to_string()))?;
        let digest = Digest::of(&manifest);
        (manifest, digest)
    };
    let config_digest = manifest::digest_of("field config", found.config())?;
    Ok(Outgoing {
        media_type: media_type(&found),
        config: small_blob(store, &config_digest, CONFIG_BYTES_MAX)?,
        config_digest,
        manifest,
        manifest_digest,
        tags,
        layers,
    })
}

fn media_type(manifest: &ImageManifest) -> String {
    manifest.media_type().as_ref().unwrap_or(&MediaType::ImageManifest).to_string()
}

/// The blob that a layer came from with another image.
fn other_blob(store: &Shared, record: &Record, diff_id: &str) -> Result<Descriptor, Error> {
    let missing = || Error::NoBlob { image: record.id.clone(), layer: diff_id.to_owned() };
    let diff_id: Digest = diff_id.parse().map_err(|_| missing())?;
    let blob = Note::of(&store.place, &diff_id).ok_or_else(missing)?.blob;
    let digest: Digest = blob.digest().as_ref().parse().map_err(|_| missing())?;
    if store.place.blob(&digest).exists() { Ok(blob) } else { Err(missing()) }
}

fn rewritten(manifest: &[u8], layers: &[Descriptor]) -> Result<Vec<u8>, serde_json::Error> {
    let mut manifest: Value = serde_json::from_slice(manifest)?;
    if let Some(object) = manifest.as_object_mut() {
        object.insert("layers".to_owned(), serde_json::to_value(layers)?);
    }
    serde_json::to_vec(&manifest)
}

fn write(store: &Shared, images: &[Outgoing], out: impl Write) -> Result<(), Error> {
    let mut archive = Archive { out: Builder::new(out), written: HashSet::new() };
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    archive.document("oci-layout", &layout)?;
    let (mut index, mut docker) = (Vec::new(), Vec::new());
    for image in images {
        archive.bytes(&image.manifest_digest, &image.manifest)?;
        archive.bytes(&image.config_digest, &image.config)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            let digest = manifest::digest_of("field layers", layer)?;
            archive.blob(store, &digest, layer.size())?;
            layers.push(path_of(&digest));
        }
        index.extend(index_entries(image));
        docker.push(json!({ "Config": path_of(&image.config_digest), "RepoTags": image.tags, "Layers": layers }));
    }
    archive
        .document("index.json", &json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": index }))?;
    archive.document("manifest.json", &json!(docker))?;
    let flushed = archive.out.into_inner().and_then(|mut out| out.flush());
    flushed.map_err(|source| Error::Export { source })
}

/// The manifest once for each of its names.
fn index_entries(image: &Outgoing) -> Vec<Value> {
    let entry = |annotations: BTreeMap<&str, &str>| {
        let mut entry = json!({
            "mediaType": image.media_type,
            "digest": image.manifest_digest.to_string(),
            "size": image.manifest.len(),
        });
        if let Some(object) = entry.as_object_mut().filter(|_| !annotations.is_empty()) {
            object.insert("annotations".to_owned(), json!(annotations));
        }
        entry
    };
    let named = |tag: &String| {
        let short = tag.rsplit_once(':').map_or(tag.as_str(), |(_, tag)| tag);
        entry(BTreeMap::from([(FULL_NAME, tag.as_str()), (NAME, short)]))
    };
    if image.tags.is_empty() { vec![entry(BTreeMap::new())] } else { image.tags.iter().map(named).collect() }
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

/// A whole small blob of the store, verified.
fn small_blob(store: &Shared, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let path = store.place.blob(digest);
    let bytes = berth_sys::file::read_limited(&path, bytes_max).map_err(Error::file("read", &path))?;
    if digest.matches(&bytes) { Ok(bytes) } else { Err(damaged(digest, &Digest::of(&bytes))) }
}

fn damaged(wanted: &Digest, got: &Digest) -> Error {
    let what = format!("blob {wanted} of the store (remove the image and pull it again)");
    Error::Mismatch { what, expected: wanted.to_string(), got: got.to_string() }
}

struct Archive<W: Write> {
    out: Builder<W>,
    /// Blobs that are in it: images share them.
    written: HashSet<Digest>,
}

impl<W: Write> Archive<W> {
    fn document(&mut self, name: &str, content: &Value) -> Result<(), Error> {
        self.append(name, content.to_string().as_bytes(), content.to_string().len() as u64)
    }

    fn bytes(&mut self, digest: &Digest, content: &[u8]) -> Result<(), Error> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        self.append(&path_of(digest), content, content.len() as u64)
    }

    fn blob(&mut self, store: &Shared, digest: &Digest, size: u64) -> Result<(), Error> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let path = store.place.blob(digest);
        let file = File::open(&path).map_err(Error::file("open", &path))?;
        if file.metadata().map_err(Error::file("look at", &path))?.len() != size {
            return Err(damaged(digest, digest));
        }
        let mut blob = Hashing::new(file, Hasher::new(digest));
        self.append(&path_of(digest), &mut blob, size)?;
        let (got, _) = blob.finish();
        if got == *digest { Ok(()) } else { Err(damaged(digest, &got)) }
    }

    /// The same content gives the same archive: no time, no owner.
    fn append(&mut self, name: &str, content: impl Read, size: u64) -> Result<(), Error> {
        let mut header = Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        let path = header.set_path(name);
        header.set_cksum();
        let written = path.and_then(|()| self.out.append(&header, Exactly { inner: content, left: size }));
        written.map_err(|source| Error::Export { source })
    }
}

/// A reader that must have so many bytes.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left -= count as u64;
        if count == 0 && most > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}
