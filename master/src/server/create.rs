//! Create; and how bodies become objects, for all verbs that carry one.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde_json::Value;

use super::protobuf::{self, PROTOBUF, ProtobufError};
use super::reply::{self, Form, Reply};
use super::status::{About, Refusal};
use super::{Api, Call, DryRun, authz, namespace, object};
use crate::limits::GENERATE_NAME_TRIES_MAX;
use crate::resource::Kind;
use crate::schema;
use crate::store::{Prefix, StoreError, Write};

/// What to do with fields that a kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownFields {
    Ignore,
    Warn,
    Refuse,
}

impl UnknownFields {
    pub(super) fn parse(call: &Call) -> Result<Self, Refusal> {
        match call.options.text("fieldValidation") {
            None | Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Refuse),
            Some(other) => Err(Refusal::unprocessable(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Names a media type without its parameters.
pub(super) fn media_type(call: &Call) -> &str {
    let header = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(';').next().unwrap_or_default().trim()
}

/// The body as JSON. A client that does not name its type means JSON.
pub(super) fn parse_body(call: &Call) -> Result<Value, Refusal> {
    match media_type(call) {
        "" | reply::JSON => serde_json::from_slice(&call.body)
            .map_err(|error| Refusal::bad_request(format!("the body is no valid JSON: {error}"))),
        PROTOBUF => protobuf::decode(&call.body).map_err(|error| match error {
            ProtobufError::Kind(_) => Refusal::unsupported_media(&[reply::JSON]),
            ProtobufError::Broken => Refusal::bad_request("the body is no valid protobuf in Kubernetes' form"),
        }),
        _ => Err(Refusal::unsupported_media(&[reply::JSON])),
    }
}

/// Compares with the schema. Returns warnings; what the kind does not have is dropped later, with the defaults.
pub(super) fn check_schema(
    kind: &Kind,
    object: &Value,
    unknown: UnknownFields,
    refuse: impl Fn(String) -> Refusal,
) -> Result<Vec<String>, Refusal> {
    let findings = schema::check(kind, object);
    if !findings.wrong_type.is_empty() {
        let listed: Vec<String> = findings.wrong_type.iter().map(ToString::to_string).collect();
        return Err(refuse(listed.join(", ")));
    }
    let listed: Vec<String> = findings.unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    if unknown == UnknownFields::Refuse && !listed.is_empty() {
        return Err(refuse(format!("strict decoding error: {}", listed.join(", "))));
    }
    Ok(if unknown == UnknownFields::Warn { listed } else { Vec::new() })
}

/// A body that cannot become an object of the kind.
pub(super) fn unfit(kind: &Kind, why: &str) -> Refusal {
    Refusal::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: {why}",
        kind.kind,
        kind.api_version(),
        kind.kind
    ))
}

/// The body as an object of the call's kind, in its namespace, with warnings.
pub(super) fn parse_object(call: &Call, name: Option<&str>) -> Result<(Value, Vec<String>), Refusal> {
    let mut object = parse_body(call)?;
    object::fit(&mut object, call.kind, call.target.namespace.as_deref(), name)?;
    let unknown = UnknownFields::parse(call)?;
    let warnings = check_schema(call.kind, &object, unknown, |why| unfit(call.kind, &why))?;
    Ok((object, warnings))
}

impl Api {
    pub(super) async fn create(&self, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        let dry_run = call.dry_run()?;
        let (object, warnings) = parse_object(call, None)?;
        authz::check_created(&call.user, call.kind, &object)?;
        let created = self.create_object(call.kind, call.target.namespace.as_deref(), object, dry_run).await?;
        let mut reply = reply::json(StatusCode::CREATED, &form.one(call.kind, created));
        warnings.iter().for_each(|warning| reply::warn(&mut reply, warning));
        Ok(reply)
    }

    /// Stores a new object, under a generated name if it asks for one.
    async fn create_object(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        object: Value,
        dry_run: DryRun,
    ) -> Result<Value, Refusal> {
        if !matches!(object::meta(&object, "resourceVersion"), "" | "0") {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let prefix = object::meta(&object, "generateName").to_owned();
        let generates = object::name(&object).is_empty() && !prefix.is_empty();
        for _ in 0..GENERATE_NAME_TRIES_MAX {
            let mut candidate = object.clone();
            if generates && let Some(metadata) = object::metadata_mut(&mut candidate) {
                metadata.insert("name".to_owned(), object::generated_name(&prefix)?.into());
            }
            match self.create_named(kind, namespace, candidate, dry_run).await {
                Err(refusal) if generates && refusal.code == StatusCode::CONFLICT => {}
                other => return other,
            }
        }
        Err(Refusal::already_exists(About::object(kind, &prefix)))
    }

    async fn create_named(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        mut object: Value,
        dry_run: DryRun,
    ) -> Result<Value, Refusal> {
        let name = object::name(&object).to_owned();
        let about = About::object(kind, &name);
        object::stamp_new(&mut object, Timestamp::now())?;
        kind.prepare_create(&mut object);
        self.check_namespace(about, namespace)?;
        let errors = kind.validate_create(&object);
        if !errors.is_empty() {
            return Err(Refusal::invalid(kind, &name, &errors));
        }
        // The checks let no name through that could leave its place in a key; this holds if a kind's checks did not.
        if name.is_empty() || name.contains('/') {
            return Err(Refusal::bad_request(format!("metadata.name: Invalid value: {name:?}")));
        }
        let key = Prefix::new(kind.group, kind.plural, namespace).key(&name);
        let text = object::encode(&object)?;
        if dry_run == DryRun::Yes {
            return match self.store.get(&key)? {
                Some(_) => Err(Refusal::already_exists(about)),
                None => Ok(object),
            };
        }
        let revision = self.store.write(Write::Create { key, text }).await.map_err(|error| match error {
            StoreError::Exists { .. } => Refusal::already_exists(about),
            other => other.into(),
        })?;
        object::set_revision(&mut object, revision);
        Ok(object)
    }

    /// New objects need a namespace that is there and stays.
    fn check_namespace(&self, about: About<'_>, namespace: Option<&str>) -> Result<(), Refusal> {
        let Some(namespace) = namespace else { return Ok(()) };
        let found = self.store.get(&namespace::key(namespace))?;
        let Some(found) = found else {
            return Err(Refusal::not_found(About { group: "", resource: "namespaces", name: namespace }));
        };
        if object::is_deleting(&object::decode(&found)?) {
            return Err(Refusal::namespace_terminating(about, namespace));
        }
        Ok(())
    }
}
