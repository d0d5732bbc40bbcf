//! The schema definitions of all kinds and of what they contain, as JSON, with `#/definitions/…` references.
//!
//! They are large (descriptions), so they are made when a document is asked for and not kept.

use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::resource::kinds;

/// Where references point.
pub(crate) const REFERENCE_PREFIX: &str = "#/definitions/";

/// All definitions by name, `io.k8s.api.core.v1.Pod`.
pub(crate) fn definitions() -> Map<String, Value> {
    let settings = SchemaSettings::draft07().with(|s| {
        s.definitions_path = "/definitions".into();
        // As written: a description may stand beside a reference.
        s.transforms = Vec::new();
    });
    let mut generator = SchemaGenerator::new(settings);
    for kind in kinds() {
        kind.add_schema(&mut generator);
    }
    // What is sent and answered besides the kinds themselves.
    let _references = [
        generator.subschema_for::<Binding>(),
        generator.subschema_for::<DeleteOptions>(),
        generator.subschema_for::<Status>(),
    ];
    let mut definitions = generator.take_definitions(false);
    for definition in definitions.values_mut() {
        forget_required_metadata(definition);
    }
    definitions
}

/// The generated types always have metadata; manifests need not.
fn forget_required_metadata(definition: &mut Value) {
    let Some(fields) = definition.as_object_mut() else { return };
    if let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "metadata");
        if required.is_empty() {
            fields.remove("required");
        }
    }
}
