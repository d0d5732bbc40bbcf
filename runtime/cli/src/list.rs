//! `list`.

use std::io::{self, Write};

use crate::Host;
use crate::args::{List, Listing};
use crate::error::Error;
use crate::state::State;

/// runc's columns: at least this wide, and this much apart.
const COLUMN_WIDTH_MIN: usize = 12;
const COLUMN_GAP: usize = 3;

pub(crate) fn print(host: &Host<'_>, args: &List) -> Result<(), Error> {
    let states: Vec<State> = host.runtime.list()?.into_iter().map(State::from).collect();
    let text = match (args.quiet, args.listing) {
        (true, _) => states.iter().map(|state| format!("{}\n", state.id)).collect(),
        (false, Listing::Json) => json(&states)?,
        (false, Listing::Table) => table(&states),
    };
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}

fn json(states: &[State]) -> Result<String, Error> {
    // Go writes a list that was never begun so.
    match states {
        [] => Ok("null\n".to_owned()),
        _ => Ok(serde_json::to_string(states).map_err(|error| Error::Output(error.into()))? + "\n"),
    }
}

fn table(states: &[State]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(states.iter().map(row)).collect();
    // The last column is as wide as what is in it.
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = COLUMN_WIDTH_MIN.max(*width).max(cell.chars().count() + COLUMN_GAP);
        }
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.chain([row[5].clone(), "\n".to_owned()]).collect::<String>()
    };
    rows.iter().map(line).collect()
}

fn row(state: &State) -> [String; 6] {
    [
        state.id.clone(),
        state.pid.to_string(),
        state.status.clone(),
        state.bundle.display().to_string(),
        state.created.to_string(),
        state.owner.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_headline_or_null() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        assert_eq!(json(&[]).unwrap(), "null\n");
    }
}
