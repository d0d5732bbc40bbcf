//! What `kubectl get` prints: lists as rows and columns, `meta.k8s.io/v1` Table.
//!
//! Columns and cells are those of Kubernetes. Columns of priority 1 are shown with `-o wide`.

mod age;
mod event;
mod node;
mod plain;
mod pod;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resource::Kind;

/// How much of each object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata; the default.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// How objects of one kind become rows.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// One column.
struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    priority: u8,
    description: &'static str,
}

/// The column with the object's name, which kubectl must find.
const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace.",
};

const AGE: Column = text("Age", "How long ago the object was created.");

const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description }
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..text(name, description) }
}

const fn number(name: &'static str, description: &'static str) -> Column {
    Column { kind: "integer", ..text(name, description) }
}

fn printer(kind: &Kind) -> &'static Printer {
    match (kind.group, kind.kind) {
        ("", "Pod") => &pod::PRINTER,
        ("", "Node") => &node::PRINTER,
        ("", "Namespace") => &plain::NAMESPACE,
        ("", "ConfigMap") => &plain::CONFIG_MAP,
        ("", "Secret") => &plain::SECRET,
        ("", "ServiceAccount") => &plain::SERVICE_ACCOUNT,
        ("", "Event") => &event::PRINTER,
        ("coordination.k8s.io", "Lease") => &plain::LEASE,
        _ => &plain::ANYTHING,
    }
}

/// Objects of one kind as a table. `list_meta` becomes the table's metadata.
pub fn table(kind: &Kind, objects: &[Value], include: IncludeObject, now: Timestamp, list_meta: Value) -> Value {
    let printer = printer(kind);
    let columns: Vec<Value> = printer.columns.iter().map(column).collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| json!({"cells": (printer.cells)(object, now), "object": included(object, include)}))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn column(column: &Column) -> Value {
    let Column { name, kind, format, priority, description } = column;
    json!({"name": name, "type": kind, "format": format, "priority": priority, "description": description})
}

fn included(object: &Value, include: IncludeObject) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        }),
    }
}

/// The name of an object, for its first cell.
fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// A text, or what Kubernetes shows where there is none.
fn or_none(value: &Value) -> Value {
    or(value, "<none>")
}

fn or(value: &Value, absent: &str) -> Value {
    match value.as_str() {
        Some(text) if !text.is_empty() => text.into(),
        _ => absent.into(),
    }
}

/// The items of a list field, or none.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{find, kinds};

    /// The table of one object as kubectl would print it, wide columns after a bar.
    pub(super) fn printed(group: &str, plural: &str, object: Value) -> String {
        let kind = find(group, "v1", plural).unwrap();
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let table = table(kind, &[object], IncludeObject::None, now, json!({}));
        let columns = table["columnDefinitions"].as_array().unwrap();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(columns.len(), cells.len());
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let part = |priority: u8| {
            let shown = columns.iter().zip(cells).filter(|(c, _)| c["priority"] == priority);
            shown.map(|(_, cell)| plain(cell)).collect::<Vec<_>>().join("  ")
        };
        let wide = part(1);
        if wide.is_empty() { part(0) } else { format!("{} | {wide}", part(0)) }
    }

    #[test]
    fn every_kind_prints_even_what_is_empty() {
        for kind in kinds() {
            printed(kind.group, kind.plural, json!({}));
            printed(kind.group, kind.plural, json!({"metadata": 1, "spec": [], "status": "x", "data": 2}));
        }
    }

    #[test]
    fn rows_carry_what_is_asked_for() {
        let pods = find("", "v1", "pods").unwrap();
        let object = json!({"metadata": {"name": "p"}, "spec": {"x": 1}});
        let row = |include| {
            let now = Timestamp::UNIX_EPOCH;
            table(pods, std::slice::from_ref(&object), include, now, json!({"resourceVersion": "7"}))
        };
        assert_eq!(row(IncludeObject::Metadata)["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(row(IncludeObject::Metadata)["rows"][0]["object"]["spec"], Value::Null);
        assert_eq!(row(IncludeObject::Object)["rows"][0]["object"], object);
        assert_eq!(row(IncludeObject::None)["rows"][0]["object"], Value::Null);
        assert_eq!(row(IncludeObject::None)["metadata"]["resourceVersion"], "7");
    }
}
