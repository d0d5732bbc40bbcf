//! `spec`: a `config.json` to begin with, of the same content as runc's.

use std::fs::OpenOptions;
use std::io::{self, Write};

use nix::unistd::{getegid, geteuid};

use crate::args::Spec;
use crate::error::Error;
use berth_runtime::OCI_VERSION;

/// A shell with a terminal, in namespaces of its own. `@…@` is filled in.
const PRIVILEGED: &str = include_str!("template/privileged.json");

/// The same for a user who may neither make network devices and cgroups nor be anybody else in the container.
const ROOTLESS: &str = include_str!("template/rootless.json");

pub(crate) fn write(args: &Spec) -> Result<(), Error> {
    let path = args.bundle.join("config.json");
    let opened = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Usage("File config.json exists. Remove it first".to_owned()),
        _ => Error::file("make", &path)(error),
    })?;
    file.write_all(text(args.rootless).as_bytes()).map_err(Error::file("write", &path))
}

fn text(rootless: bool) -> String {
    let template = if rootless { ROOTLESS } else { PRIVILEGED };
    template
        .replace("@version@", OCI_VERSION)
        .replace("\"@uid@\"", &geteuid().to_string())
        .replace("\"@gid@\"", &getegid().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_specifications() {
        for rootless in [false, true] {
            let text = text(rootless);
            assert!(!text.contains('@'), "{text}");
            let spec: oci_spec::runtime::Spec = serde_json::from_str(&text).unwrap();
            assert_eq!(spec.linux().as_ref().unwrap().uid_mappings().is_some(), rootless);
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let args = Spec { bundle: folder.path().to_owned(), rootless: false };
        write(&args).unwrap();
        assert!(write(&args).unwrap_err().to_string().contains("exists"));
    }
}
