//! An image from its registry: manifest, configuration, and its layers side by side, each in one streaming pass.

use std::collections::HashSet;
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageManifest};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::digest::Digest;
use crate::error::Error;
use crate::limits::CONFIG_BYTES_MAX;
use crate::manifest::{self, Document, Host};
use crate::reference::Reference;
use crate::registry::{Repository, Served, incoming, send_blob};
use crate::store::layer::{self, Expected};
use crate::store::part::Part;
use crate::store::worker::Claim;
use crate::store::{Arrival, Shared};
use crate::{Image, Keyring, Progress};

/// What one pull's tasks share.
struct Pull {
    store: Arc<Shared>,
    repository: Repository,
    progress: Option<mpsc::Sender<Progress>>,
    /// All layers of the image. Held by whoever still unpacks, too, when the pull itself was given up.
    claim: Claim,
}

/// A layer to fetch.
struct Wanted {
    digest: Digest,
    size: u64,
    diff_id: Digest,
}

/// What came of fetching a layer once.
struct Fetched {
    served: Served,
    /// Whether a part of its blob was here.
    resumed: bool,
    outcome: Result<(), Error>,
}

/// Pulls `reference`. Giving up half way leaves whole layers for the next try and nothing else.
pub(crate) async fn pull(
    store: &Arc<Shared>,
    reference: &Reference,
    keyring: Keyring,
    progress: Option<mpsc::Sender<Progress>>,
) -> Result<Image, Error> {
    let of_claim = Arc::clone(store);
    let claim = blocking("claiming layers", move || of_claim.place.claim()).await?;
    let repository = Repository::of(store, reference, keyring).await?;
    let pull = Arc::new(Pull { store: Arc::clone(store), repository, progress, claim });

    let (target, bytes, found) = pull.manifest(reference).await?;
    let config_digest = manifest::digest_of("field config", found.config())?;
    let check = |config: &[u8]| verify("the configuration", config, &config_digest, Some(found.config().size()));
    let config = pull.repository.small_blob(&config_digest, CONFIG_BYTES_MAX, check).await?;
    let (_, diff_ids) = manifest::parse_config(&config_digest.to_string(), &config, found.layers().len())?;
    pull.claim(diff_ids.clone()).await?;
    pull.layers(found.layers(), &diff_ids).await?;

    let arrival = Arrival {
        manifest: bytes,
        target,
        config,
        config_digest,
        layers: diff_ids,
        size_bytes: manifest::size(&found),
        names: vec![reference.clone()],
    };
    // The claim must last until the image is published.
    blocking("publishing an image", move || pull.store.publish(arrival)).await
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.unwrap_or(Err(Error::Stopped { doing }))
}

impl Pull {
    /// The manifest for this machine, and the digest of what the name leads to.
    async fn manifest(&self, reference: &Reference) -> Result<(Digest, Vec<u8>, Box<ImageManifest>), Error> {
        let name = reference.digest().map(Digest::to_string).or(reference.tag().map(str::to_owned)).unwrap_or_default();
        let what = format!("manifest of {reference}");
        let read = |bytes: &[u8], content_type: Option<&str>| {
            reference.digest().map_or(Ok(()), |digest| verify(&what, bytes, digest, None))?;
            manifest::parse(&what, bytes, content_type)
        };
        let (bytes, document) = self.repository.manifest(&name, read).await?;
        let target = reference.digest().cloned().unwrap_or_else(|| Digest::of(&bytes));
        let index = match document {
            Document::Manifest(found) => return Ok((target, bytes, found)),
            Document::Index(index) => index,
        };
        let entry = manifest::choose(&what, &index, Host::this())?;
        let digest = manifest::digest_of(&what, entry)?;
        let read = |bytes: &[u8], content_type: Option<&str>| {
            verify(&what, bytes, &digest, Some(entry.size()))?;
            manifest::parse(&what, bytes, content_type)
        };
        let (bytes, document) = self.repository.manifest(&digest.to_string(), read).await?;
        match document {
            Document::Manifest(found) => Ok((target, bytes, found)),
            Document::Index(_) => Err(Error::manifest(what, "an index in an index")),
        }
    }

    /// From now on no layer that is here goes before the image is published.
    async fn claim(self: &Arc<Self>, layers: Vec<Digest>) -> Result<(), Error> {
        let pull = Arc::clone(self);
        let add = move || pull.claim.add(&layers, &pull.store.place.lease()?);
        blocking("claiming layers", add).await
    }

    async fn layers(self: &Arc<Self>, layers: &[Descriptor], diff_ids: &[Digest]) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut wanted = Vec::new();
        for (descriptor, diff_id) in layers.iter().zip(diff_ids).filter(|(_, diff_id)| seen.insert(*diff_id)) {
            let digest = manifest::digest_of("field layers", descriptor)?;
            wanted.push(Wanted { digest, size: descriptor.size(), diff_id: diff_id.clone() });
        }
        self.tell(Progress::Layers(wanted.iter().map(|layer| (layer.digest.to_string(), layer.size)).collect()));
        let mut tasks = JoinSet::new();
        for layer in wanted {
            let pull = Arc::clone(self);
            tasks.spawn(async move { pull.layer(layer).await });
        }
        // The first failure ends the others: dropping the set stops them.
        while let Some(result) = tasks.join_next().await {
            result.unwrap_or(Err(Error::Stopped { doing: "fetching a layer" }))?;
        }
        Ok(())
    }

    async fn layer(self: Arc<Self>, wanted: Wanted) -> Result<(), Error> {
        let flight = self.store.flight(&wanted.diff_id);
        let _alone = flight.lock().await;
        if !layer::is_present(&self.store.place, &wanted.diff_id) {
            let stopped = Error::Stopped { doing: "waiting for other layers" };
            let _permit = self.store.permits.acquire().await.map_err(|_| stopped)?;
            self.fetch(&wanted).await?;
        }
        self.tell(Progress::Unpacked { layer: wanted.digest.to_string() });
        Ok(())
    }

    /// Brings a layer in. What an earlier pull left of its blob need not come again, unless it turns out to be damaged; what
    /// a mirror gave that is another blob comes from the registry itself.
    async fn fetch(self: &Arc<Self>, wanted: &Wanted) -> Result<(), Error> {
        loop {
            let fetched = self.fetch_once(wanted).await?;
            match fetched.outcome {
                Err(error) if error.is_about_content() && fetched.resumed => {
                    tracing::debug!(layer = %wanted.digest, %error, "what was left of an earlier pull is no good");
                }
                Err(error) if error.is_about_content() && fetched.served == Served::ByMirror => {
                    tracing::warn!(layer = %wanted.digest, %error, "a mirror gave something else: asking the registry itself");
                    self.repository.distrust_mirrors();
                }
                outcome => return outcome,
            }
        }
    }

    async fn part(&self, wanted: &Wanted) -> Result<Part, Error> {
        let (store, digest, size) = (Arc::clone(&self.store), wanted.digest.clone(), wanted.size);
        blocking("opening a blob", move || Part::of(&store.place, &digest, size)).await
    }

    async fn fetch_once(self: &Arc<Self>, wanted: &Wanted) -> Result<Fetched, Error> {
        let part = self.part(wanted).await?;
        let (outgoing, rest) = incoming();
        let label = wanted.digest.to_string();
        let expected =
            Expected { blob: Some((wanted.digest.clone(), wanted.size)), diff_id: Some(wanted.diff_id.clone()) };
        let begun = part.begun();
        let pull = Arc::clone(self);
        let unpacking =
            spawn_blocking(move || layer::bring_in(&pull.store.place, &pull.claim, &label, part, rest, &expected));
        let seen = |done| self.tell(Progress::Bytes { layer: wanted.digest.to_string(), done });
        let sent = send_blob(&self.repository, &wanted.digest, wanted.size, begun, outgoing, seen).await;
        let unpacked = unpacking.await.unwrap_or(Err(Error::Stopped { doing: "unpacking a layer" }));
        // A registry's own error says more than that the stream ended.
        Ok(Fetched { served: sent?, resumed: begun > 0, outcome: unpacked.map(drop) })
    }

    /// Never waits for the listener: one that is slow misses something.
    fn tell(&self, progress: Progress) {
        if let Some(listener) = &self.progress {
            drop(listener.try_send(progress));
        }
    }
}

fn verify(what: &str, bytes: &[u8], digest: &Digest, size: Option<u64>) -> Result<(), Error> {
    let mismatch = |expected: String, got: String| Err(Error::Mismatch { what: what.to_owned(), expected, got });
    match size.filter(|size| *size != bytes.len() as u64) {
        Some(size) => mismatch(format!("{size} bytes"), format!("{} bytes", bytes.len())),
        None if digest.matches(bytes) => Ok(()),
        None => mismatch(digest.to_string(), Digest::of(bytes).to_string()),
    }
}
