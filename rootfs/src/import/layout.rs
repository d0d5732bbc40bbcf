//! OCI image layouts (image-spec `image-layout.md`): `index.json` and `blobs/<algorithm>/<digest>`.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::members::Members;
use super::{Found, FoundLayer};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::manifest::{self, Document, Host};
use crate::reference::Reference;
use crate::store::layer::Expected;

/// The annotation with an image's name; most writers put just a tag there.
pub(crate) const NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with an image's full name, by containerd and buildkit.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";

/// All images of the layout: each named entry of its index is one, and unnamed entries are one image's platforms.
pub(super) fn images(members: &Members) -> Result<Vec<Found>, Error> {
    let bytes = members.read("index.json", MANIFEST_BYTES_MAX)?;
    let what = format!("index.json in {}", members.path().display());
    let Document::Index(index) = manifest::parse(&what, &bytes, Some(manifest::OCI_INDEX))? else {
        return Err(Error::manifest(what, "it is no index"));
    };
    let has_name = |entry: &&Descriptor| annotation(entry, FULL_NAME).or(annotation(entry, NAME)).is_some();
    let named: Vec<&Descriptor> = index.manifests().iter().filter(has_name).collect();
    if named.is_empty() {
        return match index.manifests().as_slice() {
            [] => Ok(Vec::new()),
            [only] => Ok(vec![image(members, only)?]),
            _ => Ok(vec![image(members, manifest::choose(&what, &index, Host::this())?)?]),
        };
    }
    let mut found: Vec<Found> = Vec::new();
    for entry in named {
        let other = image(members, entry)?;
        // One image has an entry for each of its names.
        match found.iter_mut().find(|image| image.target == other.target) {
            Some(image) => {
                image.names.extend(other.names);
                image.tag = image.tag.take().or(other.tag);
            }
            None => found.push(other),
        }
    }
    Ok(found)
}

fn image(members: &Members, entry: &Descriptor) -> Result<Found, Error> {
    let what = format!("{} in {}", entry.digest(), members.path().display());
    let target = manifest::digest_of(&what, entry)?;
    let bytes = members.read_verified(&blob(&target), &target, MANIFEST_BYTES_MAX)?;
    let (bytes, found) = match manifest::parse(&what, &bytes, Some(entry.media_type().as_ref()))? {
        Document::Manifest(found) => (bytes, found),
        Document::Index(index) => of_platform(members, &what, &index)?,
    };
    let config_digest = manifest::digest_of(&what, found.config())?;
    let config = members.read_verified(&blob(&config_digest), &config_digest, CONFIG_BYTES_MAX)?;
    let (_, diff_ids) = manifest::parse_config(&config_digest.to_string(), &config, found.layers().len())?;
    let layer = |(descriptor, diff_id): (&Descriptor, Digest)| {
        let digest = manifest::digest_of(&what, descriptor)?;
        let expected = Expected { blob: Some((digest.clone(), descriptor.size())), diff_id: Some(diff_id.clone()) };
        Ok(FoundLayer { file: blob(&digest), diff_id, expected })
    };
    let layers: Result<Vec<_>, Error> = found.layers().iter().zip(diff_ids).map(layer).collect();
    let names = names(entry);
    Ok(Found {
        tag: annotation(entry, NAME).filter(|_| names.is_empty()).map(str::to_owned),
        names,
        size_bytes: manifest::size(&found),
        manifest: bytes,
        target,
        config,
        config_digest,
        layers: layers?,
    })
}

fn of_platform(members: &Members, what: &str, index: &ImageIndex) -> Result<(Vec<u8>, Box<ImageManifest>), Error> {
    let entry = manifest::choose(what, index, Host::this())?;
    let digest = manifest::digest_of(what, entry)?;
    let bytes = members.read_verified(&blob(&digest), &digest, MANIFEST_BYTES_MAX)?;
    match manifest::parse(what, &bytes, Some(entry.media_type().as_ref()))? {
        Document::Manifest(found) => Ok((bytes, found)),
        Document::Index(_) => Err(Error::manifest(what, "an index in an index")),
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

fn annotation<'d>(entry: &'d Descriptor, key: &str) -> Option<&'d str> {
    entry.annotations().as_ref()?.get(key).map(String::as_str)
}

/// The full name if there is one; a mere tag is no name of an image.
fn names(entry: &Descriptor) -> Vec<Reference> {
    let full = annotation(entry, FULL_NAME);
    let name = full.or(annotation(entry, NAME).filter(|name| name.contains(['/', ':'])));
    name.and_then(|name| name.parse().ok()).into_iter().collect()
}
