//! The KubeletConfiguration file (`kubelet.config.k8s.io/v1beta1`): the fields that are honoured, those that are known but
//! have no effect here, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{self, DocumentError};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// The fields that are honoured.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct File {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub address: Option<String>,
    pub authentication: Option<Authentication>,
    pub cgroup_root: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<String>>,
    pub cluster_domain: Option<String>,
    pub container_log_max_files: Option<i64>,
    pub container_log_max_size: Option<String>,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    pub crash_loop_back_off: Option<CrashLoopBackOff>,
    pub enable_server: Option<bool>,
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: Option<i64>,
    pub event_burst: Option<i64>,
    pub eviction_hard: Option<BTreeMap<String, String>>,
    pub kube_reserved: Option<BTreeMap<String, String>>,
    pub max_pods: Option<i64>,
    pub node_lease_duration_seconds: Option<i64>,
    pub node_status_report_frequency: Option<String>,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    pub pod_logs_dir: Option<String>,
    pub pod_pids_limit: Option<i64>,
    pub port: Option<i64>,
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    pub register_node: Option<bool>,
    pub register_with_taints: Option<Vec<Taint>>,
    pub resolv_conf: Option<String>,
    pub seccomp_default: Option<bool>,
    pub static_pod_path: Option<String>,
    pub system_reserved: Option<BTreeMap<String, String>>,
    pub tls_cert_file: Option<String>,
    pub tls_private_key_file: Option<String>,
}

/// Who may call the server.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Authentication {
    pub x509: Option<X509>,
    pub anonymous: Option<Switch>,
    pub webhook: Option<Webhook>,
}

/// Callers with a certificate.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<String>,
}

/// Something that is on or off.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Switch {
    pub enabled: Option<bool>,
}

/// Callers with a token.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Webhook {
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: Option<String>,
}

/// How failing containers are held back.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CrashLoopBackOff {
    pub max_container_restart_period: Option<String>,
}

/// Fields of v1beta1 that have no effect here; the file may carry them, and its reader is told.
const WITHOUT_EFFECT: &[&str] = &[
    "allowedUnsafeSysctls",
    "authorization",
    "cgroupDriver",
    "cgroupsPerQOS",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "contentType",
    "cpuCFSQuotaPeriod",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "fileCheckFrequency",
    "hairpinMode",
    "healthzBindAddress",
    "healthzPort",
    "httpCheckFrequency",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "memoryManagerPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeStatusMaxImages",
    "nodeStatusUpdateFrequency",
    "oomScoreAdj",
    "podsPerCore",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "rotateCertificates",
    "runOnce",
    "runtimeRequestTimeout",
    "serializeImagePulls",
    "serverTLSBootstrap",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodURL",
    "staticPodURLHeader",
    "streamingConnectionIdleTimeout",
    "syncFrequency",
    "systemCgroups",
    "systemReservedCgroup",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

/// Reads the file's text. The second value names the fields that have no effect.
pub(super) fn parse(text: &str) -> Result<(File, Vec<String>), DocumentError> {
    let mut document = match document::read(text)? {
        Value::Null => Value::Object(serde_json::Map::default()),
        other => other,
    };
    let Value::Object(fields) = &mut document else {
        return Err(DocumentError::field(".", "must be a mapping of fields to values"));
    };
    let without_effect: Vec<String> =
        fields.keys().filter(|name| WITHOUT_EFFECT.contains(&name.as_str())).cloned().collect();
    for name in &without_effect {
        fields.remove(name);
    }
    let file: File = document::typed(&document)?;
    expect("apiVersion", file.api_version.as_deref(), API_VERSION)?;
    expect("kind", file.kind.as_deref(), KIND)?;
    Ok((file, without_effect))
}

fn expect(field: &str, given: Option<&str>, wanted: &str) -> Result<(), DocumentError> {
    match given {
        Some(value) if value == wanted => Ok(()),
        Some(value) => Err(DocumentError::field(field, format!("must be {wanted:?}, not {value:?}"))),
        None => Err(DocumentError::field(field, format!("is missing; must be {wanted:?}"))),
    }
}

/// Reads a duration as these files write it: `10s`, `1m30s`, `1.5h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("", None),
            ("10", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn unknown_fields_are_errors_and_fields_without_effect_are_told() {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let (file, warned) = parse(&format!("{head}maxPods: 20\nsyncFrequency: 1m\n")).unwrap();
        assert_eq!((file.max_pods, warned), (Some(20), vec!["syncFrequency".to_owned()]));
        let unknown = parse(&format!("{head}maxPod: 20\n")).unwrap_err().to_string();
        assert_eq!(unknown, "field maxPod: there is no such field");
        let nested = parse(&format!("{head}authentication: {{x509: {{clientCA: a}}}}\n")).unwrap_err().to_string();
        assert_eq!(nested, "field authentication.x509.clientCA: there is no such field");
        let wrong = parse(&format!("{head}maxPods: many\n")).unwrap_err().to_string();
        assert!(wrong.starts_with("field maxPods: invalid type"), "{wrong}");
        assert!(parse("kind: Pod\napiVersion: v1\n").unwrap_err().to_string().contains("apiVersion"));
        assert!(parse("- a\n").is_err());
    }
}
