//! One master: store, server, scheduler and controllers, started in that order and stopped in the opposite one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::SHUTDOWN_DEADLINE;
use crate::pki::{GROUP_MASTERS, NodeCredentials, Pki, PkiError, USER_CONTROLLERS, USER_SCHEDULER};
use crate::server::{self, Api, Kubelets};
use crate::store::Store;
use crate::{Error, controller, scheduler};

/// Everything that a master must be told.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Database, certificates and the admin's kubeconfig; made (mode 0700) when it is missing.
    pub data_dir: PathBuf,
    /// Where the API is served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Further addresses for the serving certificate; the first address or name is what kubeconfig files point to
    /// (the address that is listened on when both lists are empty, or 127.0.0.1 when that is all of them).
    pub advertise_addresses: Vec<IpAddr>,
    /// Host names for the serving certificate.
    pub advertise_names: Vec<String>,
    /// The network that nodes' pod networks are cut from.
    pub cluster_cidr: IpNetwork,
}

impl MasterConfig {
    /// Where the master's own parts reach it.
    fn loopback(&self) -> IpAddr {
        match self.listen.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            other => other,
        }
    }

    fn url(&self, port: u16) -> String {
        let address = self.advertise_addresses.first().copied();
        match (address, self.advertise_names.first()) {
            (None, Some(name)) => format!("https://{name}:{port}"),
            (address, _) => url(address.unwrap_or_else(|| self.loopback()), port),
        }
    }

    fn certificate_addresses(&self) -> Vec<IpAddr> {
        let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), self.loopback()];
        addresses.extend(&self.advertise_addresses);
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(address, port))
}

/// A running master.
#[derive(Debug)]
pub struct Master {
    url: String,
    admin_kubeconfig: PathBuf,
    pki: Pki,
    stop: CancellationToken,
    end: watch::Receiver<Option<End>>,
}

/// How it ended: asked to, or because a part of it did.
#[derive(Debug, Clone, Copy)]
enum End {
    Asked,
    Fault { part: &'static str },
}

impl Master {
    /// Where clients reach the API, such as `https://192.0.2.1:6443`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The kubeconfig of the cluster's administrator.
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Makes (or renews) a node's credentials in `dir`; see [`NodeCredentials`] for the files.
    ///
    /// # Errors
    /// When the folder cannot be written or the name is no valid node name.
    pub fn issue_node(&self, name: &str, addresses: &[IpAddr], dir: &Path) -> Result<NodeCredentials, PkiError> {
        self.pki.issue_node(&self.url, name, addresses, dir)
    }

    /// Returns when the master has stopped: after [`Master::shutdown`], or for a fault.
    ///
    /// # Errors
    /// The fault.
    pub async fn wait(&self) -> Result<(), Error> {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await.map(|end| *end) {
            Ok(Some(End::Asked)) => Ok(()),
            Ok(Some(End::Fault { part })) => Err(Error::Stopped { part }),
            Ok(None) | Err(_) => Err(Error::Stopped { part: "supervisor" }),
        }
    }

    /// Stops it: no new requests, running ones end within a deadline, the database is closed.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.wait().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the master had a fault while it stopped");
        }
    }
}

impl Drop for Master {
    /// A master that nobody holds any more must not go on.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Opens the store, makes what certificates are missing or near their end, serves the API, then starts the scheduler
/// and the controllers as its clients. The API is reachable when this returns.
///
/// # Errors
/// When the data folder, the database or the certificates cannot be used, or the address cannot be bound.
pub async fn start(config: MasterConfig) -> Result<Master, Error> {
    // The client library takes the process's provider; an error means that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pki = Pki::open(&config.data_dir.join("pki"))?;
    let store = Store::open(&config.data_dir.join("store.redb")).map_err(|error| Error::Store(error.into()))?;
    server::make_initial(&store).await.map_err(|error| Error::Initial(error.into()))?;

    let listen_failed = |source| Error::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen_failed)?;
    let port = listener.local_addr().map_err(listen_failed)?.port();
    let url = config.url(port);

    let identity = pki.server(&config.advertise_names, &config.certificate_addresses())?;
    let tls = server::server_config(pki.ca_pem(), &identity).map_err(|error| Error::Tls(error.into()))?;
    let to_kubelets = pki.client("kubelet-client", "kube-apiserver-kubelet-client", &[GROUP_MASTERS])?;
    let kubelets = Kubelets::new(pki.ca_pem(), &to_kubelets).map_err(|error| Error::Tls(error.into()))?;
    let stop = CancellationToken::new();
    let api = Arc::new(Api { store: store.clone(), kubelets, stop: stop.clone() });

    let admin_kubeconfig = config.data_dir.join("admin.kubeconfig");
    pki.write_admin(&url, &admin_kubeconfig)?;
    let loopback = self::url(config.loopback(), port);
    let scheduler = client(&pki, &loopback, "scheduler", USER_SCHEDULER).await?;
    let controllers = client(&pki, &loopback, "controllers", USER_CONTROLLERS).await?;

    let mut parts = JoinSet::new();
    spawn(&mut parts, "API server", server::serve(api, listener, tls));
    spawn(&mut parts, "scheduler", scheduler::run(scheduler, stop.clone()));
    spawn(&mut parts, "controllers", controller::run(controllers, config.cluster_cidr, stop.clone()));
    let (end_sender, end) = watch::channel(None);
    tokio::spawn(supervise(parts, store, stop.clone(), end_sender));
    tracing::info!(url, "the master serves");
    Ok(Master { url, admin_kubeconfig, pki, stop, end })
}

/// A client as any other: over HTTPS, with a certificate that says which part it is.
async fn client(pki: &Pki, url: &str, part: &'static str, user: &str) -> Result<kube::Client, Error> {
    fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(part: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Client { part, source: source.into() }
    }
    let identity = pki.client(part, user, &[])?;
    let kubeconfig = Kubeconfig::from_yaml(&pki.kubeconfig(url, user, &identity)).map_err(failed(part))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.map_err(failed(part))?).map_err(failed(part))
}

/// Each part says its name when it ends, even by a panic.
fn spawn(parts: &mut JoinSet<&'static str>, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async move {
        if let Err(error) = tokio::spawn(part).await {
            tracing::error!(part = name, %error, "a part of the master failed");
        }
        name
    });
}

/// The end of one part is the end of all: half a control plane would look alive and do nothing.
async fn supervise(
    mut parts: JoinSet<&'static str>,
    store: Store,
    stop: CancellationToken,
    end: watch::Sender<Option<End>>,
) {
    let how = tokio::select! {
        () = stop.cancelled() => End::Asked,
        () = store.closed() => End::Fault { part: "store" },
        part = parts.join_next() => match part {
            // Asked to stop, a part may be faster than this task.
            _ if stop.is_cancelled() => End::Asked,
            Some(Ok(part)) => End::Fault { part },
            Some(Err(_)) | None => End::Fault { part: "supervisor" },
        },
    };
    stop.cancel();
    let rest = async { while parts.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_DEADLINE * 2, rest).await.is_err() {
        tracing::warn!("parts of the master did not end in time");
        parts.abort_all();
    }
    store.close().await;
    end.send_replace(Some(how));
}
