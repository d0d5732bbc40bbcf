//! Keys: `<group>/<plural>/<namespace>/<name>`, or without the namespace for what is not namespaced.

use std::fmt;
use std::sync::Arc;

/// How the group without a name is written in keys.
const CORE: &str = "core";

/// The key of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Arc<str>);

/// What a range of keys begins with; ends with `/`, so that a prefix never ends inside a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Key {
    /// The key of an object. The parts hold no `/`; the server has checked them by then.
    pub(crate) fn new(group: &str, plural: &str, namespace: Option<&str>, name: &str) -> Self {
        Self(format!("{}{name}", Prefix::new(group, plural, namespace).0).into())
    }

    pub(super) fn stored(key: &str) -> Self {
        Self(key.into())
    }

    /// As it is written in the database.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Prefix {
    /// All objects of a resource, or those of one namespace.
    pub(crate) fn new(group: &str, plural: &str, namespace: Option<&str>) -> Self {
        let group = if group.is_empty() { CORE } else { group };
        match namespace {
            Some(namespace) => Self(format!("{group}/{plural}/{namespace}/")),
            None => Self(format!("{group}/{plural}/")),
        }
    }

    /// The key of what is called `rest` below this prefix: a name, or `<namespace>/<name>`.
    pub(crate) fn key(&self, rest: &str) -> Key {
        Key(format!("{}{rest}", self.0).into())
    }

    /// What the key says beyond the prefix.
    pub(crate) fn rest<'k>(&self, key: &'k Key) -> Option<&'k str> {
        key.0.strip_prefix(&self.0)
    }

    /// The key begins with this prefix.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    pub(super) fn start(&self) -> &str {
        &self.0
    }

    /// The first string after all that begin with this prefix: `0` follows `/` in ASCII.
    pub(super) fn end(&self) -> String {
        format!("{}0", &self.0[..self.0.len() - 1])
    }
}
