//! Mount options by the names of mount(8) and the OCI runtime spec (config.md#linux-mount-options).

use std::ffi::CString;

use berth_sys::mount::{
    Attributes, MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME, Reach,
};
use nix::mount::MsFlags;

/// Every option that is not the file system's own.
pub(crate) const MOUNT_OPTIONS: [&str; 51] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "idmap",
    "loud",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "tmpcopyup",
    "unbindable",
];

/// The options of one mount, sorted by what they apply to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether it is a bind, and how far.
    pub(super) bind: Option<Reach>,
    /// For the mount itself.
    pub(super) attributes: Attributes,
    /// For it and those below.
    pub(super) recursive: Attributes,
    /// How far the propagation goes.
    pub(super) propagation: Option<(u64, Reach)>,
    /// Whether its owners are mapped, and how far.
    pub(super) idmap: Option<Reach>,
    /// Whether a new file system begins with what the image has at its place.
    pub(super) copy_up: bool,
    /// For the file system.
    pub(super) data: Vec<(CString, Option<CString>)>,
}

/// Sorts options. An error is the option that is none here, or has a zero byte.
pub(super) fn parse(options: &[String]) -> Result<Options, String> {
    let mut parsed = Options::default();
    for option in options {
        match option.as_str() {
            // What is the default anyway.
            "" | "defaults" | "async" | "loud" | "norelatime" | "nolazytime" | "nomand" | "noiversion"
            | "nostrictatime" => {}
            "tmpcopyup" => parsed.copy_up = true,
            "idmap" => parsed.idmap = Some(Reach::One),
            "ridmap" => parsed.idmap = Some(Reach::Tree),
            // Every mount is made with all that it shall have: there is none before to be changed.
            "remount" => {}
            _ => {
                if let Some(reach) = bind(option) {
                    parsed.bind = Some(reach);
                } else if let Some(propagation) = propagation(option) {
                    parsed.propagation = Some(propagation);
                } else if !apply(&mut parsed.attributes, option)
                    && !option.strip_prefix('r').is_some_and(|plain| apply(&mut parsed.recursive, plain))
                {
                    parsed.data.push(data(option)?);
                }
            }
        }
    }
    Ok(parsed)
}

fn bind(option: &str) -> Option<Reach> {
    match option {
        "bind" => Some(Reach::One),
        "rbind" => Some(Reach::Tree),
        _ => None,
    }
}

fn propagation(option: &str) -> Option<(u64, Reach)> {
    let (plain, reach) = match option.strip_prefix('r') {
        Some(plain) => (plain, Reach::Tree),
        None => (option, Reach::One),
    };
    named_propagation(plain).map(|flag| (flag, reach))
}

/// The flag of `shared`, `slave`, `private` or `unbindable`.
pub(super) fn named_propagation(name: &str) -> Option<u64> {
    let flag = match name {
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "private" => MsFlags::MS_PRIVATE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some(flag.bits())
}

/// Notes an attribute by its name, or its opposite; whether it is one.
fn apply(attributes: &mut Attributes, option: &str) -> bool {
    let (set, clear) = match option {
        "ro" => (MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, MOUNT_ATTR_RDONLY),
        "nosuid" => (MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, MOUNT_ATTR_NOSUID),
        "nodev" => (MOUNT_ATTR_NODEV, 0),
        "dev" => (0, MOUNT_ATTR_NODEV),
        "noexec" => (MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, MOUNT_ATTR_NOEXEC),
        "nodiratime" => (MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, MOUNT_ATTR_NODIRATIME),
        "nosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, MOUNT_ATTR_NOSYMFOLLOW),
        // The atime modes are values of one field: it is cleared as a whole before.
        "relatime" => (0, MOUNT_ATTR__ATIME),
        "noatime" => (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
        "strictatime" => (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
        "atime" => (0, MOUNT_ATTR__ATIME),
        _ => return false,
    };
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !(set & !MOUNT_ATTR__ATIME) | clear;
    true
}

fn data(option: &str) -> Result<(CString, Option<CString>), String> {
    let text = |text: &str| CString::new(text).map_err(|_| format!("{option:?}: has a zero byte"));
    Ok(match option.split_once('=') {
        Some((key, value)) => (text(key)?, Some(text(value)?)),
        None => (text(option)?, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Options {
        parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_last_of_two_opposites_counts() {
        let attributes = parsed("ro,nosuid,rw,noatime,relatime").attributes;
        assert_eq!(attributes.set, MOUNT_ATTR_NOSUID);
        assert_eq!(attributes.clear, MOUNT_ATTR_RDONLY | MOUNT_ATTR__ATIME);
        assert_eq!(parsed("rw,ro").attributes.clear & MOUNT_ATTR_RDONLY, 0);
    }

    #[test]
    fn recursive_names_are_told_from_others() {
        let options = parsed("rbind,rro,rslave,relatime,nodev");
        assert_eq!(options.bind, Some(Reach::Tree));
        assert_eq!(options.recursive.set, MOUNT_ATTR_RDONLY);
        assert_eq!(options.attributes.set, MOUNT_ATTR_NODEV);
        assert_eq!(options.propagation, Some((MsFlags::MS_SLAVE.bits(), Reach::Tree)));
        assert!(options.data.is_empty());
    }

    #[test]
    fn none_of_the_known_options_is_left_to_the_file_system() {
        for option in MOUNT_OPTIONS {
            assert!(parsed(option).data.is_empty(), "{option}");
        }
    }

    #[test]
    fn the_rest_is_the_file_system_s() {
        let options = parsed("nosuid,mode=755,size=65536k,newinstance");
        let data: Vec<_> = options.data.iter().map(|(key, value)| (key.to_str().unwrap(), value.is_some())).collect();
        assert_eq!(data, [("mode", true), ("size", true), ("newinstance", false)]);
        assert!(parsed("tmpcopyup").copy_up);
        assert_eq!(parsed("rbind,ridmap").idmap, Some(Reach::Tree));
    }
}
