//! The cgroups of pods: `kubepods`, its two lower classes, and one cgroup for each pod, with the limits of the sum.
//!
//! ```text
//! <root>/kubepods/pod<uid>               guaranteed
//! <root>/kubepods/burstable/pod<uid>     shares: what its pods ask for together
//! <root>/kubepods/besteffort/pod<uid>    shares: 2, the least
//! ```
//!
//! What containers make below a pod's cgroup is the engine's; a pod's cgroup is removed when nothing is in it any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_api::id::PodUid;
use berth_api::resource::{Amounts, CPU, QosClass, pod_limits, pod_requests};
use berth_sys::cgroup::{self, Cgroup, Hierarchies, Limits};

use crate::pod::container_config::resources::{Quota, kernel_numbers, shares};
use crate::pod::desired::Desired;

const KUBEPODS: &str = "kubepods";
const POD_PREFIX: &str = "pod";
/// The lowest first, since the highest is the folder of the others.
const CLASSES: [QosClass; 3] = [QosClass::BestEffort, QosClass::Burstable, QosClass::Guaranteed];
/// The controllers that a pod is limited by; others are the containers' own.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// What can go wrong with the cgroups of pods.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// The machine's hierarchies could not be read.
    #[error("cannot find the machine's cgroup hierarchies: {source}")]
    Hierarchies {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// One cgroup could not be made, limited or removed.
    #[error("cannot {action} cgroup {path}: {source}")]
    Cgroup {
        /// What was done.
        action: &'static str,
        /// To which.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: cgroup::Error,
    },
}

/// The cgroups of this node's pods. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    root: PathBuf,
    quota: Quota,
    pids_max: Option<u64>,
    /// What the burstable pods ask for, in thousandths of a core.
    burstable: Arc<Mutex<BTreeMap<PodUid, i64>>>,
}

impl Cgroups {
    /// The cgroups below `root`, as the agent was told to make them.
    pub(crate) fn new(config: &crate::config::Config) -> Self {
        Self {
            root: Path::new("/").join(&config.cgroup_root),
            quota: if config.cpu_cfs_quota { Quota::Enforced } else { Quota::Off },
            pids_max: config.pod_pids_limit,
            burstable: Arc::default(),
        }
    }

    /// Where a pod's cgroup is, below the root of each hierarchy.
    pub(crate) fn path(&self, qos: QosClass, uid: &PodUid) -> PathBuf {
        self.class(qos).join(format!("{POD_PREFIX}{uid}"))
    }

    /// Makes a pod's cgroup and sets its limits; made already, its limits are set again.
    pub(crate) fn make(&self, desired: &Desired) -> Result<PathBuf, CgroupError> {
        // `Desired::parse` has read the same quantities.
        let requests = pod_requests(&desired.pod).unwrap_or_default();
        let limits = pod_limits(&desired.pod).unwrap_or_default();
        let numbers = kernel_numbers(&requests, &limits, self.quota);
        let mut burstable = self.lock();
        self.make_class(desired.qos)?;
        if desired.qos == QosClass::Burstable {
            burstable.insert(desired.id.uid.clone(), cpu_millis(&requests));
            self.share_among(&burstable)?;
        }
        let path = self.path(desired.qos, &desired.id.uid);
        let pod = cgroup(&path, &CONTROLLERS)?;
        let limits = Limits {
            cpu_shares: numbers.cpu_shares,
            cpu_quota_us: numbers.cpu_quota_us,
            cpu_period_us: numbers.cpu_period_us,
            memory_bytes: numbers.memory_bytes,
            pids: self.pids_max.and_then(|most| i64::try_from(most).ok()),
            ..Limits::default()
        };
        pod.make().map_err(|source| failed("make", &path, source))?;
        pod.set(&limits).map_err(|source| failed("limit", &path, source))?;
        Ok(path)
    }

    /// Counts a pod that an agent before this one made the cgroup of: the next sum has it in it.
    pub(crate) fn adopt(&self, desired: &Desired) {
        if desired.qos == QosClass::Burstable {
            let requests = pod_requests(&desired.pod).unwrap_or_default();
            self.lock().insert(desired.id.uid.clone(), cpu_millis(&requests));
        }
    }

    /// Kills what is left in a pod's cgroup and removes it, and with the last one the whole tree. What is gone is
    /// removed.
    pub(crate) fn remove(&self, uid: &PodUid) -> Result<(), CgroupError> {
        for qos in CLASSES {
            remove_tree(&self.path(qos, uid))?;
        }
        let mut burstable = self.lock();
        if burstable.remove(uid).is_some() {
            self.share_among(&burstable)?;
        }
        if self.pods()?.is_empty() {
            for qos in CLASSES {
                remove_tree(&self.class(qos))?;
            }
        }
        Ok(())
    }

    /// The pods that have a cgroup: some may be left over from before.
    pub(crate) fn pods(&self) -> Result<Vec<PodUid>, CgroupError> {
        let mut found = std::collections::BTreeSet::new();
        for qos in CLASSES {
            let class = cgroup(&self.class(qos), &[])?;
            for (_, folder, _) in class.folders() {
                let Ok(entries) = std::fs::read_dir(folder) else { continue };
                let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
                found.extend(names.filter_map(|name| name.strip_prefix(POD_PREFIX)?.parse::<PodUid>().ok()));
            }
        }
        Ok(found.into_iter().collect())
    }

    fn class(&self, qos: QosClass) -> PathBuf {
        let kubepods = self.root.join(KUBEPODS);
        match qos {
            QosClass::Guaranteed => kubepods,
            QosClass::Burstable => kubepods.join("burstable"),
            QosClass::BestEffort => kubepods.join("besteffort"),
        }
    }

    fn make_class(&self, qos: QosClass) -> Result<(), CgroupError> {
        let path = self.class(qos);
        let class = cgroup(&path, &CONTROLLERS)?;
        class.make().map_err(|source| failed("make", &path, source))?;
        if qos == QosClass::BestEffort {
            let limits = Limits { cpu_shares: Some(shares(0)), ..Limits::default() };
            class.set(&limits).map_err(|source| failed("limit", &path, source))?;
        }
        Ok(())
    }

    /// The class has the shares that its pods ask for together. The caller holds the lock, so that the last sum is the
    /// last that is written.
    fn share_among(&self, burstable: &BTreeMap<PodUid, i64>) -> Result<(), CgroupError> {
        let sum = burstable.values().fold(0_i64, |sum, millis| sum.saturating_add(*millis));
        let limits = Limits { cpu_shares: Some(shares(sum)), ..Limits::default() };
        let path = self.class(QosClass::Burstable);
        cgroup(&path, &CONTROLLERS)?.set(&limits).map_err(|source| failed("limit", &path, source))
    }

    /// One change of the tree at a time. A panic of a former holder has left the map whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, i64>> {
        self.burstable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cpu_millis(requests: &Amounts) -> i64 {
    requests.get(CPU).map_or(0, |request| request.millis())
}

fn cgroup(path: &Path, controllers: &[&str]) -> Result<Cgroup, CgroupError> {
    let hierarchies = Hierarchies::of_machine().map_err(|source| CgroupError::Hierarchies { source })?;
    Cgroup::new(hierarchies, path, controllers).map_err(|source| failed("name", path, source))
}

/// Removes a cgroup in every hierarchy: containers have made theirs below it in more of them than a pod is limited by.
fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    let cgroup = cgroup(path, &[])?;
    if cgroup.exists() {
        cgroup.kill().map_err(|source| failed("empty", path, source))?;
        cgroup.remove().map_err(|source| failed("remove", path, source))?;
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path, source: cgroup::Error) -> CgroupError {
    CgroupError::Cgroup { action, path: path.to_owned(), source }
}
