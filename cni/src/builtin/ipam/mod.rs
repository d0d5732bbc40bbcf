//! Who gives out the addresses of an interface: an `ipam` object of the configuration.
//!
//! | type | where the addresses are from |
//! |---|---|
//! | [`host_local`] | ranges ([`range`]) of this node, remembered in files |
//! | [`fixed`] (`static`) | the configuration itself |
//! | any other, such as `dhcp` | a foreign plugin |

pub(crate) mod dns;
pub(crate) mod fixed;
pub(crate) mod host_local;
pub(crate) mod range;

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use self::fixed::Fixed;
use self::host_local::HostLocal;
use super::wishes::Wishes;
use crate::Error;
use crate::attachment::Owner;
use crate::call::Call;
use crate::foreign::Foreign;
use crate::site::Site;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;

/// An `ipam` object.
#[derive(Debug, Clone)]
pub(crate) enum Ipam {
    HostLocal(HostLocal),
    Fixed(Fixed),
    Foreign(Foreign),
    None,
}

impl Ipam {
    /// Reads the `ipam` of a plugin object.
    pub(crate) fn parse(plugin: &Fields<'_>) -> Result<Self, Error> {
        let Some(ipam) = plugin.object("ipam")?.filter(|ipam| !ipam.map().is_empty()) else { return Ok(Self::None) };
        match ipam.required("type")? {
            "host-local" => Ok(Self::HostLocal(HostLocal::parse(&ipam)?)),
            "static" => Ok(Self::Fixed(Fixed::parse(&ipam)?)),
            kind => Ok(Self::Foreign(Foreign::parse(kind, &ipam.path("type"), plugin)?)),
        }
    }

    /// Addresses, routes and name servers for an attachment.
    pub(crate) fn add(&self, call: &Call<'_>, wishes: &Wishes) -> Result<AddResult, Error> {
        match self {
            Self::HostLocal(ipam) => ipam.add(call, wishes),
            Self::Fixed(ipam) => ipam.add(wishes),
            Self::Foreign(foreign) => foreign.add(call, None),
            Self::None => Ok(AddResult::default()),
        }
    }

    /// Frees them. `result` is what ADD gave, if that is known.
    pub(crate) fn del(&self, call: &Call<'_>, result: Option<&AddResult>) -> Result<(), Error> {
        match self {
            Self::HostLocal(ipam) => {
                let addresses: Option<Vec<IpAddr>> = result.map(|result| result.addresses().collect());
                ipam.store(call.site).release(&call.owner(), addresses.as_deref())
            }
            Self::Foreign(foreign) => foreign.del(call, result),
            Self::Fixed(_) | Self::None => Ok(()),
        }
    }

    pub(crate) fn check(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        match self {
            Self::HostLocal(ipam) => {
                let taken = ipam.store(call.site).of(&call.owner())?;
                match result.addresses().find(|address| !taken.contains(address)) {
                    Some(lost) => Err(call.mismatch(format!("address {lost} is not reserved"))),
                    None => Ok(()),
                }
            }
            Self::Foreign(foreign) => foreign.check(call, result),
            Self::Fixed(_) | Self::None => Ok(()),
        }
    }

    /// Whether an address is left.
    pub(crate) fn status(&self, site: Site<'_>) -> Result<(), Error> {
        match self {
            Self::HostLocal(ipam) => ipam.store(site).has_room(&ipam.sets),
            Self::Foreign(foreign) => foreign.status(site),
            Self::Fixed(_) | Self::None => Ok(()),
        }
    }

    /// Frees the addresses of everybody who is not among the valid.
    pub(crate) fn gc(&self, site: Site<'_>, valid: &HashSet<Owner>) -> Result<(), Error> {
        match self {
            Self::HostLocal(ipam) => ipam.store(site).keep_only(&|owner| valid.contains(owner)),
            Self::Foreign(foreign) => foreign.gc(site, &valid.iter().cloned().collect::<Vec<_>>()),
            Self::Fixed(_) | Self::None => Ok(()),
        }
    }

    /// Forgets the network.
    pub(crate) fn remove(&self, site: Site<'_>) -> Result<(), Error> {
        match self {
            Self::HostLocal(ipam) => ipam.store(site).remove_all(),
            _ => Ok(()),
        }
    }

    /// The subnets that it can give addresses of, as far as the configuration tells.
    pub(crate) fn subnets(&self) -> Vec<IpNetwork> {
        match self {
            Self::HostLocal(ipam) => ipam.subnets().collect(),
            _ => Vec::new(),
        }
    }
}
