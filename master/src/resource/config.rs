//! What pods are given: ConfigMap, Secret, ServiceAccount.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::strategy::Strategy;
use super::{FieldError, meta};

/// All keys and values of a ConfigMap or a Secret together.
const DATA_BYTES_MAX: usize = 1024 * 1024;
const KEY_BYTES_MAX: usize = 253;

const KEY_WORDS: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
     'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// ConfigMaps: keys of a certain form, a bounded size, and frozen when they say so.
pub(super) struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        for key in object["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
            check_key("data", key, errors);
            if !object["binaryData"][key].is_null() {
                let detail = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(format!("data[{key}]"), &key.as_str().into(), detail));
            }
        }
        for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
            check_key("binaryData", key, errors);
            check_base64(&format!("binaryData[{key}]"), value, errors);
        }
        check_size("", &[&object["data"], &object["binaryData"]], errors);
    }

    fn validate_update(&self, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
        check_frozen(old, new, &["data", "binaryData"], errors);
    }
}

/// Secrets: `stringData` is merged into `data`, certain types need certain keys, and the type stays.
pub(super) struct SecretStrategy;

/// Secret types and the keys that they need.
const SECRET_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Strategy for SecretStrategy {
    fn default(&self, object: &mut Value) {
        let Some(members) = object.as_object_mut() else { return };
        meta::default(members, "type", "Opaque");
        let Some(Value::Object(texts)) = members.remove("stringData") else { return };
        let Some(data) = meta::child(members, "data") else { return };
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            data.insert(key, BASE64.encode(text).into());
        }
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let data = &object["data"];
        for (key, value) in data.as_object().into_iter().flatten() {
            check_key("data", key, errors);
            check_base64(&format!("data[{key}]"), value, errors);
        }
        check_size("data", &[data], errors);
        let needed = SECRET_KEYS.iter().find(|(kind, _)| object["type"] == *kind).map_or(&[][..], |(_, keys)| keys);
        for key in needed {
            if data[*key].is_null() {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
        if object["type"] == "kubernetes.io/basic-auth" && data["username"].is_null() && data["password"].is_null() {
            errors.push(FieldError::required("data[username]", ""));
            errors.push(FieldError::required("data[password]", ""));
        }
    }

    fn validate_update(&self, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
        if old["type"] != new["type"] {
            errors.push(FieldError::invalid("type", &new["type"], "field is immutable"));
        }
        check_frozen(old, new, &["data"], errors);
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }
}

/// Service accounts: nothing special yet.
pub(super) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {}

fn check_key(field: &str, key: &str, errors: &mut Vec<FieldError>) {
    let path = format!("{field}[{key}]");
    let value = Value::from(key);
    let form = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if key.len() > KEY_BYTES_MAX {
        errors.push(FieldError::invalid(path, &value, "must be no more than 253 bytes"));
    } else if !form {
        errors.push(FieldError::invalid(path, &value, KEY_WORDS));
    } else if key == "." || key.starts_with("..") {
        // A key becomes a file's name.
        errors.push(FieldError::invalid(path, &value, "must not be '.' or start with '..'"));
    }
}

fn check_base64(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if value.as_str().is_none_or(|text| BASE64.decode(text).is_err()) {
        errors.push(FieldError::invalid(path, value, "must be base64 encoded bytes"));
    }
}

fn check_size(field: &str, maps: &[&Value], errors: &mut Vec<FieldError>) {
    let values = maps.iter().filter_map(|map| map.as_object()).flatten();
    let bytes: usize = values.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(field, DATA_BYTES_MAX));
    }
}

/// What is marked immutable stays so, with its data.
fn check_frozen(old: &Value, new: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if old[*field] != new[*field] {
            errors.push(FieldError::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::{find, strategy_tests::refusals};

    #[test]
    fn config_maps_are_checked() {
        for (object, expected) in [
            (json!({"data": {"a b": "x"}}), r#"data[a b]: Invalid value: "a b": a valid config key"#),
            (json!({"data": {"..x": "x"}}), "data[..x]: Invalid value"),
            (json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}), "data[a]: Invalid value"),
            (json!({"binaryData": {"a": "?"}}), "binaryData[a]: Invalid value"),
            (json!({"data": {"a": "x".repeat(1024 * 1024)}}), ": Too long: may not be more than 1048576 bytes"),
        ] {
            let said = refusals("configmaps", object);
            assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
        }
        assert_eq!(refusals("configmaps", json!({"data": {"a.b_c-D": "x"}})), [""; 0]);
    }

    #[test]
    fn secrets_take_texts_and_need_their_keys() {
        let kind = find("", "v1", "secrets").unwrap();
        let mut secret = json!({"stringData": {"a": "hello"}, "data": {"a": "eA==", "b": "eQ=="}});
        kind.prepare_create(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "aGVsbG8=", "b": "eQ=="}, "type": "Opaque"}));
        assert_eq!(
            refusals("secrets", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
            ["data[tls.key]: Required value"]
        );
        assert!(refusals("secrets", json!({"data": {"a": "?"}}))[0].starts_with("data[a]: Invalid value"));
    }

    #[test]
    fn what_is_immutable_stays() {
        let kind = find("", "v1", "configmaps").unwrap();
        let old = json!({"metadata": {"name": "c", "namespace": "d"}, "immutable": true, "data": {"a": "1"}});
        let mut new = old.clone();
        new["data"]["a"] = "2".into();
        let said: Vec<String> = kind.validate_update(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["data: Forbidden: field is immutable when `immutable` is set"]);
    }
}
