//! Names of signals.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The number of an image's `STOPSIGNAL`: `SIGQUIT`, `QUIT`, `3` or `SIGRTMIN+3`. SIGTERM where there is none, or none
/// that Linux knows.
pub(crate) fn parse(text: Option<&str>) -> i32 {
    text.and_then(number).unwrap_or(Signal::SIGTERM as i32)
}

fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse::<i32>().ok()? };
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn every_spelling_of_a_signal_is_understood() {
        let cases = [
            (None, 15),
            (Some("SIGQUIT"), 3),
            (Some("quit"), 3),
            (Some("9"), 9),
            (Some("SIGRTMIN+3"), 37),
            (Some("SIGRTMIN"), 34),
            (Some("RTMIN+99"), 15),
            (Some("0"), 15),
            (Some("SIGNOTHING"), 15),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
