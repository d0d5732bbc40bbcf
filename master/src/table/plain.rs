//! Kinds whose rows take no thought.

use jiff::Timestamp;
use serde_json::Value;

use super::age::age;
use super::{AGE, NAME, Printer, items, name, number, or, text};

/// Namespaces.
pub(super) const NAMESPACE: Printer = Printer {
    columns: &[NAME, text("Status", "The status of the namespace."), AGE],
    cells: |object, now| vec![name(object), or(&object["status"]["phase"], ""), age(object, now)],
};

/// ConfigMaps.
pub(super) const CONFIG_MAP: Printer = Printer {
    columns: &[NAME, number("Data", "How many keys there are."), AGE],
    cells: |object, now| vec![name(object), count(object, &["data", "binaryData"]), age(object, now)],
};

/// Secrets.
pub(super) const SECRET: Printer = Printer {
    columns: &[NAME, text("Type", "What the data is for."), number("Data", "How many keys there are."), AGE],
    cells: |object, now| vec![name(object), or(&object["type"], ""), count(object, &["data"]), age(object, now)],
};

/// ServiceAccounts.
pub(super) const SERVICE_ACCOUNT: Printer = Printer {
    columns: &[NAME, number("Secrets", "How many secrets the pods of this account may use."), AGE],
    cells: |object, now| vec![name(object), items(&object["secrets"]).len().into(), age(object, now)],
};

/// Leases.
pub(super) const LEASE: Printer = Printer {
    columns: &[NAME, text("Holder", "Who holds the lease."), AGE],
    cells: |object, now| vec![name(object), or(&object["spec"]["holderIdentity"], ""), age(object, now)],
};

/// What has no rows of its own.
pub(super) const ANYTHING: Printer = Printer { columns: &[NAME, AGE], cells: anything };

fn anything(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

fn count(object: &Value, fields: &[&str]) -> Value {
    let counts = fields.iter().filter_map(|field| object[*field].as_object());
    counts.map(serde_json::Map::len).sum::<usize>().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::tests::printed;

    #[test]
    fn plain_rows_read_as_in_kubectl() {
        let meta = json!({"name": "x", "creationTimestamp": "2026-01-01T11:59:00Z"});
        for (group, plural, object, expected) in [
            ("", "namespaces", json!({"metadata": meta, "status": {"phase": "Active"}}), "x  Active  60s"),
            ("", "configmaps", json!({"metadata": meta, "data": {"a": ""}, "binaryData": {"b": ""}}), "x  2  60s"),
            ("", "secrets", json!({"metadata": meta, "type": "Opaque", "data": {"a": ""}}), "x  Opaque  1  60s"),
            ("", "serviceaccounts", json!({"metadata": meta}), "x  0  60s"),
            ("coordination.k8s.io", "leases", json!({"metadata": meta, "spec": {"holderIdentity": "n"}}), "x  n  60s"),
        ] {
            assert_eq!(printed(group, plural, object), expected);
        }
    }
}
