//! What answers say beside their content: when to come again, which part this is, why not. Pure.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use crate::limits::{MESSAGE_LETTERS_MAX, RETRY_WAIT_MAX};

/// A registry's words about an error.
#[derive(Deserialize)]
struct Complaints {
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

pub(super) fn challenge_of(headers: &HeaderMap) -> Option<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).find_map(challenge::parse)
}

pub(super) fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// How long the answer asks to wait, in seconds or until a date (RFC 9110, section 10.2.3), within our limit.
pub(super) fn wait_of(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = DateTimeParser::new().parse_timestamp(text).ok()?;
            // One that is over is no wait.
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_WAIT_MAX))
}

/// Where a part begins and how long the whole is, if that is known: `bytes 5-9/10`, `bytes 5-9/*`.
pub(super) fn range_of(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    to.parse::<u64>().ok()?;
    let whole = if whole == "*" { None } else { Some(whole.parse().ok()?) };
    Some((from.parse().ok()?, whole))
}

/// A refusal in the registry's own words, with measure.
pub(super) fn words_of(body: &[u8], status: StatusCode) -> String {
    let words = match serde_json::from_slice::<Complaints>(body) {
        Ok(complaints) => {
            let words = complaints.errors.into_iter().map(|one| match one.message.is_empty() {
                true => one.code,
                false => one.message,
            });
            words.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    match words.is_empty() {
        true => status.canonical_reason().unwrap_or("no reason given").to_lowercase(),
        false => words.chars().filter(|letter| !letter.is_control()).take(MESSAGE_LETTERS_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn waits_are_seconds_or_dates_and_end() {
        let now = "1994-11-06T08:49:37Z".parse().unwrap();
        let wait = |text| wait_of(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now);
        assert_eq!(wait("2"), Some(Duration::from_secs(2)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:42 GMT"), Some(Duration::from_secs(5)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
        for long in ["999999", "Mon, 06 Nov 2034 08:49:42 GMT"] {
            assert_eq!(wait(long), Some(RETRY_WAIT_MAX), "{long}");
        }
        for nothing in ["", "soon", "-1"] {
            assert_eq!(wait(nothing), None, "{nothing}");
        }
        assert_eq!(wait_of(&HeaderMap::new(), now), None);
    }

    #[test]
    fn parts_say_where_they_begin() {
        assert_eq!(range_of("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range_of("bytes 5-9/*"), Some((5, None)));
        for wrong in ["", "bytes", "bytes */10", "bytes 5-/10", "bytes -9/10", "bytes 5-9", "5-9/10", "bytes 5-9/x"] {
            assert_eq!(range_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_registry_is_quoted_with_measure() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no \u0007access"},{"code":"X"}]}"#;
        assert_eq!(words_of(body, StatusCode::FORBIDDEN), "no access; X");
        assert_eq!(words_of(b"", StatusCode::FORBIDDEN), "forbidden");
        assert_eq!(words_of(&[b'a'; 999], StatusCode::FORBIDDEN).len(), MESSAGE_LETTERS_MAX);
    }
}
