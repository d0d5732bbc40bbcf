//! The listener of a filter: the descriptor by which somebody else answers the calls that the filter leaves to it, handed
//! over as the runtime spec says (config-linux.md#seccomp, containerprocessstate).

use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use berth_sys::process::pidfd_getfd;
use berth_sys::socket::connect_stream;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::OCI_VERSION;
use crate::error::Error;
use crate::hooks::Told;
use crate::limits::ANSWER_DEADLINE;
use crate::spec;
use crate::state::{Record, Status};

/// Whom to give listeners to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerSpec {
    path: PathBuf,
    metadata: Option<String>,
}

/// What it is told with it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'static str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: Told<'a>,
}

/// Where the listener of a container's filter goes, if it has one.
pub(crate) fn listener_of(spec: &Spec) -> Result<Option<ListenerSpec>, Error> {
    let Some(seccomp) = spec::linux(spec)?.seccomp() else { return Ok(None) };
    match (super::has_notify(seccomp)?, seccomp.listener_path()) {
        (false, _) => Ok(None),
        (true, Some(path)) => {
            Ok(Some(ListenerSpec { path: path.clone(), metadata: seccomp.listener_metadata().clone() }))
        }
        (true, None) => Err(Error::spec("linux.seccomp.listenerPath", "is missing, and a rule is SCMP_ACT_NOTIFY")),
    }
}

/// The verbs of a listener.
pub(crate) struct Listener;

impl Listener {
    /// Takes a copy of the descriptor out of the process that loaded the filter.
    pub(crate) fn take(pidfd: &OwnedFd, number: i32) -> Result<OwnedFd, Error> {
        pidfd_getfd(pidfd, number)
            .map_err(|source| Error::Setup { step: "take the listener of the seccomp filter".into(), source })
    }

    /// Gives it to whoever listens at the path that the specification names.
    pub(crate) fn hand_over(record: &Record, status: Status, pid: i32, listener: OwnedFd) -> Result<(), Error> {
        let Some(spec) = &record.listener else { return Ok(()) };
        let state = ProcessState {
            oci_version: OCI_VERSION,
            fds: ["seccompFd"],
            pid,
            metadata: spec.metadata.as_deref(),
            state: record.told(status, record.init.map_or(pid, |init| init.pid)),
        };
        let failed = |error| Error::file("give the seccomp listener to", &spec.path)(error);
        let text = serde_json::to_vec(&state).map_err(|error| failed(error.into()))?;
        let mut stream = connect_stream(&spec.path, ANSWER_DEADLINE).map_err(failed)?;
        let rights = [listener.as_raw_fd()];
        let sent = sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(&text)],
            &[ControlMessage::ScmRights(&rights)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        let sent = sent.map_err(|errno| failed(errno.into()))?;
        stream.write_all(text.get(sent..).unwrap_or_default()).map_err(failed)
    }
}
