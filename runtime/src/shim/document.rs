//! JSON documents read with errors that name the field.

use std::io;
use std::path::Path;

use berth_sys::file;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::protocol::FromShim;

/// How many fields of one object are tried in the search for the wrong one.
const FIELDS_MAX: usize = 64;

/// What tells calls, answers and events apart. Without it nothing is right, whatever is wrong.
const TAGS: [&str; 3] = ["verb", "kind", "event"];

/// How deep the search goes.
const DEPTH_MAX: usize = 8;

/// The largest document that is kept in a file of a sandbox.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a document from a file of at most a mebibyte, as [`read`].
pub fn read_file<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    read(&file::read_limited(path, FILE_BYTES_MAX)?)
}

/// Reads a document. `InvalidData`: it is none, or a field makes no sense, which the message begins with.
pub fn read<T: DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    if let Ok(document) = serde_json::from_slice(content) {
        return Ok(document);
    }
    let mut reader = serde_json::Deserializer::from_slice(content);
    let document = serde_path_to_error::deserialize(&mut reader);
    let (path, error) = match document.map(|document| reader.end().map(|()| document)) {
        Ok(Ok(document)) => return Ok(document),
        Ok(Err(error)) => (String::new(), error),
        Err(error) => (error.path().to_string(), error.into_inner()),
    };
    // Within what is told apart by a tag serde does not say where it is: then the field is the one without which the
    // error is another.
    let is_tag = error.to_string().starts_with("unknown variant");
    let document = serde_json::from_slice::<Value>(content).ok();
    let found = document.and_then(|mut document| culprit::<T>(&mut document, is_tag));
    let path = found.unwrap_or(path);
    let error = if path.is_empty() || path == "." { error.to_string() } else { format!("{path}: {error}") };
    Err(io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a packet from a shim, as [`read`].
pub fn read_packet(content: &[u8]) -> io::Result<FromShim> {
    /// What tells an event from an answer.
    #[derive(Deserialize)]
    struct Tagged {
        #[serde(rename = "event")]
        _event: IgnoredAny,
    }
    // Of what could be either, serde tells no more than that it is neither.
    match (serde_json::from_slice(content), serde_json::from_slice::<Tagged>(content)) {
        (Ok(packet), _) => Ok(packet),
        (Err(_), Ok(_)) => read(content).map(FromShim::Event),
        (Err(_), Err(_)) => read(content).map(FromShim::Reply),
    }
}

fn culprit<T: DeserializeOwned>(document: &mut Value, is_tag: bool) -> Option<String> {
    let mut pointer = String::new();
    let mut path = Vec::new();
    for _ in 0..DEPTH_MAX {
        let names: Vec<String> = document.pointer(&pointer)?.as_object()?.keys().take(FIELDS_MAX).cloned().collect();
        let mut names = names.into_iter().filter(|name| is_tag || !TAGS.contains(&name.as_str()));
        let Some(name) = names.find(|name| is_wrong::<T>(document, &pointer, name)) else { break };
        pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        path.push(name);
        if !document.pointer(&pointer).is_some_and(Value::is_object) {
            break;
        }
    }
    (!path.is_empty()).then(|| path.join("."))
}

/// Whether nothing is wrong without this field, or only that it is not there.
fn is_wrong<T: DeserializeOwned>(document: &mut Value, pointer: &str, name: &str) -> bool {
    let Some(fields) = document.pointer_mut(pointer).and_then(Value::as_object_mut) else { return false };
    let Some(value) = fields.remove(name) else { return false };
    let missing = match T::deserialize(&*document).map_err(|error| error.to_string()) {
        Ok(_) => true,
        // The second is what serde says of `Ok` or `Err` that is not there.
        Err(error) => error.contains(&format!("missing field `{name}`")) || error.contains("map with a single key"),
    };
    if let Some(fields) = document.pointer_mut(pointer).and_then(Value::as_object_mut) {
        fields.insert(name.to_owned(), value);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::protocol::{Request, SandboxSpec};

    #[test]
    fn the_wrong_field_is_named_however_deep() {
        let request = |call: &str| {
            let text = format!(r#"{{"id":1,"call":{call}}}"#);
            read::<Request>(text.as_bytes()).unwrap_err().to_string()
        };
        for (call, path) in [
            (r#"{"verb":"kill","container":"c","signal":"x"}"#, "call.signal: "),
            (r#"{"verb":"kill","container":7,"signal":9}"#, "call.container: "),
            (
                r#"{"verb":"create","container":"c","bundle":"/","log":{"path":"/l","maxBytes":-1}}"#,
                "call.log.maxBytes: ",
            ),
            (
                r#"{"verb":"exec","container":"c","exec":"e","process":{"cwd":"/","user":{"uid":"root","gid":0}}}"#,
                "call.process.user.uid: ",
            ),
            (r#"{"verb":"fly"}"#, "call.verb: "),
            (r#"{"verb":"start"}"#, "call: missing field `container`"),
        ] {
            let told = request(call);
            assert!(told.starts_with(path), "{told}");
        }
        for (packet, path) in [
            (r#"{"id":1,"result":{"Ok":{"kind":"created","pid":"x"}}}"#, "result.Ok.pid: "),
            (r#"{"id":"x","result":{"Ok":{"kind":"done"}}}"#, "id: "),
            (r#"{"event":"execExited","container":"c","exec":"e","code":"x"}"#, "code: "),
        ] {
            let told = read_packet(packet.as_bytes()).unwrap_err().to_string();
            assert!(told.starts_with(path), "{told}");
        }
        let namespaces = r#"{"net":"new","ipc":"moon","uts":"new","pid":"host"}"#;
        let spec = format!(r#"{{"id":"s","hostname":"h","namespaces":{namespaces},"cgroup":"/c"}}"#);
        let told = read::<SandboxSpec>(spec.as_bytes()).unwrap_err().to_string();
        assert!(told.starts_with("namespaces.ipc: unknown variant `moon`"), "{told}");
        assert!(read::<Request>(b"{} more").is_err() && read::<Request>(b"").is_err());
    }
}
