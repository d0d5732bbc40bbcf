//! Start-up and shutdown: which parts there are, and in which order they come up.
//!
//! When the agent stops, pods go on: their shims need nobody. The next agent finds them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_engine::Engine;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::node::NodeAgent;
use crate::objects::Objects;
use crate::pod::{Workers, World};
use crate::recorder::{Rate, recorder};
use crate::server::Server;
use crate::source::Sources;
use crate::status::{QUEUE_MAX, StatusWriter};

/// How long the master has to take a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the agent until `stop`, or until it cannot go on. Pods go on in both cases.
///
/// # Errors
/// What is wrong with the configuration's files and addresses. A master that is away is no error: it is waited for, and
/// pods that are here already, or come from the folder, do not wait for it.
pub async fn run(config: Config, engine: Engine, stop: CancellationToken) -> Result<(), Error> {
    // The client library takes the process's provider; an error means that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Arc::new(config);
    for folder in [&config.state_dir, &config.run_dir, &config.pod_log_dir] {
        std::fs::create_dir_all(folder).map_err(|source| Error::Folder { path: folder.clone(), source })?;
    }
    let client = match &config.kubeconfig {
        Some(path) => Some(client(path).await?),
        None => None,
    };
    let mut parts = Parts::default();
    start(&config, &engine, client, &mut parts).await?;
    tokio::select! {
        () = stop.cancelled() => {
            tracing::info!("the agent stops; pods go on");
            Ok(())
        }
        ended = parts.first_end() => Err(ended),
    }
}

/// The agent's tasks, none of which ever ends by itself. They end with this value.
#[derive(Default)]
struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
}

impl Parts {
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// Waits for the first part that ends, which is a fault.
    async fn first_end(&mut self) -> Error {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return Error::Part { part: "(none)", message: "there are no parts".to_owned() };
        };
        let (id, message) = match ended {
            Ok((id, ())) => (id, "without a word".to_owned()),
            Err(error) => (error.id(), error.to_string()),
        };
        Error::Part { part: self.names.get(&id).copied().unwrap_or("(unknown)"), message }
    }
}

async fn start(config: &Arc<Config>, engine: &Engine, client: Option<Client>, parts: &mut Parts) -> Result<(), Error> {
    let (recorder, outbox) = recorder();
    let rate = Rate { per_second: config.event_rate, burst: config.event_burst };
    parts.spawn("events", outbox.run(client.clone(), config.node_name.clone(), rate));

    let node = NodeAgent::new(Arc::clone(config), engine.clone(), recorder.clone()).map_err(Error::Machine)?;
    let facts = node.facts();
    let addresses = facts.addresses.clone();
    let (facts_in, facts) = watch::channel(facts);

    let (statuses, updates) = mpsc::channel(QUEUE_MAX);
    let objects = Objects::new(client.clone());
    let world = World {
        engine: engine.clone(),
        config: Arc::clone(config),
        statuses,
        recorder,
        objects: objects.clone(),
        node: facts,
    };
    let workers = Workers::new(world);
    let (mirrors_in, mirrors) = watch::channel(Arc::default());
    parts.spawn("statuses", StatusWriter::new(client.clone(), updates, mirrors).run());
    if let Some(address) = config.server_address {
        let server = Server::listen(config, address, &addresses, workers.clone(), engine.clone()).await?;
        parts.spawn("server", server.run());
    }
    parts.spawn("sources", Sources::new(Arc::clone(config), client.clone(), workers, objects, mirrors_in).run());
    match client {
        Some(client) => parts.spawn("node", async move {
            node.run(client).await;
            drop(facts_in);
        }),
        None => parts.spawn("node", async move {
            node.run_alone().await;
            drop(facts_in);
        }),
    }
    Ok(())
}

async fn client(path: &Path) -> Result<Client, Error> {
    let unusable = |message: String| Error::Kubeconfig { path: path.to_owned(), message };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(error.to_string()))?;
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| unusable(error.to_string()))?;
    config.connect_timeout = Some(CONNECT_DEADLINE);
    Client::try_from(config).map_err(|error| unusable(error.to_string()))
}
