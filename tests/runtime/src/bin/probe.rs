//! The program that containers of this suite run: prints what it sees as one line of JSON.
#![forbid(unsafe_code)]

use berth_runtime_tests::report::Report;

fn main() -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string(&Report::take())?);
    Ok(())
}
