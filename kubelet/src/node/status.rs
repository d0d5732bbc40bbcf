//! From what was read to the Node's status. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::quantity::Quantity;
use berth_engine::ImageStatus;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::{Level, Machine, Readings};
use crate::config::{Config, Threshold};

/// How many images a Node names, the largest first.
const IMAGES_MAX: usize = 50;
/// How many names an image is given there.
const IMAGE_NAMES_MAX: usize = 5;

/// All that a status is made of.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub config: &'a Config,
    pub machine: &'a Machine,
    pub readings: Readings,
    pub addresses: &'a [IpAddr],
    /// Why pods cannot run here; nothing if they can.
    pub not_ready: Option<String>,
    pub images: Vec<ImageStatus>,
}

/// What pods can have of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allocatable {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
}

/// What is left for pods when the reserved part and the memory that is never given out are taken away.
pub(super) fn allocatable(config: &Config, machine: &Machine) -> Allocatable {
    let kept = match config.thresholds.memory_available {
        Threshold::Amount(bytes) => bytes,
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share"
        )]
        Threshold::Percent(percent) => (machine.memory_bytes as f64 * percent / 100.0) as u64,
    };
    Allocatable {
        cpu_millis: (machine.cpus * 1000).saturating_sub(config.reserved.cpu_millis),
        memory_bytes: machine.memory_bytes.saturating_sub(config.reserved.memory_bytes).saturating_sub(kept),
        storage_bytes: machine.storage_bytes.saturating_sub(config.reserved.storage_bytes),
    }
}

/// The status at `now`, put over `old`: conditions and addresses of others stay, and a condition's time of change stays
/// while its value does.
pub(super) fn status(facts: &Facts<'_>, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let whole = Allocatable {
        cpu_millis: facts.machine.cpus * 1000,
        memory_bytes: facts.machine.memory_bytes,
        storage_bytes: facts.machine.storage_bytes,
    };
    let mut status = old.clone();
    status.addresses = Some(addresses(facts));
    status.capacity = Some(resources(whole, facts.config.max_pods));
    status.allocatable = Some(resources(allocatable(facts.config, facts.machine), facts.config.max_pods));
    status.node_info = Some(facts.machine.info.clone());
    status.daemon_endpoints = facts.config.server_address.map(|address| NodeDaemonEndpoints {
        kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(address.port()) }),
    });
    status.images = Some(images(&facts.images));
    let mut conditions = old.conditions.clone().unwrap_or_default();
    for condition in wanted_conditions(facts) {
        put(&mut conditions, condition, now);
    }
    status.conditions = Some(conditions);
    status
}

/// Whether two statuses say the same, but for when it was said.
pub(super) fn same(one: &NodeStatus, other: &NodeStatus) -> bool {
    let timeless = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    timeless(one) == timeless(other)
}

/// Whether the node says that it is ready.
pub(super) fn is_ready(status: &NodeStatus) -> Option<bool> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").map(|ready| ready.status == "True")
}

fn addresses(facts: &Facts<'_>) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let internal = facts.addresses.iter().map(|ip| address("InternalIP", ip.to_string()));
    internal.chain([address("Hostname", facts.config.node_name.clone())]).collect()
}

fn resources(amount: Allocatable, pods: u32) -> BTreeMap<String, WireQuantity> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let cpu = Quantity::from_millis(signed(amount.cpu_millis)).to_string();
    // In binary units to the byte, as other agents write it.
    let kibibytes = |bytes: u64| format!("{}Ki", bytes / 1024);
    [
        ("cpu", cpu),
        ("memory", kibibytes(amount.memory_bytes)),
        ("ephemeral-storage", kibibytes(amount.storage_bytes)),
        ("pods", pods.to_string()),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), WireQuantity(text)))
    .collect()
}

fn images(images: &[ImageStatus]) -> Vec<ContainerImage> {
    let mut images: Vec<_> = images.iter().collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    let named = images.into_iter().take(IMAGES_MAX).map(|image| ContainerImage {
        names: Some(image.digests.iter().chain(&image.tags).take(IMAGE_NAMES_MAX).cloned().collect()),
        size_bytes: i64::try_from(image.size_bytes).ok(),
    });
    named.collect()
}

fn wanted_conditions(facts: &Facts<'_>) -> [NodeCondition; 4] {
    let thresholds = &facts.config.thresholds;
    let readings = &facts.readings;
    let crossed = |threshold: Threshold, level: Level| threshold.is_crossed(level.available, level.capacity);
    // File systems without a table of inodes say that they have none.
    let few_inodes = readings.inodes.capacity > 0 && crossed(thresholds.inodes_free, readings.inodes);
    [
        pressure(&MEMORY, crossed(thresholds.memory_available, readings.memory)),
        pressure(&DISK, few_inodes || crossed(thresholds.disk_available, readings.disk)),
        pressure(&PIDS, crossed(thresholds.pids_available, readings.pids)),
        match &facts.not_ready {
            None => condition("Ready", "True", "KubeletReady", "the node runs pods".to_owned()),
            Some(message) => condition("Ready", "False", "KubeletNotReady", message.clone()),
        },
    ]
}

/// What there may be too little of.
struct Pressure {
    condition: &'static str,
    /// The reason while there is enough.
    enough: &'static str,
    what: &'static str,
}

const MEMORY: Pressure = Pressure { condition: "MemoryPressure", enough: "KubeletHasSufficientMemory", what: "memory" };
const DISK: Pressure = Pressure { condition: "DiskPressure", enough: "KubeletHasNoDiskPressure", what: "disk space" };
const PIDS: Pressure =
    Pressure { condition: "PIDPressure", enough: "KubeletHasSufficientPID", what: "process numbers" };

fn pressure(kind: &Pressure, is_short: bool) -> NodeCondition {
    let Pressure { condition: name, enough, what } = kind;
    if is_short {
        condition(name, "True", &format!("KubeletHas{name}"), format!("the node is short of {what}"))
    } else {
        condition(name, "False", enough, format!("the node has enough {what}"))
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: String) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..NodeCondition::default()
    }
}

fn put(conditions: &mut Vec<NodeCondition>, mut new: NodeCondition, now: Timestamp) {
    new.last_heartbeat_time = Some(Time(now));
    new.last_transition_time = Some(Time(now));
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status && old.last_transition_time.is_some() {
                new.last_transition_time = old.last_transition_time.take();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn level(available: u64) -> Level {
        Level { available, capacity: 1 << 40 }
    }

    fn config() -> Config {
        Config::load(Options { node_name: Some("n".to_owned()), ..Options::default() }).unwrap()
    }

    fn machine() -> Machine {
        Machine { cpus: 2, memory_bytes: 4 << 30, storage_bytes: 1 << 40, info: Default::default() }
    }

    fn facts<'a>(config: &'a Config, machine: &'a Machine) -> Facts<'a> {
        let plenty = level(1 << 39);
        Facts {
            config,
            machine,
            readings: Readings { memory: plenty, disk: plenty, inodes: plenty, pids: plenty },
            addresses: &[],
            not_ready: None,
            images: Vec::new(),
        }
    }

    fn get<'a>(status: &'a NodeStatus, kind: &str) -> &'a NodeCondition {
        status.conditions.as_ref().unwrap().iter().find(|condition| condition.type_ == kind).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn pressure_follows_the_readings() {
        let (config, machine) = (config(), machine());
        let mut facts = facts(&config, &machine);
        let calm = status(&facts, &NodeStatus::default(), at(1));
        for kind in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
            assert_eq!(get(&calm, kind).status, "False", "{kind}");
        }
        facts.readings.memory = level(50 << 20);
        facts.readings.inodes = level(10);
        let tight = status(&facts, &calm, at(2));
        assert_eq!(get(&tight, "MemoryPressure").reason.as_deref(), Some("KubeletHasMemoryPressure"));
        assert_eq!(get(&tight, "DiskPressure").status, "True");
        assert_eq!(get(&tight, "PIDPressure").status, "False");
    }

    #[test]
    fn a_condition_keeps_its_time_of_change_and_others_keep_theirs() {
        let (config, machine) = (config(), machine());
        let mut facts = facts(&config, &machine);
        facts.not_ready = Some("no network".to_owned());
        let foreign = condition("NetworkUnavailable", "False", "RouteCreated", String::new());
        let old = NodeStatus { conditions: Some(vec![foreign.clone()]), ..NodeStatus::default() };
        let first = status(&facts, &old, at(1));
        let second = status(&facts, &first, at(2));
        assert!(same(&first, &second) && first != second);
        assert_eq!(get(&second, "Ready").last_transition_time, Some(Time(at(1))));
        assert_eq!(get(&second, "NetworkUnavailable"), &foreign);
        facts.not_ready = None;
        let third = status(&facts, &second, at(3));
        assert!(!same(&second, &third));
        assert_eq!(get(&third, "Ready").last_transition_time, Some(Time(at(3))));
        assert_eq!((is_ready(&second), is_ready(&third)), (Some(false), Some(true)));
    }

    #[test]
    fn what_is_kept_is_not_given_out() {
        let (mut config, machine) = (config(), machine());
        config.reserved.cpu_millis = 500;
        config.reserved.memory_bytes = 1 << 30;
        let got = allocatable(&config, &machine);
        assert_eq!((got.cpu_millis, got.memory_bytes), (1500, (3 << 30) - (100 << 20)));
        let status = status(&facts(&config, &machine), &NodeStatus::default(), at(1));
        assert_eq!(status.allocatable.unwrap()["cpu"].0, "1500m");
        assert_eq!(status.capacity.unwrap()["memory"].0, "4194304Ki");
    }

    #[test]
    fn at_most_fifty_images_the_largest_first() {
        let image = |n: u64| ImageStatus {
            id: format!("sha256:{n}"),
            tags: vec![format!("i:{n}")],
            digests: Vec::new(),
            size_bytes: n,
            user: None,
        };
        let named = images(&(0..80).map(image).collect::<Vec<_>>());
        assert_eq!(named.len(), IMAGES_MAX);
        assert_eq!(named[0].size_bytes, Some(79));
    }
}
