//! The server without its sockets: whatever is asked, it answers, and never with a fault of its own.

use http::Request;
use http_body_util::Full;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::pki::{GROUP_MASTERS, Pki};

struct Bare {
    _folder: tempfile::TempDir,
    api: Arc<Api>,
    runtime: tokio::runtime::Runtime,
}

impl Bare {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(&folder.path().join("pki")).unwrap();
        let client = pki.client("kubelet-client", "master", &[GROUP_MASTERS]).unwrap();
        let kubelets = Kubelets::new(pki.ca_pem(), &client).unwrap();
        let store = Store::open(&folder.path().join("store.redb")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(make_initial(&store)).unwrap();
        let bare =
            Self { _folder: folder, api: Arc::new(Api { store, kubelets, stop: CancellationToken::new() }), runtime };
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(
            bare.ask("POST", "/api/v1/namespaces/default/pods", "application/json", pod.to_string().as_bytes()),
            201
        );
        bare
    }

    fn ask(&self, method: &str, uri: &str, content_type: &str, body: &[u8]) -> u16 {
        let request = Request::builder().method(method).uri(uri).header("content-type", content_type);
        let Ok(request) = request.body(Full::new(Bytes::copy_from_slice(body))) else { return 0 };
        let user = Arc::new(User::new("tester", &[GROUP_MASTERS]));
        self.runtime.block_on(self.api.answer(user, request)).status().as_u16()
    }
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("/api/v1/namespaces/default/pods".to_owned()),
        Just("/api/v1/namespaces/default/pods/p".to_owned()),
        Just("/api/v1/namespaces/default/pods/p/status".to_owned()),
        Just("/api/v1/namespaces/default/pods/p/binding".to_owned()),
        Just("/api/v1/namespaces/default/bindings".to_owned()),
        Just("/api/v1/namespaces/default/secrets".to_owned()),
        Just("/api/v1/nodes".to_owned()),
        Just("/api/v1/namespaces/x/finalize".to_owned()),
        "/[a-z/]{0,20}",
    ]
}

/// Objects near enough to real ones that they get past the first checks.
fn near_object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9./-]{0,9}".prop_map(Value::from),
    ];
    let field = prop_oneof![
        Just("metadata"),
        Just("name"),
        Just("namespace"),
        Just("labels"),
        Just("finalizers"),
        Just("spec"),
        Just("containers"),
        Just("resources"),
        Just("requests"),
        Just("cpu"),
        Just("status"),
        Just("conditions"),
        Just("type"),
        Just("target"),
        Just("data"),
        Just("deletionTimestamp"),
        Just("generateName"),
        Just("ports"),
        Just("env"),
        Just("volumes"),
        Just("op"),
        Just("path"),
        Just("value"),
        Just("$patch"),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field.clone(), inner), 0..6).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

fn content_type() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("application/json"),
        Just("application/merge-patch+json"),
        Just("application/json-patch+json"),
        Just("application/strategic-merge-patch+json"),
        Just("application/vnd.kubernetes.protobuf"),
        Just(""),
    ]
}

fn method() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("PATCH"), Just("DELETE"), Just("OPTIONS")]
}

#[test]
fn any_body_is_answered_without_a_fault() {
    let bare = Bare::new();
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    let body = prop_oneof![bytes, near_object().prop_map(|object| object.to_string().into_bytes())];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let cases = (method(), path(), content_type(), body, "[a-zA-Z=&%0-9]{0,12}");
    runner
        .run(&cases, |(method, path, content_type, body, query)| {
            let code = bare.ask(method, &format!("{path}?{query}"), content_type, &body);
            prop_assert!(code < 500, "{} {} answered {}", method, path, code);
            Ok(())
        })
        .unwrap();
}
