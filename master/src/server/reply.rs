//! Answers: which form the client accepts, and the bytes of that form.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WARNING};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::Refusal;
use crate::request::Options;
use crate::resource::Kind;
use crate::table::{IncludeObject, table};

pub(super) const JSON: &str = "application/json";

/// Why a body ends before its end; the connection is then cut, so that the client does not take it for whole.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// What is sent back.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, BodyError>>;

/// Bytes of a media type.
pub(super) fn bytes(code: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

pub(super) fn json_as(code: StatusCode, media_type: &'static str, value: &Value) -> Reply {
    let mut text = value.to_string();
    text.push('\n');
    bytes(code, media_type, text)
}

pub(super) fn json(code: StatusCode, value: &Value) -> Reply {
    json_as(code, JSON, value)
}

pub(super) fn refusal(refusal: &Refusal) -> Reply {
    json(refusal.code, &refusal.object())
}

/// One entry of an Accept header.
#[derive(Debug)]
pub(super) struct Accepted<'h> {
    media_type: &'h str,
    parameters: Vec<(&'h str, &'h str)>,
}

impl Accepted<'_> {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    pub(super) fn is(&self, media_type: &str) -> bool {
        self.media_type == media_type
    }

    /// Plain JSON is good for it.
    pub(super) fn is_json(&self) -> bool {
        matches!(self.media_type, JSON | "*/*" | "application/*")
    }
}

/// The entries of Accept, in the order of the client's preference; JSON for a client that does not say.
pub(super) fn accepted(headers: &HeaderMap) -> Vec<Accepted<'_>> {
    let texts: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut entries: Vec<_> = texts.iter().flat_map(|text| text.split(',')).filter_map(entry).collect();
    let weight = |entry: &Accepted<'_>| entry.parameter("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
    entries.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    if entries.is_empty() { vec![Accepted { media_type: JSON, parameters: Vec::new() }] } else { entries }
}

fn entry(text: &str) -> Option<Accepted<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
    let parameters = parts.filter_map(|part| part.split_once('=')).collect();
    Some(Accepted { media_type, parameters })
}

/// The form in which a client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Object,
    /// As rows.
    Table(IncludeObject),
    /// Their metadata only.
    Metadata,
}

impl Form {
    /// The first acceptable form that is known.
    pub(super) fn choose(headers: &HeaderMap, options: &Options) -> Result<Self, Refusal> {
        let form = |entry: &Accepted<'_>| {
            if !entry.is_json() {
                return None;
            }
            match (entry.parameter("as"), entry.parameter("g"), entry.parameter("v")) {
                (None, ..) => Some(Self::Object),
                (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Self::Table(include(options))),
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
                    Some(Self::Metadata)
                }
                _ => None,
            }
        };
        accepted(headers).iter().find_map(form).ok_or_else(|| Refusal::not_acceptable(&[JSON]))
    }

    /// One object in this form.
    pub(super) fn one(self, kind: &Kind, object: Value) -> Value {
        match self {
            Self::Object => object,
            Self::Metadata => metadata_only(object),
            Self::Table(include) => {
                let list_meta = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                table(kind, &[object], include, Timestamp::now(), list_meta)
            }
        }
    }

    /// A list in this form.
    pub(super) fn list(self, kind: &Kind, objects: Vec<Value>, list_meta: Value) -> Value {
        match self {
            Self::Object => json!({
                "kind": format!("{}List", kind.kind),
                "apiVersion": kind.api_version(),
                "metadata": list_meta,
                "items": objects,
            }),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": list_meta,
                "items": objects.into_iter().map(metadata_only).collect::<Vec<_>>(),
            }),
            Self::Table(include) => table(kind, &objects, include, Timestamp::now(), list_meta),
        }
    }
}

fn include(options: &Options) -> IncludeObject {
    match options.text("includeObject") {
        Some("None") => IncludeObject::None,
        Some("Object") => IncludeObject::Object,
        _ => IncludeObject::Metadata,
    }
}

fn metadata_only(mut object: Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"].take() })
}

/// Adds a warning that kubectl prints.
pub(super) fn warn(reply: &mut Reply, warning: &str) {
    let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
    // A warning that cannot be a header (control characters) is not worth failing for.
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
        reply.headers_mut().append(WARNING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Form::choose(&headers, &Options::default()).ok()
    }

    #[test]
    fn the_first_known_form_is_chosen() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(choose(kubectl), Some(Form::Table(IncludeObject::Metadata)));
        assert_eq!(choose("application/vnd.kubernetes.protobuf,application/json"), Some(Form::Object));
        assert_eq!(choose("application/json;q=0.5,application/json;as=Table;v=v1;g=meta.k8s.io"), choose(kubectl));
        assert_eq!(choose("*/*"), Some(Form::Object));
        assert_eq!(choose("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(choose("application/json;as=Nothing;v=v1;g=meta.k8s.io"), None);
        assert_eq!(Form::choose(&HeaderMap::new(), &Options::default()).ok(), Some(Form::Object));
    }
}
