//! User namespaces: the ids of a container as the machine sees them, and mounts whose owners are mapped.

use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::namespace;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Mount};

use crate::error::Error;
use crate::limits::ID_MAPPINGS_MAX;

/// The mappings to write for a new user namespace (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Users {
    pub(crate) uids: String,
    pub(crate) gids: String,
}

/// How a container shall come by its user namespace.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    /// It is in the machine's.
    Machine,
    /// It gets one of its own.
    New(Users),
    /// It enters another's, by this path.
    Joined(&'a PathBuf),
}

/// How a container comes by its user namespace.
#[derive(Debug)]
pub(super) enum UserNamespace {
    /// It is in the machine's.
    Machine,
    /// It gets one of its own.
    New(Users),
    /// It enters another's, by this path.
    Joined(PathBuf, OwnedFd),
}

/// What the owners of a bind are mapped by.
#[derive(Debug)]
pub(super) enum Owners {
    /// The container's user namespace.
    Container,
    /// Mappings of its own.
    Own(Users),
}

impl<'a> Wanted<'a> {
    pub(super) fn of(linux: &'a Linux) -> Result<Self, Error> {
        let spec = linux.namespaces().iter().flatten().find(|it| it.typ() == LinuxNamespaceType::User);
        let has_mappings = is_filled(linux.uid_mappings()) || is_filled(linux.gid_mappings());
        match spec.map(|spec| spec.path()) {
            None if has_mappings => Err(Error::spec("linux.uidMappings", "need a user namespace in linux.namespaces")),
            None => Ok(Self::Machine),
            Some(Some(path)) => Ok(Self::Joined(path)),
            Some(None) => Ok(Self::New(Users {
                uids: table(linux.uid_mappings().as_deref(), "linux.uidMappings")?,
                gids: table(linux.gid_mappings().as_deref(), "linux.gidMappings")?,
            })),
        }
    }

    pub(super) fn open(self) -> Result<UserNamespace, Error> {
        Ok(match self {
            Self::Machine => UserNamespace::Machine,
            Self::New(users) => UserNamespace::New(users),
            Self::Joined(path) => {
                let open = namespace::open(path)
                    .map_err(|error| Error::file("open the namespace", path)(std::io::Error::other(error)))?;
                UserNamespace::Joined(path.clone(), open)
            }
        })
    }
}

impl Owners {
    /// A mount's own mappings, or else the container's.
    pub(super) fn of(mount: &Mount, field: &str) -> Result<Self, Error> {
        let (uids, gids) = (mount.uid_mappings(), mount.gid_mappings());
        if !is_filled(uids) && !is_filled(gids) {
            return Ok(Self::Container);
        }
        Ok(Self::Own(Users {
            uids: table(uids.as_deref(), &format!("{field}.uidMappings"))?,
            gids: table(gids.as_deref(), &format!("{field}.gidMappings"))?,
        }))
    }
}

impl UserNamespace {
    pub(super) fn is_own(&self) -> bool {
        !matches!(self, Self::Machine)
    }

    /// A user namespace to map a mount's owners by.
    pub(super) fn for_mount(&self, owners: &Owners, field: &str) -> Result<OwnedFd, Error> {
        let failed = |source| Error::Setup { step: format!("make a user namespace for {field}"), source };
        let make = |users: &Users| namespace::new_user(&users.uids, &users.gids).map_err(failed);
        match (owners, self) {
            (Owners::Own(users), _) | (Owners::Container, Self::New(users)) => make(users),
            (Owners::Container, Self::Joined(_, namespace)) => namespace.try_clone().map_err(failed),
            (Owners::Container, Self::Machine) => Err(no_mappings(field)),
        }
    }
}

/// Nothing says what a mount's owners shall be mapped by.
pub(super) fn no_mappings(field: &str) -> Error {
    Error::spec(format!("{field}.uidMappings"), "are missing, and the container has no user namespace")
}

/// Whether a list is there with something in it.
pub(super) fn is_filled(mappings: &Option<Vec<LinuxIdMapping>>) -> bool {
    mappings.as_ref().is_some_and(|mappings| !mappings.is_empty())
}

/// Mappings as the kernel's files take them.
fn table(mappings: Option<&[LinuxIdMapping]>, field: &str) -> Result<String, Error> {
    let mappings = mappings.unwrap_or_default();
    if mappings.is_empty() || mappings.len() > ID_MAPPINGS_MAX {
        return Err(Error::spec(field, format!("has {} entries, not 1 to {ID_MAPPINGS_MAX}", mappings.len())));
    }
    let mut text = String::new();
    for mapping in mappings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {}", mapping.container_id(), mapping.host_id(), mapping.size());
    }
    Ok(text)
}
