//! From a pod to the engine's sandbox. Pure.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::port;
use berth_engine::config::{DnsConfig, HostAlias, NetworkMode, PidMode, PortMapping, SandboxConfig};
use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

use super::desired::Desired;
use crate::config::Config;

/// The pod's object, kept with its sandbox: how to end the pod when no source knows it any more.
const POD: &str = "berth.pod";
/// Longest host name that the kernel takes.
const HOSTNAME_BYTES_MAX: usize = 63;
/// What a resolver takes (resolv.conf(5)), and Kubernetes' own limit for domains.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// Sysctls that belong to one namespace and cannot harm others (Kubernetes' safe set).
const SAFE_SYSCTLS: [&str; 13] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// What makes a sandbox impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub(crate) struct SandboxFault {
    /// Which field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

fn fault(field: impl Into<String>, message: impl Into<String>) -> SandboxFault {
    SandboxFault { field: field.into(), message: message.into() }
}

/// The sandbox of a pod. `host` is what the host's resolver is configured with.
pub(crate) fn sandbox_config(
    desired: &Desired,
    attempt: u32,
    cgroup: String,
    config: &Config,
    host: &DnsConfig,
) -> Result<SandboxConfig, SandboxFault> {
    let spec = desired.spec();
    let host_network = spec.host_network == Some(true);
    Ok(SandboxConfig {
        name: desired.id.name.clone(),
        namespace: desired.id.namespace.clone(),
        uid: desired.id.uid.to_string(),
        attempt,
        hostname: if host_network { String::new() } else { hostname(desired, config)? },
        dns: dns(desired, config, host)?,
        host_aliases: host_aliases(spec)?,
        network: if host_network { NetworkMode::Host } else { NetworkMode::Pod },
        port_mappings: if host_network { Vec::new() } else { port_mappings(spec)? },
        host_ipc: spec.host_ipc == Some(true),
        pid: match (spec.host_pid, spec.share_process_namespace) {
            (Some(true), _) => PidMode::Host,
            (_, Some(true)) => PidMode::Pod,
            _ => PidMode::Container,
        },
        cgroup,
        sysctls: sysctls(spec)?,
        labels: BTreeMap::new(),
        annotations: BTreeMap::from_iter(remembered(desired)),
    })
}

/// The pod as it is kept with its sandbox, without what only the master is interested in.
fn remembered(desired: &Desired) -> Option<(String, String)> {
    let mut pod = (*desired.pod).clone();
    pod.metadata.managed_fields = None;
    pod.status = None;
    Some((POD.to_owned(), serde_json::to_string(&pod).ok()?))
}

/// The pod that a sandbox was made for.
pub(crate) fn remembered_pod(config: &SandboxConfig) -> k8s_openapi::api::core::v1::Pod {
    let kept = config.annotations.get(POD).and_then(|text| serde_json::from_str(text).ok());
    kept.unwrap_or_else(|| {
        let mut pod = k8s_openapi::api::core::v1::Pod::default();
        pod.metadata.name = Some(config.name.clone());
        pod.metadata.namespace = Some(config.namespace.clone());
        pod.metadata.uid = Some(config.uid.clone());
        pod
    })
}

fn hostname(desired: &Desired, config: &Config) -> Result<String, SandboxFault> {
    let spec = desired.spec();
    let given = spec.hostname_override.as_ref().or(spec.hostname.as_ref()).filter(|name| !name.is_empty());
    let name = given.unwrap_or(&desired.id.name);
    let short: String = name.chars().take(HOSTNAME_BYTES_MAX).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    if spec.set_hostname_as_fqdn != Some(true) {
        return Ok(short);
    }
    let Some(subdomain) = spec.subdomain.as_ref().filter(|name| !name.is_empty()) else { return Ok(short) };
    let full = format!("{short}.{subdomain}.{}.svc.{}", desired.id.namespace, config.cluster_domain);
    if full.len() > HOSTNAME_BYTES_MAX {
        let message = format!("the host name {full:?} is longer than {HOSTNAME_BYTES_MAX} characters");
        return Err(fault("spec.setHostnameAsFQDN", message));
    }
    Ok(full)
}

fn dns(desired: &Desired, config: &Config, host: &DnsConfig) -> Result<DnsConfig, SandboxFault> {
    let spec = desired.spec();
    let host_network = spec.host_network == Some(true);
    let mut dns = match (spec.dns_policy.as_deref(), host_network) {
        (Some("None"), _) => DnsConfig::default(),
        (Some("Default"), _) | (None | Some("ClusterFirst"), true) => host.clone(),
        (None | Some("ClusterFirst"), false) | (Some("ClusterFirstWithHostNet"), _) => {
            cluster_dns(desired, config, host)
        }
        (Some(other), _) => {
            let known = "must be ClusterFirst, ClusterFirstWithHostNet, Default or None";
            return Err(fault("spec.dnsPolicy", format!("{other:?} {known}")));
        }
    };
    if let Some(own) = &spec.dns_config {
        add_dns(&mut dns, own);
    }
    dns.servers.truncate(SERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    Ok(dns)
}

/// The cluster's own name servers; the host's, while the cluster has none.
fn cluster_dns(desired: &Desired, config: &Config, host: &DnsConfig) -> DnsConfig {
    if config.cluster_dns.is_empty() {
        return host.clone();
    }
    let domain = &config.cluster_domain;
    let own = [format!("{}.svc.{domain}", desired.id.namespace), format!("svc.{domain}"), domain.clone()];
    DnsConfig {
        servers: config.cluster_dns.clone(),
        searches: unique(own.into_iter().chain(host.searches.iter().cloned())),
        options: vec!["ndots:5".to_owned()],
    }
}

fn add_dns(dns: &mut DnsConfig, own: &PodDNSConfig) {
    dns.servers = unique(dns.servers.drain(..).chain(own.nameservers.iter().flatten().cloned()));
    dns.searches = unique(dns.searches.drain(..).chain(own.searches.iter().flatten().cloned()));
    for option in own.options.iter().flatten() {
        let Some(name) = option.name.as_deref().filter(|name| !name.is_empty()) else { continue };
        dns.options.retain(|known| known.split(':').next() != Some(name));
        dns.options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        });
    }
}

fn unique(list: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    list.filter(|entry| seen.insert(entry.clone())).collect()
}

/// What a resolver's configuration file says (resolv.conf(5)).
pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last one counts.
            Some("search" | "domain") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

fn host_aliases(spec: &PodSpec) -> Result<Vec<HostAlias>, SandboxFault> {
    let read = |(index, alias): (usize, &k8s_openapi::api::core::v1::HostAlias)| {
        let wrong = |_| fault(format!("spec.hostAliases[{index}].ip"), format!("{:?} is no address", alias.ip));
        Ok(HostAlias { ip: alias.ip.parse().map_err(wrong)?, hostnames: alias.hostnames.clone().unwrap_or_default() })
    };
    spec.host_aliases.iter().flatten().enumerate().map(read).collect()
}

fn port_mappings(spec: &PodSpec) -> Result<Vec<PortMapping>, SandboxFault> {
    let mut mappings = Vec::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for (index, given) in container.ports.iter().flatten().enumerate() {
            let Some(host_port) = given.host_port.filter(|&port| port != 0) else { continue };
            let field = |name: &str| format!("containers[{}].ports[{index}].{name}", container.name);
            let in_range = |name: &str, port: i32| {
                port::in_range(port.into()).map_err(|error| fault(field(name), error.to_string()))
            };
            let host_ip = given.host_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "0.0.0.0" && *ip != "::");
            let host_ip =
                host_ip.map(|ip| ip.parse().map_err(|_| fault(field("hostIP"), format!("{ip:?} is no address"))));
            mappings.push(PortMapping {
                protocol: given.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                container_port: in_range("containerPort", given.container_port)?,
                host_port: in_range("hostPort", host_port)?,
                host_ip: host_ip.transpose()?,
            });
        }
    }
    Ok(mappings)
}

fn sysctls(spec: &PodSpec) -> Result<BTreeMap<String, String>, SandboxFault> {
    let given = spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    let mut sysctls = BTreeMap::new();
    for sysctl in given.into_iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        let field = || format!("spec.securityContext.sysctls[{name}]");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Err(fault(field(), "is not in the set of safe sysctls, and this node allows no others"));
        }
        let hosts = if name.starts_with("net.") { spec.host_network } else { spec.host_ipc };
        if hosts == Some(true) {
            return Err(fault(field(), "would change the host, whose namespace the pod uses"));
        }
        sysctls.insert(name, sysctl.value.clone());
    }
    Ok(sysctls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::a_config;
    use crate::pod::desired::Presence;
    use serde_json::{Value, json};
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    fn build(mut spec: Value) -> Result<SandboxConfig, SandboxFault> {
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{ "name": "c" }]);
        }
        let pod = json!({ "metadata": { "name": "web-0", "namespace": "shop", "uid": "u" }, "spec": spec });
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        let desired = Desired::parse(pod, Presence::Wanted, Duration::from_secs(300)).unwrap();
        let mut config = a_config(Path::new("/nowhere"));
        config.cluster_dns = vec!["10.96.0.10".to_owned()];
        let host = parse_resolv_conf("# home\nnameserver 192.0.2.53\nsearch lan\nsearch example.org lan\n");
        sandbox_config(&desired, 0, "/kubepods/x".to_owned(), &config, &host)
    }

    fn check_dns(spec: Value, servers: &[&str], searches: &[&str], options: &[&str]) {
        let dns = build(spec).unwrap().dns;
        assert_eq!(dns.servers, servers);
        assert_eq!(dns.searches, searches);
        assert_eq!(dns.options, options);
    }

    #[test]
    fn names_are_resolved_as_the_policy_says() {
        let cluster = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org", "lan"];
        check_dns(json!({}), &["10.96.0.10"], &cluster, &["ndots:5"]);
        check_dns(json!({ "dnsPolicy": "Default" }), &["192.0.2.53"], &["example.org", "lan"], &[]);
        check_dns(json!({ "hostNetwork": true }), &["192.0.2.53"], &["example.org", "lan"], &[]);
        let with_host = json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" });
        check_dns(with_host, &["10.96.0.10"], &cluster, &["ndots:5"]);
        let own = json!({
            "nameservers": ["192.0.2.1"], "searches": ["a"],
            "options": [{ "name": "ndots", "value": "1" }, { "name": "rotate" }],
        });
        check_dns(json!({ "dnsPolicy": "None", "dnsConfig": own }), &["192.0.2.1"], &["a"], &["ndots:1", "rotate"]);
        assert!(build(json!({ "dnsPolicy": "Sometimes" })).is_err());
    }

    #[test]
    fn host_names_fit() {
        let name = |spec: Value| build(spec).map(|config| config.hostname);
        assert_eq!(name(json!({})).unwrap(), "web-0");
        assert_eq!(name(json!({ "hostname": "db" })).unwrap(), "db");
        assert_eq!(name(json!({ "hostNetwork": true })).unwrap(), "");
        let full = json!({ "subdomain": "nodes", "setHostnameAsFQDN": true });
        assert_eq!(name(full).unwrap(), "web-0.nodes.shop.svc.cluster.local");
        let long = json!({ "subdomain": "x".repeat(60), "setHostnameAsFQDN": true });
        assert_eq!(name(long).unwrap_err().field, "spec.setHostnameAsFQDN");
    }

    #[test]
    fn ports_of_the_host_are_mapped() {
        let port = |port: Value| json!({ "containers": [{ "name": "c", "ports": [port] }] });
        let config = build(port(json!({ "containerPort": 80, "hostPort": 8080, "hostIP": "192.0.2.1" }))).unwrap();
        let mapping = &config.port_mappings[0];
        assert_eq!((mapping.protocol.as_str(), mapping.container_port, mapping.host_port), ("tcp", 80, 8080));
        assert_eq!(mapping.host_ip, Some("192.0.2.1".parse().unwrap()));
        assert!(build(port(json!({ "containerPort": 80 }))).unwrap().port_mappings.is_empty());
        assert!(build(port(json!({ "containerPort": 80, "hostPort": 70000 }))).is_err());
    }

    #[test]
    fn sysctls_that_could_harm_others_are_refused() {
        let with = |name: &str| json!({ "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
        assert_eq!(build(with("net.ipv4.tcp_syncookies")).unwrap().sysctls.len(), 1);
        assert!(build(with("kernel.panic")).is_err());
        let mut host = with("net.ipv4.tcp_syncookies");
        host["hostNetwork"] = json!(true);
        assert!(build(host).is_err());
    }

    #[test]
    fn a_sandbox_remembers_its_pod() {
        let config = build(json!({ "terminationGracePeriodSeconds": 7 })).unwrap();
        let pod = remembered_pod(&config);
        assert_eq!(berth_api::pod::grace_secs(&pod), 7);
        let bare = SandboxConfig { annotations: BTreeMap::new(), ..config };
        assert_eq!(remembered_pod(&bare).metadata.uid.as_deref(), Some("u"));
    }
}
