//! OpenAPI documents, by which kubectl explains, validates and merges.
//!
//! Both versions are made from the same definitions and the same table of kinds. Each document is built when it is
//! first asked for, and then kept as bytes.

mod definition;
mod path;
mod protobuf;

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::resource::{Kind, kinds};

/// Which version of the specification a document is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edition {
    V2,
    V3,
}

/// The version 2 document as JSON.
pub fn v2_json() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| v2().to_string().into_bytes())
}

/// The version 2 document as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| protobuf::document(&v2()))
}

/// The body of `/openapi/v3`: where each group's document is. The hash changes with the document, so that clients may
/// keep what they have.
pub fn v3_index() -> Value {
    let paths: Map<String, Value> = V3
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The version 3 document of `api/v1` or `apis/coordination.k8s.io/v1`.
pub fn v3(group_version: &str) -> Option<&'static [u8]> {
    V3.get(group_version).map(|document| document.bytes.as_slice())
}

struct Document {
    bytes: Vec<u8>,
    hash: String,
}

/// The version 3 documents by the path of their group.
static V3: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let mut groups: BTreeMap<String, Vec<&'static Kind>> = BTreeMap::new();
    for kind in kinds() {
        groups.entry(group_path(kind)).or_default().push(kind);
    }
    let definitions = definition::annotated(Edition::V3);
    let document = |kinds: &[&Kind]| {
        let paths = path::paths(kinds, Edition::V3);
        let schemas = definition::reachable(&definitions, &paths);
        let document = json!({
            "openapi": "3.0.0",
            "info": info(),
            "paths": paths,
            "components": {"schemas": schemas},
        });
        let bytes = document.to_string().into_bytes();
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        Document { bytes, hash }
    };
    groups.iter().map(|(path, kinds)| (path.clone(), document(kinds))).collect()
});

fn v2() -> Value {
    let all: Vec<&Kind> = kinds().iter().collect();
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": path::paths(&all, Edition::V2),
        "definitions": definition::annotated(Edition::V2),
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": concat!("berth-", env!("CARGO_PKG_VERSION"))})
}

/// `api/v1` for the core group, `apis/GROUP/VERSION` for the others.
fn group_path(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

/// `x-kubernetes-group-version-kind` of a kind.
fn group_version_kind(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    #[test]
    fn the_second_edition_has_what_kubectl_reads() {
        let document: Value = serde_json::from_slice(v2_json()).unwrap();
        let definitions = &document["definitions"];
        assert_eq!(
            definitions[POD]["x-kubernetes-group-version-kind"],
            json!([{"group": "", "version": "v1", "kind": "Pod"}])
        );
        assert_eq!(definitions[POD]["required"], Value::Null);
        let spec = &definitions["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["required"], json!(["containers"]));
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(spec["properties"]["containers"]["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.Container");
        assert_eq!(spec["properties"]["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        assert_eq!(definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
        assert_eq!(definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "dryRun"));
    }

    #[test]
    fn the_third_edition_has_what_kubectl_reads() {
        let index = v3_index();
        let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/openapi/v3/api/v1?hash="), "{url}");
        let document: Value = serde_json::from_slice(v3("api/v1").unwrap()).unwrap();
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
        let pod = &document["components"]["schemas"][POD];
        assert_eq!(pod["properties"]["spec"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.PodSpec");
        assert!(pod["properties"]["spec"]["description"].as_str().unwrap().starts_with("Specification"));
        assert!(v3("apis/coordination.k8s.io/v1").is_some());
        assert!(v3("apis/apps/v1").is_none());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|v| references(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        for bytes in [v2_json(), v3("api/v1").unwrap(), v3("apis/coordination.k8s.io/v1").unwrap()] {
            let document: Value = serde_json::from_slice(bytes).unwrap();
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() > 10);
            for reference in found {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
            }
        }
    }
}
