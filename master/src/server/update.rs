//! Update and patch: an object is read, changed and stored at the revision at which it was read, again and again
//! until nobody came between.

use http::StatusCode;
use serde_json::Value;

use super::create::{UnknownFields, check_schema, media_type, parse_object};
use super::reply::{self, Form, Reply};
use super::status::{About, Refusal};
use super::{Api, Call, DryRun, authz, object};
use crate::limits::CONFLICT_RETRIES_MAX;
use crate::patch::{self, PatchError};
use crate::resource::{FieldError, Kind};
use crate::store::{Key, StoreError, Stored, Write};

const APPLY: &str = "application/apply-patch+yaml";

/// Who changes an object, and so what may change.
#[derive(Clone, Copy)]
pub(super) enum Through<'a> {
    /// A client, by the object itself.
    Object,
    /// A client, by a subresource.
    Subresource(&'a str),
    /// The server, which gives a pod its node: what no client may change afterwards.
    Binding,
}

/// Which object is replaced.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) kind: &'static Kind,
    pub(super) key: &'a Key,
    pub(super) name: &'a str,
    pub(super) through: Through<'a>,
    pub(super) dry_run: DryRun,
}

impl Api {
    pub(super) async fn update(&self, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        let (new, warnings) = parse_object(call, Some(call.name()))?;
        let update = |current: &Value| {
            authz::check_changed(&call.user, call.kind, call.subresource(), current, &new)?;
            Ok(new.clone())
        };
        let updated = self.replace(call.place(&call.key())?, update).await?;
        let mut reply = reply::json(StatusCode::OK, &form.one(call.kind, updated));
        warnings.iter().for_each(|warning| reply::warn(&mut reply, warning));
        Ok(reply)
    }

    pub(super) async fn patch(&self, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        if media_type(call) == APPLY {
            return Err(Refusal::unsupported_media_because(format!(
                "server-side apply is not served here; apply on the client's side, or send one of: {}",
                patch::ACCEPTED.join(", ")
            )));
        }
        let unknown = UnknownFields::parse(call)?;
        let mut warnings = Vec::new();
        let patch = |current: &Value| {
            // The last try counts.
            let (new, found) = patched(call, current, unknown)?;
            authz::check_changed(&call.user, call.kind, call.subresource(), current, &new)?;
            warnings = found;
            Ok(new)
        };
        let patched = self.replace(call.place(&call.key())?, patch).await?;
        let mut reply = reply::json(StatusCode::OK, &form.one(call.kind, patched));
        warnings.iter().for_each(|warning| reply::warn(&mut reply, warning));
        Ok(reply)
    }

    /// Stores what `change` makes of the current object. What the server alone decides stays as it is, and the
    /// resourceVersion and uid that `change` leaves in the object must be the current ones.
    pub(super) async fn replace(
        &self,
        place: Place<'_>,
        mut change: impl FnMut(&Value) -> Result<Value, Refusal>,
    ) -> Result<Value, Refusal> {
        let about = About::object(place.kind, place.name);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let stored = self.store.get(place.key)?.ok_or_else(|| Refusal::not_found(about))?;
            let current = object::decode(&stored)?;
            let mut new = change(&current)?;
            object::check_identity(about, &current, object::meta(&new, "uid"), object::meta(&new, "resourceVersion"))?;
            prepare(place, &current, &mut new)?;
            if place.dry_run == DryRun::Yes || object::is_unchanged(&current, &mut new) {
                return Ok(new);
            }
            match self.store.write(write(place.key, &stored, &new)?).await {
                Ok(revision) => {
                    object::set_revision(&mut new, revision);
                    return Ok(new);
                }
                Err(StoreError::Conflict { .. } | StoreError::Missing { .. }) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(Refusal::modified(about))
    }
}

impl Call {
    pub(super) fn place<'a>(&'a self, key: &'a Key) -> Result<Place<'a>, Refusal> {
        let through = self.subresource().map_or(Through::Object, Through::Subresource);
        Ok(Place { kind: self.kind, key, name: self.name(), through, dry_run: self.dry_run()? })
    }
}

/// Keeps what may not change, fills in what is missing, and checks the rest.
fn prepare(place: Place<'_>, current: &Value, new: &mut Value) -> Result<(), Refusal> {
    object::carry(current, new);
    let sub = match place.through {
        Through::Binding => return Ok(()),
        Through::Object => None,
        Through::Subresource(sub) => Some(sub),
    };
    place.kind.prepare_update(current, new, sub);
    let errors = place.kind.validate_update(current, new);
    if errors.is_empty() { Ok(()) } else { Err(Refusal::invalid(place.kind, place.name, &errors)) }
}

/// An object that was only kept for its finalizers goes with the last of them.
fn write(key: &Key, stored: &Stored, new: &Value) -> Result<Write, Refusal> {
    let (key, expected, text) = (key.clone(), stored.revision, object::encode(new)?);
    if object::is_deleting(new) && super::delete::may_go(new) {
        return Ok(Write::Delete { key, expected, last: text });
    }
    Ok(Write::Update { key, expected, text })
}

fn patched(call: &Call, current: &Value, unknown: UnknownFields) -> Result<(Value, Vec<String>), Refusal> {
    let content_type = media_type(call);
    let mut new = patch::apply(call.kind, current, &call.body, content_type).map_err(|error| match error {
        PatchError::UnsupportedType { .. } => Refusal::unsupported_media_because(error.to_string()),
        PatchError::Malformed { detail } => Refusal::bad_request(detail),
        PatchError::Unappliable { detail } => Refusal::unprocessable(detail),
    })?;
    object::fit(&mut new, call.kind, call.target.namespace.as_deref(), Some(call.name()))?;
    let refuse = |why: String| {
        let text = String::from_utf8_lossy(&call.body).into_owned();
        Refusal::invalid(call.kind, call.name(), &[FieldError::invalid("patch", &text.into(), &why)])
    };
    let warnings = check_schema(call.kind, &new, unknown, refuse)?;
    Ok((new, warnings))
}
