//! The store: images and their unpacked layers in one folder, shared by all processes that open it.

pub(crate) mod index;
pub(crate) mod inflate;
pub(crate) mod layer;
pub(crate) mod part;
pub(crate) mod place;
pub(crate) mod sweep;
pub(crate) mod worker;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use berth_sys::file::{Durability, replace};
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

use self::index::{Index, Record, digest_name};
use self::place::Place;
use self::sweep::Leftovers;
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::LAYERS_AT_ONCE;
use crate::reference::Reference;
use crate::registry::Transport;
use crate::unpack::Devices;
use crate::{
    Collected, GcPolicy, Image, ImportConfig, Keyring, MountOptions, Progress, RegistryConfig, Usage, export, gc,
    import, pull, snapshot,
};

/// The images and snapshots of one state folder. Cheap to clone. Several processes may have one folder open: what one
/// brings in the others see, and what one is at no other sweeps away.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What all clones of a store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) place: Place,
    pub(crate) index: Index,
    pub(crate) registries: RegistryConfig,
    pub(crate) transport: Arc<Transport>,
    /// Layers that are being fetched, by diff id: a second pull waits for the first one's.
    pub(crate) flights: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    pub(crate) permits: Semaphore,
}

/// An image whose layers are in the store, to be published.
pub(crate) struct Arrival {
    pub(crate) manifest: Vec<u8>,
    /// What the names lead to: the index's digest, or the manifest's.
    pub(crate) target: Digest,
    pub(crate) config: Vec<u8>,
    pub(crate) config_digest: Digest,
    /// Diff ids, the lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) size_bytes: u64,
    pub(crate) names: Vec<Reference>,
}

impl Store {
    /// Opens or makes the store below `dir`; removes what nobody needs any more. What a pull that was cut off brought waits
    /// for a day to be of use to the next.
    pub fn open(dir: &Path, registries: RegistryConfig) -> Result<Self, Error> {
        Self::open_with(dir, registries, Devices::LeaveOut)
    }

    /// As [`Self::open`]; layers that come in from now on get their device files or not.
    pub fn open_with(dir: &Path, registries: RegistryConfig, devices: Devices) -> Result<Self, Error> {
        let place = Place::make(dir, devices)?;
        let index = Index::new(place.clone());
        sweep::sweep(&place, &index, Leftovers::Keep)?;
        let shared = Shared {
            place,
            index,
            transport: Arc::new(Transport::new(registries.silence)),
            registries,
            flights: Mutex::default(),
            permits: Semaphore::new(LAYERS_AT_ONCE),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes an image present, from its registry or a mirror of it. Nobody is shown credentials of `keyring` but the hosts
    /// that they are for, and these only if they ask; several are tried in turn. `progress` is told what happens and may be
    /// dropped at any time.
    pub async fn pull(
        &self,
        reference: &Reference,
        keyring: Option<Keyring>,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Image, Error> {
        let pulled = pull::pull(&self.shared, reference, keyring.unwrap_or_default(), progress).await;
        self.tidy().await;
        pulled
    }

    /// Makes an image of what lies at `source`: an OCI layout (folder or tar), a docker archive, or a plain root
    /// filesystem (folder or tar), to which alone `config` applies. It is named `name`, or by the archive's own names.
    /// A compressed tar is told by its first bytes.
    pub async fn import(
        &self,
        source: &Path,
        name: Option<&Reference>,
        config: &ImportConfig,
    ) -> Result<Vec<Image>, Error> {
        let (source, name, config) = (source.to_owned(), name.cloned(), config.clone());
        let imported =
            self.blocking("importing", move |shared| import::import(shared, &source, name.as_ref(), &config)).await;
        self.tidy().await;
        imported
    }

    /// An image by reference or by id (`sha256:…`, or at least 12 digits of it).
    pub fn image(&self, name: &str) -> Result<Option<Image>, Error> {
        let records = self.shared.index.load()?;
        let Some(id) = records.find(name)?.map(|record| record.id.clone()) else { return Ok(None) };
        Ok(self.shared.index.images()?.iter().find(|image| image.id == id).cloned())
    }

    /// All images.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        Ok(self.shared.index.images()?.to_vec())
    }

    /// Removes a name, and with its last tag the image and the layers that no other image has; by its id, the image with
    /// all its names. A layer that a snapshot stands on goes with the snapshot, one that a pull counts on at its end. False
    /// if there is no such image.
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        let remove = move |shared: &Shared| {
            let removed = shared.index.change(|records| records.remove(&name))?;
            sweep::sweep(&shared.place, &shared.index, Leftovers::Keep)?;
            Ok(removed)
        };
        self.blocking("removing an image", remove).await
    }

    /// Mounts a writable root of an image at `target`, an existing empty folder. What is written is kept under `key`, and
    /// shows again if the same image is mounted under it again before the machine restarts. Success if it is mounted
    /// there already; `EBUSY` if another is, or this one elsewhere.
    pub async fn mount(&self, image: &Image, key: &str, target: &Path) -> Result<(), Error> {
        self.mount_with(image, key, target, &MountOptions::default()).await
    }

    /// As [`Self::mount`], with other options; what was written under `key` with others than these is forgotten.
    pub async fn mount_with(
        &self,
        image: &Image,
        key: &str,
        target: &Path,
        options: &MountOptions,
    ) -> Result<(), Error> {
        let options = options.clone();
        let (id, layers) = (image.id.clone(), image.config.rootfs().diff_ids().clone());
        let (key, target) = (key.to_owned(), target.to_owned());
        let mount = move |shared: &Shared| {
            let _lease = shared.place.lease()?;
            shared.place.note_use(&id)?;
            snapshot::mount(&shared.place, &id, &layers, &key, &target, &options)
        };
        self.blocking("mounting a root", mount).await
    }

    /// Unmounts the root that is mounted at `target` under `key`, and forgets what was written. Success if neither is there;
    /// what somebody else mounted there stays. `EBUSY` if the root is mounted elsewhere too.
    pub async fn unmount(&self, key: &str, target: &Path) -> Result<(), Error> {
        let (key, target) = (key.to_owned(), target.to_owned());
        let unmount = move |shared: &Shared| {
            let lease = shared.place.lease()?;
            let Some(id) = snapshot::unmount(&shared.place, &key, &target)? else { return Ok(()) };
            shared.forgive("note a use", shared.place.note_use(&id));
            drop(lease);
            // The image may have been removed meanwhile; then this may have been the last to use its layers.
            if shared.index.load().is_ok_and(|records| records.images.iter().all(|record| record.id != id)) {
                shared.forgive("sweep", sweep::sweep(&shared.place, &shared.index, Leftovers::Keep));
            }
            Ok(())
        };
        self.blocking("unmounting a root", unmount).await
    }

    /// Writes images to `out` as one OCI layout in a tar, which `docker load` takes too.
    pub async fn export(&self, names: &[String], out: impl std::io::Write + Send + 'static) -> Result<(), Error> {
        let names = names.to_vec();
        self.blocking("exporting", move |shared| export::export(shared, &names, out)).await
    }

    /// Lets images go that nobody uses, as `policy` says. Never one that is pinned or that a snapshot stands on, and no
    /// layer that a pull is about to use.
    pub async fn collect(&self, policy: &GcPolicy) -> Result<Collected, Error> {
        let policy = policy.clone();
        self.blocking("collecting images", move |shared| gc::collect(shared, &policy)).await
    }

    /// Keeps an image from being collected, or lets it be collected again.
    pub async fn pin(&self, name: &str, pinned: bool) -> Result<(), Error> {
        let name = name.to_owned();
        let pin = move |shared: &Shared| shared.index.change(|records| records.pin(&name, pinned)).map(drop);
        self.blocking("pinning an image", pin).await
    }

    /// The keys under which something was written.
    pub fn snapshots(&self) -> Result<Vec<String>, Error> {
        snapshot::keys(&self.shared.place)
    }

    /// What was written under `key`, in disk blocks. Long: each file is looked at.
    pub async fn usage(&self, key: &str) -> Result<Usage, Error> {
        let key = key.to_owned();
        self.blocking("counting what a root takes", move |shared| snapshot::usage(&shared.place, &key)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(&self.shared);
        spawn_blocking(move || work(&shared)).await.unwrap_or(Err(Error::Stopped { doing }))
    }

    /// Sweeps if that is wanted, and lets the disk catch up behind the caller's back; a process that ends waits for it
    /// with its runtime.
    async fn tidy(&self) {
        let sweep = |shared: &Shared| {
            shared.forgive("sweep", sweep::sweep_if_wanted(&shared.place, &shared.index));
            Ok(())
        };
        // It says itself what went wrong.
        let _ = self.blocking("sweeping", sweep).await;
        let shared = Arc::clone(&self.shared);
        drop(spawn_blocking(move || shared.forgive("write out new layers", layer::write_out(&shared.place))));
    }
}

impl Shared {
    /// Makes an image visible under its names, its layers being here and claimed.
    pub(crate) fn publish(&self, arrival: Arrival) -> Result<Image, Error> {
        let manifest_digest = Digest::of(&arrival.manifest);
        // No sweep sees the blobs without their image.
        let _lease = self.place.lease()?;
        for (digest, bytes) in [(&manifest_digest, &arrival.manifest), (&arrival.config_digest, &arrival.config)] {
            let path = self.place.blob(digest);
            replace(&path, bytes, Durability::Process).map_err(Error::file("write", path))?;
        }
        let digest = |name: &Reference| match name.digest() {
            Some(_) => digest_name(name),
            None => Some(format!("{}@{}", name.name(), arrival.target)),
        };
        let record = Record {
            id: arrival.config_digest.to_string(),
            manifest: manifest_digest.to_string(),
            tags: arrival.names.iter().filter_map(Reference::tagged).collect(),
            digests: arrival.names.iter().filter_map(digest).collect(),
            size_bytes: arrival.size_bytes,
            created_at: Timestamp::now(),
            layers: arrival.layers.iter().map(Digest::to_string).collect(),
            pinned: false,
        };
        if let Err(error) = snapshot::check(&self.place, &record.id, &record.layers) {
            // Its layers are of no use to a next try.
            arrival.layers.iter().for_each(|layer| layer::note_claimed(&self.place, layer.hex()));
            sweep::want(&self.place);
            return Err(error);
        }
        let id = record.id.clone();
        self.place.note_use(&id)?;
        self.index.change(|records| {
            records.add(record);
            Ok(true)
        })?;
        arrival.layers.iter().for_each(|layer| layer::note_claimed(&self.place, layer.hex()));
        let images = self.index.images()?;
        images.iter().find(|image| image.id == id).cloned().ok_or(Error::NoImage { name: id })
    }

    /// A failure of what comes after the work is done is told, but the work is done all the same.
    fn forgive(&self, what: &str, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            let store = self.place.top().display();
            tracing::warn!(%store, error = &error as &dyn std::error::Error, "cannot {what}");
        }
    }

    /// The lock that all who fetch one layer take.
    pub(crate) fn flight(&self, diff_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(diff_id).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(tokio::sync::Mutex::new(()));
        flights.insert(diff_id.clone(), Arc::downgrade(&flight));
        flight
    }
}
