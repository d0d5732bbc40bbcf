//! The version 2 document in the protocol-buffer encoding that older kubectl insists on.
//!
//! Messages and field numbers are those of `openapi.v2.Document` (gnostic's OpenAPIv2.proto). Only what is in our
//! documents is encoded: length-delimited fields and booleans.

use serde_json::{Map, Value};

/// `openapi.v2.Document`.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let info = &document["info"];
    out.message(2, |m| {
        m.text(1, &info["title"]);
        m.text(2, &info["version"]);
    });
    out.message(8, |m| {
        for (name, path) in members(&document["paths"]) {
            m.named(2, name, |m| path_item(m, path));
        }
    });
    out.message(9, |m| {
        for (name, definition) in members(&document["definitions"]) {
            m.named(1, name, |m| schema(m, definition));
        }
    });
    out.bytes
}

fn path_item(m: &mut Message, path: &Value) {
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(described) = path.get(method) {
            m.message(field, |m| operation(m, described));
        }
    }
    for described in items(&path["parameters"]) {
        m.message(9, |m| parameter(m, described));
    }
}

fn operation(m: &mut Message, operation: &Value) {
    m.text(3, &operation["description"]);
    items(&operation["produces"]).iter().for_each(|t| m.text(6, t));
    items(&operation["consumes"]).iter().for_each(|t| m.text(7, t));
    for described in items(&operation["parameters"]) {
        m.message(8, |m| parameter(m, described));
    }
    m.message(9, |m| {
        for (code, response) in members(&operation["responses"]) {
            // NamedResponseValue > ResponseValue.response > Response; the schema is a SchemaItem.schema.
            m.named(1, code, |m| {
                m.message(1, |m| {
                    m.text(1, &response["description"]);
                    m.message(2, |m| m.message(1, |m| schema(m, &response["schema"])));
                });
            });
        }
    });
    extensions(m, 13, operation);
}

/// `ParametersItem.parameter > Parameter`, and there one of body, query and path.
fn parameter(m: &mut Message, parameter: &Value) {
    m.message(1, |m| match parameter["in"].as_str() {
        Some("body") => m.message(1, |m| {
            m.text(2, &parameter["name"]);
            m.text(3, &parameter["in"]);
            m.boolean(4, &parameter["required"]);
            m.message(5, |m| schema(m, &parameter["schema"]));
        }),
        Some("path") => m.message(2, |m| {
            m.message(4, |m| {
                m.boolean(1, &parameter["required"]);
                m.text(2, &parameter["in"]);
                m.text(3, &parameter["description"]);
                m.text(4, &parameter["name"]);
                m.text(5, &parameter["type"]);
            });
        }),
        _ => m.message(2, |m| {
            m.message(3, |m| {
                m.text(2, &parameter["in"]);
                m.text(3, &parameter["description"]);
                m.text(4, &parameter["name"]);
                m.text(6, &parameter["type"]);
            });
        }),
    });
}

fn schema(m: &mut Message, described: &Value) {
    m.text(1, &described["$ref"]);
    m.text(2, &described["format"]);
    m.text(4, &described["description"]);
    items(&described["required"]).iter().for_each(|name| m.text(19, name));
    if described["additionalProperties"].is_object() {
        m.message(21, |m| m.message(1, |m| schema(m, &described["additionalProperties"])));
    }
    if described["type"].is_string() {
        m.message(22, |m| m.text(1, &described["type"]));
    }
    if described["items"].is_object() {
        m.message(23, |m| m.message(1, |m| schema(m, &described["items"])));
    }
    if described["properties"].is_object() {
        m.message(25, |m| {
            for (name, property) in members(&described["properties"]) {
                m.named(1, name, |m| schema(m, property));
            }
        });
    }
    extensions(m, 31, described);
}

/// `NamedAny`: the value as YAML, of which JSON is a part.
fn extensions(m: &mut Message, field: u32, described: &Value) {
    for (name, value) in members(described).filter(|(name, _)| name.starts_with("x-")) {
        m.named(field, name, |m| m.text(2, &format!("{value}\n").into()));
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A message as it is written.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

/// Wire types.
const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

impl Message {
    /// A text field; nothing where there is no text, which means the same.
    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.delimited(field, text.as_bytes());
        }
    }

    /// A boolean field; nothing for false, which means the same.
    fn boolean(&mut self, field: u32, value: &Value) {
        if value == true {
            self.varint(u64::from(field) << 3 | VARINT);
            self.varint(1);
        }
    }

    /// A field that is a message.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.delimited(field, &inner.bytes);
    }

    /// A field that is a pair of a name (1) and a message (2): how maps are written.
    fn named(&mut self, field: u32, name: &str, write: impl FnOnce(&mut Message)) {
        self.message(field, |m| {
            m.delimited(1, name.as_bytes());
            m.message(2, write);
        });
    }

    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.bytes.push(low & 0x7f);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Fields of a message as (number, bytes), for messages of length-delimited fields.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            assert_eq!(tag & 7, LENGTH_DELIMITED);
            let len = usize::try_from(varint(&mut bytes)).unwrap();
            found.push((tag >> 3, bytes[..len].to_vec()));
            bytes = &bytes[len..];
        }
        found
    }

    #[test]
    fn documents_are_written_as_messages() {
        let bytes = document(&json!({"swagger": "2.0", "info": {"title": "t", "version": "v"}, "paths": {},
            "definitions": {"a.B": {"type": "object", "description": "x".repeat(200),
                "x-kubernetes-group-version-kind": [{"kind": "B"}]}}}));
        let top = fields(&bytes);
        assert_eq!(top.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 8, 9]);
        let named = fields(&fields(&top[3].1)[0].1);
        assert_eq!(named[0], (1, b"a.B".to_vec()));
        let schema = fields(&named[1].1);
        assert_eq!(schema[0], (4, vec![b'x'; 200]));
        assert_eq!(schema[1], (22, [b"\x0a\x06".as_slice(), b"object"].concat()));
        let extension = fields(&schema[2].1);
        assert_eq!(extension[0].1, b"x-kubernetes-group-version-kind");
        assert_eq!(fields(&extension[1].1), [(2, b"[{\"kind\":\"B\"}]\n".to_vec())]);
    }

    #[test]
    fn the_whole_document_can_be_read_back() {
        let top = fields(super::super::v2_protobuf());
        assert!(fields(&top[3].1).len() > 100, "definitions");
    }
}
