//! Images made from what Debian has.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::programs;

/// A root filesystem of Debian's static busybox, beside the programs: `/bin` with all its commands, and what a container
/// expects to find. Made once, by whoever comes first.
pub fn busybox() -> PathBuf {
    let folder = programs().join("busybox-root");
    if folder.exists() {
        return folder;
    }
    let script = "set -eu
        new=$(mktemp -d \"$0.XXXXXX\")
        mkdir -p $new/bin $new/etc $new/tmp $new/proc $new/sys $new/dev $new/root
        cp /bin/busybox $new/bin/busybox
        for name in $(/bin/busybox --list); do [ $name = busybox ] || ln -s busybox $new/bin/$name; done
        chmod 755 $new; chmod 1777 $new/tmp
        echo root:x:0:0:root:/root:/bin/sh > $new/etc/passwd
        echo root:x:0: > $new/etc/group
        mv --no-target-directory $new \"$0\" 2>/dev/null || rm -r $new";
    let output = Command::new("sh").args(["-c", script]).arg(&folder).output().expect("sh");
    crate::machine::succeeded(&output, "make a busybox root");
    folder
}
