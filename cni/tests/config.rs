//! Configuration that makes no sense is refused by its field, and nothing in it makes the parser panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use berth_cni::{Dirs, Error, Network};
use proptest::prelude::*;
use serde_json::{Value, json};

fn dirs() -> Dirs {
    Dirs { state: "/nonexistent".into(), bin: vec!["/nonexistent/bin".into()] }
}

fn list() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "pods",
        "plugins": [
            {"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "mtu": 1400,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "loopback"},
        ],
    })
}

/// The list with the value at a JSON pointer replaced; the error's code and text.
fn check(pointer: &str, value: Value, code: u32, text: &str) {
    let mut list = list();
    match list.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            list.pointer_mut(parent).unwrap()[key] = value;
        }
    }
    let error = Network::parse(list.to_string().as_bytes(), dirs()).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert_eq!(error.to_string(), format!("network configuration: {text}"));
}

#[test]
fn bad_fields_are_named() {
    Network::parse(list().to_string().as_bytes(), dirs()).unwrap();
    check("/name", json!(null), 7, "name: is missing");
    let rule = "must be letters, digits, '_', '.', '-', the first of them a letter or digit, at most 64";
    check("/name", json!("../x"), 7, &format!("name: \"../x\" {rule}"));
    check("/plugins", json!([]), 7, "plugins: has no plugin");
    check("/plugins", json!({}), 7, "plugins: must be a list, but is an object");
    check("/plugins/0", json!("bridge"), 7, "plugins[0]: must be an object, but is text");
    check("/plugins/0/type", json!(null), 7, "plugins[0].type: is missing");
    check("/plugins/2/type", json!("../sh"), 7, "plugins[2].type: \"../sh\" is no name of a program");
    check("/plugins/0/mtu", json!(12), 7, "plugins[0].mtu: 12 is not between 68 and 65535");
    check("/plugins/0/isGateway", json!("yes"), 7, "plugins[0].isGateway: must be true or false, but is text");
    check("/plugins/0/vlan", json!(7), 7, "plugins[0].vlan: is not supported by the built-in bridge");
    check("/plugins/0/ipam/type", json!(null), 7, "plugins[0].ipam.type: is missing");
    let subnet = "/plugins/0/ipam/ranges/0/0/subnet";
    let host_bits = "10.0.0.1/24 has bits of a host set; the network is 10.0.0.0/24";
    check(subnet, json!("10.0.0.1/24"), 7, &format!("plugins[0].ipam.ranges[0][0].subnet: {host_bits}"));
    check("/plugins/0/ipam/routes/0/dst", json!(null), 7, "plugins[0].ipam.routes[0].dst: is missing");
    let versions = "use one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";
    check("/cniVersion", json!("2.0.0"), 1, &format!("cniVersion: \"2.0.0\" is not supported; {versions}"));
}

#[test]
fn text_that_is_no_list_cannot_be_decoded() {
    for text in ["", "{", "[]", "null", "\u{0}"] {
        let error = Network::parse(text.as_bytes(), dirs()).unwrap_err();
        assert_eq!(error.code(), 6);
        assert_eq!(error.to_string(), "cannot decode the network configuration list");
    }
}

#[test]
fn the_first_list_of_a_folder_counts_and_its_errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let find = || Network::first_in(folder.path(), dirs());
    assert!(find().unwrap().is_none());
    assert!(Network::first_in(&folder.path().join("none"), dirs()).unwrap().is_none());
    std::fs::write(folder.path().join("10-a.conf"), "not a list").unwrap();
    std::fs::write(folder.path().join("20-b.conflist"), list().to_string()).unwrap();
    std::fs::write(folder.path().join("30-c.conflist"), "{").unwrap();
    assert_eq!(find().unwrap().unwrap().name(), "pods");
    let path = folder.path().join("15.conflist");
    std::fs::write(&path, json!({"cniVersion": "1.1.0", "name": ""}).to_string()).unwrap();
    assert_eq!(find().unwrap_err().to_string(), format!("network configuration: {}: name: is missing", path.display()));
}

#[test]
fn a_list_whose_plugin_is_not_installed_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut list = list();
    list["plugins"].as_array_mut().unwrap().push(json!({"type": "a-firewall"}));
    let dirs = Dirs { bin: vec![folder.path().to_owned()], ..dirs() };
    let network = Network::parse(list.to_string().as_bytes(), dirs).unwrap();
    assert!(network.missing_plugin().unwrap().to_string().contains("a-firewall"));
    std::fs::write(folder.path().join("a-firewall"), "").unwrap();
    assert!(network.missing_plugin().is_none());
}

#[test]
fn ranges_of_the_built_in_network_are_checked_too() {
    let make = |range: &str| Network::builtin("pods", "br0", &[range.parse().unwrap()], Some(1400), dirs());
    make("10.0.0.0/24").unwrap();
    assert!(matches!(make("10.0.0.0/31"), Err(Error::Config { .. })));
    assert!(
        Network::builtin("pods", "a-bridge-with-a-long-name", &["10.0.0.0/24".parse().unwrap()], None, dirs()).is_err()
    );
}

/// JSON of any shape, made of words that the parser knows.
fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "bridge",
        "host-local",
        "portmap",
        "10.0.0.0/24",
        "::/0",
        "0.0.0.0/0",
        "1.1.0",
        "x",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let keys = vec![
            "type",
            "ipam",
            "ranges",
            "subnet",
            "rangeStart",
            "gateway",
            "routes",
            "dst",
            "mtu",
            "bridge",
            "vlan",
            "name",
        ];
        let object = prop::collection::vec((prop::sample::select(keys), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = Network::parse(&bytes, dirs());
    }

    #[test]
    fn no_plugin_makes_it_panic(plugin in value(), ipam in value()) {
        let mut list = list();
        list["plugins"][1] = plugin;
        let _ = Network::parse(list.to_string().as_bytes(), dirs());
        list["plugins"][0]["ipam"] = ipam;
        let _ = Network::parse(list.to_string().as_bytes(), dirs());
    }
}
