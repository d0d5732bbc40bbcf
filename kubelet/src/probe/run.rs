//! Asking a container, and running its handlers: by a command in it, by HTTP, by a connection.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use berth_engine::{ContainerId, Engine, Error};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction};
use tokio::net::TcpStream;

use super::{Answer, http};

/// More of a command's output is not read.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;
/// Longest `sleep` of a handler; the grace period ends it anyway.
const SLEEP_SECS_MAX: u64 = 86_400;

/// Whom to ask.
pub(crate) struct Target<'a> {
    /// The engine that runs it.
    pub engine: &'a Engine,
    /// The container.
    pub id: &'a ContainerId,
    /// Its part of the pod's spec.
    pub spec: &'a Container,
    /// The pod's address; the node's own with a host network.
    pub ip: Option<IpAddr>,
}

/// Asks a container.
pub(crate) async fn ask(target: &Target<'_>, probe: &Probe, timeout: Duration) -> Answer {
    if let Some(exec) = &probe.exec {
        return answer(run(target, exec.command.as_deref().unwrap_or_default(), timeout).await);
    }
    let asked = async {
        if let Some(action) = &probe.http_get {
            return http_get(action, target).await;
        }
        if let Some(action) = &probe.tcp_socket {
            return tcp(action, target).await;
        }
        // `grpc` and kinds that are newer: the pod was told, and runs as if it was not there.
        Ok(())
    };
    let late = || Err(format!("no answer within {timeout:?}"));
    answer(tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| late()))
}

/// Runs a `postStart` or `preStop` handler to its end.
pub(crate) async fn handle(target: &Target<'_>, handler: &LifecycleHandler, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return run(target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    let handled = async {
        if let Some(action) = &handler.http_get {
            return http_get(action, target).await;
        }
        if let Some(sleep) = &handler.sleep {
            let secs = u64::try_from(sleep.seconds).unwrap_or(0).min(SLEEP_SECS_MAX);
            tokio::time::sleep(Duration::from_secs(secs)).await;
        }
        Ok(())
    };
    let late = || Err(format!("the handler did not end within {timeout:?}"));
    tokio::time::timeout(timeout, handled).await.unwrap_or_else(|_| late())
}

fn answer(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => Answer::Healthy,
        Err(message) => Answer::Unhealthy(message),
    }
}

async fn run(target: &Target<'_>, command: &[String], timeout: Duration) -> Result<(), String> {
    match target.engine.exec(target.id, command, timeout, OUTPUT_BYTES_MAX).await {
        Ok(output) if output.exit_code == 0 => Ok(()),
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            Err(if said.is_empty() { format!("command exited with {}", output.exit_code) } else { said })
        }
        Err(Error::ExecTimeout { .. }) => Err(format!("command timed out after {timeout:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Codes from 200 to 399 are good.
async fn http_get(action: &HTTPGetAction, target: &Target<'_>) -> Result<(), String> {
    match http::get(action, target.spec, target.ip).await? {
        (200..=399, _) => Ok(()),
        (status, _) => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn tcp(action: &TCPSocketAction, target: &Target<'_>) -> Result<(), String> {
    let port = berth_api::port::resolve(&action.port, target.spec).map_err(|error| error.to_string())?;
    let host = action.host.as_deref().filter(|host| !host.is_empty());
    let address = address(host, target.ip, port).await?;
    TcpStream::connect(address).await.map(drop).map_err(|error| format!("dial tcp {address}: {error}"))
}

/// Where to connect to: the given host, or the pod.
pub(super) async fn address(host: Option<&str>, pod_ip: Option<IpAddr>, port: u16) -> Result<SocketAddr, String> {
    match (host, pod_ip) {
        (Some(host), _) => {
            let mut found =
                tokio::net::lookup_host((host, port)).await.map_err(|error| format!("host {host:?}: {error}"))?;
            found.next().ok_or_else(|| format!("host {host:?} has no address"))
        }
        (None, Some(ip)) => Ok(SocketAddr::new(ip, port)),
        (None, None) => Err("the pod has no address".to_owned()),
    }
}
