//! What the server answers.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use berth_engine::{ContainerState, Engine, Event, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::broadcast::{self, error::RecvError};

use super::auth::{Caller, admit};
use super::logs::{self, LogQuery};
use crate::pod::{LogError, Workers};

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Served {
    pub workers: Workers,
    pub engine: Engine,
    pub has_client_ca: bool,
}

/// All there is.
pub(super) fn router(served: Served) -> Router {
    let guarded = Router::new()
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .route_layer(middleware::from_fn_with_state(served.clone(), guard));
    Router::new().route("/healthz", get(|| async { "ok" })).merge(guarded).fallback(not_found).with_state(served)
}

async fn guard(
    State(served): State<Served>,
    Extension(caller): Extension<Option<Arc<Caller>>>,
    request: Request,
    next: Next,
) -> Response {
    match admit(caller.as_deref(), served.has_client_ca) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "there is /healthz, /pods and /containerLogs/{namespace}/{pod}/{container}\n")
}

async fn pods(State(served): State<Served>) -> Json<List<Pod>> {
    let pods = served.workers.pods().into_iter().map(|(pod, status)| {
        let mut pod = Arc::unwrap_or_clone(pod);
        pod.status = Some(status);
        pod
    });
    Json(List { items: pods.collect(), ..List::default() })
}

async fn container_logs(
    State(served): State<Served>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, (StatusCode, String)> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, format!("{message}\n"));
    let mut options = query.options(Timestamp::now()).map_err(bad)?;
    let previous = query.previous().map_err(bad)?;
    // Listened to before it is asked whether the container runs, so that its end cannot fall between the two.
    let events = served.engine.events();
    let log = served.workers.log_file(&namespace, &pod, &container, previous).await;
    let log = log.map_err(|error| (log_error_code(&error), format!("{error}\n")))?;
    options.follow &= log.running;
    let path = log.path.clone();
    let opened = logs::open(log.path, options).await.map_err(|error| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("the log {} cannot be read: {error}\n", path.display()))
    })?;
    let body = Body::from_stream(opened.stream(ended(served.engine, events, path)));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

fn log_error_code(error: &LogError) -> StatusCode {
    match error {
        LogError::NoPod { .. } | LogError::NoContainer { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Waits until the container that writes this log has ended. The engine is asked, which knows first.
async fn ended(engine: Engine, mut events: broadcast::Receiver<Event>, log: PathBuf) {
    let Some(sandbox) = engine.sandboxes().await.into_iter().find(|sandbox| is_written(sandbox, &log)) else { return };
    loop {
        match events.recv().await {
            Ok(Event::Exited { sandbox: id, .. } | Event::SandboxLost { sandbox: id }) if id == sandbox.id => {}
            Ok(_) => continue,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        match engine.sandbox(&sandbox.id).await {
            Ok(now) if is_written(&now, &log) => {}
            _ => return,
        }
    }
}

/// Whether a container runs in this sandbox that writes this log.
fn is_written(sandbox: &SandboxStatus, log: &std::path::Path) -> bool {
    let runs = |state: &ContainerState| matches!(state, ContainerState::Created | ContainerState::Running { .. });
    sandbox.containers.iter().any(|container| container.config.log_path == log && runs(&container.state))
}
