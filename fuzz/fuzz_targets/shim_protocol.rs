//! Any bytes as what a shim and its client exchange or write down: an error, or a value that is the same once written
//! and read again.
#![no_main]

use berth_runtime::shim::document::{read, read_packet};
use berth_runtime::shim::protocol::{ExitRecord, FromShim, Reply, Request, SandboxSpec, ShimRecord};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn check<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let value: T = match read(bytes) {
        Ok(value) => value,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let text = serde_json::to_vec(&value).expect("it was JSON");
    let again: T = read(&text).expect("what was written can be read");
    // Capabilities are sets, which have no order, and the last digit of a fraction may move.
    let [first, second] = [&value, &again].map(|value| serde_json::to_value(value).expect("it was JSON"));
    assert_eq!(whole(first), whole(second));
}

fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::Null,
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(whole).collect();
            items.sort_by_cached_key(Value::to_string);
            items.into()
        }
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        other => other,
    }
}

fuzz_target!(|bytes: &[u8]| {
    check::<Request>(bytes);
    check::<Reply>(bytes);
    check::<FromShim>(bytes);
    check::<SandboxSpec>(bytes);
    check::<ShimRecord>(bytes);
    check::<ExitRecord>(bytes);
    let _ = read_packet(bytes);
});
