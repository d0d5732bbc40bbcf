//! The query of a request for a log, as `PodLogOptions` names its fields. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::line::{LogOptions, Output};

/// As it was typed. All texts, so that an error can name its field.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    tail_lines: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    timestamps: Option<String>,
    limit_bytes: Option<String>,
    stream: Option<String>,
}

impl LogQuery {
    /// Whether the log of the run before is asked for.
    pub(crate) fn previous(&self) -> Result<bool, String> {
        flag("previous", self.previous.as_deref())
    }

    /// What is asked for; the error names the field.
    pub(crate) fn options(&self, now: Timestamp) -> Result<LogOptions, String> {
        let options = LogOptions {
            follow: flag("follow", self.follow.as_deref())?,
            tail_lines: number("tailLines", self.tail_lines.as_deref(), 0)?,
            since: self.since(now)?,
            timestamps: flag("timestamps", self.timestamps.as_deref())?,
            limit_bytes: number("limitBytes", self.limit_bytes.as_deref(), 1)?,
            output: match self.stream.as_deref() {
                None | Some("" | "All") => None,
                Some("Stdout") => Some(Output::Stdout),
                Some("Stderr") => Some(Output::Stderr),
                Some(other) => return Err(format!("stream: {other:?} must be All, Stdout or Stderr")),
            },
        };
        Ok(options)
    }

    fn since(&self, now: Timestamp) -> Result<Option<Timestamp>, String> {
        let seconds = number("sinceSeconds", self.since_seconds.as_deref(), 1)?;
        match (seconds, self.since_time.as_deref().filter(|text| !text.is_empty())) {
            (Some(_), Some(_)) => Err("sinceSeconds, sinceTime: only one of them may be given".to_owned()),
            (Some(seconds), None) => {
                let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                Ok(Some(now.checked_sub(seconds).unwrap_or(Timestamp::MIN)))
            }
            (None, Some(text)) => match text.parse() {
                Ok(time) => Ok(Some(time)),
                Err(error) => Err(format!("sinceTime: {text:?} must be a time after RFC 3339: {error}")),
            },
            (None, None) => Ok(None),
        }
    }
}

fn flag(field: &str, text: Option<&str>) -> Result<bool, String> {
    match text {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(format!("{field}: {other:?} must be true or false")),
    }
}

fn number(field: &str, text: Option<&str>, least: u64) -> Result<Option<u64>, String> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) if number >= least => Ok(Some(number)),
            _ => Err(format!("{field}: {text:?} must be a number of at least {least}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: serde_json::Value) -> Result<LogOptions, String> {
        let query: LogQuery = serde_json::from_value(query).unwrap();
        query.options(Timestamp::from_second(1000).unwrap())
    }

    #[test]
    fn fields_are_understood() {
        let options = check(serde_json::json!({"follow": "true", "tailLines": "0", "sinceSeconds": "10"})).unwrap();
        assert!(options.follow && !options.timestamps);
        assert_eq!(options.tail_lines, Some(0));
        assert_eq!(options.since, Some(Timestamp::from_second(990).unwrap()));
        assert_eq!(check(serde_json::json!({})).unwrap(), LogOptions::default());
        let ages = check(serde_json::json!({"sinceSeconds": u64::MAX.to_string()})).unwrap();
        assert_eq!(ages.since, Some(Timestamp::MIN));
    }

    #[test]
    fn errors_name_the_field() {
        for (query, expected) in [
            (serde_json::json!({"tailLines": "-1"}), "tailLines: "),
            (serde_json::json!({"limitBytes": "0"}), "limitBytes: "),
            (serde_json::json!({"follow": "maybe"}), "follow: "),
            (serde_json::json!({"sinceTime": "yesterday"}), "sinceTime: "),
            (
                serde_json::json!({"sinceTime": "2026-01-01T00:00:00Z", "sinceSeconds": "1"}),
                "sinceSeconds, sinceTime: ",
            ),
            (serde_json::json!({"stream": "both"}), "stream: "),
        ] {
            assert!(check(query).unwrap_err().starts_with(expected), "{expected}");
        }
    }
}
