//! User namespaces: the ids of a container as the machine sees them, and mounts whose owners are mapped.

use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::namespace;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use crate::error::Error;
use crate::limits::ID_MAPPINGS_MAX;

/// The mappings to write for a new user namespace (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Users {
    pub(crate) uids: String,
    pub(crate) gids: String,
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

impl UserNamespace {
    pub(super) fn of(linux: &Linux) -> Result<Self, Error> {
        let spec = linux.namespaces().iter().flatten().find(|it| it.typ() == LinuxNamespaceType::User);
        let mapped = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let has_mappings = mapped(linux.uid_mappings()) || mapped(linux.gid_mappings());
        match spec.map(|spec| spec.path()) {
            None if has_mappings => Err(Error::spec("linux.uidMappings", "need a user namespace in linux.namespaces")),
            None => Ok(Self::Machine),
            Some(Some(path)) => {
                let open = namespace::open(path)
                    .map_err(|error| Error::file("open the namespace", path)(std::io::Error::other(error)))?;
                Ok(Self::Joined(path.clone(), open))
            }
            Some(None) => Ok(Self::New(Users {
                uids: table(linux.uid_mappings().as_deref(), "linux.uidMappings")?,
                gids: table(linux.gid_mappings().as_deref(), "linux.gidMappings")?,
            })),
        }
    }

    pub(super) fn is_own(&self) -> bool {
        !matches!(self, Self::Machine)
    }

    /// A user namespace to map a mount's owners by: of the mount's own mappings, or else of the container's.
    pub(super) fn for_mount(
        &self,
        own: (Option<&[LinuxIdMapping]>, Option<&[LinuxIdMapping]>),
        field: &str,
    ) -> Result<OwnedFd, Error> {
        let failed = |source| Error::Setup { step: format!("make a user namespace for {field}"), source };
        let make = |users: &Users| namespace::new_user(&users.uids, &users.gids).map_err(failed);
        match (own, self) {
            ((None, None), Self::Machine) => {
                Err(Error::spec(format!("{field}.uidMappings"), "are missing, and the container has no user namespace"))
            }
            ((None, None), Self::New(users)) => make(users),
            ((None, None), Self::Joined(_, namespace)) => namespace.try_clone().map_err(failed),
            ((uids, gids), _) => make(&Users {
                uids: table(uids, &format!("{field}.uidMappings"))?,
                gids: table(gids, &format!("{field}.gidMappings"))?,
            }),
        }
    }
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
