//! Errors as clients are told them.

use std::error::Error;

use berth_runtime::shim::protocol::{Fault, FaultKind};

/// A fault with its message.
pub(crate) fn fault(kind: FaultKind, message: impl Into<String>) -> Fault {
    Fault { kind, message: message.into() }
}

/// A failure of the kernel or the disk.
pub(crate) fn failed(action: &str, error: &dyn Error) -> Fault {
    fault(FaultKind::Failed, format!("{action}: {}", chain(error)))
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
