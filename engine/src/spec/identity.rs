//! Who a container's process is: the pod's wishes and the image's user, looked up in the image's own `/etc/passwd` and
//! `/etc/group`, whose content comes in as text.

use oci_spec::OciSpecError;
use oci_spec::runtime::{User, UserBuilder};

use crate::config::Security;

/// The numbers of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    /// Its user.
    pub(crate) uid: u32,
    /// Its primary group.
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    /// The user's home, where the image knows it.
    pub(crate) home: Option<String>,
}

/// The image's `USER`: `user[:group]`, each a name or a number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UserSpec {
    user: String,
    group: Option<String>,
}

/// Why a user cannot be told.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    /// The image's `/etc/passwd` has no such name.
    #[error("the image's user {name:?} is not in its /etc/passwd")]
    UnknownUser {
        /// As the image has it.
        name: String,
    },
    /// The image's `/etc/group` has no such name.
    #[error("the image's group {name:?} is not in its /etc/group")]
    UnknownGroup {
        /// As the image has it.
        name: String,
    },
    /// `runAsNonRoot` and uid 0.
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
    /// `runAsNonRoot` and a user whose number only the image knows.
    #[error("container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root")]
    NonNumeric {
        /// As the image has it.
        name: String,
    },
}

impl UserSpec {
    /// Reads an image's `USER`; an empty one is root.
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, group)) => {
                Self { user: user.to_owned(), group: Some(group.to_owned()).filter(|g| !g.is_empty()) }
            }
            None => Self { user: text.to_owned(), group: None },
        }
    }
}

impl Identity {
    /// Finds out who a process is. `passwd` and `group` are the image's files, empty where it has none.
    pub(crate) fn resolve(
        security: &Security,
        image: &UserSpec,
        passwd: &str,
        group: &str,
    ) -> Result<Self, IdentityError> {
        let entries = || passwd.lines().filter_map(PasswdEntry::parse);
        let number = image.user.parse::<u32>().ok();
        let entry = match security.run_as_user {
            Some(uid) => entries().find(|entry| entry.uid == uid),
            None if image.user.is_empty() => entries().find(|entry| entry.uid == 0),
            None => entries()
                .find(|entry| entry.name == image.user)
                .or_else(|| number.and_then(|uid| entries().find(|entry| entry.uid == uid))),
        };
        let uid = match (security.run_as_user, &entry, number) {
            (Some(uid), _, _) => uid,
            (None, Some(entry), _) => entry.uid,
            (None, None, Some(uid)) => uid,
            (None, None, None) if image.user.is_empty() => 0,
            (None, None, None) => return Err(IdentityError::UnknownUser { name: image.user.clone() }),
        };
        check_non_root(security, image, uid, number)?;
        let named = if security.run_as_user.is_none() { image.group.as_deref() } else { None };
        let gid = match (security.run_as_group, named) {
            (Some(gid), _) => gid,
            (None, Some(name)) => group_id(name, group)?,
            (None, None) => entry.as_ref().map_or(0, |entry| entry.gid),
        };
        let mut groups = entry.as_ref().map(|entry| memberships(entry.name, group)).unwrap_or_default();
        groups.extend(&security.supplemental_groups);
        // Without its primary group among them a process could be refused what a negative group entry grants it
        // (CVE-2023-25173).
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        Ok(Self { uid, gid, groups, home: entry.map(|entry| entry.home.to_owned()).filter(|home| !home.is_empty()) })
    }

    /// As the runtime specification has it.
    pub(super) fn user(&self) -> Result<User, OciSpecError> {
        UserBuilder::default().uid(self.uid).gid(self.gid).additional_gids(self.groups.clone()).build()
    }
}

fn check_non_root(security: &Security, image: &UserSpec, uid: u32, number: Option<u32>) -> Result<(), IdentityError> {
    if !security.run_as_non_root {
        return Ok(());
    }
    if uid == 0 {
        return Err(IdentityError::Root);
    }
    if security.run_as_user.is_none() && number.is_none() {
        return Err(IdentityError::NonNumeric { name: image.user.clone() });
    }
    Ok(())
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// `name:password:uid:gid:comment:home:shell`; a line of another shape is no entry.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

/// `name:password:gid:member,member`
fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_id(name: &str, group: &str) -> Result<u32, IdentityError> {
    group_lines(group)
        .find(|(known, ..)| *known == name)
        .map(|(_, gid, _)| gid)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| IdentityError::UnknownGroup { name: name.to_owned() })
}

fn memberships(user: &str, group: &str) -> Vec<u32> {
    group_lines(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:101:102:w:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:200:web,other\n";

    fn check(image: &str, security: &Security, expected: Result<(u32, u32, &[u32]), IdentityError>) {
        let found = Identity::resolve(security, &UserSpec::parse(image), PASSWD, GROUP);
        let found = found.as_ref().map(|who| (who.uid, who.gid, who.groups.as_slice()));
        assert_eq!(found, expected.as_ref().map(|who| *who), "{image:?} {security:?}");
    }

    #[test]
    fn the_image_and_the_pod_together_say_who_a_process_is() {
        let nobody_asks = Security::default();
        check("", &nobody_asks, Ok((0, 0, &[0])));
        check("web", &nobody_asks, Ok((101, 102, &[102, 200])));
        check("101", &nobody_asks, Ok((101, 102, &[102, 200])));
        check("web:logs", &nobody_asks, Ok((101, 200, &[200])));
        check("5000:6000", &nobody_asks, Ok((5000, 6000, &[6000])));
        check("ghost", &nobody_asks, Err(IdentityError::UnknownUser { name: "ghost".into() }));
        check("web:ghosts", &nobody_asks, Err(IdentityError::UnknownGroup { name: "ghosts".into() }));
        let user = Security { run_as_user: Some(101), supplemental_groups: vec![7], ..Security::default() };
        check("root:root", &user, Ok((101, 102, &[7, 102, 200])));
        let group = Security { run_as_user: Some(9), run_as_group: Some(8), ..Security::default() };
        check("web", &group, Ok((9, 8, &[8])));
    }

    #[test]
    fn a_container_that_must_not_be_root_is_not() {
        let careful = Security { run_as_non_root: true, ..Security::default() };
        check("", &careful, Err(IdentityError::Root));
        check("0", &careful, Err(IdentityError::Root));
        check("web", &careful, Err(IdentityError::NonNumeric { name: "web".into() }));
        check("101", &careful, Ok((101, 102, &[102, 200])));
    }
}
