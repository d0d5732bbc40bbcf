//! A plain root filesystem as an image of one layer. The same content with the same words gives the same image.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;

use berth_sys::beneath::Folder;
use oci_spec::image::MediaType;
use serde_json::{Map, Value, json};

use super::docker::manifest_of;
use super::pack::pack;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::Host;
use crate::reference::Reference;
use crate::store::layer::{Arrived, Expected, TransferFailed, bring_in};
use crate::store::part::Part;
use crate::store::worker::Claim;
use crate::store::{Arrival, Shared};
use crate::{Image, ImportConfig};

/// Makes an image of a folder.
pub(super) fn folder(
    store: &Shared,
    claim: &Claim,
    source: &Path,
    folder: &Folder,
    name: Option<&Reference>,
    config: &ImportConfig,
) -> Result<Image, Error> {
    let part = Part::new(&store.place)?;
    let (reader, writer) = io::pipe().map_err(Error::file("read", source))?;
    let end = OnceLock::new();
    let label = source.display().to_string();
    let arrived = thread::scope(|scope| {
        let packing = thread::Builder::new().spawn_scoped(scope, || {
            let result = pack(folder, io::BufWriter::new(writer)).map_err(|error| error.to_string());
            // A reader that gave up has its own reason.
            drop(end.set(result));
        });
        packing.map_err(Error::file("pack", source))?;
        bring_in(&store.place, claim, &label, part, Packed { pipe: reader, end: &end }, &Expected::default())
    })?;
    publish(store, arrived, name, config)
}

/// Makes an image of a tar without compression.
pub(super) fn tar(
    store: &Shared,
    claim: &Claim,
    source: &Path,
    file: File,
    name: Option<&Reference>,
    config: &ImportConfig,
) -> Result<Image, Error> {
    let part = Part::new(&store.place)?;
    let arrived = bring_in(&store.place, claim, &source.display().to_string(), part, file, &Expected::default())?;
    publish(store, arrived, name, config)
}

/// The packer's end of the pipe; it ends well only if the packer did.
struct Packed<'e> {
    pipe: PipeReader,
    end: &'e OnceLock<Result<(), String>>,
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        // The pipe is closed a moment before the result is told.
        match self.end.wait() {
            Ok(()) => Ok(0),
            Err(why) => Err(io::Error::other(TransferFailed(why.clone()))),
        }
    }
}

fn publish(store: &Shared, arrived: Arrived, name: Option<&Reference>, config: &ImportConfig) -> Result<Image, Error> {
    let wrong = |error: serde_json::Error| Error::manifest("the new image's configuration", error.to_string());
    let config = serde_json::to_vec(&configuration(&arrived.diff_id, config)).map_err(wrong)?;
    let config_digest = Digest::of(&config);
    let layer = json!({
        "mediaType": MediaType::ImageLayer,
        "digest": arrived.diff_id.to_string(),
        "size": arrived.size,
    });
    let manifest = manifest_of(&config, &config_digest, &[layer]).map_err(wrong)?;
    store.publish(Arrival {
        target: Digest::of(&manifest),
        size_bytes: arrived.size.saturating_add(config.len() as u64),
        manifest,
        config,
        config_digest,
        layers: vec![arrived.diff_id],
        names: name.cloned().into_iter().collect(),
    })
}

fn configuration(diff_id: &Digest, config: &ImportConfig) -> Value {
    let mut run = Map::new();
    let mut set = |key: &str, value: Value| drop(run.insert(key.to_owned(), value));
    for (key, list) in [("Entrypoint", &config.entrypoint), ("Cmd", &config.cmd), ("Env", &config.env)] {
        if !list.is_empty() {
            set(key, json!(list));
        }
    }
    for (key, text) in [("User", &config.user), ("WorkingDir", &config.working_dir)] {
        if let Some(text) = text {
            set(key, json!(text));
        }
    }
    json!({
        "architecture": Host::this().architecture,
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
    })
}
