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

/// What the library could not do.
pub(crate) fn of_runtime(error: &berth_runtime::Error) -> Fault {
    use berth_runtime::Error as E;
    let kind = match error {
        E::Id { .. } | E::Spec { .. } | E::Unsupported { .. } => FaultKind::Invalid,
        E::NotFound { .. } => FaultKind::NotFound,
        E::Exists { .. } => FaultKind::Exists,
        E::WrongState { .. } => FaultKind::WrongState,
        E::Exec { .. } => FaultKind::BadCommand,
        _ => FaultKind::Failed,
    };
    fault(kind, chain(error))
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
