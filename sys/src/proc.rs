//! What `/proc/<pid>` tells about one process.

use std::io;

use crate::file;

/// The longest `stat` file: half a hundred numbers and a short name.
const STAT_BYTES_MAX: u64 = 4096;

/// When a process started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`. Together with the pid it names
/// one process for as long as the machine is up.
pub fn start_time(pid: i32) -> io::Result<u64> {
    stat(pid).map(|stat| stat.start_time)
}

/// A process as its `stat` file tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The state's letter: `R`, `S`, `D`, `T`, `Z` …
    pub state: char,
    /// Its parent; 0 if that is in another pid namespace.
    pub parent: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Whether the process has ended and only its parent has not noticed.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads `/proc/<pid>/stat`.
pub fn stat(pid: i32) -> io::Result<Stat> {
    // A process may give itself any bytes for a name.
    let text = file::read_limited(format!("/proc/{pid}/stat").as_ref(), STAT_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&text);
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text:?}")))
}

/// The second field is a name in parentheses that may itself hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces_are_skipped() {
        let text = "7 (a) b (c)) Z 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n";
        assert_eq!(parse_stat(text), Some(Stat { state: 'Z', parent: 1, start_time: 4242 }));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) R 1"), None);
    }

    #[test]
    fn this_process_lives() {
        let stat = stat(std::process::id() as i32).unwrap();
        assert!(!stat.is_dead() && stat.start_time > 0);
    }

    #[test]
    fn a_process_cannot_hide_behind_its_name() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", r"printf '\377) Z 9 ' > /proc/$$/comm; echo; read wait"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let found = stat(child.id() as i32);
        drop(child.stdin.take());
        child.wait().unwrap();
        let found = found.unwrap();
        assert!(!found.is_dead() && found.parent == std::process::id() as i32, "{found:?}");
    }
}
