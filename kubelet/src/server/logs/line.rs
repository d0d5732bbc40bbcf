//! Lines of a log in the CRI format, `<RFC 3339 time> <stdout|stderr> <P|F> <content>`, and what is shown of them. Pure.

use jiff::Timestamp;

/// A line longer than this is no line of a log: the writers cut them much shorter.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Which of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of the file. A container's line may be several of these, all but the last of them parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub time: &'a str,
    pub output: Output,
    pub is_part: bool,
    pub content: &'a [u8],
}

/// Reads one line, without its line feed.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let output = match fields.next()? {
        b"stdout" => Output::Stdout,
        b"stderr" => Output::Stderr,
        _ => return None,
    };
    // Tags are separated by colons, and the first says whether the line goes on.
    let is_part = match fields.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, output, is_part, content: fields.next().unwrap_or_default() })
}

/// Cuts what is read from a file into lines.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    buffer: Vec<u8>,
    start: usize,
}

impl Splitter {
    /// Takes in what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > LINE_BYTES_MAX {
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete line, without its line feed.
    pub(super) fn next_line(&mut self) -> Option<&[u8]> {
        let rest = self.buffer.get(self.start..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let line = self.start..self.start + length;
        self.start = line.end + 1;
        self.buffer.get(line)
    }

    /// Forgets half a line: the file that it stood in is at its end.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }
}

/// What is to be shown of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on while the container runs.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only what was written at this time or later.
    pub since: Option<Timestamp>,
    /// The time before each line.
    pub timestamps: bool,
    /// No more than so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only one of the outputs.
    pub output: Option<Output>,
}

/// Whether there is more to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// There may be.
    Yes,
    /// The limit is reached.
    No,
}

/// Turns lines of the file into what is shown.
#[derive(Debug)]
pub(super) struct Printer {
    options: LogOptions,
    left: u64,
    /// Whether standard output, and standard error, is in the middle of a line.
    mid_line: [bool; 2],
}

impl Printer {
    pub(super) fn new(options: LogOptions) -> Self {
        let left = options.limit_bytes.unwrap_or(u64::MAX);
        Self { options, left, mid_line: [false; 2] }
    }

    /// Appends what is shown of one line. What is no line of a log is left out.
    pub(super) fn print(&mut self, raw: &[u8], shown: &mut Vec<u8>) -> More {
        let Some(line) = parse(raw) else { return More::Yes };
        if self.options.output.is_some_and(|output| output != line.output) || !self.is_late_enough(line.time) {
            return More::Yes;
        }
        let mid_line = &mut self.mid_line[line.output as usize];
        let from = shown.len();
        if self.options.timestamps && !*mid_line {
            shown.extend_from_slice(line.time.as_bytes());
            shown.push(b' ');
        }
        shown.extend_from_slice(line.content);
        if !line.is_part {
            shown.push(b'\n');
        }
        *mid_line = line.is_part;
        let length = u64::try_from(shown.len() - from).unwrap_or(u64::MAX);
        if length >= self.left {
            shown.truncate(from + usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left = 0;
            return More::No;
        }
        self.left -= length;
        More::Yes
    }

    fn is_late_enough(&self, time: &str) -> bool {
        match self.options.since {
            None => true,
            Some(since) => time.parse::<Timestamp>().is_ok_and(|time| time >= since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: [&str; 3] = ["2026-01-01T00:00:01.000000001Z", "2026-01-01T00:00:02.5Z", "2026-01-01T00:00:03.000000003Z"];

    fn log() -> Vec<String> {
        vec![
            format!("{} stdout P he", T[0]),
            format!("{} stdout F llo", T[1]),
            format!("{} stderr F oops", T[1]),
            "no line of a log".to_owned(),
            format!("{} stdout F ", T[2]),
        ]
    }

    fn show(options: LogOptions) -> String {
        let (mut printer, mut shown) = (Printer::new(options), Vec::new());
        for line in log() {
            if printer.print(line.as_bytes(), &mut shown) == More::No {
                break;
            }
        }
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn parts_are_joined_and_strangers_left_out() {
        assert_eq!(show(LogOptions::default()), "hello\noops\n\n");
    }

    #[test]
    fn times_stand_before_lines_and_not_before_parts() {
        let shown = show(LogOptions { timestamps: true, ..Default::default() });
        assert_eq!(shown, format!("{} hello\n{} oops\n{} \n", T[0], T[1], T[2]));
    }

    #[test]
    fn only_what_is_late_enough() {
        let since = |text: &str| LogOptions { since: Some(text.parse().unwrap()), ..Default::default() };
        assert_eq!(show(since("2026-01-01T00:00:02.5Z")), "llo\noops\n\n");
        assert_eq!(show(since("2026-01-01T00:00:03Z")), "\n");
        assert_eq!(show(since("2027-01-01T00:00:00Z")), "");
    }

    #[test]
    fn not_more_bytes_than_the_limit() {
        let limit = |bytes| LogOptions { limit_bytes: Some(bytes), ..Default::default() };
        for (bytes, expected) in [(0, ""), (1, "h"), (3, "hel"), (6, "hello\n"), (100, "hello\noops\n\n")] {
            assert_eq!(show(limit(bytes)), expected, "{bytes}");
        }
    }

    #[test]
    fn one_output_alone() {
        assert_eq!(show(LogOptions { output: Some(Output::Stderr), ..Default::default() }), "oops\n");
    }

    #[test]
    fn lines_are_cut_wherever_reads_end() {
        let text = b"one\ntwo\n\nfour";
        for at in 0..text.len() {
            let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
            for chunk in [&text[..at], &text[at..]] {
                splitter.push(chunk);
                while let Some(line) = splitter.next_line() {
                    lines.push(line.to_vec());
                }
            }
            assert_eq!(lines, [&b"one"[..], b"two", b""], "{at}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut splitter = Splitter::default();
        for _ in 0..64 {
            splitter.push(&[b'x'; 64 << 10]);
            assert!(splitter.next_line().is_none());
        }
        assert!(splitter.buffer.len() <= LINE_BYTES_MAX + (64 << 10));
    }
}
