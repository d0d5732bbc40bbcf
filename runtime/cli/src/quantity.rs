//! Sizes as docker's `go-units` reads them and times as Go's `time.ParseDuration` does, which is what runc's callers
//! write.

use std::time::Duration;

/// Bytes: a number with an optional unit of 1024s (`64M`, `64mb`, `64MiB`, `1.5g`), or -1, which means no limit.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim_start_matches(' ').to_ascii_lowercase());
    let power = match unit.as_str() {
        "" | "b" => 0,
        unit => {
            let bare = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
            ["k", "m", "g", "t", "p"].iter().position(|letter| *letter == bare)? + 1
        }
    };
    let scale = 1_i64 << (10 * power);
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(scale),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * scale as f64;
            (0.0..i64::MAX as f64).contains(&bytes).then_some(bytes as i64)
        }
    }
}

/// A time: numbers with units in any order (`5s`, `1m30s`, `1.5h`, `250ms`), or 0.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0);
    loop {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(split);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        total += number.parse::<f64>().ok()? * seconds(unit)?;
        rest = next;
        if rest.is_empty() {
            return Duration::try_from_secs_f64(total).ok();
        }
    }
}

fn seconds(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1e-9),
        "us" | "µs" | "μs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, wanted) in [
            ("0", 0),
            ("-1", -1),
            ("1024", 1024),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5k", 1536),
            ("2g", 2 << 30),
        ] {
            assert_eq!(bytes(text), Some(wanted), "{text}");
        }
        for bad in ["", "x", "M", "-2", "1.2.3k", "64X", "9999999999p", "1mm"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn times() {
        for (text, milliseconds) in [("0", 0), ("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("1.5s", 1500)] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "5", "s", "-5s", "5 s", "5x"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
