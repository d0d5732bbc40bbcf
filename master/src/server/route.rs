//! From a request to the code that answers it.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use tokio::time::timeout;

use super::authn::User;
use super::authz::{self, Question};
use super::reply::{self, Reply};
use super::status::Refusal;
use super::{Api, Call, discovery};
use crate::limits::{BODY_BYTES_MAX, BODY_DEADLINE, REQUEST_DEADLINE};
use crate::request::{self, Options, Route, Target, Verb};
use crate::resource::{Kind, find};

impl Api {
    /// Answers a request; a refusal is an answer too.
    pub(super) async fn answer<B>(self: &Arc<Self>, user: Arc<User>, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send,
    {
        let (parts, body) = request.into_parts();
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let answered = async {
            let options = Options::parse(parts.uri.query().unwrap_or_default())?;
            user.check_headers(&parts.headers)?;
            match request::route(&parts.method, parts.uri.path(), &options)? {
                Route::Path(path) => {
                    authz::check_path(&user, &path)?;
                    discovery::answer(&parts.method, &path, &parts.headers)
                }
                Route::Resource { verb, target } => {
                    self.check_user(&user, verb, &target, &options).await?;
                    let kind = served(verb, &target)?;
                    let body = read_body(&parts.method, &parts.headers, body).await?;
                    let user = Arc::clone(&user);
                    self.dispatch(Call { user, verb, kind, target, options, headers: parts.headers, body }).await
                }
            }
        };
        let reply = answered.await.unwrap_or_else(|refusal: Refusal| reply::refusal(&refusal));
        tracing::debug!(user = user.name, %method, path, code = reply.status().as_u16(), "answered");
        reply
    }

    async fn check_user(&self, user: &User, verb: Verb, target: &Target, options: &Options) -> Result<(), Refusal> {
        let fields = options.text("fieldSelector").unwrap_or_default();
        let fields = fields
            .parse()
            .map_err(|error: berth_api::selector::SelectorError| Refusal::bad_request(error.to_string()))?;
        Question { user, verb, target, fields: &fields }.check(&self.store).await
    }

    async fn dispatch(self: &Arc<Self>, call: Call) -> Result<Reply, Refusal> {
        // Watches and logs have their own ends.
        if call.verb == Verb::Watch {
            return self.watch(&call);
        }
        if call.subresource() == Some("log") {
            return self.log(&call).await;
        }
        let answer = async {
            match (call.verb, call.target.resource.as_str(), call.subresource()) {
                (Verb::Create, "bindings", None) | (Verb::Create, "pods", Some("binding")) => self.bind(&call).await,
                (Verb::Create, ..) => self.create(&call).await,
                (Verb::Get, ..) => self.get(&call),
                (Verb::List | Verb::Watch, ..) => self.list(&call).await,
                (Verb::Update, ..) => self.update(&call).await,
                (Verb::Patch, ..) => self.patch(&call).await,
                (Verb::Delete, ..) => self.delete(&call).await,
                (Verb::DeleteCollection, ..) => self.delete_collection(&call).await,
            }
        };
        timeout(REQUEST_DEADLINE, answer).await.unwrap_or_else(|_| {
            Err(Refusal::timeout("the server was unable to return a response in the time allotted"))
        })
    }
}

/// The kind that a path is about, if it is served and knows the verb.
fn served(verb: Verb, target: &Target) -> Result<&'static Kind, Refusal> {
    if target.group.is_empty() && target.version == "v1" && target.resource == "bindings" {
        let whole = verb == Verb::Create && target.namespace.is_some() && target.name.is_none();
        // What is stored is the pod.
        let pods = find("", "v1", "pods").filter(|_| whole);
        return pods.ok_or_else(Refusal::method_not_allowed);
    }
    let kind = find(&target.group, &target.version, &target.resource).ok_or_else(Refusal::no_such_path)?;
    if target.namespace.is_some() && !kind.namespaced {
        return Err(Refusal::no_such_path());
    }
    let verbs = match &target.subresource {
        None => kind.verbs,
        Some(name) => {
            let found = kind.subresources.iter().find(|sub| sub.name == name);
            found.ok_or_else(Refusal::no_such_path)?.verbs
        }
    };
    // Over all namespaces one can only look.
    let lacks_namespace = kind.namespaced && target.namespace.is_none();
    if lacks_namespace && target.name.is_some() {
        return Err(Refusal::no_such_path());
    }
    let looks = matches!(verb, Verb::List | Verb::Watch);
    if !verbs.contains(&verb.as_str()) || (lacks_namespace && !looks) || is_misplaced(verb, target) {
        return Err(Refusal::method_not_allowed());
    }
    Ok(kind)
}

/// A name where a collection is meant, or the other way round.
fn is_misplaced(verb: Verb, target: &Target) -> bool {
    match verb {
        Verb::Create => target.name.is_some() != target.subresource.is_some(),
        Verb::Update | Verb::Patch => target.name.is_none(),
        Verb::Get | Verb::List | Verb::Watch | Verb::Delete | Verb::DeleteCollection => false,
    }
}

async fn read_body<B>(method: &Method, headers: &HeaderMap, body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send,
{
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Bytes::new());
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(Refusal::body_too_large());
    }
    let collected = timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected.map_err(|_| Refusal::timeout("the body of the request did not arrive in time"))? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::body_too_large()),
        Err(error) => Err(Refusal::bad_request(format!("cannot read the body of the request: {error}"))),
    }
}
