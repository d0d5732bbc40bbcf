//! Images made from what Debian has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A root filesystem of Debian's static busybox, made once per test program: `/bin` with all its commands, and what a
/// container expects to find.
pub fn busybox() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("berth-busybox-{}", std::process::id()));
        let script = "set -eu
            mkdir -p $0/bin $0/etc $0/tmp $0/proc $0/sys $0/dev $0/root
            cp /bin/busybox $0/bin/busybox
            $0/bin/busybox --install -s $0/bin
            for link in $0/bin/*; do [ -L $link ] && ln -sf /bin/busybox $link; done
            chmod 1777 $0/tmp
            echo root:x:0:0:root:/root:/bin/sh > $0/etc/passwd
            echo root:x:0: > $0/etc/group";
        let output = Command::new("sh").args(["-c", script]).arg(&folder).output().expect("sh");
        crate::machine::succeeded(&output, "make a busybox root");
        folder
    })
}
