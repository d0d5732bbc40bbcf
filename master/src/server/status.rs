//! Refusals, in Kubernetes' words: `meta/v1` Status.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::limits::BODY_BYTES_MAX;
use crate::request::RequestError;
use crate::resource::{FieldError, Kind};

/// Why a request was not done.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    reason: &'static str,
    message: String,
    details: Map<String, Value>,
}

/// What a refusal is about: the resource as Kubernetes writes it in messages, and the object's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) group: &'a str,
    pub(super) resource: &'a str,
    pub(super) name: &'a str,
}

impl<'a> About<'a> {
    pub(super) fn object(kind: &'a Kind, name: &'a str) -> Self {
        Self { group: kind.group, resource: kind.plural, name }
    }

    /// `pods`, `leases.coordination.k8s.io`.
    pub(super) fn qualified(self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    fn details(self) -> Map<String, Value> {
        let mut details = Map::new();
        for (field, value) in [("name", self.name), ("group", self.group), ("kind", self.resource)] {
            if !value.is_empty() {
                details.insert(field.to_owned(), value.into());
            }
        }
        details
    }
}

impl Refusal {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Map::new() }
    }

    fn about(mut self, about: About<'_>) -> Self {
        self.details = about.details();
        self
    }

    fn because(mut self, causes: Vec<Value>) -> Self {
        self.details.insert("causes".to_owned(), causes.into());
        self
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(super) fn forbidden(about: About<'_>, why: &str) -> Self {
        let named = if about.name.is_empty() {
            format!("{} is forbidden: {why}", about.qualified())
        } else {
            format!("{} {:?} is forbidden: {why}", about.qualified(), about.name)
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", named).about(about)
    }

    pub(super) fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub(super) fn namespace_terminating(about: About<'_>, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        let cause = json!({ "reason": "NamespaceTerminating", "message": cause, "field": "metadata.namespace" });
        Self::forbidden(about, &why).because(vec![cause])
    }

    pub(super) fn not_found(about: About<'_>) -> Self {
        let message = format!("{} {:?} not found", about.qualified(), about.name);
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(about)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(super) fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub(super) fn unsupported_media(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        Self::unsupported_media_because(format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        ))
    }

    pub(super) fn unsupported_media_because(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub(super) fn body_too_large() -> Self {
        let message = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub(super) fn object_too_large(bytes: usize, bytes_max: usize) -> Self {
        let message = format!("Request entity too large: the object takes {bytes} bytes, the limit is {bytes_max}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub(super) fn already_exists(about: About<'_>) -> Self {
        let message = format!("{} {:?} already exists", about.qualified(), about.name);
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(about)
    }

    pub(super) fn conflict(about: About<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {:?}: {why}", about.qualified(), about.name);
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(about)
    }

    pub(super) fn modified(about: About<'_>) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(about, why)
    }

    pub(super) fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let listed: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let listed = match listed.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let about = About { group: kind.group, resource: kind.kind, name };
        let message = format!("{} {name:?} is invalid: {listed}", about.qualified());
        let cause = |error: &FieldError| json!({ "reason": error.reason.as_str(), "message": error.message, "field": error.field });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            .about(about)
            .because(errors.iter().map(cause).collect())
    }

    pub(super) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(super) fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    pub(super) fn too_large_revision(asked: u64, newest: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {newest}");
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        let mut refusal = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).because(vec![cause]);
        refusal.details.insert("retryAfterSeconds".to_owned(), 1.into());
        refusal
    }

    pub(super) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// Another server's refusal, passed on with its code and words.
    pub(super) fn passed_on(code: StatusCode, message: impl Into<String>) -> Self {
        let reason = match code {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::NOT_FOUND => "NotFound",
            _ => "InternalError",
        };
        Self::new(code, reason, message)
    }

    pub(super) fn internal(message: impl std::fmt::Display) -> Self {
        let message = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The Status object.
    pub(super) fn object(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if !self.details.is_empty() {
            status["details"] = self.details.clone().into();
        }
        status
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Method => Self::method_not_allowed(),
            other => Self::bad_request(other.to_string()),
        }
    }
}

/// The Status of something that was done and has no object to show.
pub(super) fn success(about: About<'_>, uid: Option<&str>) -> Value {
    let mut details = about.details();
    if let Some(uid) = uid {
        details.insert("uid".to_owned(), uid.into());
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
