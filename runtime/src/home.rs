//! The home folder of a container's user, for a program whose environment names none: every OCI runtime sets `HOME`, and
//! programs count on it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use berth_sys::beneath::Root;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::{Process, Spec};

/// The largest file of users that is read.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

const PASSWD: &str = "/etc/passwd";

/// For the first process of a container whose root is not mounted yet: `None` if it has one already.
pub(crate) fn before_mounts(spec: &Spec, process: &Process, (bundle, rootfs): (&Path, &Path)) -> Option<String> {
    wanted(process)?;
    // Engines mount a file of their own there.
    let mount = spec.mounts().iter().flatten().find(|mount| mount.destination() == Path::new(PASSWD));
    let text = match mount.and_then(|mount| mount.source().as_ref()).map(|source| bundle.join(source)) {
        Some(source) => read(&Root::open(source.parent()?).ok()?, Path::new(source.file_name()?)),
        None => Root::open(rootfs).ok().and_then(|root| read(&root, Path::new(PASSWD))),
    };
    Some(find(text, process.user().uid()))
}

/// For one more process in a container whose init has this id.
pub(crate) fn in_container(process: &Process, init: i32) -> Option<String> {
    wanted(process)?;
    let root = Root::open(Path::new(&format!("/proc/{init}/root"))).ok();
    Some(find(root.and_then(|root| read(&root, Path::new(PASSWD))), process.user().uid()))
}

fn wanted(process: &Process) -> Option<()> {
    (!process.env().iter().flatten().any(|entry| entry.starts_with("HOME="))).then_some(())
}

/// Whatever stands there, it is not waited for and not read without end.
fn read(root: &Root, path: &Path) -> Option<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(root.open_file(path, flags, Mode::empty()).ok()?);
    let mut text = Vec::new();
    let is_file = file.metadata().ok()?.is_file();
    is_file.then(|| file.take(PASSWD_BYTES_MAX).read_to_end(&mut text)).and_then(Result::ok)?;
    Some(text)
}

/// The sixth field of the user's line (passwd(5)); the root folder if there is none.
fn find(text: Option<Vec<u8>>, uid: u32) -> String {
    let text = text.unwrap_or_default();
    let home = String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)?.parse() == Ok(uid)).then(|| fields.nth(2).map(str::to_owned))?
    });
    home.filter(|home| !home.is_empty() && !home.contains('\0')).unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_by_the_user_s_number() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nworker:x:1000:1000::/home/worker:/bin/sh\nempty:x:7:7:::\n";
        let home = |uid| find(Some(text.into()), uid);
        assert_eq!(home(0), "/root");
        assert_eq!(home(1000), "/home/worker");
        assert_eq!((home(7), home(8), find(None, 0)), ("/".into(), "/".into(), "/".into()));
    }
}
