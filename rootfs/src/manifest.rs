//! Indexes, manifests and configurations, OCI's and docker's: bytes in, checked values out. Pure.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::Error;
use crate::limits::{INDEX_ENTRIES_MAX, LAYERS_MAX};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What we can read, in an `Accept` header.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYERS: [&str; 3] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// What a name can lead to.
#[derive(Debug)]
pub(crate) enum Document {
    /// One image for each of several platforms.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

/// Just enough of a document to tell what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a document that came as `content_type`. One that could be read as index and as manifest is refused, and one
/// that calls itself something else than the registry does: what was signed or approved as the one must not be run as
/// the other (CVE-2021-41190).
pub(crate) fn parse(what: &str, bytes: &[u8], content_type: Option<&str>) -> Result<Document, Error> {
    let refuse = |why: &str| Error::manifest(what, why);
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| refuse(&error.to_string()))?;
    if shape.fs_layers.is_some() || shape.schema_version == Some(1) {
        return Err(refuse("this is docker's manifest schema 1, which nobody makes any more: push the image again"));
    }
    if shape.schema_version != Some(2) {
        return Err(refuse("field schemaVersion is not 2"));
    }
    let index = shape.manifests.is_some();
    if index && (shape.config.is_some() || shape.layers.is_some()) {
        return Err(refuse("it has the fields of an index and of a manifest"));
    }
    let content_type = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let known = |text: &&str| ACCEPTED.contains(text);
    if let (Some(own), Some(given)) = (shape.media_type.as_deref(), content_type.filter(known))
        && own != given
    {
        return Err(refuse(&format!("field mediaType is {own:?}, but it was given as {given:?}")));
    }
    match shape.media_type.as_deref().or(content_type.filter(known)) {
        Some(OCI_INDEX | DOCKER_INDEX) if !index => Err(refuse("it is called an index and has no manifests")),
        Some(OCI_MANIFEST | DOCKER_MANIFEST) if index => Err(refuse("it is called a manifest and has manifests")),
        Some(other) if !ACCEPTED.contains(&other) => Err(refuse(&format!("media type {other:?} is not an image's"))),
        _ if index => parse_index(what, bytes).map(|index| Document::Index(Box::new(index))),
        _ => parse_manifest(what, bytes).map(|found| Document::Manifest(Box::new(found))),
    }
}

fn parse_index(what: &str, bytes: &[u8]) -> Result<ImageIndex, Error> {
    let index: ImageIndex = serde_json::from_slice(bytes).map_err(|error| Error::manifest(what, error.to_string()))?;
    if index.manifests().len() > INDEX_ENTRIES_MAX {
        return Err(Error::manifest(what, format!("it lists more than {INDEX_ENTRIES_MAX} manifests")));
    }
    Ok(index)
}

fn parse_manifest(what: &str, bytes: &[u8]) -> Result<ImageManifest, Error> {
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(|error| Error::manifest(what, error.to_string()))?;
    let config = manifest.config().media_type();
    if !matches!(config, MediaType::ImageConfig) && config.as_ref() != DOCKER_CONFIG {
        return Err(Error::manifest(what, format!("it is no container image: its config is {:?}", config.as_ref())));
    }
    if manifest.layers().len() > LAYERS_MAX {
        return Err(Error::manifest(what, format!("it has more than {LAYERS_MAX} layers")));
    }
    for (index, layer) in manifest.layers().iter().enumerate() {
        check_layer_type(layer.media_type()).map_err(|why| Error::manifest(what, format!("layers[{index}]: {why}")))?;
    }
    Ok(manifest)
}

/// Whether we can unpack such a layer. How it is compressed is told by its first bytes; here counts that the manifest
/// means a layer at all, and one that lies in the registry.
fn check_layer_type(media_type: &MediaType) -> Result<(), String> {
    match media_type {
        MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd => Ok(()),
        MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Err("a foreign layer, which no registry may hold".into()),
        other if DOCKER_LAYERS.contains(&other.as_ref()) => Ok(()),
        other if other.as_ref().contains("rootfs.foreign") => Err("a foreign layer, which no registry may hold".into()),
        other => Err(format!("media type {:?} is not a layer's", other.as_ref())),
    }
}

/// The digest of a descriptor, in our own words.
pub(crate) fn digest_of(what: &str, descriptor: &Descriptor) -> Result<Digest, Error> {
    descriptor.digest().as_ref().parse().map_err(|why: &str| Error::manifest(what, why))
}

/// What an image takes in its registry.
pub(crate) fn size(manifest: &ImageManifest) -> u64 {
    let layers = manifest.layers().iter().map(Descriptor::size);
    layers.fold(manifest.config().size(), u64::saturating_add)
}

/// The machine that an image is chosen for, in the words of indexes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    /// Such as `amd64`.
    pub(crate) architecture: &'static str,
    /// Variants that run here, the best first; an entry without a variant runs too.
    pub(crate) variants: &'static [&'static str],
}

impl Host {
    /// This machine.
    pub(crate) fn this() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self { architecture: "amd64", variants: &["v1"] },
            "aarch64" => Self { architecture: "arm64", variants: &["v8"] },
            "arm" => Self { architecture: "arm", variants: &["v7", "v6", "v5"] },
            "x86" => Self { architecture: "386", variants: &[] },
            "powerpc64" => Self { architecture: "ppc64le", variants: &[] },
            "loongarch64" => Self { architecture: "loong64", variants: &[] },
            other => Self { architecture: other, variants: &[] },
        }
    }
}

/// The index's entry for `host`; the first of equals. An entry that names no platform will do if it is the only one.
pub(crate) fn choose<'i>(what: &str, index: &'i ImageIndex, host: Host) -> Result<&'i Descriptor, Error> {
    let rank = |entry: &Descriptor| {
        let platform = entry.platform().as_ref()?;
        if *platform.os() != Os::Linux || platform.architecture().to_string() != host.architecture {
            return None;
        }
        match platform.variant().as_deref() {
            None | Some("") => Some(host.variants.len().min(1)),
            Some(variant) => host.variants.iter().position(|known| *known == variant).map(|place| place * 2),
        }
    };
    let fitting = index.manifests().iter().filter_map(|entry| rank(entry).map(|rank| (rank, entry)));
    if let Some((_, entry)) = fitting.min_by_key(|(rank, _)| *rank) {
        return Ok(entry);
    }
    match index.manifests().as_slice() {
        [only] if only.platform().is_none() => Ok(only),
        entries => Err(Error::manifest(
            what,
            format!("no image for linux/{} in it, only for {}", host.architecture, platforms(entries)),
        )),
    }
}

fn platforms(entries: &[Descriptor]) -> String {
    let name = |entry: &Descriptor| {
        let platform = entry.platform().as_ref()?;
        let variant = platform.variant().as_deref().filter(|variant| !variant.is_empty());
        let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
        Some(format!("{}/{}{variant}", platform.os(), platform.architecture()))
    };
    let mut names: Vec<String> = entries.iter().filter_map(name).collect();
    names.dedup();
    names.truncate(16);
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Reads a configuration and checks that it belongs to a manifest of `layers` layers. Gives the layers' diff ids too,
/// the lowest first.
pub(crate) fn parse_config(
    what: &str,
    bytes: &[u8],
    layers: usize,
) -> Result<(ImageConfiguration, Vec<Digest>), Error> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|error| Error::manifest(what, error.to_string()))?;
    if *config.os() != Os::Linux {
        return Err(Error::manifest(what, format!("the image is for {}, not for linux", config.os())));
    }
    let ids = config.rootfs().diff_ids();
    if ids.len() != layers {
        let why = format!("rootfs.diff_ids has {} entries, the manifest {layers} layers", ids.len());
        return Err(Error::manifest(what, why));
    }
    let ids = ids.iter().map(|id| id.parse()).collect::<Result<_, &str>>();
    let ids = ids.map_err(|why| Error::manifest(what, format!("rootfs.diff_ids: {why}")))?;
    Ok((config, ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(kind: &str, platform: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{DIGEST}","size":1{platform}}}"#)
    }

    fn manifest(layer: &str) -> String {
        let config = descriptor("application/vnd.oci.image.config.v1+json", "");
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, descriptor(layer, ""))
    }

    fn index(platforms: &[(&str, &str, &str)]) -> ImageIndex {
        let entry = |(number, (os, arch, variant)): (usize, &(&str, &str, &str))| {
            let variant = if variant.is_empty() { String::new() } else { format!(r#","variant":"{variant}""#) };
            let platform = format!(r#","platform":{{"os":"{os}","architecture":"{arch}"{variant}}}"#);
            descriptor(OCI_MANIFEST, &platform).replace("\"size\":1", &format!("\"size\":{number}"))
        };
        let entries: Vec<String> = platforms.iter().enumerate().map(entry).collect();
        serde_json::from_str(&format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))).unwrap()
    }

    fn chosen(platforms: &[(&str, &str, &str)], host: Host) -> Option<u64> {
        choose("x", &index(platforms), host).ok().map(Descriptor::size)
    }

    #[test]
    fn the_best_fitting_platform_is_chosen() {
        let arm = Host { architecture: "arm", variants: &["v7", "v6", "v5"] };
        let amd = Host { architecture: "amd64", variants: &["v1"] };
        assert_eq!(chosen(&[("linux", "arm", "v5"), ("linux", "arm", "v7"), ("linux", "arm", "v8")], arm), Some(1));
        assert_eq!(chosen(&[("linux", "arm", "v5"), ("linux", "arm", "v6")], arm), Some(1));
        assert_eq!(chosen(&[("windows", "amd64", ""), ("linux", "amd64", "")], amd), Some(1));
        assert_eq!(chosen(&[("linux", "amd64", "v3"), ("linux", "amd64", "")], amd), Some(1));
        assert_eq!(chosen(&[("linux", "amd64", "v3"), ("unknown", "unknown", "")], amd), None);
        assert_eq!(chosen(&[], amd), None);
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        let plain = manifest("application/vnd.oci.image.layer.v1.tar+gzip");
        assert!(matches!(parse("x", plain.as_bytes(), None), Ok(Document::Manifest(_))));
        assert!(matches!(parse("x", plain.as_bytes(), Some("application/json")), Ok(Document::Manifest(_))));
        assert!(parse("x", plain.as_bytes(), Some(OCI_INDEX)).is_err());
        let both = plain.replace("\"schemaVersion\":2", "\"schemaVersion\":2,\"manifests\":[]");
        assert!(parse("x", both.as_bytes(), None).is_err());
        let called =
            plain.replace("\"schemaVersion\":2", &format!("\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\""));
        assert!(parse("x", called.as_bytes(), Some(OCI_MANIFEST)).is_ok());
        assert!(parse("x", called.as_bytes(), Some(DOCKER_MANIFEST)).is_err());
        assert!(parse("x", br#"{"schemaVersion":1,"fsLayers":[]}"#, None).is_err());
        assert!(parse("x", br#"{"schemaVersion":2}"#, None).is_err());
        assert!(parse("x", b"[]", None).is_err());
    }

    #[test]
    fn foreign_layers_and_artifacts_are_refused() {
        for kind in [
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/octet-stream",
        ] {
            assert!(parse("x", manifest(kind).as_bytes(), None).is_err(), "{kind}");
        }
        let artifact = manifest("application/vnd.oci.image.layer.v1.tar").replace("image.config.v1", "empty.v1");
        assert!(parse("x", artifact.as_bytes(), None).is_err());
    }

    #[test]
    fn a_configuration_belongs_to_its_manifest() {
        let config =
            format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}}}}"#);
        assert_eq!(parse_config("x", config.as_bytes(), 1).unwrap().1.len(), 1);
        assert!(parse_config("x", config.as_bytes(), 2).is_err());
        assert!(parse_config("x", config.replace("linux", "windows").as_bytes(), 1).is_err());
        assert!(parse_config("x", config.replace("sha256:e", "sha256:E").as_bytes(), 1).is_err());
    }
}
