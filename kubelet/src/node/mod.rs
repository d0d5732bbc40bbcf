//! The node as the master knows it.

use std::net::IpAddr;

/// What a pod may learn about its node (`status.hostIPs`, `resourceFieldRef` without limits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// The node's own addresses, the first one the preferred.
    pub addresses: Vec<IpAddr>,
    /// What all pods together may use: thousandths of a processor.
    pub allocatable_cpu_millis: u64,
    /// What all pods together may use: bytes of memory.
    pub allocatable_memory_bytes: u64,
}
