//! Names that become parts of paths and cgroups: parsed at the edge, so that nothing inside has to doubt them.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

/// Longest uid that is taken; a UUID has 36 characters.
pub const UID_BYTES_MAX: usize = 64;
/// Longest name of an object (a DNS subdomain, RFC 1123).
pub const NAME_BYTES_MAX: usize = 253;
/// Longest name of a container, volume or namespace (a DNS label, RFC 1123).
pub const LABEL_BYTES_MAX: usize = 63;

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {expected}")]
pub struct IdError {
    /// The field, such as `metadata.uid`.
    pub field: String,
    /// What it says, cut to a readable length.
    pub value: String,
    /// What it should be.
    pub expected: &'static str,
}

impl IdError {
    fn new(field: &str, value: &str, expected: &'static str) -> Self {
        Self { field: field.to_owned(), value: value.chars().take(NAME_BYTES_MAX).collect(), expected }
    }
}

/// A pod's uid: letters, digits, `-`, `_` and `.`, not beginning with a dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodUid(String);

impl PodUid {
    /// The uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PodUid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let safe = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if text.is_empty() || text.len() > UID_BYTES_MAX || text.starts_with('.') || !safe {
            return Err(IdError::new("metadata.uid", text, "a uid of at most 64 letters, digits and dashes"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for PodUid {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<PodUid> for String {
    fn from(uid: PodUid) -> Self {
        uid.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A namespaced object's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which pod: all that is needed to name its files, cgroup and log folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another pod of the same name has another.
    pub uid: PodUid,
}

impl PodId {
    /// The identity of a pod.
    ///
    /// # Errors
    /// When the namespace, name or uid is missing or could not be part of a path.
    pub fn of(pod: &Pod) -> Result<Self, IdError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        Ok(Self {
            namespace: dns_label("metadata.namespace", namespace)?.to_owned(),
            name: dns_subdomain("metadata.name", name)?.to_owned(),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().parse()?,
        })
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Reads a name after RFC 1123's label: lower-case letters, digits and inner dashes.
///
/// # Errors
/// When it is none; `field` says where it stood.
pub fn dns_label<'a>(field: &str, text: &'a str) -> Result<&'a str, IdError> {
    if is_dns_label(text) {
        return Ok(text);
    }
    Err(IdError::new(field, text, "a name of at most 63 lower-case letters, digits and inner dashes"))
}

/// Reads a name after RFC 1123's subdomain: labels with dots between.
///
/// # Errors
/// When it is none; `field` says where it stood.
pub fn dns_subdomain<'a>(field: &str, text: &'a str) -> Result<&'a str, IdError> {
    if text.len() <= NAME_BYTES_MAX && text.split('.').all(|label| is_label_of(label, NAME_BYTES_MAX)) {
        return Ok(text);
    }
    Err(IdError::new(field, text, "a name of at most 253 lower-case letters, digits, inner dashes and inner dots"))
}

fn is_dns_label(text: &str) -> bool {
    is_label_of(text, LABEL_BYTES_MAX)
}

fn is_label_of(text: &str, bytes_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= bytes_max
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_safe_in_a_path() {
        for good in ["a", "0b5c6a2e-98f5-4e63-9b3c-3a1f0a0c5a11", "static_1.x"] {
            assert_eq!(good.parse::<PodUid>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a\0b", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<PodUid>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "web-1", "0"] {
            assert!(dns_label("name", good).is_ok(), "{good:?}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "../a"] {
            assert!(dns_label("name", bad).is_err(), "{bad:?}");
        }
        assert!(dns_subdomain("name", "a.b-c.d").is_ok());
        for bad in ["", ".", "a..b", "a.", "a/b"] {
            assert!(dns_subdomain("name", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pod_without_a_uid_is_told_which_field_is_wrong() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".to_owned());
        assert_eq!(PodId::of(&pod).unwrap_err().field, "metadata.uid");
    }
}
