//! What a node has left, and what a pod takes of it.

use std::collections::BTreeMap;

use berth_api::quantity::Quantity;
use berth_api::resource::{Amounts, CPU, MEMORY, pod_requests};
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};

const PODS: &str = "pods";
/// What a container that asks for nothing counts for when nodes are compared, so that such pods spread too.
const CPU_MILLIS_ASSUMED: i64 = 100;
const MEMORY_BYTES_ASSUMED: i64 = 200 * 1024 * 1024;

/// A port of the host that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        let is_any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || is_any(&self.ip) || is_any(&other.ip))
    }
}

/// What a pod takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Need {
    amounts: Amounts,
    ports: Vec<HostPort>,
    /// As `amounts`, with something assumed where nothing is asked for.
    weight: Weight,
}

/// Processor and memory, for comparing nodes.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    cpu_millis: i64,
    memory_bytes: i64,
}

impl Need {
    /// What a pod takes. Amounts that are none are refused where pods are made; here they count as nothing.
    pub(super) fn of(pod: &Pod) -> Self {
        let amounts = pod_requests(pod).unwrap_or_default();
        let weight = Weight {
            cpu_millis: amounts.get(CPU).map_or(CPU_MILLIS_ASSUMED, |q| q.millis()),
            memory_bytes: amounts.get(MEMORY).map_or(MEMORY_BYTES_ASSUMED, |q| q.units()),
        };
        Self { amounts, ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(), weight }
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let port = |container: &Container| {
        let ports = container.ports.iter().flatten();
        let taken = ports.filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(HostPort { ip: port.host_ip.clone().unwrap_or_default(), protocol, port: number })
        });
        taken.collect::<Vec<_>>()
    };
    spec.containers.iter().flat_map(port).collect()
}

/// A node and what is left of it.
#[derive(Debug, Clone)]
pub(super) struct Room<'a> {
    /// The node.
    pub(super) node: &'a Node,
    total: Amounts,
    free: Amounts,
    ports: Vec<HostPort>,
    taken: Weight,
    /// How many pods it has.
    pub(super) pods: i64,
}

impl<'a> Room<'a> {
    /// An empty node.
    pub(super) fn new(node: &'a Node) -> Self {
        let status = node.status.as_ref();
        let wire = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let total: Amounts =
            wire.into_iter().flatten().filter_map(|(name, q)| Some((name.clone(), q.0.parse().ok()?))).collect();
        Self { node, free: total.clone(), total, ports: Vec::new(), taken: Weight::default(), pods: 0 }
    }

    /// Takes what a pod needs.
    pub(super) fn take(&mut self, need: &Need) {
        for (name, amount) in &need.amounts {
            let free = self.free.entry(name.clone()).or_default();
            *free = *free - *amount;
        }
        self.ports.extend(need.ports.iter().cloned());
        self.taken.cpu_millis = self.taken.cpu_millis.saturating_add(need.weight.cpu_millis);
        self.taken.memory_bytes = self.taken.memory_bytes.saturating_add(need.weight.memory_bytes);
        self.pods += 1;
    }

    /// What there is too little of, in Kubernetes' words; nothing when the pod fits.
    pub(super) fn shortages(&self, need: &Need) -> Vec<String> {
        let mut short = Vec::new();
        if self.total.get(PODS).is_some_and(|most| self.pods + 1 > most.units()) {
            short.push("Too many pods".to_owned());
        }
        for (name, amount) in need.amounts.iter().filter(|(_, amount)| !amount.is_zero()) {
            if self.free.get(name).copied().unwrap_or(Quantity::ZERO) < *amount {
                short.push(format!("Insufficient {name}"));
            }
        }
        short
    }

    /// Whether a port of the host that the pod wants is taken.
    pub(super) fn has_port_conflict(&self, need: &Need) -> bool {
        need.ports.iter().any(|wanted| self.ports.iter().any(|taken| taken.conflicts(wanted)))
    }

    /// How much would be left in percent, processor and memory alike: 100 for an empty node, 0 for a full one.
    pub(super) fn leftover_percent(&self, need: &Need) -> i64 {
        let percent = |total: i64, taken: i64| {
            if total <= 0 {
                return 0;
            }
            let left = i128::from(total.saturating_sub(taken).max(0)) * 100 / i128::from(total);
            i64::try_from(left).unwrap_or(0)
        };
        let cpu = self.total.get(CPU).map_or(0, |q| q.millis());
        let memory = self.total.get(MEMORY).map_or(0, |q| q.units());
        let cpu_left = percent(cpu, self.taken.cpu_millis.saturating_add(need.weight.cpu_millis));
        let memory_left = percent(memory, self.taken.memory_bytes.saturating_add(need.weight.memory_bytes));
        (cpu_left + memory_left) / 2
    }
}

/// All nodes by name, with what their pods have taken.
pub(super) fn rooms<'a>(
    nodes: impl Iterator<Item = (&'a str, &'a Node)>,
    placed: impl Iterator<Item = (&'a str, Need)>,
) -> BTreeMap<&'a str, Room<'a>> {
    let mut rooms: BTreeMap<&str, Room<'_>> = nodes.map(|(name, node)| (name, Room::new(node))).collect();
    for (node, need) in placed {
        if let Some(room) = rooms.get_mut(node) {
            room.take(&need);
        }
    }
    rooms
}
