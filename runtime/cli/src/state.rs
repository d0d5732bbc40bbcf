//! `state`, and a container as runc's JSON describes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::Host;
use crate::error::Error;

/// The state that the runtime specification defines (runtime.md), with runc's additions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    oci_version: &'static str,
    pub(crate) id: String,
    /// 0 once it has stopped.
    pub(crate) pid: i32,
    pub(crate) status: String,
    pub(crate) bundle: PathBuf,
    rootfs: PathBuf,
    pub(crate) created: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// The name of the user that made it.
    pub(crate) owner: String,
}

impl From<berth_runtime::State> for State {
    fn from(state: berth_runtime::State) -> Self {
        Self {
            oci_version: berth_runtime::OCI_VERSION,
            id: state.id,
            pid: state.pid,
            status: state.status.to_string(),
            bundle: state.bundle,
            rootfs: state.rootfs,
            created: state.created,
            annotations: state.annotations,
            owner: user_name(state.owner),
        }
    }
}

pub(crate) fn print(host: &Host<'_>, id: &str) -> Result<(), Error> {
    let state = State::from(host.runtime.state(id)?);
    let text = serde_json::to_vec_pretty(&state).map_err(|error| Error::Output(error.into()))?;
    io::stdout().write_all(&text).map_err(Error::Output)
}

/// From the file itself: the C library would load modules for it, which a static program cannot.
fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_or_numbers() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_000), "#4000000000");
    }
}
