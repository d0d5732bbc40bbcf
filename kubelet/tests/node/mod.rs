//! A node to test with: an agent without a master in a network namespace of its own, and somebody who calls it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_engine::{Engine, EngineConfig};
use berth_kubelet::{Config, Options};
use berth_sys::cgroup::{Cgroup, Hierarchies};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, unshare};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
const NAME: &str = "node";
const PORT: u16 = 10250;

/// Who signs.
pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// A client's certificate and key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// Somebody who signs.
    pub(crate) fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Somebody of that name and group.
    pub(crate) fn signed_by(authority: &Authority, name: &str, group: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        Self { certificate: certificate.der().clone(), key: key.serialize_der() }
    }
}

/// An agent that runs.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) manifests: PathBuf,
    state_dir: PathBuf,
}

impl Node {
    /// Runs `test` with a node. The namespace ends with its threads, the folders with this function.
    pub(crate) fn run_test<F: Future<Output = ()>>(test: impl FnOnce(Self) -> F + Send + 'static) {
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
            berth_sys::loopback::bring_up().unwrap();
            // All on this thread, and on threads that it starts: they are in its namespace.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(with_node(test));
            runtime.shutdown_timeout(DEADLINE);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    /// Asks for something.
    pub(crate) async fn get(&self, who: Option<&Identity>, path: &str) -> Result<(StatusCode, String), String> {
        timeout(DEADLINE, self.ask(who, path)).await.expect("no answer in time")
    }

    async fn ask(&self, who: Option<&Identity>, path: &str) -> Result<(StatusCode, String), String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        let server = ServerName::try_from(NAME).unwrap();
        let connector = TlsConnector::from(Arc::new(self.tls(who)));
        let stream = connector.connect(server, stream).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path).header("host", NAME).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn tls(&self, who: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.state_dir.join("pki/kubelet.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        match who {
            None => builder.with_no_client_auth(),
            Some(who) => {
                let key = PrivateKeyDer::try_from(who.key.clone()).unwrap();
                builder.with_client_auth_cert(vec![who.certificate.clone()], key).unwrap()
            }
        }
    }

    /// Waits until the node has exactly these pods, and gives the list.
    pub(crate) async fn pods_eventually(&self, who: &Identity, names: &[&str]) -> serde_json::Value {
        let started = Instant::now();
        loop {
            let (_, body) = self.get(Some(who), "/pods").await.unwrap();
            let list: serde_json::Value = serde_json::from_str(&body).unwrap();
            let name = |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let mut found: Vec<_> = list["items"].as_array().unwrap().iter().map(name).collect();
            found.sort();
            if found == names {
                return list;
            }
            assert!(started.elapsed() < DEADLINE, "there are {found:?}, not {names:?}");
            sleep(PAUSE).await;
        }
    }
}

/// Takes the node's cgroups away, also when a test fails.
struct CgroupsGone(String);

impl Drop for CgroupsGone {
    fn drop(&mut self) {
        let removed = Hierarchies::of_machine()
            .map_err(|error| error.to_string())
            .and_then(|machine| Cgroup::new(machine, self.0.as_ref(), &[]).map_err(|error| error.to_string()))
            .and_then(|cgroup| cgroup.remove().map_err(|error| error.to_string()));
        if let Err(error) = removed {
            eprintln!("cgroup {} stays: {error}", self.0);
        }
    }
}

async fn with_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (state_dir, manifests) = (at("state"), at("manifests"));
    for folder in [&state_dir, &manifests] {
        fs::create_dir_all(folder).unwrap();
    }
    let authority = Identity::authority("the cluster");
    fs::write(at("ca.crt"), authority.pem()).unwrap();
    let cgroup_root = format!("/berth-kubelet-test{}", folder.path().file_name().unwrap().to_string_lossy());
    let _cgroups = CgroupsGone(cgroup_root.clone());
    let config = Config::load(Options {
        node_name: Some(NAME.to_owned()),
        node_ips: vec!["127.0.0.1".parse().unwrap()],
        state_dir: state_dir.clone(),
        run_dir: at("run"),
        pod_log_dir: at("logs"),
        static_pod_path: Some(manifests.clone()),
        cgroup_root: Some(cgroup_root.clone()),
        port: Some(PORT),
        client_ca_file: Some(at("ca.crt")),
        ..Options::default()
    })
    .unwrap();
    let engine = Engine::open(EngineConfig {
        state_dir: state_dir.clone(),
        run_dir: at("run"),
        // Nothing runs in these tests.
        shim: PathBuf::from("/nonexistent"),
        cni_bin_dirs: Vec::new(),
        cni_conf_dir: at("cni"),
        insecure_registries: Vec::new(),
        registry_config_dir: None,
        log_max_bytes: config.log_max_bytes,
        log_max_files: config.log_max_files,
    })
    .await
    .unwrap();
    let stop = CancellationToken::new();
    let agent = tokio::spawn(berth_kubelet::run(config, engine, stop.clone()));
    let node = Node { address: SocketAddr::from(([127, 0, 0, 1], PORT)), authority, manifests, state_dir };
    let started = Instant::now();
    while TcpStream::connect(node.address).await.is_err() {
        assert!(!agent.is_finished(), "{:?}", agent.await);
        assert!(started.elapsed() < DEADLINE, "the server does not listen");
        sleep(PAUSE).await;
    }
    test(node).await;
    stop.cancel();
    timeout(DEADLINE, agent).await.expect("the agent does not stop").unwrap().unwrap();
}
