//! What is served: groups, versions, kinds, in the old form (one document for each group) and the new one (one for
//! all); the server's version, its health, and OpenAPI.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::reply::{self, JSON, Reply, accepted};
use super::status::Refusal;
use crate::openapi;
use crate::resource::{Kind, kinds};

/// The version of the Kubernetes API that this follows.
const MAJOR: &str = "1";
const MINOR: &str = "37";
const GIT_VERSION: &str = concat!("v1.37.0+berth", env!("CARGO_PKG_VERSION"));

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Clients ask for the first form; it is no media type that Go can parse, so the answer has the second.
const OPENAPI_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers what is not about objects.
pub(super) fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Result<Reply, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let known = document(path, headers).is_some();
        return Err(if known { Refusal::method_not_allowed() } else { Refusal::no_such_path() });
    }
    document(path, headers).unwrap_or_else(|| Err(Refusal::no_such_path()))
}

fn document(path: &str, headers: &HeaderMap) -> Option<Result<Reply, Refusal>> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let legacy = match parts.as_slice() {
        ["healthz" | "livez" | "readyz"] => return Some(Ok(reply::bytes(StatusCode::OK, "text/plain", "ok"))),
        ["openapi", "v2"] => return Some(openapi_v2(headers)),
        ["openapi", "v3"] => openapi::v3_index(),
        ["openapi", "v3", rest @ ..] => {
            let document = openapi::v3(&rest.join("/"))?;
            return Some(acceptable(headers).map(|()| reply::bytes(StatusCode::OK, JSON, document)));
        }
        [""] => paths(),
        ["version"] => version(),
        ["api"] if wants_aggregated(headers) => return Some(Ok(aggregated(true))),
        ["apis"] if wants_aggregated(headers) => return Some(Ok(aggregated(false))),
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().filter(|(group, _)| !group.is_empty()).map(group).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", name] => {
            let mut found = group(groups().into_iter().find(|(group, _)| group == name && !group.is_empty())?);
            found["kind"] = "APIGroup".into();
            found["apiVersion"] = "v1".into();
            found
        }
        ["api", version] => resources("", version)?,
        ["apis", group, version] if !group.is_empty() => resources(group, version)?,
        _ => return None,
    };
    Some(acceptable(headers).map(|()| reply::json(StatusCode::OK, &legacy)))
}

fn acceptable(headers: &HeaderMap) -> Result<(), Refusal> {
    let json = accepted(headers).iter().any(|entry| entry.is_json() && entry.parameter("as").is_none());
    if json { Ok(()) } else { Err(Refusal::not_acceptable(&[JSON])) }
}

fn openapi_v2(headers: &HeaderMap) -> Result<Reply, Refusal> {
    for entry in accepted(headers) {
        if entry.is(OPENAPI_PROTOBUF_ASKED) || entry.is(OPENAPI_PROTOBUF) {
            return Ok(reply::bytes(StatusCode::OK, OPENAPI_PROTOBUF, openapi::v2_protobuf()));
        }
        if entry.is_json() {
            return Ok(reply::bytes(StatusCode::OK, JSON, openapi::v2_json()));
        }
    }
    Err(Refusal::not_acceptable(&[JSON, OPENAPI_PROTOBUF]))
}

fn version() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform_architecture()),
    })
}

/// In Go's words, which clients compare.
fn platform_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn paths() -> Value {
    let mut paths: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .to_vec();
    for (group, versions) in groups() {
        for version in versions.keys() {
            let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            paths.push(path);
        }
    }
    paths.sort();
    json!({ "paths": paths })
}

type Versions = BTreeMap<&'static str, Vec<&'static Kind>>;

fn groups() -> BTreeMap<&'static str, Versions> {
    let mut groups: BTreeMap<_, Versions> = BTreeMap::new();
    for kind in kinds() {
        groups.entry(kind.group).or_default().entry(kind.version).or_default().push(kind);
    }
    groups
}

fn group((name, versions): (&'static str, Versions)) -> Value {
    let versions: Vec<Value> = versions
        .keys()
        .map(|version| json!({ "groupVersion": format!("{name}/{version}"), "version": version }))
        .collect();
    let preferred = versions.last().cloned();
    json!({ "name": name, "versions": versions, "preferredVersion": preferred })
}

fn resources(group: &str, version: &str) -> Option<Value> {
    let found: Vec<&Kind> = kinds().iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let group_version = found.first()?.api_version();
    let mut resources: Vec<Value> = found.into_iter().flat_map(resource).collect();
    if group.is_empty() {
        resources.push(json!({
            "name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding", "verbs": ["create"],
        }));
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

fn resource(kind: &Kind) -> Vec<Value> {
    let mut own = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    for (field, words) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !words.is_empty() {
            own[field] = words.into();
        }
    }
    let below = kind.subresources.iter().map(|sub| {
        json!({
            "name": format!("{}/{}", kind.plural, sub.name),
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        })
    });
    std::iter::once(own).chain(below).collect()
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let is_v2 = |entry: &reply::Accepted<'_>| {
        entry.parameter("g") == Some("apidiscovery.k8s.io")
            && entry.parameter("v") == Some("v2")
            && entry.parameter("as") == Some("APIGroupDiscoveryList")
    };
    accepted(headers).iter().any(is_v2)
}

fn aggregated(core: bool) -> Reply {
    let items: Vec<Value> =
        groups().into_iter().filter(|(group, _)| group.is_empty() == core).map(discovered).collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    reply::json_as(StatusCode::OK, AGGREGATED, &list)
}

fn discovered((name, versions): (&'static str, Versions)) -> Value {
    let metadata = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|(version, kinds)| {
            let mut resources: Vec<Value> = kinds.into_iter().map(discovered_resource).collect();
            if name.is_empty() {
                resources.push(json!({
                    "resource": "bindings",
                    "responseKind": { "group": "", "version": version, "kind": "Binding" },
                    "scope": "Namespaced",
                    "singularResource": "binding",
                    "verbs": ["create"],
                }));
            }
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    json!({ "metadata": metadata, "versions": versions })
}

fn discovered_resource(kind: &'static Kind) -> Value {
    let response_kind = |name: &str| json!({ "group": kind.group, "version": kind.version, "kind": name });
    let mut found = json!({
        "resource": kind.plural,
        "responseKind": response_kind(kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    for (field, words) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !words.is_empty() {
            found[field] = words.into();
        }
    }
    let below: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| json!({ "subresource": sub.name, "responseKind": response_kind(sub.kind), "verbs": sub.verbs }))
        .collect();
    if !below.is_empty() {
        found["subresources"] = below.into();
    }
    found
}
