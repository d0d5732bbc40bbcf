//! From what was typed and what the file says to a [`Config`]: the command line first, then the file, then the default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, File};
use super::reserved::{amount, unsigned};
use super::{CertificateFiles, Config, ConfigError, Options, Reserved, Thresholds};
use crate::document::DocumentError;

/// The largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PORT: u16 = 10250;
const MAX_PODS: u32 = 110;
const LOG_MAX_BYTES: u64 = 10 << 20;
const LOG_MAX_FILES: u32 = 5;
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(300);
const STATUS_REPORT_INTERVAL: Duration = Duration::from_secs(300);
const LEASE_DURATION_SECS: u32 = 40;
const EVENT_RATE: u32 = 50;
const EVENT_BURST: u32 = 100;
const BRIDGE: &str = "berth0";
/// The pods' range of a node without a master that could give it one.
const POD_RANGE_ALONE: &str = "10.244.0.0/24";

impl Config {
    /// Reads the file that the options name, if any, and puts both together.
    pub fn load(options: Options) -> Result<Self, ConfigError> {
        let (path, file) = match &options.config_file {
            Some(path) => (path.clone(), read(path)?),
            None => (PathBuf::new(), File::default()),
        };
        build(options, file).map_err(|failure| match failure {
            Failure::Option(option, message) => ConfigError::Option { option, message },
            Failure::Field(field, message) => ConfigError::Field { path, field, message },
        })
    }
}

/// What is wrong, before it is known in which file.
enum Failure {
    Option(&'static str, String),
    Field(String, String),
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let error = |source| ConfigError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(error)?.len();
    if size > FILE_BYTES_MAX {
        let message = format!("is larger than {FILE_BYTES_MAX} bytes");
        return Err(ConfigError::Syntax { path: path.to_owned(), message });
    }
    let text = std::fs::read_to_string(path).map_err(error)?;
    let (file, without_effect) = file::parse(&text).map_err(|error| match error {
        DocumentError::Syntax { message } => ConfigError::Syntax { path: path.to_owned(), message },
        DocumentError::Field { field, message } => ConfigError::Field { path: path.to_owned(), field, message },
    })?;
    if !without_effect.is_empty() {
        tracing::warn!(file = %path.display(), fields = without_effect.join(", "), "fields without effect here");
    }
    Ok(file)
}

fn build(options: Options, file: File) -> Result<Config, Failure> {
    let node_name = node_name(options.node_name)?;
    let is_alone = options.kubeconfig.is_none();
    let (x509, anonymous) = file.authentication.map(|a| (a.x509, a.anonymous)).unwrap_or_default();
    if anonymous.and_then(|switch| switch.enabled) == Some(true) {
        return Err(field("authentication.anonymous.enabled", "must be false: the server answers nobody unknown"));
    }
    let mut reserved = Reserved::default();
    for (name, entries) in [("kubeReserved", &file.kube_reserved), ("systemReserved", &file.system_reserved)] {
        reserved.add(entries.as_ref().unwrap_or(&Default::default())).map_err(|e| entry(name, e))?;
    }
    let mut thresholds = Thresholds::default();
    thresholds.set(&file.eviction_hard.unwrap_or_default()).map_err(|e| entry("evictionHard", e))?;
    let port = match options.port {
        Some(port) => port,
        None => number("port", file.port, 1..=65535)?.unwrap_or(PORT),
    };
    let address = parsed("address", file.address.as_deref())?.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let crash_loop = file.crash_loop_back_off.and_then(|settings| settings.max_container_restart_period);
    Ok(Config {
        node_name,
        node_ips: options.node_ips,
        kubeconfig: options.kubeconfig,
        state_dir: options.state_dir,
        run_dir: options.run_dir,
        pod_log_dir: file.pod_logs_dir.map_or(options.pod_log_dir, PathBuf::from),
        container_log_dir: options.container_log_dir,
        static_pod_path: options.static_pod_path.or_else(|| non_empty(file.static_pod_path).map(PathBuf::from)),
        node_labels: options.node_labels,
        cgroup_root: cgroup_root(options.cgroup_root, file.cgroup_root)?,
        bridge: options.bridge.unwrap_or_else(|| BRIDGE.to_owned()),
        pod_cidrs: pod_cidrs(options.pod_cidrs, file.pod_cidr.as_deref(), is_alone)?,
        cluster_dns: cluster_dns(file.cluster_dns.unwrap_or_default())?,
        cluster_domain: non_empty(file.cluster_domain).unwrap_or_else(|| "cluster.local".to_owned()),
        resolv_conf: non_empty(file.resolv_conf).map_or_else(|| PathBuf::from("/etc/resolv.conf"), PathBuf::from),
        max_pods: number("maxPods", file.max_pods, 0..=100_000)?.unwrap_or(MAX_PODS),
        pod_pids_limit: number("podPidsLimit", file.pod_pids_limit.filter(|limit| *limit != -1), 1..=i64::MAX)?,
        cpu_cfs_quota: file.cpu_cfs_quota.unwrap_or(true),
        seccomp_default: file.seccomp_default.unwrap_or(true),
        restart_backoff_max: period("crashLoopBackOff.maxContainerRestartPeriod", crash_loop)?
            .unwrap_or(RESTART_BACKOFF_MAX)
            .clamp(Duration::from_secs(1), RESTART_BACKOFF_MAX),
        log_max_bytes: bytes("containerLogMaxSize", file.container_log_max_size)?.unwrap_or(LOG_MAX_BYTES),
        log_max_files: number("containerLogMaxFiles", file.container_log_max_files, 2..=1000)?.unwrap_or(LOG_MAX_FILES),
        register_node: file.register_node.unwrap_or(true),
        register_taints: file.register_with_taints.unwrap_or_default(),
        provider_id: non_empty(file.provider_id),
        reserved,
        thresholds,
        status_report_interval: period("nodeStatusReportFrequency", file.node_status_report_frequency)?
            .unwrap_or(STATUS_REPORT_INTERVAL),
        lease_duration: Duration::from_secs(u64::from(
            number("nodeLeaseDurationSeconds", file.node_lease_duration_seconds, 4..=86400)?
                .unwrap_or(LEASE_DURATION_SECS),
        )),
        event_rate: number("eventRecordQPS", file.event_record_qps, 0..=100_000)?.unwrap_or(EVENT_RATE),
        event_burst: number("eventBurst", file.event_burst, 0..=100_000)?.unwrap_or(EVENT_BURST),
        server_address: file.enable_server.unwrap_or(true).then_some(SocketAddr::new(address, port)),
        server_certificate: options
            .server_certificate
            .or(certificate(non_empty(file.tls_cert_file), non_empty(file.tls_private_key_file))?),
        client_ca_file: options
            .client_ca_file
            .or_else(|| x509.and_then(|x509| non_empty(x509.client_ca_file)).map(PathBuf::from)),
    })
}

/// A node's name is a DNS subdomain, because that is what the master takes.
fn node_name(given: Option<String>) -> Result<String, Failure> {
    let name = match given {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .map_err(|errno| Failure::Option("node name", format!("the host has none ({errno}); give one")))?
            .to_string_lossy()
            .to_lowercase(),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name);
    }
    let message = format!("{name:?} must be lower-case letters, digits, '-' and '.', 253 of them at most");
    Err(Failure::Option("node name", message))
}

fn cgroup_root(option: Option<String>, from_file: Option<String>) -> Result<String, Failure> {
    let given = option.or_else(|| non_empty(from_file)).unwrap_or_else(|| "/".to_owned());
    let sound = given.starts_with('/') && !given.split('/').any(|part| part == ".." || part == ".");
    match given.trim_end_matches('/') {
        _ if !sound => Err(field("cgroupRoot", format!("{given:?} must be an absolute path without \"..\""))),
        "" => Ok("/".to_owned()),
        trimmed => Ok(trimmed.to_owned()),
    }
}

fn pod_cidrs(
    typed: Vec<ipnetwork::IpNetwork>,
    from_file: Option<&str>,
    is_alone: bool,
) -> Result<Vec<ipnetwork::IpNetwork>, Failure> {
    if !typed.is_empty() {
        return Ok(typed);
    }
    let given = from_file.filter(|text| !text.is_empty()).or_else(|| is_alone.then_some(POD_RANGE_ALONE));
    given
        .unwrap_or_default()
        .split(',')
        .filter(|range| !range.is_empty())
        .map(|range| range.trim().parse().map_err(|error| field("podCIDR", format!("{range:?}: {error}"))))
        .collect()
}

fn cluster_dns(given: Vec<String>) -> Result<Vec<String>, Failure> {
    for (index, server) in given.iter().enumerate() {
        parsed::<IpAddr>(&format!("clusterDNS[{index}]"), Some(server))?;
    }
    Ok(given)
}

fn certificate(certificate: Option<String>, key: Option<String>) -> Result<Option<CertificateFiles>, Failure> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(CertificateFiles { certificate: certificate.into(), key: key.into() }))
        }
        (Some(_), None) => Err(field("tlsPrivateKeyFile", "is missing, and tlsCertFile is of no use without it")),
        (None, Some(_)) => Err(field("tlsCertFile", "is missing, and tlsPrivateKeyFile is of no use without it")),
    }
}

fn number<T: TryFrom<i64>>(
    name: &str,
    given: Option<i64>,
    range: std::ops::RangeInclusive<i64>,
) -> Result<Option<T>, Failure> {
    let Some(number) = given else { return Ok(None) };
    match T::try_from(number) {
        Ok(value) if range.contains(&number) => Ok(Some(value)),
        _ => Err(field(name, format!("{number} must be between {} and {}", range.start(), range.end()))),
    }
}

fn period(name: &str, given: Option<String>) -> Result<Option<Duration>, Failure> {
    let Some(text) = given else { return Ok(None) };
    match file::duration(&text) {
        Some(duration) if !duration.is_zero() => Ok(Some(duration)),
        _ => Err(field(name, format!("{text:?} must be a duration such as 10s or 1m30s"))),
    }
}

fn bytes(name: &str, given: Option<String>) -> Result<Option<u64>, Failure> {
    let Some(text) = given else { return Ok(None) };
    match amount(&text) {
        Ok(quantity) if !quantity.is_zero() => Ok(Some(unsigned(quantity.units()))),
        Ok(_) => Err(field(name, "must not be zero")),
        Err(message) => Err(field(name, message)),
    }
}

fn parsed<T: std::str::FromStr>(name: &str, given: Option<&str>) -> Result<Option<T>, Failure>
where
    T::Err: std::fmt::Display,
{
    let Some(text) = given else { return Ok(None) };
    text.parse().map(Some).map_err(|error| field(name, format!("{text:?}: {error}")))
}

fn non_empty(given: Option<String>) -> Option<String> {
    given.filter(|text| !text.is_empty())
}

fn field(name: &str, message: impl Into<String>) -> Failure {
    Failure::Field(name.to_owned(), message.into())
}

fn entry(name: &str, (key, message): (String, String)) -> Failure {
    Failure::Field(format!("{name}.{key}"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.yaml");
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        std::fs::write(&path, format!("{head}{text}")).unwrap();
        let options =
            Options { config_file: Some(path.clone()), node_name: Some("node-1".to_owned()), ..Default::default() };
        Config::load(options).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_file_is_put_over_the_defaults_and_below_the_command_line() {
        let config = load("maxPods: 20\nport: 11250\ncgroupRoot: /a/b/\nkubeReserved: {cpu: 100m}\n").unwrap();
        assert_eq!(config.max_pods, 20);
        assert_eq!(config.server_address, Some("0.0.0.0:11250".parse().unwrap()));
        assert_eq!(config.cgroup_root, "/a/b");
        assert_eq!(config.reserved.cpu_millis, 100);
        assert_eq!(config.log_max_bytes, 10 << 20);
        assert_eq!(config.lease_duration, Duration::from_secs(40));
    }

    #[test]
    fn errors_name_file_and_field() {
        for (text, expected) in [
            ("maxPods: -1\n", "FILE: field maxPods: -1 must be between 0 and 100000"),
            ("clusterDNS: [\"10.0.0.300\"]\n", "FILE: field clusterDNS[0]: \"10.0.0.300\": invalid IP address syntax"),
            ("tlsCertFile: /a\n", "FILE: field tlsPrivateKeyFile: is missing, and tlsCertFile is of no use without it"),
            (
                "evictionHard: {nodefs.available: 120%}\n",
                "FILE: field evictionHard.nodefs.available: \"120%\" is no share between 0% and 100%",
            ),
            (
                "nodeStatusReportFrequency: soon\n",
                "FILE: field nodeStatusReportFrequency: \"soon\" must be a duration such as 10s or 1m30s",
            ),
            ("cgroupRoot: ../x\n", "FILE: field cgroupRoot: \"../x\" must be an absolute path without \"..\""),
            ("colour: blue\n", "FILE: field colour: there is no such field"),
        ] {
            assert_eq!(load(text).err().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_node_name_is_a_dns_name() {
        for bad in ["", "A", "a_b", "-a", "a..b"] {
            let options = Options { node_name: Some(bad.to_owned()), ..Default::default() };
            assert!(Config::load(options).is_err(), "{bad}");
        }
    }
}
