//! Logs: read from the kubelet of the pod's node, and passed on as they come.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, Empty, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::reply::{self, BodyError, Reply};
use super::status::Refusal;
use super::tls::{TlsError, client_config};
use super::{Api, Call};
use crate::limits::{KUBELET_ANSWER_DEADLINE, KUBELET_CONNECT_DEADLINE, KUBELET_ERROR_BYTES_MAX};
use crate::pki::Identity;
use crate::resource::find;
use crate::store::Key;

const KUBELET_PORT_DEFAULT: u16 = 10250;
const PLAIN_TEXT: &str = "text/plain";
/// What the kubelet is told of a log request.
const LOG_OPTIONS: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

/// How kubelets are called.
#[derive(Clone)]
pub(crate) struct Kubelets {
    connector: TlsConnector,
}

impl std::fmt::Debug for Kubelets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kubelets")
    }
}

impl Kubelets {
    pub(crate) fn new(ca_pem: &str, identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self { connector: TlsConnector::from(Arc::new(client_config(ca_pem, identity)?)) })
    }

    /// The answer of a node's kubelet. Its certificate must be the node's: it is asked for by name, whatever the
    /// address.
    async fn get(&self, node: &str, address: SocketAddr, path: &str) -> Result<http::Response<Incoming>, String> {
        let connect = async {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            let name = ServerName::try_from(node.to_owned()).map_err(|error| error.to_string())?;
            self.connector.connect(name, stream).await.map_err(|error| error.to_string())
        };
        let tls = timeout(KUBELET_CONNECT_DEADLINE, connect).await.map_err(|_| "dial timeout".to_owned())??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(|error| error.to_string())?;
        // Ends with the answer's body, which is dropped when the client leaves.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "a connection to a kubelet ended");
            }
        });
        let request = Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| error.to_string())?;
        match timeout(KUBELET_ANSWER_DEADLINE, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

impl Api {
    pub(super) async fn log(&self, call: &Call) -> Result<Reply, Refusal> {
        let pod = self.read(call.kind, &call.key(), call.name())?;
        let container = container(&pod, call.name(), call.options.text("container"))?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            // Nothing has run yet, so nothing was said.
            return Ok(reply::bytes(StatusCode::OK, PLAIN_TEXT, Bytes::new()));
        }
        let address = self.kubelet_address(node)?;
        let namespace = call.target.namespace.as_deref().unwrap_or_default();
        let path =
            format!("/containerLogs/{namespace}/{}/{container}?{}", call.name(), call.options.query_of(&LOG_OPTIONS));
        let answer = self.kubelets.get(node, address, &path).await.map_err(|why| {
            Refusal::internal(format!("cannot read the log from node {node:?} at https://{address}{path}: {why}"))
        })?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer).await);
        }
        Ok(passed_on(answer, self.stop.clone()))
    }

    fn kubelet_address(&self, node: &str) -> Result<SocketAddr, Refusal> {
        let nodes = find("", "v1", "nodes").ok_or_else(Refusal::no_such_path)?;
        let found = self.read(nodes, &Key::new("", "nodes", None, node), node)?;
        kubelet_address(&found).ok_or_else(|| {
            Refusal::internal(format!("node {node:?} says no InternalIP in its status, its kubelet cannot be reached"))
        })
    }
}

fn kubelet_address(node: &Value) -> Option<SocketAddr> {
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses.iter().filter(|address| address["type"] == "InternalIP");
    let ip: IpAddr = internal.filter_map(|address| address["address"].as_str()?.parse().ok()).next()?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    Some(SocketAddr::new(ip, port.unwrap_or(KUBELET_PORT_DEFAULT)))
}

/// The container that is meant: the one that is named, or the only one.
fn container<'p>(pod: &'p Value, pod_name: &str, asked: Option<&'p str>) -> Result<&'p str, Refusal> {
    let names = |field: &str| -> Vec<&'p str> {
        let containers = pod["spec"][field].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if let Some(asked) = asked {
        return match [&main, &init, &ephemeral].into_iter().flatten().find(|name| **name == asked) {
            Some(name) => Ok(name),
            None => Err(Refusal::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
        };
    }
    if let [only] = main.as_slice() {
        return Ok(only);
    }
    let mut message =
        format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
    for (word, names) in [("init", init), ("ephemeral", ephemeral)] {
        if !names.is_empty() {
            message.push_str(&format!(" or one of the {word} containers: [{}]", names.join(" ")));
        }
    }
    Err(Refusal::bad_request(message))
}

/// The kubelet's refusal in its own words.
async fn refused(answer: http::Response<Incoming>) -> Refusal {
    let code = answer.status();
    let body = timeout(KUBELET_ANSWER_DEADLINE, Limited::new(answer.into_body(), KUBELET_ERROR_BYTES_MAX).collect());
    let text = match body.await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    };
    let message = if text.is_empty() { format!("the kubelet answered {code}") } else { text };
    if code.is_client_error() { Refusal::passed_on(code, message) } else { Refusal::internal(message) }
}

fn passed_on(answer: http::Response<Incoming>, stop: CancellationToken) -> Reply {
    let frames = BodyStream::new(answer.into_body()).map(|frame| frame.map_err(|error| Box::new(error) as BodyError));
    let mut reply = Reply::new(StreamBody::new(frames.take_until(stop.cancelled_owned())).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN_TEXT));
    reply
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_container_needs_no_name() {
        let one = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "p", None).unwrap(), "a");
        assert_eq!(container(&one, "p", Some("i")).unwrap(), "i");
        let told = |pod: &Value, asked| {
            container(pod, "p", asked).unwrap_err().object()["message"].as_str().unwrap().to_owned()
        };
        assert_eq!(told(&one, Some("x")), "container x is not valid for pod p");
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            told(&two, None),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }

    #[test]
    fn a_node_says_where_its_kubelet_is() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}},
        }});
        assert_eq!(kubelet_address(&node), Some("192.0.2.1:10255".parse().unwrap()));
        assert_eq!(kubelet_address(&json!({"status": {}})), None);
    }
}
