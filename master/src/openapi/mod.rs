//! OpenAPI documents, by which kubectl explains, validates and merges. Built when first asked for.

use serde_json::Value;

/// The version 2 document as JSON.
pub fn v2_json() -> &'static [u8] {
    todo!()
}

/// The version 2 document as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf() -> &'static [u8] {
    todo!()
}

/// The body of `/openapi/v3`: where each group's document is.
pub fn v3_index() -> Value {
    todo!()
}

/// The version 3 document of `api/v1` or `apis/coordination.k8s.io/v1`.
pub fn v3(_group_version: &str) -> Option<&'static [u8]> {
    todo!()
}
