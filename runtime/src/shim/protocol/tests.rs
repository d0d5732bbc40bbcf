//! The protocol as its documentation shows it, and any bytes that are not it.

use std::path::PathBuf;

use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;
use crate::shim::document;

#[test]
fn a_log_is_limited_unless_it_says_otherwise() {
    let log = |text| serde_json::from_str::<LogSpec>(text).unwrap();
    let path = || PathBuf::from("/l");
    let defaults = LogSpec { path: path(), max_bytes: 10 << 20, max_files: 5 };
    assert_eq!(log(r#"{"path":"/l"}"#), defaults);
    let told = LogSpec { path: path(), max_bytes: 0, max_files: 1 };
    assert_eq!(log(r#"{"path":"/l","maxBytes":0,"maxFiles":1}"#), told);
}

#[test]
fn what_an_older_client_wrote_is_understood() {
    let create = r#"{"id":1,"call":{"verb":"create","container":"c","bundle":"/b","log":null}}"#;
    let request: Request = serde_json::from_str(create).unwrap();
    assert!(matches!(request.call, Call::Create { stdin: false, stdin_once: false, .. }));
    let record: ShimRecord = serde_json::from_str(r#"{"protocol":1,"pid":2,"startTime":3}"#).unwrap();
    assert_eq!(record.revision, 0);
    let namespaces = r#"{"net":"new","ipc":"new","uts":"host","pid":"container"}"#;
    let spec = format!(r#"{{"id":"s","hostname":"h","namespaces":{namespaces},"cgroup":"/c"}}"#);
    assert_eq!(serde_json::from_str::<SandboxSpec>(&spec).unwrap().handler, None);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, word) in [
        (r#"{"call":{"verb":"state"}}"#, "id"),
        (r#"{"id":1,"call":{"verb":"kill","container":"c"}}"#, "signal"),
        (r#"{"id":1,"call":{"verb":"resize","container":"c","columns":-1,"rows":1}}"#, "-1"),
        (r#"{"id":1,"call":{"verb":"fly"}}"#, "fly"),
    ] {
        let error = serde_json::from_str::<Request>(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// Documents that are nearly right, and others.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let right: [&[u8]; 6] = [
        br#"{"id":1,"call":{"verb":"create","container":"c","bundle":"/b","log":{"path":"/l","maxBytes":1}}}"#,
        br#"{"id":2,"call":{"verb":"exec","container":"c","exec":"e","process":{"args":["a"],"cwd":"/","user":{}}}}"#,
        br#"{"id":3,"result":{"Ok":{"kind":"state","containers":{}}}}"#,
        br#"{"event":"exited","container":"c","exit":{"code":0,"oomKilled":false,"finishedAt":"2024-01-01T00:00:00Z"}}"#,
        br#"{"id":"s","hostname":"h","namespaces":{"net":"new","ipc":"new","uts":"new","pid":"host"},"cgroup":"/c"}"#,
        br#"{"protocol":1,"revision":1,"pid":2,"startTime":3}"#,
    ];
    let changed =
        (proptest::sample::select(right.to_vec()), any::<proptest::sample::Index>(), any::<Vec<u8>>(), 0..9usize);
    let changed = changed.prop_map(|(text, at, put, taken)| {
        let at = at.index(text.len());
        let rest = &text[(at + taken).min(text.len())..];
        [&text[..at], &put, rest].concat()
    });
    prop_oneof![changed, any::<Vec<u8>>()]
}

/// What is accepted can be written and read again; what is not is told of.
fn check<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let told = match document::read::<T>(bytes) {
        Ok(value) => {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert!(document::read::<T>(&text).is_ok(), "{}", String::from_utf8_lossy(&text));
            return Ok(());
        }
        Err(error) => error.to_string(),
    };
    prop_assert!(!told.is_empty());
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in nearly()) {
        check::<Request>(&bytes)?;
        check::<Reply>(&bytes)?;
        check::<FromShim>(&bytes)?;
        check::<SandboxSpec>(&bytes)?;
        check::<ShimRecord>(&bytes)?;
        check::<ExitRecord>(&bytes)?;
        let _ = document::read_packet(&bytes);
    }
}
