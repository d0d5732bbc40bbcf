//! `host-local`: addresses out of ranges, one file per address that is taken, laid out as the reference plugin does it:
//!
//! ```text
//! networks/<network>/10.0.0.2            container id, CR LF, interface
//! networks/<network>/last_reserved_ip.0  where the next search in the first set of ranges begins
//! networks/<network>/lock                held while any of this changes
//! networks/<network>/resting/10.0.0.3    freed at the file's time; preferred again when it has rested
//! ```
//!
//! A file is there whole or not at all, so a crash leaves at most an address whose owner is known to be gone.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_sys::file::{self, Durability};
use ipnetwork::IpNetwork;

use super::dns;
use super::range::{Range, RangeSet, check_overlaps, parse_lists, parse_sets};
use crate::Error;
use crate::attachment::Owner;
use crate::builtin::wishes::{Wishes, range_lists};
use crate::cache::{files, remove_folder};
use crate::call::Call;
use crate::limits::{ADDRESS_REST, ADDRESSES_TRIED_MAX, ROUTES_MAX};
use crate::lock::{self, Held, Mode};
use crate::site::Site;
use crate::spec::fields::Fields;
use crate::spec::result::{AddResult, IpConfig, Route};

/// What the configuration says.
#[derive(Debug, Clone)]
pub(crate) struct HostLocal {
    pub(crate) sets: Vec<RangeSet>,
    routes: Vec<Route>,
    resolv_conf: Option<PathBuf>,
    data_dir: Option<PathBuf>,
}

/// An address that is now the owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) address: IpNetwork,
    pub(crate) gateway: IpAddr,
}

impl HostLocal {
    pub(crate) fn parse(ipam: &Fields<'_>) -> Result<Self, Error> {
        let absolute = |field: &str| match ipam.text(field)?.map(PathBuf::from) {
            Some(path) if path.is_relative() => Err(ipam.error(field, "must be an absolute path")),
            path => Ok(path),
        };
        let (resolv_conf, data_dir) = (absolute("resolvConf")?, absolute("dataDir")?);
        Ok(Self { sets: parse_sets(ipam)?, routes: routes(ipam)?, resolv_conf, data_dir })
    }

    /// One address of each set of ranges for an attachment, those that it wants among them.
    pub(crate) fn add(&self, call: &Call<'_>, wishes: &Wishes) -> Result<AddResult, Error> {
        let dns = self.resolv_conf.as_deref().map(dns::read).transpose()?.unwrap_or_default();
        let own = match &wishes.ranges {
            Some(ranges) => parse_lists(range_lists(ranges)?)?,
            None => Vec::new(),
        };
        let sets =
            if own.is_empty() { Cow::Borrowed(&self.sets) } else { Cow::Owned([own, self.sets.clone()].concat()) };
        check_overlaps(&sets, "runtimeConfig.ipRanges")?;
        let wanted: Vec<IpAddr> = wishes.ips.iter().map(|wish| wish.address).collect();
        let reserved = self.store(call.site).reserve(&sets, &wanted, &call.owner())?;
        let ip = |one: &Reserved| IpConfig { address: one.address, gateway: Some(one.gateway), interface: None };
        let ips = reserved.iter().map(ip).collect();
        Ok(AddResult { ips, routes: self.routes.clone(), dns, ..AddResult::default() })
    }

    /// The subnets of all ranges.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = IpNetwork> {
        self.sets.iter().flat_map(|set| &set.0).map(|range| range.subnet)
    }

    /// The addresses of one network.
    pub(crate) fn store(&self, site: Site<'_>) -> Store {
        let folder = match &self.data_dir {
            Some(folder) => folder.join(site.network),
            None => site.dirs.state.join("networks").join(site.network),
        };
        Store { network: site.network.to_owned(), folder }
    }
}

/// The folder of one network's addresses.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    network: String,
    folder: PathBuf,
}

impl Store {
    /// One address of each set for this owner, those that it wants from the sets that hold them; none if one of the sets
    /// has none left or not that.
    pub(crate) fn reserve(&self, sets: &[RangeSet], wanted: &[IpAddr], owner: &Owner) -> Result<Vec<Reserved>, Error> {
        let is_held = |address: &&IpAddr| sets.iter().any(|set| set.holding(**address).is_some());
        if let Some(stranger) = wanted.iter().find(|address| !is_held(address)) {
            let ranges = sets.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(self.unavailable(*stranger, format!("is not in {ranges}, or is the gateway")));
        }
        let _lock = self.lock()?;
        let mut reserved: Vec<Reserved> = Vec::new();
        for (index, set) in sets.iter().enumerate() {
            let wish = wanted.iter().find_map(|address| Some((*address, set.holding(*address)?)));
            let one = match wish {
                Some((address, range)) => self.reserve_wanted(address, range, owner),
                None => self.reserve_one(index, set, owner),
            };
            match one {
                Ok(one) => reserved.push(one),
                Err(error) => {
                    for one in &reserved {
                        let _ = self.rest(one.address.ip());
                    }
                    return Err(error);
                }
            }
        }
        Ok(reserved)
    }

    /// Refuses if one of the sets has no address left.
    pub(crate) fn has_room(&self, sets: &[RangeSet]) -> Result<(), Error> {
        for set in sets {
            let mut tried = set.behind(None).take(ADDRESSES_TRIED_MAX);
            if !tried.any(|(address, _)| !self.path(address).exists()) {
                let taken = set.behind(None).take(ADDRESSES_TRIED_MAX).count();
                return Err(Error::NoAddress { network: self.network.clone(), range: set.to_string(), taken });
            }
        }
        Ok(())
    }

    fn reserve_one(&self, index: usize, set: &RangeSet, owner: &Owner) -> Result<Reserved, Error> {
        let marker = self.folder.join(format!("last_reserved_ip.{index}"));
        // A hint: if it cannot be read, the search begins at the beginning.
        let last = fs::read_to_string(&marker).ok().and_then(|text| text.trim().parse().ok());
        let mut taken = 0;
        let mut longest_rest: Option<(Duration, IpAddr, &Range)> = None;
        let mut choice = None;
        for (address, range) in set.behind(last).take(ADDRESSES_TRIED_MAX) {
            if self.path(address).exists() {
                taken += 1;
                continue;
            }
            match self.rested(address) {
                Some(rest) if rest < ADDRESS_REST => {
                    if longest_rest.is_none_or(|(longest, ..)| rest > longest) {
                        longest_rest = Some((rest, address, range));
                    }
                }
                _ => {
                    choice = Some((address, range));
                    break;
                }
            }
        }
        let Some((address, range)) = choice.or(longest_rest.map(|(_, address, range)| (address, range))) else {
            return Err(Error::NoAddress { network: self.network.clone(), range: set.to_string(), taken });
        };
        self.take(address, owner)?;
        let _ = overwrite(&marker, &address.to_string());
        reserved(address, range)
    }

    fn reserve_wanted(&self, address: IpAddr, range: &Range, owner: &Owner) -> Result<Reserved, Error> {
        if self.path(address).exists() {
            return Err(self.unavailable(address, "is taken".to_owned()));
        }
        self.take(address, owner)?;
        reserved(address, range)
    }

    fn unavailable(&self, address: IpAddr, why: String) -> Error {
        Error::AddressRefused { network: self.network.clone(), address, why }
    }

    fn take(&self, address: IpAddr, owner: &Owner) -> Result<(), Error> {
        let path = self.path(address);
        let content = format!("{}\r\n{}", owner.container_id, owner.ifname);
        file::replace(&path, content.as_bytes(), Durability::Process).map_err(Error::io("reserve", &path))?;
        let resting = self.resting(address);
        file::remove(&resting).map_err(Error::io("remove", resting))
    }

    /// Frees addresses of this owner: those that are told, or with `None` all that are found. What is not its own stays.
    pub(crate) fn release(&self, owner: &Owner, addresses: Option<&[IpAddr]>) -> Result<(), Error> {
        if !self.folder.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let addresses = match addresses {
            Some(addresses) => addresses.to_vec(),
            None => self.taken()?,
        };
        for address in addresses {
            if self.owner(address)?.as_ref() == Some(owner) {
                self.rest(address)?;
            }
        }
        Ok(())
    }

    /// The addresses of this owner.
    pub(crate) fn of(&self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let mut found = Vec::new();
        for address in self.taken()? {
            if self.owner(address)?.as_ref() == Some(owner) {
                found.push(address);
            }
        }
        Ok(found)
    }

    /// Frees every address whose owner is not among these, and removes what crashes left.
    pub(crate) fn keep_only(&self, valid: &dyn Fn(&Owner) -> bool) -> Result<(), Error> {
        if !self.folder.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for path in files(&self.folder)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if file::is_temporary(name) {
                file::remove(&path).map_err(Error::io("remove", &path))?;
            } else if let Ok(address) = name.parse()
                && !self.owner(address)?.is_some_and(|owner| valid(&owner))
            {
                self.rest(address)?;
            }
        }
        Ok(())
    }

    /// All addresses that are taken.
    pub(crate) fn taken(&self) -> Result<Vec<IpAddr>, Error> {
        let names = files(&self.folder)?;
        Ok(names.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect())
    }

    /// Forgets the network.
    pub(crate) fn remove_all(&self) -> Result<(), Error> {
        remove_folder(&self.folder)
    }

    /// Makes the folder, if it is not there, and takes its lock.
    pub(crate) fn lock(&self) -> Result<Held, Error> {
        let path = self.folder.join("lock");
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder).map_err(Error::io("make the folder", &self.folder))?;
        }
        lock::take(&path, Mode::Alone)
    }

    /// Who has an address; `None` also if its file is damaged.
    fn owner(&self, address: IpAddr) -> Result<Option<Owner>, Error> {
        let path = self.path(address);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        let owner = lines.next().zip(lines.next());
        Ok(owner.map(|(id, name)| Owner { container_id: id.trim().to_owned(), ifname: name.trim().to_owned() }))
    }

    /// Frees an address; it is told apart from one that nobody had, for a while.
    fn rest(&self, address: IpAddr) -> Result<(), Error> {
        let (from, to) = (self.path(address), self.resting(address));
        let mark = |path: &Path| File::options().write(true).open(path)?.set_modified(SystemTime::now());
        match mark(&from).and_then(|()| fs::rename(&from, &to)) {
            Err(error) if error.kind() == ErrorKind::NotFound && from.exists() => {
                let folder = self.folder.join("resting");
                fs::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
                fs::rename(&from, &to).map_err(Error::io("free", &from))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("free", &from)),
        }
    }

    /// For how long an address has been free; `None` if nobody had it.
    fn rested(&self, address: IpAddr) -> Option<Duration> {
        let freed = fs::metadata(self.resting(address)).ok()?.modified().ok()?;
        // A clock that was set back makes it one that was freed just now.
        Some(freed.elapsed().unwrap_or_default())
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.folder.join(address.to_string())
    }

    fn resting(&self, address: IpAddr) -> PathBuf {
        self.folder.join("resting").join(address.to_string())
    }
}

/// The `routes` of an `ipam` object.
pub(crate) fn routes(ipam: &Fields<'_>) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for (path, value) in ipam.list("routes", ROUTES_MAX)? {
        let fields = Fields::at(path, value)?;
        let dst = fields.parsed("dst")?.ok_or_else(|| fields.error("dst", "is missing"))?;
        let other = fields.map().iter().filter(|(key, _)| !matches!(key.as_str(), "dst" | "gw"));
        let other = other.map(|(key, value)| (key.clone(), value.clone())).collect();
        routes.push(Route { dst, gw: fields.parsed("gw")?, other });
    }
    Ok(routes)
}

fn reserved(address: IpAddr, range: &Range) -> Result<Reserved, Error> {
    let address = IpNetwork::new(address, range.subnet.prefix())
        .map_err(|error| Error::Config { field: "ipam.ranges".to_owned(), problem: error.to_string() })?;
    Ok(Reserved { address, gateway: range.gateway })
}

/// Overwrites a hint in place: a file that is cut to nothing and written again makes the kernel write it to the disk, for
/// milliseconds, and half a hint does no harm.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dirs;
    use serde_json::json;

    fn store(folder: &Path, ipam: serde_json::Value) -> (HostLocal, Store) {
        let config = HostLocal::parse(&Fields::at("ipam".into(), &ipam).unwrap()).unwrap();
        let dirs = Dirs { state: folder.to_owned(), bin: vec![] };
        let site = Site { network: "net", version: "1.1.0", dirs: &dirs, sockets: &Default::default() };
        let store = config.store(site);
        (config, store)
    }

    fn owner(id: &str) -> Owner {
        Owner { container_id: id.into(), ifname: "eth0".into() }
    }

    fn reserve(config: &HostLocal, store: &Store, id: &str) -> Result<String, Error> {
        let reserved = store.reserve(&config.sets, &[], &owner(id))?;
        Ok(reserved.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_freed_address_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let (config, store) =
            store(folder.path(), json!({"ranges": [[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64"}]]}));
        assert_eq!(reserve(&config, &store, "a").unwrap(), "10.0.0.2/29 fd00::2/64");
        assert_eq!(reserve(&config, &store, "b").unwrap(), "10.0.0.3/29 fd00::3/64");
        assert_eq!(fs::read(folder.path().join("networks/net/10.0.0.2")).unwrap(), b"a\r\neth0");
        assert_eq!(fs::read(folder.path().join("networks/net/last_reserved_ip.0")).unwrap(), b"10.0.0.3");
        store.release(&owner("a"), None).unwrap();
        store.release(&owner("a"), None).unwrap();
        for address in ["10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29", "10.0.0.2/29"] {
            assert!(reserve(&config, &store, "c").unwrap().starts_with(address));
        }
        let error = reserve(&config, &store, "d").unwrap_err();
        assert_eq!(error.code(), 11);
        assert_eq!(
            error.to_string(),
            "network net: no address left in 10.0.0.0/29 (10.0.0.1 to 10.0.0.6); 5 are taken"
        );
        // What the second set had given before the first refused is free again.
        assert_eq!(store.taken().unwrap().len(), 10);
    }

    #[test]
    fn an_address_that_is_wanted_is_given_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (config, store) =
            store(folder.path(), json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
        let want = |id: &str, address: &str| {
            let wanted = [address.parse().unwrap()];
            let reserved = store.reserve(&config.sets, &wanted, &owner(id))?;
            Ok::<_, Error>(reserved.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(want("a", "10.0.0.77").unwrap(), "10.0.0.77/24 fd00::2/64");
        assert_eq!(want("b", "fd00::99").unwrap(), "10.0.0.2/24 fd00::99/64");
        for (address, why) in [("10.0.0.77", "is taken"), ("10.9.0.1", "is not in"), ("10.0.0.1", "is the gateway")] {
            let error = want("c", address).unwrap_err();
            assert!(error.code() == 11 && error.to_string().contains(why), "{error}");
        }
        assert_eq!(store.of(&owner("c")).unwrap().len(), 0);
    }

    #[test]
    fn only_the_owner_frees() {
        let folder = tempfile::tempdir().unwrap();
        let (config, store) = store(folder.path(), json!({"subnet": "10.0.0.0/24"}));
        reserve(&config, &store, "a").unwrap();
        store.release(&owner("b"), Some(&["10.0.0.2".parse().unwrap()])).unwrap();
        assert_eq!(store.of(&owner("a")).unwrap().len(), 1);
        store.release(&owner("a"), Some(&["10.0.0.2".parse().unwrap()])).unwrap();
        assert_eq!(store.of(&owner("a")).unwrap().len(), 0);
    }

    #[test]
    fn damaged_files_are_collected() {
        let folder = tempfile::tempdir().unwrap();
        let (config, store) = store(folder.path(), json!({"subnet": "10.0.0.0/24"}));
        reserve(&config, &store, "a").unwrap();
        let root = folder.path().join("networks/net");
        fs::write(root.join("10.0.0.9"), b"").unwrap();
        fs::write(root.join(".tmp-1-x"), b"half").unwrap();
        store.keep_only(&|found| *found == owner("a")).unwrap();
        assert_eq!(store.taken().unwrap(), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert!(!root.join(".tmp-1-x").exists());
    }
}
