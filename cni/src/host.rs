//! What a network changed on the host, remembered in `host/<network>.json` before it is changed, so that removing the
//! network leaves the host as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use berth_sys::file::{self, Durability};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::lock::{self, Held, Mode};
use crate::site::Site;

/// Where the kernel's settings are. Those below `net/` are of the network namespace of whoever opens them.
const SETTINGS: &str = "/proc/sys";

/// The host's side of one network.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    folder: PathBuf,
    network: String,
}

/// What was changed.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Changed {
    /// Bridges that were not there before.
    bridges: Vec<String>,
    /// Settings, and what they were.
    settings: BTreeMap<String, String>,
    /// Subnets that only results told of.
    subnets: BTreeSet<IpNetwork>,
}

impl Host {
    pub(crate) fn new(site: Site<'_>) -> Self {
        Self { folder: site.dirs.state.join("host"), network: site.network.to_owned() }
    }

    /// Keeps others from changing the same things at the same time.
    pub(crate) fn lock(&self) -> Result<Held, Error> {
        self.take("change", Mode::Alone)
    }

    /// Says that the network is in use: nobody may clear up what belongs to no attachment meanwhile.
    pub(crate) fn using(&self) -> Result<Held, Error> {
        self.take("use", Mode::Shared)
    }

    /// Waits until nobody uses the network, and keeps everybody out.
    pub(crate) fn clearing(&self) -> Result<Held, Error> {
        self.take("use", Mode::Alone)
    }

    /// Keeps everybody out if nobody uses the network; `None` if somebody does.
    pub(crate) fn clearing_if_unused(&self) -> Result<Option<Held>, Error> {
        lock::try_take(&self.lock_path("use")?, Mode::Alone)
    }

    fn take(&self, purpose: &str, mode: Mode) -> Result<Held, Error> {
        lock::take(&self.lock_path(purpose)?, mode)
    }

    fn lock_path(&self, purpose: &str) -> Result<PathBuf, Error> {
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder).map_err(Error::io("make the folder", &self.folder))?;
        }
        Ok(self.folder.join(format!("{}.{purpose}.lock", self.network)))
    }

    /// Gives a setting a value and remembers the old one. `name` is its path, such as `net/ipv4/ip_forward`.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), Error> {
        let path = Path::new(SETTINGS).join(name);
        if read_setting(&path)? == value {
            return Ok(());
        }
        let _lock = self.lock()?;
        let old = read_setting(&path)?;
        if old == value {
            return Ok(());
        }
        let mut changed = self.read()?;
        changed.settings.entry(name.to_owned()).or_insert(old);
        self.write(&changed)?;
        fs::write(&path, value).map_err(Error::io("write", &path))
    }

    /// Remembers that a bridge is ours; to be told before it is made, with the lock held.
    pub(crate) fn remember_bridge(&self, name: &str) -> Result<(), Error> {
        let mut changed = self.read()?;
        if !changed.bridges.iter().any(|known| known == name) {
            changed.bridges.push(name.to_owned());
            self.write(&changed)?;
        }
        Ok(())
    }

    /// The bridges that were made.
    pub(crate) fn bridges(&self) -> Result<Vec<String>, Error> {
        Ok(self.read()?.bridges)
    }

    /// All subnets that pods were ever given addresses of, after these: a foreign plugin tells of one pod's at a time, and the
    /// tables are for all.
    pub(crate) fn learn(&self, subnets: &[IpNetwork]) -> Result<Vec<IpNetwork>, Error> {
        let knows = |changed: &Changed| subnets.iter().all(|subnet| changed.subnets.contains(subnet));
        let mut changed = self.read()?;
        if !knows(&changed) {
            let _lock = self.lock()?;
            changed = self.read()?;
            changed.subnets.extend(subnets);
            self.write(&changed)?;
        }
        Ok(changed.subnets.into_iter().collect())
    }

    /// Sets back what was changed, and forgets it.
    pub(crate) fn restore(&self) -> Result<(), Error> {
        for (name, old) in self.read()?.settings {
            let path = Path::new(SETTINGS).join(name);
            match fs::write(&path, old) {
                // The settings of a link go with it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.map_err(Error::io("write", &path))?,
            }
        }
        let path = self.path();
        file::remove(&path).map_err(Error::io("remove", &path))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.network))
    }

    fn read(&self) -> Result<Changed, Error> {
        let path = self.path();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| Error::Decode { what: path.display().to_string(), source }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Changed::default()),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    fn write(&self, changed: &Changed) -> Result<(), Error> {
        let path = self.path();
        let text =
            serde_json::to_vec(changed).map_err(|source| Error::Decode { what: path.display().to_string(), source })?;
        file::replace(&path, &text, Durability::Power).map_err(Error::io("write", &path))
    }
}

fn read_setting(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(Error::io("read", path))
}
