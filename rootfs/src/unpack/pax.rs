//! PAX extended headers: `<length> <key>=<value>\n` records, those that we know. Pure.

use super::sparse::PaxMap;
use super::tar::damaged;
use crate::error::UnpackError;

const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What extended headers say about the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Extended {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) modified: Option<(i64, u32)>,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<PaxMap>,
}

/// Reads all records; keys that we do not know are passed over.
pub(crate) fn parse(mut bytes: &[u8]) -> Result<Extended, UnpackError> {
    let mut extended = Extended::default();
    let mut map = PaxMap::default();
    // Zeros may fill the last record's block.
    while bytes.first().is_some_and(|byte| *byte != 0) {
        let (key, value, rest) = record(bytes).ok_or(damaged("a broken PAX record"))?;
        if !map.take(key, value)? {
            take(&mut extended, key, value)?;
        }
        bytes = rest;
    }
    if let Some(name) = map.name.take() {
        extended.path = Some(name);
    }
    extended.sparse = map.is_used().then_some(map);
    Ok(extended)
}

fn take(extended: &mut Extended, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
    match key {
        b"path" => extended.path = Some(text(value)?),
        b"linkpath" => extended.target = Some(text(value)?),
        b"size" => extended.size = Some(decimal(value)?),
        b"uid" => extended.uid = Some(owner(value)?),
        b"gid" => extended.gid = Some(owner(value)?),
        b"mtime" => extended.modified = Some(time(value).ok_or(damaged("a PAX time that is no number"))?),
        _ => {
            if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                let name = text(name)?;
                extended.attributes.retain(|(known, _)| *known != name);
                extended.attributes.push((name, value.to_vec()));
            }
        }
    }
    Ok(())
}

/// Splits the first record off: its length counts all of it, itself and the newline too.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..digits)?).ok()?.parse().ok()?;
    let (whole, rest) = bytes.split_at_checked(length)?;
    let body = whole.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((body.get(..equals)?, body.get(equals + 1..)?, rest))
}

/// A value that goes to the kernel as a string.
fn text(value: &[u8]) -> Result<Vec<u8>, UnpackError> {
    if value.is_empty() || value.contains(&0) {
        return Err(damaged("a PAX name that is empty or has a NUL in it"));
    }
    Ok(value.to_vec())
}

pub(crate) fn decimal(value: &[u8]) -> Result<u64, UnpackError> {
    let number = value.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    });
    number.filter(|number| !value.is_empty() && *number <= i64::MAX.unsigned_abs()).ok_or(damaged("a PAX number"))
}

fn owner(value: &[u8]) -> Result<i64, UnpackError> {
    Ok(decimal(value)?.cast_signed())
}

/// `[-]seconds[.fraction]`, digits beyond nanoseconds cut off; the nanoseconds count forwards for times before 1970 too.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let value = std::str::from_utf8(value).ok()?;
    let (negative, value) = match value.strip_prefix('-') {
        Some(value) => (true, value),
        None => (false, value),
    };
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record_of(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length =
            (1..).map(|digits| rest + digits).find(|length| rest + length.to_string().len() == *length).unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn known_records_are_read() {
        let bytes = [
            record_of("path", b"a\xffb"),
            record_of("mtime", b"-1.25"),
            record_of("uid", b"4000000"),
            record_of("comment", b"x"),
            record_of("SCHILY.xattr.user.a", b"\x001\n=2"),
        ];
        let extended = parse(&bytes.concat()).unwrap();
        assert_eq!(extended.path.unwrap(), b"a\xffb");
        assert_eq!(extended.modified, Some((-2, 750_000_000)));
        assert_eq!(extended.uid, Some(4_000_000));
        assert_eq!(extended.attributes, [(b"user.a".to_vec(), b"\x001\n=2".to_vec())]);
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in ["9 path=a", "3 =\n", "x path=a\n", "5 a=b\n", "99 path=a\n", "10 size=-1\n", "7 path=\n"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse(&record_of("path", b"a\0b")).is_err());
        assert!(parse(&record_of("mtime", b"1.x")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_value_is_read_or_refused(
            key in proptest::sample::select(&["path", "size", "mtime", "uid", "GNU.sparse.map", "GNU.sparse.major"][..]),
            value in "[0-9.,-]{0,30}|.{0,9}",
        ) {
            let _ = parse(&record_of(key, value.as_bytes()));
        }
    }
}
