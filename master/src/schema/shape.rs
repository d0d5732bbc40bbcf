//! The definitions, compiled: fields by name, what they hold, how they merge. Small enough to keep.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::definition::{REFERENCE_PREFIX, definitions};
use super::merge::{Merge, merge};
use crate::resource::Kind;

/// The definition that the schema alone does not tell from an integer or a text.
pub(crate) const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// What a value may be.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Anything.
    Any,
    Bool,
    Text,
    /// Base64.
    Bytes,
    /// RFC 3339.
    Time,
    Int32,
    Int64,
    Number,
    /// A port's number or name.
    IntOrText,
    Quantity,
    List(Box<Shape>),
    Map(Box<Shape>),
    Object(ObjectId),
}

/// Which object shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ObjectId(usize);

/// An object with known fields.
#[derive(Debug, Default)]
pub(crate) struct ObjectShape {
    fields: BTreeMap<Box<str>, Field>,
}

/// One known field.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) shape: Shape,
    pub(crate) merge: Merge,
}

impl ObjectShape {
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }
}

struct Shapes {
    objects: Vec<ObjectShape>,
    by_definition: BTreeMap<String, Shape>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(compile);

/// The fields of an object shape.
pub(crate) fn object(id: ObjectId) -> Option<&'static ObjectShape> {
    SHAPES.objects.get(id.0)
}

/// What objects of a kind look like.
pub(crate) fn of_kind(kind: &Kind) -> &'static Shape {
    SHAPES.by_definition.get(kind.definition).unwrap_or(&Shape::Any)
}

fn compile() -> Shapes {
    let definitions = definitions();
    let mut by_definition = BTreeMap::new();
    let mut with_fields = Vec::new();
    for (name, definition) in &definitions {
        let shape = if definition.get("properties").is_some() {
            with_fields.push((name, definition));
            Shape::Object(ObjectId(with_fields.len() - 1))
        } else if name == QUANTITY {
            Shape::Quantity
        } else {
            shape(definition, &BTreeMap::new())
        };
        by_definition.insert(name.clone(), shape);
    }
    let objects = with_fields.iter().map(|(name, definition)| fields(name, definition, &by_definition)).collect();
    Shapes { objects, by_definition }
}

fn fields(name: &str, definition: &Value, known: &BTreeMap<String, Shape>) -> ObjectShape {
    let properties = definition["properties"].as_object().into_iter().flatten();
    let fields = properties
        .map(|(field, schema)| {
            (field.as_str().into(), Field { shape: shape(schema, known), merge: merge(name, field) })
        })
        .collect();
    ObjectShape { fields }
}

fn shape(schema: &Value, known: &BTreeMap<String, Shape>) -> Shape {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix(REFERENCE_PREFIX).unwrap_or(reference);
        return known.get(name).cloned().unwrap_or(Shape::Any);
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return Shape::IntOrText;
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("byte")) => Shape::Bytes,
        (Some("string"), Some("date-time")) => Shape::Time,
        (Some("string"), _) => Shape::Text,
        (Some("boolean"), _) => Shape::Bool,
        (Some("integer"), Some("int32")) => Shape::Int32,
        (Some("integer"), _) => Shape::Int64,
        (Some("number"), _) => Shape::Number,
        (Some("array"), _) => Shape::List(Box::new(shape(&schema["items"], known))),
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            Shape::Map(Box::new(shape(&schema["additionalProperties"], known)))
        }
        _ => Shape::Any,
    }
}
