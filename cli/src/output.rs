//! What people see: log lines and tables.

use std::io::{self, IsTerminal, Write};

use jiff::{SignedDuration, Timestamp};
use tracing_subscriber::EnvFilter;

/// Log lines go to stderr; how many of them, `-v` or RUST_LOG decides.
pub(crate) fn start_logging(verbose: u8) {
    let default = match verbose {
        0 => "warn,berth=info,berth_kubelet=info,berth_master=info,berth_engine=info",
        1 => "info,berth_kubelet=debug,berth_master=debug,berth_engine=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Prints rows below their headings, each column as wide as its widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let mut out = io::stdout().lock();
    let heading: Vec<_> = headings.iter().map(|&heading| heading.to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let line =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().join("   ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// How long ago something was, as kubectl tells it: `5s`, `12m`, `3h`, `8d`.
pub(crate) fn age(then: Timestamp) -> String {
    span(Timestamp::now().duration_since(then))
}

fn span(duration: SignedDuration) -> String {
    match duration.as_secs() {
        seconds @ ..=119 => format!("{}s", seconds.max(0)),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds @ 7200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A size in bytes as people read it: `109.5 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut scaled = bytes;
    let mut tenths = 0;
    let mut unit = 0;
    while scaled >= 1000 && unit + 1 < UNITS.len() {
        tenths = scaled % 1000 / 100;
        scaled /= 1000;
        unit += 1;
    }
    if unit == 0 { format!("{scaled} B") } else { format!("{scaled}.{tenths} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_as_people_say_them() {
        for (bytes, expected) in [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (109_473_280, "109.4 MB")] {
            assert_eq!(size(bytes), expected);
        }
        for (seconds, expected) in [(-3, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), expected);
        }
    }
}
