//! Names of images, in docker's grammar and with its defaults.
//!
//! `[host[:port]/]path[:tag][@digest]`: the first part is a host if it has a dot or a port or is `localhost`; without one
//! the host is `docker.io`, and there a path of one part lies below `library/`. Without tag and digest the tag is
//! `latest`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::Error;

/// The registry of a name that has none.
pub(crate) const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Host and path together, as the registries have it.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// A name of an image: `[host[:port]/]repository[:tag][@digest]`, with docker.io's defaults filled in. Printed in full.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's `host[:port]`, as it was written: `docker.io`, `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent if there is a digest and no tag was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of a manifest or an index. It counts more than the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository:tag`, if the image is named by its tag alone.
    pub(crate) fn tagged(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(out, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| Error::Reference { text: shortened(text), why })
    }
}

/// What an error message can bear of a text.
fn shortened(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    // A colon after the last slash begins a tag; before it, a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if name.is_empty() {
        return Err("it has no name");
    }
    let (registry, path) = split_registry(name);
    check_registry(registry)?;
    check_path(path)?;
    tag.map_or(Ok(()), check_tag)?;
    if registry == DEFAULT_REGISTRY && path.len() == 64 && path.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits are an id, not a name");
    }
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let repository = match path.contains('/') || registry != DEFAULT_REGISTRY {
        true => path.to_owned(),
        false => format!("library/{path}"),
    };
    // With what was filled in: what we print must be a name again.
    if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
        return Err("the name is longer than 255 bytes");
    }
    let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None }).map(str::to_owned);
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':', '[']) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    if let Some(port) = port
        && (port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(port.parse(), Ok(1u16..)))
    {
        return Err("the registry's port is no number from 1 to 65535");
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().map(drop).map_err(|_| "the registry is no IPv6 address in brackets");
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !host.split('.').all(label) {
        return Err("the registry is no host name");
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the repository must be in lower case");
    }
    match path.split('/').all(is_path_part) {
        true => Ok(()),
        false => {
            Err("a part of the repository is not letters and digits with single '.', '_', '__' or '-' between them")
        }
    }
}

/// `[a-z0-9]+` groups, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let joined = part.split(|letter: char| alphanumeric(u8::try_from(letter).unwrap_or(0)));
    let ends = [part.bytes().next(), part.bytes().last()];
    ends.iter().all(|end| end.is_some_and(alphanumeric))
        && joined
            .filter(|joint| !joint.is_empty())
            .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-'))
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let rest = |byte: u8| word(byte) || byte == b'.' || byte == b'-';
    if tag.is_empty() || tag.len() > TAG_BYTES_MAX {
        return Err("a tag has 1 to 128 bytes");
    }
    match tag.bytes().enumerate().all(|(index, byte)| if index == 0 { word(byte) } else { rest(byte) }) {
        true => Ok(()),
        false => Err("the tag is not letters, digits, '_', '.' and '-', beginning with none of the last two"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, full: &str) {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), full, "{text}");
        assert_eq!(full.parse::<Reference>().unwrap(), reference, "{full}");
    }

    #[test]
    fn names_are_completed() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1.36", "docker.io/library/busybox:1.36");
        check("user/app", "docker.io/user/app:latest");
        check("docker.io/busybox", "docker.io/library/busybox:latest");
        check("index.docker.io/busybox", "docker.io/library/busybox:latest");
        check("localhost/app", "localhost/app:latest");
        check("127.0.0.1:5000/app:v1", "127.0.0.1:5000/app:v1");
        check("[::1]:5000/app", "[::1]:5000/app:latest");
        check("Registry.example.com/a/b__c/d-e--f", "Registry.example.com/a/b__c/d-e--f:latest");
        check(&format!("app@{digest}"), &format!("docker.io/library/app@{digest}"));
        check(&format!("r.io:1/app:v1@{digest}"), &format!("r.io:1/app:v1@{digest}"));
    }

    #[test]
    fn a_name_is_measured_when_it_is_complete() {
        let (library, user) = ("docker.io/library/".len(), "docker.io/user/".len());
        for (text, fits) in [
            ("a".repeat(NAME_BYTES_MAX - library), true),
            ("a".repeat(NAME_BYTES_MAX - library + 1), false),
            (format!("user/{}", "a".repeat(NAME_BYTES_MAX - user)), true),
            (format!("user/{}", "a".repeat(NAME_BYTES_MAX - user + 1)), false),
            (format!("r.io/{}", "a".repeat(NAME_BYTES_MAX)), false),
        ] {
            assert_eq!(
                text.parse::<Reference>().map(|full| full.to_string().parse::<Reference>().is_ok()).ok(),
                fits.then_some(true),
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let (id, long) = ("0a".repeat(32), "a".repeat(300));
        let bad = [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a:",
            "a:-b",
            "a: b",
            "a@",
            "a@sha256:0",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "r.io:/a",
            "r.io:0/a",
            "r.io:65536/a",
            "r.io:x/a",
            "[::1/a",
            "[x]/a",
            "a.-b.c/d",
            "ä",
            "a b",
            "a\0",
            "https://r.io/a",
            &id,
            &long,
        ];
        for text in bad {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_prints_itself(text in "[a-zA-Z0-9:/@._ \\[\\]-]{0,80}|.{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
