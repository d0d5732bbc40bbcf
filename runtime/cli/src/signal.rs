//! Signals by name or number.

use std::str::FromStr;

use nix::sys::signal::Signal as Named;

/// The first and the last real-time signal, as programs count them: the C library keeps two to itself.
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

/// A signal's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(pub(crate) i32);

impl Signal {
    pub(crate) const TERM: Self = Self(nix::libc::SIGTERM);
}

impl FromStr for Signal {
    type Err = String;

    /// `KILL`, `SIGKILL`, `kill`, `9`, `RTMIN+3`, `RTMAX-1`. Numbers are not judged here: the kernel does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        real_time(name)
            .or_else(|| synonym(name))
            .or_else(|| Named::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32))
            .map(Self)
            .ok_or_else(|| format!("unknown signal {text:?}"))
    }
}

fn real_time(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => (REAL_TIME_MIN, 0),
        (_, Some("")) => (REAL_TIME_MAX, 0),
        (Some(offset), _) if offset.starts_with('+') => (REAL_TIME_MIN, offset.parse().ok()?),
        (_, Some(offset)) if offset.starts_with('-') => (REAL_TIME_MAX, offset.parse().ok()?),
        _ => return None,
    };
    base.checked_add(offset).filter(|number| (REAL_TIME_MIN..=REAL_TIME_MAX).contains(number))
}

/// Second names of signals.
fn synonym(name: &str) -> Option<i32> {
    match name {
        "CLD" => Some(nix::libc::SIGCHLD),
        "IOT" => Some(nix::libc::SIGABRT),
        "POLL" => Some(nix::libc::SIGIO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("kill", 9),
            ("9", 9),
            ("0", 0),
            ("SIGTERM", 15),
            ("USR1", 10),
            ("WINCH", 28),
            ("CLD", 17),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
        ] {
            assert_eq!(text.parse(), Ok(Signal(number)), "{text}");
        }
        for bad in ["", "SIG", "NOSIG", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "9x", "SIGSIGKILL"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
