//! What controllers ask for: complete actions, each with its reason, and when to look again.

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;

use crate::resource::Kind;

/// What one pass wants done, and when it must look again even if nothing changes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) wake_at: Option<Timestamp>,
}

impl Plan {
    /// Takes in another plan.
    pub(super) fn merge(&mut self, other: Self) {
        self.actions.extend(other.actions);
        if let Some(at) = other.wake_at {
            self.wake_by(at);
        }
    }

    /// Looks again at this time at the latest.
    pub(super) fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// One change of one thing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Gives a node the network of its pods.
    GiveNetwork { node: String, network: IpNetwork },
    /// Says that nothing has been heard of a node.
    MarkUnknown { node: String, since: Timestamp },
    /// Sets the taints of a node. `resource_version` is that of the node that was looked at.
    SetTaints { node: String, resource_version: Option<String>, taints: Vec<Taint>, reason: &'static str },
    /// Makes the service account that pods get when they name none.
    MakeServiceAccount { namespace: String },
    /// Deletes all objects of a kind in a namespace that is going away.
    DeleteAll { namespace: String, kind: KindRef },
    /// Lets a namespace go.
    Finalize { namespace: String },
    /// Deletes a pod at once; nobody is left who could end it.
    DeletePod { namespace: String, name: String, uid: String, reason: &'static str },
}

/// A row of the table of kinds, compared by name.
#[derive(Clone, Copy)]
pub(super) struct KindRef(pub(super) &'static Kind);

impl PartialEq for KindRef {
    fn eq(&self, other: &Self) -> bool {
        (self.0.group, self.0.plural) == (other.0.group, other.0.plural)
    }
}

impl std::fmt::Debug for KindRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.plural)
    }
}
