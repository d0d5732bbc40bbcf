//! Objects between the wire and the store: text and value, and the metadata that only the server writes.

use bytes::Bytes;
use jiff::Timestamp;
use rustls::crypto::SecureRandom;
use serde_json::{Map, Value, json};

use super::status::{About, Refusal};
use crate::limits::{GENERATE_NAME_PREFIX_MAX, OBJECT_BYTES_MAX};
use crate::resource::Kind;
use crate::store::{Revision, Stored};

/// Letters of generated names: no vowels, so that no words arise; nothing that is mistaken for something else.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX_LETTERS: usize = 5;

/// What clients send back but do not decide.
const NOT_KEPT: [&str; 3] = ["resourceVersion", "managedFields", "selfLink"];
/// What an update cannot change, whatever it says.
const CARRIED: [&str; 7] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// An object as clients see it.
pub(super) fn decode(stored: &Stored) -> Result<Value, Refusal> {
    decode_at(&stored.text, stored.revision)
}

/// The same, shown at another revision than that of its last change.
pub(super) fn decode_at(text: &[u8], revision: Revision) -> Result<Value, Refusal> {
    let mut object: Value = serde_json::from_slice(text)
        .map_err(|error| Refusal::internal(format!("a stored object is broken: {error}")))?;
    set_revision(&mut object, revision);
    Ok(object)
}

pub(super) fn set_revision(object: &mut Value, revision: Revision) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    }
}

/// As it is stored: without what the store knows better.
pub(super) fn encode(object: &Value) -> Result<Bytes, Refusal> {
    let mut object = object.clone();
    if let Some(metadata) = metadata_mut(&mut object) {
        for field in NOT_KEPT {
            metadata.remove(field);
        }
    }
    let text = serde_json::to_vec(&object).map_err(Refusal::internal)?;
    if text.len() > OBJECT_BYTES_MAX {
        return Err(Refusal::object_too_large(text.len(), OBJECT_BYTES_MAX));
    }
    Ok(text.into())
}

pub(super) fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

/// A text in the metadata; empty when it is not there.
pub(super) fn meta<'o>(object: &'o Value, field: &str) -> &'o str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub(super) fn name(object: &Value) -> &str {
    meta(object, "name")
}

pub(super) fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Brings a body to the shape that all code behind relies on: an object with `metadata`, of this kind, in this
/// namespace, and under the name in the path if there is one.
pub(super) fn fit(object: &mut Value, kind: &Kind, namespace: Option<&str>, name: Option<&str>) -> Result<(), Refusal> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Refusal::bad_request(format!("the body is no JSON object; a {} was expected", kind.kind)));
    };
    fit_type(fields, kind)?;
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(Refusal::bad_request("metadata: must be an object"));
    };
    match (metadata.get("namespace").and_then(Value::as_str).unwrap_or_default(), namespace) {
        ("", Some(namespace)) => drop(metadata.insert("namespace".to_owned(), namespace.into())),
        (found, namespace) if found != namespace.unwrap_or_default() => {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        (_, None) => drop(metadata.remove("namespace")),
        _ => {}
    }
    let Some(name) = name else { return Ok(()) };
    match metadata.get("name").and_then(Value::as_str).unwrap_or_default() {
        "" => drop(metadata.insert("name".to_owned(), name.into())),
        found if found != name => {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({found}) does not match the name on the URL ({name})"
            )));
        }
        _ => {}
    }
    Ok(())
}

/// What says nothing of its type is of the type that the path names.
fn fit_type(fields: &mut Map<String, Value>, kind: &Kind) -> Result<(), Refusal> {
    let expected = kind.api_version();
    let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (found_version, found_kind) = (text("apiVersion"), text("kind"));
    if !found_kind.is_empty() && found_kind != kind.kind {
        return Err(Refusal::bad_request(format!(
            "{found_kind} in version {found_version:?} cannot be handled as a {}: the path is that of {}",
            kind.kind, kind.plural
        )));
    }
    if !found_version.is_empty() && found_version != expected {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({expected})"
        )));
    }
    fields.insert("apiVersion".to_owned(), expected.into());
    fields.insert("kind".to_owned(), kind.kind.into());
    Ok(())
}

/// Writes what a new object gets from the server, and takes away what only the server may say.
pub(super) fn stamp_new(object: &mut Value, now: Timestamp) -> Result<(), Refusal> {
    let uid = new_uid()?;
    let Some(metadata) = metadata_mut(object) else { return Ok(()) };
    for field in NOT_KEPT.iter().chain(&["deletionTimestamp", "deletionGracePeriodSeconds", "generation"]) {
        metadata.remove(*field);
    }
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), time(now).into());
    Ok(())
}

/// Keeps in `new` what an update cannot change.
pub(super) fn carry(old: &Value, new: &mut Value) {
    let Some(metadata) = metadata_mut(new) else { return };
    for field in CARRIED {
        match &old["metadata"][field] {
            Value::Null => drop(metadata.remove(field)),
            value => drop(metadata.insert(field.to_owned(), value.clone())),
        }
    }
    metadata.remove("managedFields");
    metadata.remove("selfLink");
}

/// The same but for the resourceVersion.
pub(super) fn is_unchanged(old: &Value, new: &mut Value) -> bool {
    if let (Some(metadata), revision @ Value::String(_)) = (metadata_mut(new), &old["metadata"]["resourceVersion"]) {
        metadata.insert("resourceVersion".to_owned(), revision.clone());
    }
    old == new
}

/// Refuses an object that is not the one that the client means.
pub(super) fn check_identity(about: About<'_>, current: &Value, uid: &str, revision: &str) -> Result<(), Refusal> {
    let found = meta(current, "uid");
    if !uid.is_empty() && uid != found {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Refusal::conflict(about, &why));
    }
    if !revision.is_empty() && revision != "0" && revision != meta(current, "resourceVersion") {
        return Err(Refusal::modified(about));
    }
    Ok(())
}

/// A time as Kubernetes writes it in metadata: whole seconds.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    let source: &dyn SecureRandom = rustls::crypto::ring::default_provider().secure_random;
    source.fill(&mut bytes).map_err(|_| Refusal::internal("the system gives no random bytes"))?;
    Ok(bytes)
}

/// A number below a bound, for spreading things out.
pub(super) fn random_below(bound: u64) -> u64 {
    random::<8>().map_or(0, u64::from_ne_bytes).checked_rem(bound).unwrap_or(0)
}

/// A random (version 4) UUID.
pub(super) fn new_uid() -> Result<String, Refusal> {
    let mut bits = u128::from_be_bytes(random::<16>()?);
    bits = bits & !(0xf << 76) | 0x4 << 76;
    bits = bits & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{bits:032x}");
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// `generateName` with five random letters.
pub(super) fn generated_name(prefix: &str) -> Result<String, Refusal> {
    let kept = prefix.floor_char_boundary(GENERATE_NAME_PREFIX_MAX.min(prefix.len()));
    let letter = |byte: u8| char::from(NAME_LETTERS[usize::from(byte) % NAME_LETTERS.len()]);
    let suffix: String = random::<NAME_SUFFIX_LETTERS>()?.into_iter().map(letter).collect();
    Ok(format!("{}{suffix}", &prefix[..kept]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    #[test]
    fn uids_are_random_and_of_version_four() {
        let uid = new_uid().unwrap();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"));
        assert_ne!(uid, new_uid().unwrap());
    }

    #[test]
    fn generated_names_keep_a_prefix_that_leaves_room() {
        let name = generated_name(&"ä".repeat(60)).unwrap();
        assert!(name.len() <= 63);
        assert!(generated_name("web-").unwrap().starts_with("web-"));
    }

    #[test]
    fn a_body_must_be_what_the_path_says() {
        let pods = find("", "v1", "pods").unwrap();
        let fit = |mut object: Value, name| {
            fit(&mut object, pods, Some("a"), name).map(|()| object).map_err(|e| e.object()["message"].clone())
        };
        let bare = fit(json!({}), Some("x")).unwrap();
        assert_eq!(bare, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "x"}}));
        for broken in [
            json!([]),
            json!({"kind": "Node"}),
            json!({"apiVersion": "v2"}),
            json!({"metadata": 1}),
            json!({"metadata": {"namespace": "b"}}),
            json!({"metadata": {"name": "y"}}),
        ] {
            assert!(fit(broken.clone(), Some("x")).is_err(), "{broken}");
        }
    }
}
