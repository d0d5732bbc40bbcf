//! `ps`: ids as JSON, or those lines of ps(1) that tell of the container's processes.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::Host;
use crate::args::{Listing, Ps};
use crate::error::Error;

/// What ps(1) is told unless the caller says something.
const OPTIONS: &str = "-ef";

pub(crate) fn print(host: &Host<'_>, args: &Ps) -> Result<(), Error> {
    let pids = host.runtime.processes(&args.id)?;
    let text = match args.listing {
        Listing::Json => serde_json::to_string(&pids).map_err(|error| Error::Output(error.into()))? + "\n",
        Listing::Table => {
            let all = all_processes(&args.options)?;
            of_these(&all, &pids).ok_or_else(|| Error::Ps { reason: "it shows no column PID".to_owned() })?
        }
    };
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}

fn all_processes(options: &[String]) -> Result<String, Error> {
    let failed = |reason: String| Error::Ps { reason };
    let mut ps = Command::new("ps");
    match options {
        [] => ps.arg(OPTIONS),
        options => ps.args(options),
    };
    let output = ps.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The headline, and the lines whose column PID holds one of these.
fn of_these(table: &str, pids: &[i32]) -> Option<String> {
    let mut lines = table.lines();
    let head = lines.next()?;
    let column = head.split_whitespace().position(|title| title == "PID")?;
    let wanted = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|cell| cell.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Some(std::iter::once(head).chain(lines.filter(wanted)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_their_process() {
        let table = "UID  PID  PPID CMD\nroot   1     0 init\nroot  12     1 a 1\nroot 121    12 b\n";
        assert_eq!(of_these(table, &[12, 99]).unwrap(), "UID  PID  PPID CMD\nroot  12     1 a 1\n");
        assert_eq!(of_these("CMD\nx\n", &[1]), None);
        assert_eq!(of_these("", &[1]), None);
    }
}
