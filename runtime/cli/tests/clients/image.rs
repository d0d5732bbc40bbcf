//! An image of nothing but busybox, as a root file system and as the archive that `docker save` would write.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ended::Ended;

/// The name that the archive gives the image.
pub(crate) const NAME: &str = "test.local/busybox:latest";

const BUSYBOX: &str = "/bin/busybox";

/// Writes the root file system as a tar file below `folder`.
pub(crate) fn rootfs(folder: &Path) -> PathBuf {
    let root = folder.join("rootfs");
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in Ended::of(Command::new(BUSYBOX).arg("--list")).ok().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    tar(&folder.join("rootfs.tar"), &root, &["."])
}

/// Writes the archive below `folder`.
pub(crate) fn archive(folder: &Path) -> PathBuf {
    let content = folder.join("archive");
    fs::create_dir(&content).unwrap();
    fs::rename(rootfs(folder), content.join("layer.tar")).unwrap();
    let sum = Ended::of(Command::new("sha256sum").arg(content.join("layer.tar"))).ok();
    let digest = sum.split_whitespace().next().unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["sh"]}},
           "rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    fs::write(content.join("config.json"), config).unwrap();
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{NAME}"],"Layers":["layer.tar"]}}]"#);
    fs::write(content.join("manifest.json"), manifest).unwrap();
    tar(&folder.join("image.tar"), &content, &["manifest.json", "config.json", "layer.tar"])
}

fn tar(file: &Path, folder: &Path, names: &[&str]) -> PathBuf {
    Ended::of(Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(file).args(names)).ok();
    file.to_owned()
}
