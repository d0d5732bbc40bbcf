//! The order of init containers.

use k8s_openapi::api::core::v1::Container as Spec;

use crate::pod::desired::{Desired, Role};
use crate::pod::observe::Observed;

/// The containers whose turn it is, in the order of the spec: the sidecars that stand before the first init container
/// that has not ended well, and that one; or, when there is none, all sidecars and the app containers.
///
/// Only what happened in the sandbox that is in use counts: in a new one, the order begins anew. Once an app container
/// was started there, init containers are not looked at again, even if a sidecar is down for a moment.
pub(super) fn turn<'a>(desired: &'a Desired, observed: &Observed<'_>) -> Vec<(Role, &'a Spec)> {
    let began = desired.apps().any(|spec| observed.current(&spec.name).is_some());
    let mut turn = Vec::new();
    for (role, spec) in desired.containers() {
        let current = observed.current(&spec.name);
        match role {
            Role::App => turn.push((role, spec)),
            Role::Sidecar => {
                turn.push((role, spec));
                let up = current.is_some_and(|container| observed.is_started(desired, spec, container));
                if !began && !up {
                    break;
                }
            }
            Role::Init => {
                let well = current.and_then(|container| container.end()).is_some_and(|end| end.exit_code == 0);
                if !began && !well {
                    turn.push((role, spec));
                    break;
                }
            }
        }
    }
    turn
}
