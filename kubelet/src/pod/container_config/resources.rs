//! From requests and limits to the kernel's numbers.

use berth_api::resource::{Amounts, CPU, MEMORY, QosClass};
use berth_engine::config::Resources;

/// The period of CPU quotas.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel takes no smaller quota.
const CPU_QUOTA_US_MIN: i64 = 1000;
/// The kernel's limits for shares (cgroup v1).
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;
const CPU_SHARES_PER_CORE: u64 = 1024;
/// A guaranteed pod is killed after everything else but the node itself.
const OOM_GUARANTEED: i32 = -997;
const OOM_BEST_EFFORT: i32 = 1000;

/// Whether CPU limits are enforced by quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    /// They are.
    Enforced,
    /// They are not: `cpuCFSQuota: false`.
    Off,
}

/// The kernel's numbers for requests and limits.
pub(crate) fn kernel_numbers(requests: &Amounts, limits: &Amounts, quota: Quota) -> Resources {
    let limited = |millis: &i64| *millis > 0 && quota == Quota::Enforced;
    let cpu_limit = limits.get(CPU).map(|limit| limit.millis()).filter(limited);
    Resources {
        cpu_shares: Some(shares(requests.get(CPU).map_or(0, |request| request.millis()))),
        cpu_quota_us: cpu_limit.map(|millis| millis.saturating_mul(100).max(CPU_QUOTA_US_MIN)),
        cpu_period_us: cpu_limit.map(|_| CPU_PERIOD_US),
        memory_bytes: limits.get(MEMORY).map(|limit| limit.units()).filter(|&bytes| bytes > 0),
        pids: None,
        oom_score_adj: None,
    }
}

/// Thousandths of a core as cgroup v1's shares.
pub(crate) fn shares(millis: i64) -> u64 {
    let millis = u64::try_from(millis).unwrap_or(0);
    (millis.saturating_mul(CPU_SHARES_PER_CORE) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// Who is killed first when the node's memory is used up: in a burstable pod, who asked for less than it takes.
pub(crate) fn oom_score_adj(qos: QosClass, memory_request: i64, node_memory: u64) -> i32 {
    match qos {
        QosClass::Guaranteed => OOM_GUARANTEED,
        QosClass::BestEffort => OOM_BEST_EFFORT,
        QosClass::Burstable => {
            let share = i128::from(memory_request.max(0)) * 1000 / i128::from(node_memory.max(1));
            let score = 1000 - i32::try_from(share).unwrap_or(1000);
            score.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::quantity::Quantity;

    fn amounts(cpu: Option<&str>, memory: Option<&str>) -> Amounts {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        let cpu = cpu.map(|text| (CPU.to_owned(), parse(text)));
        cpu.into_iter().chain(memory.map(|text| (MEMORY.to_owned(), parse(text)))).collect()
    }

    fn check(requests: (Option<&str>, Option<&str>), limits: (Option<&str>, Option<&str>), expected: Resources) {
        let got = kernel_numbers(&amounts(requests.0, requests.1), &amounts(limits.0, limits.1), Quota::Enforced);
        assert_eq!(got, expected);
    }

    #[test]
    fn requests_are_shares_and_limits_are_quotas() {
        let least = || Resources { cpu_shares: Some(2), ..Resources::default() };
        check((None, None), (None, None), least());
        check((Some("1"), None), (None, None), Resources { cpu_shares: Some(1024), ..least() });
        check((Some("1m"), None), (None, None), least());
        let half = Resources {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_bytes: Some(64 << 20),
            ..least()
        };
        check((Some("500m"), Some("1Mi")), (Some("500m"), Some("64Mi")), half);
        let tiny = Resources { cpu_quota_us: Some(1000), cpu_period_us: Some(100_000), ..least() };
        check((None, None), (Some("1m"), None), tiny);
        check((None, None), (Some("0"), Some("0")), least());
        let off = kernel_numbers(&Amounts::new(), &amounts(Some("1"), None), Quota::Off);
        assert_eq!(off.cpu_quota_us, None);
    }

    #[test]
    fn the_greedy_are_killed_first() {
        let gib = 1 << 30;
        assert_eq!(oom_score_adj(QosClass::Guaranteed, gib, 4 << 30), -997);
        assert_eq!(oom_score_adj(QosClass::BestEffort, 0, 4 << 30), 1000);
        assert_eq!(oom_score_adj(QosClass::Burstable, gib, 4 << 30), 750);
        assert_eq!(oom_score_adj(QosClass::Burstable, 0, 4 << 30), 999);
        assert_eq!(oom_score_adj(QosClass::Burstable, i64::MAX, 1), 3);
    }
}
