//! Docker archives, as `docker save` writes them: `manifest.json` names each image's configuration and layers.

use std::collections::BTreeSet;

use oci_spec::image::MediaType;
use serde::Deserialize;
use serde_json::json;

use super::members::Members;
use super::{Found, FoundLayer};
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{CONFIG_BYTES_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX};
use crate::manifest;
use crate::reference::Reference;
use crate::store::layer::Expected;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// All images of the archive; `None` if it is none: a root filesystem may have a `manifest.json` too.
pub(super) fn images(members: &Members) -> Result<Option<Vec<Found>>, Error> {
    if !members.has("manifest.json") {
        return Ok(None);
    }
    let bytes = members.read("manifest.json", MANIFEST_BYTES_MAX)?;
    let Ok(items) = serde_json::from_slice::<Vec<Item>>(&bytes) else { return Ok(None) };
    if !items.iter().all(|item| members.has(&item.config)) {
        return Ok(None);
    }
    items.iter().map(|item| image(members, item)).collect::<Result<Vec<_>, _>>().map(Some)
}

fn image(members: &Members, item: &Item) -> Result<Found, Error> {
    let what = format!("{:?} in {}", item.config, members.path().display());
    if item.layers.len() > LAYERS_MAX {
        return Err(Error::manifest(what, format!("it has more than {LAYERS_MAX} layers")));
    }
    let config = members.read(&item.config, CONFIG_BYTES_MAX)?;
    let config_digest = Digest::of(&config);
    let (_, diff_ids) = manifest::parse_config(&what, &config, item.layers.len())?;
    let mut size_bytes = config.len() as u64;
    let mut described = Vec::new();
    let mut layers = Vec::new();
    for (file, diff_id) in item.layers.iter().zip(diff_ids) {
        let size = members.open(file)?.size;
        size_bytes = size_bytes.saturating_add(size);
        let media_type = MediaType::ImageLayer;
        described.push(json!({ "mediaType": media_type, "digest": diff_id.to_string(), "size": size }));
        let expected = Expected { blob: None, diff_id: Some(diff_id.clone()) };
        layers.push(FoundLayer { file: file.clone(), diff_id, expected });
    }
    let manifest =
        manifest_of(&config, &config_digest, &described).map_err(|error| Error::manifest(what, error.to_string()))?;
    Ok(Found {
        names: names(item),
        tag: None,
        target: Digest::of(&manifest),
        manifest,
        config,
        config_digest,
        layers,
        size_bytes,
    })
}

/// The archive has no manifest in the registries' sense: this is the one that its image would have, uncompressed.
pub(super) fn manifest_of(
    config: &[u8],
    config_digest: &Digest,
    layers: &[serde_json::Value],
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": manifest::OCI_MANIFEST,
        "config": {
            "mediaType": MediaType::ImageConfig,
            "digest": config_digest.to_string(),
            "size": config.len(),
        },
        "layers": layers,
    }))
}

/// One name twice is one name.
fn names(item: &Item) -> Vec<Reference> {
    let tags: BTreeSet<&String> = item.repo_tags.iter().flatten().collect();
    let name = |tag: &String| {
        let name = tag.parse();
        name.inspect_err(|error| tracing::warn!(%error, "an image in the archive has a name that is none")).ok()
    };
    tags.into_iter().filter_map(name).collect()
}
