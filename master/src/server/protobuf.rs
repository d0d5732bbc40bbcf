//! Protobuf bodies of the few kinds that kubectl creates from its command line (`create namespace`, `configmap`,
//! `secret`, `serviceaccount`): it writes these in Kubernetes' protobuf form and takes no other way. Answers are JSON,
//! which it accepts. The field numbers are those of Kubernetes' `generated.proto` files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The media type.
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What a body begins with; the rest is a `runtime.Unknown`.
const MAGIC: &[u8; 4] = b"k8s\0";

/// A body that is none of those that are read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProtobufError {
    /// A kind that is read as JSON only.
    Kind(String),
    /// No protobuf, or not Kubernetes'.
    Broken,
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Integer,
    Switch,
    Time,
    Message(&'static [Field]),
    TextMap,
    BytesMap,
}

#[derive(Clone, Copy, PartialEq)]
enum Count {
    One,
    Many,
}

struct Field {
    number: u64,
    name: &'static str,
    shape: Shape,
    count: Count,
}

const fn one(number: u64, name: &'static str, shape: Shape) -> Field {
    Field { number, name, shape, count: Count::One }
}

const fn many(number: u64, name: &'static str, shape: Shape) -> Field {
    Field { number, name, shape, count: Count::Many }
}

const OWNER: &[Field] = &[
    one(1, "kind", Shape::Text),
    one(3, "name", Shape::Text),
    one(4, "uid", Shape::Text),
    one(5, "apiVersion", Shape::Text),
    one(6, "controller", Shape::Switch),
    one(7, "blockOwnerDeletion", Shape::Switch),
];

const METADATA: &[Field] = &[
    one(1, "name", Shape::Text),
    one(2, "generateName", Shape::Text),
    one(3, "namespace", Shape::Text),
    one(5, "uid", Shape::Text),
    one(6, "resourceVersion", Shape::Text),
    one(7, "generation", Shape::Integer),
    one(8, "creationTimestamp", Shape::Time),
    one(9, "deletionTimestamp", Shape::Time),
    one(10, "deletionGracePeriodSeconds", Shape::Integer),
    one(11, "labels", Shape::TextMap),
    one(12, "annotations", Shape::TextMap),
    many(13, "ownerReferences", Shape::Message(OWNER)),
    many(14, "finalizers", Shape::Text),
];

const NAMESPACE: &[Field] = &[
    one(1, "metadata", Shape::Message(METADATA)),
    one(2, "spec", Shape::Message(&[many(1, "finalizers", Shape::Text)])),
    one(3, "status", Shape::Message(&[one(1, "phase", Shape::Text)])),
];

const CONFIG_MAP: &[Field] = &[
    one(1, "metadata", Shape::Message(METADATA)),
    one(2, "data", Shape::TextMap),
    one(3, "binaryData", Shape::BytesMap),
    one(4, "immutable", Shape::Switch),
];

const SECRET: &[Field] = &[
    one(1, "metadata", Shape::Message(METADATA)),
    one(2, "data", Shape::BytesMap),
    one(3, "type", Shape::Text),
    one(4, "stringData", Shape::TextMap),
    one(5, "immutable", Shape::Switch),
];

const OBJECT_REFERENCE: &[Field] = &[
    one(1, "kind", Shape::Text),
    one(2, "namespace", Shape::Text),
    one(3, "name", Shape::Text),
    one(4, "uid", Shape::Text),
    one(5, "apiVersion", Shape::Text),
    one(6, "resourceVersion", Shape::Text),
    one(7, "fieldPath", Shape::Text),
];

const SERVICE_ACCOUNT: &[Field] = &[
    one(1, "metadata", Shape::Message(METADATA)),
    many(2, "secrets", Shape::Message(OBJECT_REFERENCE)),
    many(3, "imagePullSecrets", Shape::Message(&[one(1, "name", Shape::Text)])),
    one(4, "automountServiceAccountToken", Shape::Switch),
];

const DELETE_OPTIONS: &[Field] = &[
    one(1, "gracePeriodSeconds", Shape::Integer),
    one(2, "preconditions", Shape::Message(&[one(1, "uid", Shape::Text), one(2, "resourceVersion", Shape::Text)])),
    one(3, "orphanDependents", Shape::Switch),
    one(4, "propagationPolicy", Shape::Text),
    many(5, "dryRun", Shape::Text),
];

/// `runtime.Unknown`; its second field is the object and is read apart.
const UNKNOWN_TYPE: u64 = 1;
const UNKNOWN_RAW: u64 = 2;
const TYPE: &[Field] = &[one(1, "apiVersion", Shape::Text), one(2, "kind", Shape::Text)];

/// A body as the JSON that it stands for.
pub(super) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let mut rest = body.strip_prefix(MAGIC.as_slice()).ok_or(ProtobufError::Broken)?;
    let (mut about, mut raw) = (Map::new(), [].as_slice());
    while !rest.is_empty() {
        match item(&mut rest).ok_or(ProtobufError::Broken)? {
            (UNKNOWN_TYPE, Item::Bytes(bytes)) => about = message(TYPE, bytes).ok_or(ProtobufError::Broken)?,
            (UNKNOWN_RAW, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let kind = about.get("kind").and_then(Value::as_str).unwrap_or_default();
    let fields = match kind {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "DeleteOptions" => DELETE_OPTIONS,
        other => return Err(ProtobufError::Kind(other.to_owned())),
    };
    let mut object = message(fields, raw).ok_or(ProtobufError::Broken)?;
    object.extend(about);
    Ok(object.into())
}

/// One field on the wire.
enum Item<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    /// Of a kind that no field here has.
    Other,
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<'b>(rest: &mut &'b [u8], bytes: u64) -> Option<&'b [u8]> {
    let (taken, tail) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
    *rest = tail;
    Some(taken)
}

fn item<'b>(rest: &mut &'b [u8]) -> Option<(u64, Item<'b>)> {
    let tag = varint(rest)?;
    let item = match tag & 7 {
        0 => Item::Number(varint(rest)?),
        1 => take(rest, 8).map(|_| Item::Other)?,
        2 => {
            let bytes = varint(rest)?;
            Item::Bytes(take(rest, bytes)?)
        }
        5 => take(rest, 4).map(|_| Item::Other)?,
        _ => return None,
    };
    Some((tag >> 3, item))
}

/// A message with the fields that are known; `None` when it is broken.
fn message(fields: &[Field], mut rest: &[u8]) -> Option<Map<String, Value>> {
    let mut found = Map::new();
    while !rest.is_empty() {
        let (number, item) = item(&mut rest)?;
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        if let (Shape::TextMap | Shape::BytesMap, Item::Bytes(bytes)) = (field.shape, &item) {
            let (key, value) = entry(field.shape, bytes)?;
            found.entry(field.name).or_insert_with(|| Map::new().into()).as_object_mut()?.insert(key, value);
            continue;
        }
        // What is absent in JSON is empty here: Go writes fields that have no value.
        let Some(value) = value(field.shape, item)? else { continue };
        match field.count {
            Count::One => drop(found.insert(field.name.to_owned(), value)),
            Count::Many => {
                found.entry(field.name).or_insert_with(|| Vec::<Value>::new().into()).as_array_mut()?.push(value)
            }
        }
    }
    Some(found)
}

/// The outer `None` is a broken field, the inner one an empty one.
fn value(shape: Shape, item: Item<'_>) -> Option<Option<Value>> {
    Some(match (shape, item) {
        (Shape::Text, Item::Bytes(bytes)) => {
            Some(std::str::from_utf8(bytes).ok()?.into()).filter(|_| !bytes.is_empty())
        }
        // Negative numbers are written as their two's complement.
        (Shape::Integer, Item::Number(number)) => Some(number.cast_signed().into()),
        (Shape::Switch, Item::Number(number)) => Some((number != 0).into()),
        (Shape::Time, Item::Bytes(bytes)) => time(bytes)?.map(Value::from),
        (Shape::Message(fields), Item::Bytes(bytes)) => {
            Some(Value::from(message(fields, bytes)?)).filter(|_| !bytes.is_empty())
        }
        _ => return None,
    })
}

fn time(mut rest: &[u8]) -> Option<Option<String>> {
    let mut seconds = None;
    while !rest.is_empty() {
        if let (1, Item::Number(number)) = item(&mut rest)? {
            seconds = Some(number.cast_signed());
        }
    }
    let Some(seconds) = seconds else { return Some(None) };
    Some(Some(super::object::time(Timestamp::from_second(seconds).ok()?)))
}

fn entry(shape: Shape, mut rest: &[u8]) -> Option<(String, Value)> {
    let (mut key, mut value) = ("", [].as_slice());
    while !rest.is_empty() {
        match item(&mut rest)? {
            (1, Item::Bytes(bytes)) => key = std::str::from_utf8(bytes).ok()?,
            (2, Item::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    let value = match shape {
        Shape::BytesMap => STANDARD.encode(value).into(),
        _ => std::str::from_utf8(value).ok()?.into(),
    };
    Some((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What `kubectl create namespace foo` sends.
    const NAMESPACE_FOO: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x1b\x0a\x13\x0a\x03foo\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x00\x1a\x02\x0a\x00\x1a\x00\x22\x00";

    #[test]
    fn what_kubectl_sends_is_read() {
        let expected = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "foo", "generation": 0}, "status": {},
        });
        assert_eq!(decode(NAMESPACE_FOO), Ok(expected));
    }

    #[test]
    fn maps_of_bytes_become_base64() {
        let raw = b"\x0a\x03\x0a\x01s\x12\x08\x0a\x01k\x12\x03\x00\x01\x02";
        let mut body = b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Secret\x12".to_vec();
        body.push(u8::try_from(raw.len()).unwrap());
        body.extend(raw);
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AAEC"}});
        assert_eq!(decode(&body), Ok(expected));
    }

    #[test]
    fn other_kinds_and_other_bytes_are_refused() {
        let pod = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod";
        assert_eq!(decode(pod), Err(ProtobufError::Kind("Pod".to_owned())));
        assert_eq!(decode(b"{}"), Err(ProtobufError::Broken));
        for end in 4..NAMESPACE_FOO.len() {
            // Cut anywhere it is an error or a shorter object, and never a panic.
            let _ = decode(&NAMESPACE_FOO[..end]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..60_usize) {
            let mut body = NAMESPACE_FOO[..cut.min(NAMESPACE_FOO.len())].to_vec();
            body.extend(bytes);
            let _ = decode(&body);
        }
    }
}
