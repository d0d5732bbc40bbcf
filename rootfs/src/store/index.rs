//! The index: which images there are and what they are called. One file, replaced as a whole under a lock; read anew when
//! it changed, so that what another process imported is seen at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use berth_sys::file::{Durability, remove, replace};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::layer;
use super::place::{IndexLock, Place};
use crate::Image;
use crate::digest::Digest;
use crate::error::Error;
use crate::limits::RESERVE_BYTES;
use crate::manifest::parse_config;
use crate::reference::Reference;

/// Digits of an id that are enough to ask by.
const ID_DIGITS_MIN: usize = 12;

/// One image as the index has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) manifest: String,
    pub(crate) tags: Vec<String>,
    pub(crate) digests: Vec<String>,
    pub(crate) size_bytes: u64,
    pub(crate) created_at: Timestamp,
    /// Diff ids, the lowest first.
    pub(crate) layers: Vec<String>,
    /// Never collected.
    #[serde(default)]
    pub(crate) pinned: bool,
}

/// The records, each id once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Records {
    pub(crate) images: Vec<Record>,
}

impl Records {
    /// Adds an image, or its new names to the image that it is already. A tag leads to one image only: it is taken from
    /// the one that had it.
    pub(crate) fn add(&mut self, record: Record) {
        for known in &mut self.images {
            known.tags.retain(|tag| !record.tags.contains(tag));
        }
        match self.images.iter_mut().find(|known| known.id == record.id) {
            None => self.images.push(record),
            Some(known) => {
                let old = std::mem::replace(known, record);
                let keep = |new: &mut Vec<String>, old: Vec<String>| {
                    let old: Vec<_> = old.into_iter().filter(|name| !new.contains(name)).collect();
                    new.extend(old);
                };
                keep(&mut known.tags, old.tags);
                keep(&mut known.digests, old.digests);
                known.created_at = old.created_at;
                known.pinned |= old.pinned;
            }
        }
    }

    /// The one image of that name.
    pub(crate) fn find(&self, name: &str) -> Result<Option<&Record>, Error> {
        if let Some(digits) = id_digits(name) {
            let mut found = self
                .images
                .iter()
                .filter(|record| record.id.split_once(':').is_some_and(|(_, id)| id.starts_with(digits)));
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => return Err(Error::Ambiguous { name: name.to_owned() }),
                (Some(record), None) => return Ok(Some(record)),
                (None, _) if name.contains(':') => return Ok(None),
                (None, _) => {}
            }
        }
        let reference: Reference = name.parse()?;
        Ok(self.images.iter().find(|record| is_named(record, &reference)))
    }

    /// Pins an image or lets go of it. False if there is none, or it is so already.
    pub(crate) fn pin(&mut self, name: &str, pinned: bool) -> Result<bool, Error> {
        let Some(id) = self.find(name)?.map(|record| record.id.clone()) else {
            return Err(Error::NoImage { name: name.to_owned() });
        };
        let record = self.images.iter_mut().find(|record| record.id == id && record.pinned != pinned);
        Ok(record.map(|record| record.pinned = pinned).is_some())
    }

    /// Takes an image away, with all its names; false if it is pinned or gone.
    pub(crate) fn remove_unpinned(&mut self, id: &str) -> bool {
        let before = self.images.len();
        self.images.retain(|record| record.id != id || record.pinned);
        self.images.len() != before
    }

    /// Takes a name away; an image without names goes whole, and so does one asked for by its id. False if there was none.
    pub(crate) fn remove(&mut self, name: &str) -> Result<bool, Error> {
        let Some(id) = self.find(name)?.map(|record| record.id.clone()) else { return Ok(false) };
        let by_id =
            id_digits(name).is_some_and(|digits| id.split_once(':').is_some_and(|(_, id)| id.starts_with(digits)));
        let reference = if by_id { None } else { Some(name.parse::<Reference>()?) };
        self.images.retain_mut(|record| {
            if record.id != id {
                return true;
            }
            let Some(reference) = &reference else { return false };
            match reference.tagged() {
                Some(tag) => {
                    record.tags.retain(|known| *known != tag);
                    !record.tags.is_empty()
                }
                None => {
                    let by_manifest = reference.digest().is_some_and(|digest| digest.to_string() == record.manifest);
                    let (digest, repository) = (digest_name(reference), format!("{}@", reference.name()));
                    record.digests.retain(|known| {
                        Some(known) != digest.as_ref() && !(by_manifest && known.starts_with(&repository))
                    });
                    !record.tags.is_empty() || !record.digests.is_empty()
                }
            }
        });
        Ok(true)
    }
}

fn is_named(record: &Record, reference: &Reference) -> bool {
    match (reference.tagged(), reference.digest()) {
        (Some(tag), _) => record.tags.contains(&tag),
        (None, Some(digest)) => {
            let name = format!("{}@", reference.name());
            digest_name(reference).is_some_and(|name| record.digests.contains(&name))
                || (digest.to_string() == record.manifest
                    && record.digests.iter().any(|known| known.starts_with(&name)))
        }
        (None, None) => false,
    }
}

/// `registry/repository@digest`.
pub(crate) fn digest_name(reference: &Reference) -> Option<String> {
    reference.digest().map(|digest| format!("{}@{digest}", reference.name()))
}

/// The digits, if this can be an id or its beginning.
fn id_digits(name: &str) -> Option<&str> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let enough = digits.len() >= ID_DIGITS_MIN && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    enough.then_some(digits)
}

/// Which version of the file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

/// The images as they were in one version of the file; `None` for no file.
type Version = (Option<Stamp>, Arc<Vec<Image>>);

/// The index file of a store and what was last read of it.
#[derive(Debug)]
pub(crate) struct Index {
    place: Place,
    read: Mutex<Option<Version>>,
}

impl Index {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, read: Mutex::new(None) }
    }

    /// All images, with their configurations. An image whose configuration is not there or is not what it was is left out
    /// with a word in the log.
    pub(crate) fn images(&self) -> Result<Arc<Vec<Image>>, Error> {
        let stamp = self.stamp()?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, images)) = read.as_ref()
            && *known == stamp
        {
            return Ok(Arc::clone(images));
        }
        let images = Arc::new(self.load()?.images.iter().filter_map(|record| self.image(record)).collect());
        *read = Some((stamp, Arc::clone(&images)));
        Ok(images)
    }

    /// The records as they are now.
    pub(crate) fn load(&self) -> Result<Records, Error> {
        match self.read()? {
            Some(records) => Ok(records),
            None => self.begin_anew(&self.place.index_lock()?),
        }
    }

    /// `None` if the file is damaged.
    fn read(&self) -> Result<Option<Records>, Error> {
        let path = self.place.index();
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(Records::default())),
            other => Ok(serde_json::from_slice(&other.map_err(Error::file("read", path))?).ok()),
        }
    }

    /// Puts a damaged index aside: only a loss of power can leave one. Its images have to be pulled again, for which the
    /// layers wait as those of any pull that was cut off.
    fn begin_anew(&self, _: &IndexLock) -> Result<Records, Error> {
        if let Some(records) = self.read()? {
            // Another was faster.
            return Ok(records);
        }
        let path = self.place.index();
        layer::note_unclaimed(&self.place)?;
        let aside = path.with_extension("json.damaged");
        fs::rename(&path, &aside).map_err(Error::file("put aside", &path))?;
        tracing::error!(kept_as = %aside.display(), "the index of images is damaged: beginning with an empty one");
        Ok(Records::default())
    }

    /// Changes the records under the lock; they are written if `change` says that they are others now.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Records) -> Result<bool, Error>) -> Result<bool, Error> {
        let lock = self.place.index_lock()?;
        let mut records = match self.read()? {
            Some(records) => records,
            None => self.begin_anew(&lock)?,
        };
        let changed = change(&mut records)?;
        if changed {
            self.write(&records)?;
        }
        Ok(changed)
    }

    fn write(&self, records: &Records) -> Result<(), Error> {
        let path = self.place.index();
        let text = serde_json::to_vec_pretty(records).map_err(|error| Error::file("write", &path)(error.into()))?;
        let written = match replace(&path, &text, Durability::Process) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                remove(&self.place.reserve()).and_then(|()| replace(&path, &text, Durability::Process))
            }
            other => other,
        };
        written.map_err(Error::file("write", path))
    }

    /// Keeps some room for [`Self::change`] on a full disk, if there is any: else no image could be removed from one.
    pub(crate) fn keep_reserve(&self) {
        let path = self.place.reserve();
        if !path.exists() && fs::write(&path, [0; RESERVE_BYTES]).is_err() {
            let _ = remove(&path);
        }
    }

    fn image(&self, record: &Record) -> Option<Image> {
        let read = || -> Result<_, Error> {
            let id: Digest = record.id.parse().map_err(|why: &str| Error::manifest(&record.id, why))?;
            let path = self.place.blob(&id);
            let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
            if !id.matches(&bytes) {
                return Err(Error::manifest(&record.id, "the configuration on disk is not what it was"));
            }
            Ok(parse_config(&record.id, &bytes, record.layers.len())?.0)
        };
        match read() {
            Ok(config) => Some(Image {
                id: record.id.clone(),
                manifest_digest: record.manifest.clone(),
                tags: record.tags.clone(),
                digests: record.digests.clone(),
                size_bytes: record.size_bytes,
                config,
                created_at: record.created_at,
                pinned: record.pinned,
            }),
            Err(error) => {
                tracing::warn!(image = %record.id, %error, "leaving out an image that cannot be read");
                None
            }
        }
    }

    fn stamp(&self) -> Result<Option<Stamp>, Error> {
        let path = self.place.index();
        match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("look at", path)(error)),
            Ok(status) => Ok(Some(Stamp {
                inode: status.ino(),
                changed: (status.mtime(), status.mtime_nsec()),
                size: status.size(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: char, tags: &[&str]) -> Record {
        let id = format!("sha256:{}", String::from(id).repeat(64));
        Record {
            manifest: id.replace("sha256:a", "sha256:f"),
            id,
            tags: tags.iter().map(|tag| format!("docker.io/library/{tag}")).collect(),
            digests: Vec::new(),
            size_bytes: 0,
            created_at: Timestamp::UNIX_EPOCH,
            layers: Vec::new(),
            pinned: false,
        }
    }

    fn found<'r>(records: &'r Records, name: &str) -> Option<&'r str> {
        records.find(name).unwrap().map(|record| record.id.as_str())
    }

    #[test]
    fn a_tag_leads_to_the_image_that_got_it_last() {
        let mut records = Records::default();
        records.add(record('a', &["x:1", "x:2"]));
        records.add(record('b', &["x:2"]));
        let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        assert_eq!(found(&records, "x:1"), Some(a.as_str()));
        assert_eq!(found(&records, "x:2"), Some(b.as_str()));
        assert_eq!(found(&records, &"a".repeat(12)), Some(a.as_str()));
        assert_eq!(found(&records, &a), Some(a.as_str()));
        assert_eq!(found(&records, &format!("sha256:{}", "c".repeat(64))), None);
        records.add(record('a', &["x:3"]));
        assert_eq!(records.images.len(), 2);
        assert_eq!(found(&records, "x:1"), found(&records, "x:3"));
    }

    #[test]
    fn ambiguous_digits_are_refused() {
        let mut records = Records::default();
        records.add(record('a', &[]));
        let mut other = record('a', &[]);
        other.id.replace_range(70.., "b");
        records.add(other);
        assert!(matches!(records.find(&"a".repeat(20)), Err(Error::Ambiguous { .. })));
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let mut records = Records::default();
        records.add(record('a', &["x:1", "x:2"]));
        assert!(records.remove("x:1").unwrap());
        assert_eq!(records.images.len(), 1);
        assert!(!records.remove("x:1").unwrap());
        assert!(records.remove("x:2").unwrap());
        assert!(records.images.is_empty());
        records.add(record('a', &["x:1", "x:2"]));
        assert!(records.remove(&"a".repeat(12)).unwrap());
        assert!(records.images.is_empty());
    }

    #[test]
    fn a_digest_is_a_name_too() {
        let mut records = Records::default();
        let (index, manifest) = ("1".repeat(64), "2".repeat(64));
        let mut image = record('a', &[]);
        image.manifest = format!("sha256:{manifest}");
        image.digests = vec![format!("docker.io/library/x@sha256:{index}")];
        records.add(image);
        assert!(found(&records, &format!("x@sha256:{index}")).is_some());
        assert!(found(&records, &format!("x:ignored@sha256:{index}")).is_some());
        assert!(found(&records, &format!("x@sha256:{manifest}")).is_some());
        assert!(found(&records, &format!("y@sha256:{manifest}")).is_none());
        for digest in [&index, &manifest] {
            let mut records = records.clone();
            assert!(records.remove(&format!("x@sha256:{digest}")).unwrap());
            assert!(records.images.is_empty());
        }
    }
}
