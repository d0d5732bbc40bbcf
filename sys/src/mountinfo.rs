//! What `/proc/self/mountinfo` says (proc(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::file;

/// The longest table of mounts: some hundred thousand.
const BYTES_MAX: u64 = 64 << 20;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The folder inside its file system that is the root of this mount.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// What it was mounted from, such as a device.
    pub source: OsString,
    /// The options of the file system (not those of this mount).
    pub options: String,
}

/// Every mount that this process sees, in the order they were made.
pub fn read() -> io::Result<Vec<Mount>> {
    let text = file::read_limited("/proc/thread-self/mountinfo".as_ref(), BYTES_MAX)?;
    Ok(parse(&text))
}

/// Whether something is mounted at exactly this path, given without symbolic links.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    read().map(|mounts| mounts.iter().any(|mount| mount.target == path))
}

/// Lines that make no sense are left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.nth(3)?;
    let target = fields.next()?;
    // The mount's options, then any number of tagged fields up to a lone hyphen.
    fields.by_ref().skip(1).find(|field| *field == b"-")?;
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = OsString::from_vec(unescape(fields.next()?));
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
    Some(Mount { root: path(root), target: path(target), kind, source, options })
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let octal = match tail.get(..3) {
            Some(digits) if byte == b'\\' && digits.iter().all(|digit| (b'0'..b'8').contains(digit)) => {
                digits.iter().try_fold(0_u8, |value, digit| value.checked_mul(8)?.checked_add(digit - b'0'))
            }
            _ => None,
        };
        match octal {
            Some(value) => {
                plain.push(value);
                rest = &tail[3..];
            }
            None => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_found_whatever_the_tags() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
                     junk\n\
                     31 24 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].target, Path::new("/mnt 2"));
        assert_eq!(mounts[0].root, Path::new("/mnt1"));
        assert_eq!((mounts[0].kind.as_str(), mounts[1].options.as_str()), ("ext3", "rw,cpu"));
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(is_mounted(Path::new("/")).unwrap());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&text);
        }

        #[test]
        fn escaped_names_come_back(name in proptest::collection::vec(1_u8..=255, 1..40)) {
            let escaped: Vec<u8> = name
                .iter()
                .flat_map(|byte| if b" \t\n\\".contains(byte) { format!("\\{byte:03o}").into_bytes() } else { vec![*byte] })
                .collect();
            prop_assert_eq!(unescape(&escaped), name);
        }
    }
}
