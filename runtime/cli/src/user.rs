//! `UID[:GID]`. Read to the last character: what is only begun to be a number once made a process root that was meant
//! to be somebody else (CVE-2026-30892).

use std::str::FromStr;

/// A user and, if said, a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        Ok(Self { uid: id("uid", uid)?, gid: gid.map(|gid| id("gid", gid)).transpose()? })
    }
}

/// Digits and nothing else. The highest number means "no id" to the kernel.
fn id(kind: &str, text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number != u32::MAX && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(format!("{text:?} is no {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers() {
        assert_eq!("0".parse(), Ok(User { uid: 0, gid: None }));
        assert_eq!("1000:4294967294".parse(), Ok(User { uid: 1000, gid: Some(4_294_967_294) }));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "1:2:3",
            "1000x",
            "1000 ",
            " 1000",
            "+1",
            "-1",
            "0x0",
            "4294967295",
            "4294967296",
            "root",
            "1:2x",
        ] {
            assert!(bad.parse::<User>().is_err(), "{bad:?}");
        }
    }
}
