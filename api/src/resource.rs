//! What a pod asks for in sum, and the QoS class that follows from it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use crate::pod::is_sidecar;
use crate::quantity::{Quantity, QuantityError};

/// Processor time, in cores.
pub const CPU: &str = "cpu";
/// Memory, in bytes.
pub const MEMORY: &str = "memory";

/// Amounts by the resource's name.
pub type Amounts = BTreeMap<String, Quantity>;

/// A quantity of a pod that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}")]
pub struct ResourceError {
    /// Which field, such as `containers[web].resources.limits[cpu]`.
    pub field: String,
    /// What is wrong with it.
    #[source]
    pub source: QuantityError,
}

/// Kubernetes' `qosClass`: who is starved and killed first when the node is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QosClass {
    /// Each container has cpu and memory limits, and asks for exactly them.
    Guaranteed,
    /// Something is asked for or limited.
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

impl QosClass {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one container asks for and may take; a limit without a request is also the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerResources {
    /// What it needs.
    pub requests: Amounts,
    /// What it may take.
    pub limits: Amounts,
}

impl ContainerResources {
    /// Reads a container's resources.
    ///
    /// # Errors
    /// When a quantity is none.
    pub fn of(container: &Container) -> Result<Self, ResourceError> {
        let place = format!("containers[{}]", container.name);
        Self::read(&place, container.resources.as_ref())
    }

    fn read(place: &str, resources: Option<&ResourceRequirements>) -> Result<Self, ResourceError> {
        let Some(resources) = resources else { return Ok(Self::default()) };
        let limits = amounts(&format!("{place}.resources.limits"), resources.limits.as_ref())?;
        let mut requests = amounts(&format!("{place}.resources.requests"), resources.requests.as_ref())?;
        for (name, limit) in &limits {
            requests.entry(name.clone()).or_insert(*limit);
        }
        Ok(Self { requests, limits })
    }
}

/// What a pod needs at its greediest moment: all app containers and sidecars together, or an init container with the
/// sidecars that were started before it, whichever is more; and the runtime's overhead (KEP-753).
///
/// # Errors
/// When a quantity is none.
pub fn pod_requests(pod: &Pod) -> Result<Amounts, ResourceError> {
    let Some(spec) = &pod.spec else { return Ok(Amounts::new()) };
    pod_sum(spec, |resources| &resources.requests)
}

/// What a pod may take. A resource that one container does not limit is not in it.
///
/// # Errors
/// When a quantity is none.
pub fn pod_limits(pod: &Pod) -> Result<Amounts, ResourceError> {
    let Some(spec) = &pod.spec else { return Ok(Amounts::new()) };
    let mut sum = pod_sum(spec, |resources| &resources.limits)?;
    let own = ContainerResources::read("spec", spec.resources.as_ref())?;
    for container in all_containers(spec) {
        let limits = ContainerResources::of(container)?.limits;
        sum.retain(|name, _| limits.contains_key(name) || own.limits.contains_key(name));
    }
    Ok(sum)
}

/// The QoS class of a pod.
///
/// # Errors
/// When a quantity is none.
pub fn qos_class(pod: &Pod) -> Result<QosClass, ResourceError> {
    let Some(spec) = &pod.spec else { return Ok(QosClass::BestEffort) };
    let mut all_equal = true;
    let mut any = false;
    let own = ContainerResources::read("spec", spec.resources.as_ref())?;
    let each = if spec.resources.is_some() {
        vec![own]
    } else {
        all_containers(spec).map(ContainerResources::of).collect::<Result<_, _>>()?
    };
    for resources in each {
        for name in [CPU, MEMORY] {
            let request = resources.requests.get(name).filter(|amount| !amount.is_zero());
            let limit = resources.limits.get(name).filter(|amount| !amount.is_zero());
            any |= request.is_some() || limit.is_some();
            all_equal &= limit.is_some() && request == limit;
        }
    }
    Ok(match (any, all_equal) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    })
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn pod_sum(spec: &PodSpec, pick: impl Fn(&ContainerResources) -> &Amounts) -> Result<Amounts, ResourceError> {
    let mut steady = Amounts::new();
    for container in &spec.containers {
        add(&mut steady, pick(&ContainerResources::of(container)?));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let resources = ContainerResources::of(container)?;
        let mut moment = sidecars.clone();
        add(&mut moment, pick(&resources));
        if is_sidecar(container) {
            sidecars = moment.clone();
        }
        raise(&mut peak, &moment);
    }
    add(&mut steady, &sidecars);
    raise(&mut steady, &peak);
    let own = ContainerResources::read("spec", spec.resources.as_ref())?;
    for (name, amount) in pick(&own) {
        steady.insert(name.clone(), *amount);
    }
    add(&mut steady, &amounts("spec.overhead", spec.overhead.as_ref())?);
    Ok(steady)
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_insert(Quantity::ZERO) += *amount;
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = most.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

fn amounts(place: &str, wire: Option<&BTreeMap<String, WireQuantity>>) -> Result<Amounts, ResourceError> {
    let read = |(name, quantity): (&String, &WireQuantity)| match Quantity::try_from(quantity) {
        Ok(amount) => Ok((name.clone(), amount)),
        Err(source) => Err(ResourceError { field: format!("{place}[{name}]"), source }),
    };
    wire.into_iter().flatten().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({ "name": "c", "resources": { "requests": requests, "limits": limits } })
    }

    fn check_qos(containers: &[Value], expected: QosClass) {
        assert_eq!(qos_class(&pod(json!({ "containers": containers }))).unwrap(), expected, "{containers:?}");
    }

    #[test]
    fn the_class_follows_from_requests_and_limits_of_all_containers() {
        let none = || container(json!({}), json!({}));
        let full = || container(json!({}), json!({ "cpu": "1", "memory": "1Gi" }));
        check_qos(&[none()], QosClass::BestEffort);
        check_qos(&[container(json!({ "cpu": "0" }), json!({}))], QosClass::BestEffort);
        check_qos(&[full()], QosClass::Guaranteed);
        check_qos(&[full(), none()], QosClass::Burstable);
        check_qos(
            &[container(json!({ "cpu": "1000m" }), json!({ "cpu": "1", "memory": "1Gi" }))],
            QosClass::Guaranteed,
        );
        check_qos(&[container(json!({ "cpu": "500m" }), json!({ "cpu": "1", "memory": "1Gi" }))], QosClass::Burstable);
        check_qos(&[container(json!({}), json!({ "cpu": "1" }))], QosClass::Burstable);
        check_qos(&[container(json!({ "memory": "1Mi" }), json!({}))], QosClass::Burstable);
    }

    #[test]
    fn requests_are_the_greediest_moment() {
        let init = |name: &str, cpu: &str, policy: Option<&str>| json!({ "name": name, "restartPolicy": policy, "resources": { "requests": { "cpu": cpu } } });
        let pod = pod(json!({
            "initContainers": [init("a", "1", None), init("side", "250m", Some("Always")), init("b", "2", None)],
            "containers": [container(json!({ "cpu": "500m" }), json!({})), container(json!({}), json!({ "memory": "1Mi" }))],
            "overhead": { "cpu": "100m" },
        }));
        let sum = pod_requests(&pod).unwrap();
        assert_eq!(sum[CPU].millis(), 2350);
        assert_eq!(sum[MEMORY].units(), 1 << 20);
    }

    #[test]
    fn a_limit_of_the_pod_needs_a_limit_of_each_container() {
        let limited = container(json!({}), json!({ "cpu": "1", "memory": "1Mi" }));
        let open = container(json!({}), json!({ "cpu": "500m" }));
        let limits = pod_limits(&pod(json!({ "containers": [limited, open] }))).unwrap();
        assert_eq!(limits[CPU].millis(), 1500);
        assert!(!limits.contains_key(MEMORY));
    }

    #[test]
    fn a_bad_quantity_is_named_by_its_field() {
        let error = pod_requests(&pod(json!({ "containers": [container(json!({ "cpu": "x" }), json!({}))] })));
        assert_eq!(error.unwrap_err().field, "containers[c].resources.requests[cpu]");
    }
}
