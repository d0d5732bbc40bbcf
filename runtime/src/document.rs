//! JSON documents read with errors that name the field. Whoever writes documents that make sense pays nothing for it: a
//! document is read once more only to tell where it does not.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Error;

/// Reads a document; its name stands for the field where the whole is wrong.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8], name: &str) -> Result<T, Error> {
    serde_json::from_slice(text).or_else(|_| {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let document = located(&mut reader, name)?;
        reader.end().map_err(|error| Error::spec(name, error.to_string()))?;
        Ok(document)
    })
}

/// As [`read`]; what makes no sense is mended, and read again.
pub(crate) fn read_mended<T: DeserializeOwned>(
    text: &[u8],
    name: &str,
    mend: impl FnOnce(&mut Value),
) -> Result<T, Error> {
    serde_json::from_slice(text).or_else(|_| {
        let mut document: Value = read(text, name)?;
        mend(&mut document);
        located(&document, name)
    })
}

/// The fields of an object, up to where it breaks off.
pub(crate) fn fields(text: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    // Why it breaks off, who reads the whole is told.
    let _ = serde_json::Deserializer::from_slice(text).deserialize_map(Fields(&mut fields));
    fields
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some((name, value)) = object.next_entry()? {
            self.0.insert(name, value);
        }
        Ok(())
    }
}

fn located<'de, T: DeserializeOwned>(
    reader: impl Deserializer<'de, Error = serde_json::Error>,
    name: &str,
) -> Result<T, Error> {
    serde_path_to_error::deserialize(reader).map_err(|error| match error.path().to_string() {
        path if matches!(path.as_str(), "" | "." | "?") => Error::spec(name, error.inner().to_string()),
        path => Error::spec(path, error.inner().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Process;

    use super::*;

    fn told(text: &str) -> String {
        read_mended::<Process>(text.as_bytes(), "process", crate::repair::process).unwrap_err().to_string()
    }

    #[test]
    fn the_wrong_field_is_named() {
        for (text, start) in [
            ("", "process: EOF while parsing"),
            ("{} {}", "process: trailing characters"),
            (r#"{"":x}"#, "process: expected value at line 1"),
            ("7", "process: invalid type: integer `7`"),
            (r#"{"cwd":"/","user":{"uid":"root","gid":0}}"#, "user.uid: invalid type: string \"root\""),
            (r#"{"cwd":"/","user":{"uid":-1,"gid":0}}"#, "user.uid: invalid value: integer `-1`"),
            (r#"{"cwd":"/","args":["a",{}]}"#, "args[1]: invalid type: map"),
            (r#"{"cwd":"/","rlimits":[{"type":"RLIMIT_X","hard":1,"soft":1}]}"#, "rlimits[0].type: unknown variant"),
        ] {
            let told = told(text);
            assert!(told.starts_with(start), "{told}");
        }
    }

    #[test]
    fn what_can_be_mended_does_not_hide_what_cannot() {
        let unknown = r#""capabilities":{"bounding":["CAP_MOON"]}"#;
        let text = format!(r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},{unknown}}}"#);
        assert!(read_mended::<Process>(text.as_bytes(), "process", crate::repair::process).is_ok());
        let told = told(&format!(r#"{{"cwd":7,{unknown}}}"#));
        assert!(told.starts_with("cwd: "), "{told}");
    }

    #[test]
    fn what_stands_before_a_break_is_read() {
        let names = |text: &str| fields(text.as_bytes()).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(r#"{"a":1,"b":{"c":[2]},"d":[3"#), ["a", "b"]);
        assert_eq!(names(r#"{"a":1} garbage"#), ["a"]);
        for nothing in ["", "[]", "\0\0", r#"{"a"#] {
            assert_eq!(names(nothing), [""; 0], "{nothing:?}");
        }
    }

    #[test]
    fn an_error_is_short_whatever_it_quotes() {
        let told = told(&format!(r#"{{"cwd":"/","apparmorProfile":{{"{}":1}},"args":"{0}"}}"#, "ä".repeat(1 << 20)));
        assert!(told.len() < 4096, "{}", told.len());
    }
}
