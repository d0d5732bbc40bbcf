//! What the types of `oci-spec` refuse though the specification does not: mended in the text before it is read again.

use berth_sys::caps;
use serde_json::Value;

/// Names that the specification and the types spell differently.
const SPELLINGS: [(&str, &str); 2] =
    [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// Mends a `config.json`.
pub(crate) fn container(config: &mut Value) {
    if let Some(process) = config.get_mut("process") {
        self::process(process);
    }
}

/// Mends a `process` object.
pub(crate) fn process(process: &mut Value) {
    // What the kernel does not know cannot be granted, and is no reason to refuse the rest.
    for set in
        process.get_mut("capabilities").and_then(Value::as_object_mut).into_iter().flat_map(|sets| sets.values_mut())
    {
        if let Some(names) = set.as_array_mut() {
            names.retain(|name| name.as_str().is_some_and(|name| caps::Set::named(&canonical(name)).is_some()));
        }
    }
    for flag in process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((_, known)) = SPELLINGS.iter().find(|(given, _)| flag.as_str() == Some(given)) {
            *flag = (*known).into();
        }
    }
}

fn canonical(name: &str) -> String {
    ::caps::to_canonical(name)
}
