//! What a node keeps from its pods, and when it counts as under pressure.

use std::collections::BTreeMap;
use std::str::FromStr;

use berth_api::quantity::Quantity;

/// What is kept from pods for the agent and the system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub storage_bytes: u64,
}

impl Reserved {
    /// Adds what a `kubeReserved` or `systemReserved` field says. The error is the entry and what is wrong with it.
    pub(super) fn add(&mut self, entries: &BTreeMap<String, String>) -> Result<(), (String, String)> {
        for (name, text) in entries {
            let quantity = amount(text).map_err(|message| (name.clone(), message))?;
            match name.as_str() {
                "cpu" => self.cpu_millis = self.cpu_millis.saturating_add(unsigned(quantity.millis())),
                "memory" => self.memory_bytes = self.memory_bytes.saturating_add(unsigned(quantity.units())),
                "ephemeral-storage" => {
                    self.storage_bytes = self.storage_bytes.saturating_add(unsigned(quantity.units()));
                }
                // Numbers of processes are not handed out to pods, so there is nothing to keep back.
                "pid" => {}
                _ => return Err((name.clone(), "must be cpu, memory, ephemeral-storage or pid".to_owned())),
            }
        }
        Ok(())
    }
}

/// How much must be left of something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// So many bytes, inodes or process numbers.
    Amount(u64),
    /// So many hundredths of the whole.
    Percent(f64),
}

impl Threshold {
    /// Whether `available` of `capacity` is too little.
    pub(crate) fn is_crossed(self, available: u64, capacity: u64) -> bool {
        match self {
            Self::Amount(least) => available < least,
            #[allow(clippy::cast_precision_loss, reason = "a comparison of hundredths")]
            Self::Percent(percent) => (available as f64) < capacity as f64 * percent / 100.0,
        }
    }
}

/// When the node counts as under pressure: the hard eviction thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Memory that can be had without swapping.
    pub memory_available: Threshold,
    /// Room on the file system of the pods.
    pub disk_available: Threshold,
    /// Inodes on the file system of the pods.
    pub inodes_free: Threshold,
    /// Process numbers.
    pub pids_available: Threshold,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            memory_available: Threshold::Amount(100 << 20),
            disk_available: Threshold::Percent(10.0),
            inodes_free: Threshold::Percent(5.0),
            pids_available: Threshold::Percent(0.0),
        }
    }
}

impl Thresholds {
    /// Takes what an `evictionHard` field says. The error is the entry and what is wrong with it.
    pub(super) fn set(&mut self, entries: &BTreeMap<String, String>) -> Result<(), (String, String)> {
        for (name, text) in entries {
            let threshold = threshold(text).map_err(|message| (name.clone(), message))?;
            match name.as_str() {
                "memory.available" => self.memory_available = threshold,
                "nodefs.available" => self.disk_available = threshold,
                "nodefs.inodesFree" => self.inodes_free = threshold,
                "pid.available" => self.pids_available = threshold,
                // Images lie on the same file system here; its own thresholds guard them.
                "imagefs.available" | "imagefs.inodesFree" | "containerfs.available" | "containerfs.inodesFree" => {}
                _ => {
                    let known = "memory.available, nodefs.available, nodefs.inodesFree, pid.available";
                    return Err((name.clone(), format!("must be one of {known} (or imagefs.*, containerfs.*)")));
                }
            }
        }
        Ok(())
    }
}

fn threshold(text: &str) -> Result<Threshold, String> {
    match text.strip_suffix('%') {
        Some(number) => match number.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Threshold::Percent(percent)),
            _ => Err(format!("{text:?} is no share between 0% and 100%")),
        },
        None => amount(text).map(|quantity| Threshold::Amount(unsigned(quantity.units()))),
    }
}

/// A quantity that is not negative.
pub(super) fn amount(text: &str) -> Result<Quantity, String> {
    match Quantity::from_str(text) {
        Ok(quantity) if quantity.is_negative() => Err(format!("{text:?} must not be negative")),
        Ok(quantity) => Ok(quantity),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_amounts_or_shares() {
        assert!(threshold("100Mi").unwrap().is_crossed(99 << 20, 1 << 40));
        assert!(!threshold("100Mi").unwrap().is_crossed(100 << 20, 1 << 40));
        assert!(threshold("10%").unwrap().is_crossed(9, 100));
        assert!(!threshold("10%").unwrap().is_crossed(10, 100));
        for bad in ["", "%", "101%", "-1", "much"] {
            assert!(threshold(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reservations_add_up() {
        let mut reserved = Reserved::default();
        let entries = BTreeMap::from([("cpu".to_owned(), "100m".to_owned()), ("memory".to_owned(), "1Gi".to_owned())]);
        reserved.add(&entries).unwrap();
        reserved.add(&entries).unwrap();
        assert_eq!(reserved, Reserved { cpu_millis: 200, memory_bytes: 2 << 30, storage_bytes: 0 });
        assert!(reserved.add(&BTreeMap::from([("gpu".to_owned(), "1".to_owned())])).is_err());
    }
}
