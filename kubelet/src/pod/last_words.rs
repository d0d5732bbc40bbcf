//! What a container that has ended left to be read: its termination message, or the end of its log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use berth_engine::ContainerState;
use k8s_openapi::api::core::v1::Container as Spec;

use super::Context;
use super::desired::Desired;
use super::logs;
use super::observe::Container;

/// Kubernetes' limits of a message from a file, and from the log.
const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;
/// How much of a log is read to find its last lines: each has a time and a stream's name before it.
const LOG_READ_BYTES_MAX: u64 = 16 * 1024;

/// What an ended container left to be read, if anything.
pub(super) fn last_words(context: &Context, desired: &Desired, container: &Container) -> Option<String> {
    let end = container.end()?;
    let uid = &desired.id.uid;
    let message = read_start(&context.volumes.termination_path(uid, &container.name, container.attempt));
    if !message.is_empty() {
        return Some(message);
    }
    let spec = desired.container(&container.name).map(|(_, spec)| spec)?;
    if end.exit_code == 0 || container.state == ContainerState::Unknown || !falls_back(spec) {
        return None;
    }
    let log = logs::file(&context.world.config, &desired.id, &container.name, container.attempt);
    Some(log_end(&read_end(&log))).filter(|text| !text.is_empty())
}

fn falls_back(spec: &Spec) -> bool {
    spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
}

fn read_start(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes));
    read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn read_end(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_READ_BYTES_MAX)))?;
        file.take(LOG_READ_BYTES_MAX).read_to_end(&mut bytes)
    });
    read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The last lines of a log in CRI's format, without the time, stream and tag before each.
fn log_end(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
    let from = (text.len().saturating_sub(LOG_BYTES_MAX)..=text.len()).find(|&at| text.is_char_boundary(at));
    text[from.unwrap_or(text.len())..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_told_without_its_format() {
        let line = |text: &str| format!("2026-01-01T00:00:00.000000000Z stderr F {text}\n");
        assert_eq!(log_end(&(line("one") + &line("two words"))), "one\ntwo words");
        assert_eq!(log_end("half a li"), "");
        let many: String = (0..200).map(|n| line(&n.to_string())).collect();
        assert_eq!(log_end(&many).lines().count(), LOG_LINES_MAX);
        let wide = line(&"ü".repeat(3000));
        assert!(log_end(&wide).len() <= LOG_BYTES_MAX);
    }
}
