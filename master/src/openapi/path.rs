//! The paths of the kinds and what can be done at them, with the parameters that clients look for.

use serde_json::{Map, Value, json};

use super::definition::{DELETE_OPTIONS, PATCH, STATUS, reference};
use super::{Edition, group_path, group_version_kind};
use crate::patch::ACCEPTED;
use crate::resource::Kind;

/// A query parameter: name, type, meaning.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = ("dryRun", "string", "When present, indicates that modifications should not be persisted.");
const MANAGER: Parameter = ("fieldManager", "string", "The name of the actor that makes the change.");
const VALIDATION: Parameter =
    ("fieldValidation", "string", "What to do about unknown or duplicate fields: Ignore, Warn or Strict.");
const WRITE: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How long the object may take to end."),
    ("propagationPolicy", "string", "Whether and how dependents are deleted: Orphan, Background or Foreground."),
];
const LIST: &[Parameter] = &[
    ("continue", "string", "Where the last page ended."),
    ("fieldSelector", "string", "Restricts the list by fields."),
    ("labelSelector", "string", "Restricts the list by labels."),
    ("limit", "integer", "How many objects a page has at most."),
    ("resourceVersion", "string", "How new the answer must be."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied."),
    ("timeoutSeconds", "integer", "How long the call may take."),
    ("watch", "boolean", "Whether changes follow."),
];

/// One operation: HTTP method, verb, parameters, name of the body's definition.
struct Operation {
    method: &'static str,
    verb: &'static str,
    parameters: &'static [Parameter],
    body: Option<&'static str>,
}

/// All paths of some kinds.
pub(super) fn paths(kinds: &[&Kind], edition: Edition) -> Value {
    let mut paths = Map::new();
    for kind in kinds {
        let base = format!("/{}", group_path(kind));
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{base}{scope}/{}", kind.plural);
        let item = format!("{collection}/{{name}}");
        if kind.namespaced {
            let everywhere = [list(kind)];
            paths.insert(format!("{base}/{}", kind.plural), path(kind, &everywhere, &[], edition));
        }
        let names = if kind.namespaced { &["namespace", "name"][..] } else { &["name"] };
        let collection_names = &names[..names.len() - 1];
        paths.insert(collection, path(kind, &on_collection(kind), collection_names, edition));
        paths.insert(item.clone(), path(kind, &on_item(kind), names, edition));
        if kind.has_status {
            paths.insert(format!("{item}/status"), path(kind, &on_status(kind), names, edition));
        }
    }
    Value::Object(paths)
}

fn list(_kind: &Kind) -> Operation {
    Operation { method: "get", verb: "list", parameters: LIST, body: None }
}

fn on_collection(kind: &Kind) -> Vec<Operation> {
    let create = Operation { method: "post", verb: "create", parameters: WRITE, body: Some(kind.definition) };
    let clear =
        Operation { method: "delete", verb: "deletecollection", parameters: DELETE, body: Some(DELETE_OPTIONS) };
    allowed(kind, vec![list(kind), create, clear])
}

fn on_item(kind: &Kind) -> Vec<Operation> {
    let delete = Operation { method: "delete", verb: "delete", parameters: DELETE, body: Some(DELETE_OPTIONS) };
    let mut operations = on_status(kind);
    operations.push(delete);
    allowed(kind, operations)
}

fn on_status(kind: &Kind) -> Vec<Operation> {
    vec![
        Operation { method: "get", verb: "get", parameters: &[], body: None },
        Operation { method: "put", verb: "update", parameters: WRITE, body: Some(kind.definition) },
        Operation { method: "patch", verb: "patch", parameters: WRITE, body: Some(PATCH) },
    ]
}

fn allowed(kind: &Kind, operations: Vec<Operation>) -> Vec<Operation> {
    operations.into_iter().filter(|operation| kind.verbs.contains(&operation.verb)).collect()
}

fn path(kind: &Kind, operations: &[Operation], names: &[&str], edition: Edition) -> Value {
    let mut path = Map::new();
    for one in operations {
        path.insert(one.method.to_owned(), operation(kind, one, edition));
    }
    let parameters: Vec<Value> = names.iter().map(|name| parameter(name, "string", "", "path", edition)).collect();
    if !parameters.is_empty() {
        path.insert("parameters".to_owned(), parameters.into());
    }
    Value::Object(path)
}

fn operation(kind: &Kind, operation: &Operation, edition: Edition) -> Value {
    let mut parameters: Vec<Value> =
        operation.parameters.iter().map(|(name, kind, words)| parameter(name, kind, words, "query", edition)).collect();
    let media_types: &[&str] = if operation.verb == "patch" { &ACCEPTED } else { &["application/json"] };
    let answer = if operation.method == "delete" { STATUS } else { kind.definition };
    let mut described = json!({
        "description": format!("{} {}", operation.verb, kind.kind),
        "x-kubernetes-action": if operation.verb == "create" { "post" } else { operation.verb },
        "x-kubernetes-group-version-kind": group_version_kind(kind),
    });
    match edition {
        Edition::V2 => {
            if let Some(body) = operation.body {
                let schema = reference(body, edition);
                parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
            }
            described["consumes"] = json!(media_types);
            described["produces"] = json!(["application/json"]);
            described["responses"] = json!({"200": {"description": "OK", "schema": reference(answer, edition)}});
        }
        Edition::V3 => {
            if let Some(body) = operation.body {
                let content: Map<String, Value> = media_types
                    .iter()
                    .map(|media_type| ((*media_type).to_owned(), json!({"schema": reference(body, edition)})))
                    .collect();
                described["requestBody"] = json!({"content": content});
            }
            let content = json!({"application/json": {"schema": reference(answer, edition)}});
            described["responses"] = json!({"200": {"description": "OK", "content": content}});
        }
    }
    described["parameters"] = parameters.into();
    described
}

fn parameter(name: &str, kind: &str, words: &str, place: &str, edition: Edition) -> Value {
    let mut parameter = json!({"name": name, "in": place, "description": words});
    if place == "path" {
        parameter["required"] = true.into();
    }
    match edition {
        Edition::V2 => parameter["type"] = kind.into(),
        Edition::V3 => parameter["schema"] = json!({"type": kind}),
    }
    parameter
}
