//! Reading a JSON object field by field, so that an error names the field by its whole path.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::Error;

/// An object, and where it stands in the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The outermost object.
    pub(crate) fn top(map: &'a Map<String, Value>) -> Self {
        Self { path: String::new(), map }
    }

    /// An object at a known place; refuses any other value.
    pub(crate) fn at(path: String, value: &'a Value) -> Result<Self, Error> {
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(wrong(path, "an object", other)),
        }
    }

    /// The object as it stands.
    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// The whole path of a field.
    pub(crate) fn path(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// An error about a field.
    pub(crate) fn error(&self, field: &str, problem: impl Display) -> Error {
        Error::Config { field: self.path(field), problem: problem.to_string() }
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// Text; an empty one counts as none, as in the reference plugins.
    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, Error> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(wrong(self.path(field), "text", other)),
        }
    }

    /// Text that must be there.
    pub(crate) fn required(&self, field: &str) -> Result<&'a str, Error> {
        self.text(field)?.ok_or_else(|| self.error(field, "is missing"))
    }

    /// Text in some form, such as an address.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, field: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| self.error(field, format!("{text:?}: {error}")))
    }

    /// Yes or no; no if it is not there.
    pub(crate) fn flag(&self, field: &str) -> Result<bool, Error> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(wrong(self.path(field), "true or false", other)),
        }
    }

    /// A number that is not negative.
    pub(crate) fn big_number(&self, field: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| wrong(self.path(field), "a whole number", value))
    }

    /// As [`Self::big_number`], below 2^32.
    pub(crate) fn number(&self, field: &str) -> Result<Option<u32>, Error> {
        let Some(number) = self.big_number(field)? else { return Ok(None) };
        u32::try_from(number).map(Some).map_err(|_| self.error(field, format!("{number} is too large")))
    }

    /// An object.
    pub(crate) fn object(&self, field: &str) -> Result<Option<Fields<'a>>, Error> {
        self.get(field).map(|value| Fields::at(self.path(field), value)).transpose()
    }

    /// A list of at most `max` values, each with its place; empty if it is not there.
    pub(crate) fn list(&self, field: &str, max: usize) -> Result<Vec<(String, &'a Value)>, Error> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(value) => list_at(self.path(field), value, max),
        }
    }
}

/// The values of a list, each with its place.
pub(crate) fn list_at(path: String, value: &Value, max: usize) -> Result<Vec<(String, &Value)>, Error> {
    match value {
        Value::Array(list) if list.len() > max => Err(Error::Config {
            field: path,
            problem: format!("has {} entries, at most {max} are allowed", list.len()),
        }),
        Value::Array(list) => {
            Ok(list.iter().enumerate().map(|(index, value)| (format!("{path}[{index}]"), value)).collect())
        }
        other => Err(wrong(path, "a list", other)),
    }
}

fn wrong(field: String, wanted: &str, found: &Value) -> Error {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Error::Config { field, problem: format!("must be {wanted}, but is {found}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(value: Value, read: impl Fn(&Fields<'_>) -> Result<(), Error>, expected: &str) {
        let inner = Fields::at("plugins[0]".into(), &value).unwrap();
        assert_eq!(read(&inner).unwrap_err().to_string(), format!("network configuration: {expected}"));
    }

    #[test]
    fn errors_name_the_field() {
        check(json!({}), |f| f.required("type").map(drop), "plugins[0].type: is missing");
        check(
            json!({"mtu": -1}),
            |f| f.number("mtu").map(drop),
            "plugins[0].mtu: must be a whole number, but is a number",
        );
        check(json!({"a": 1}), |f| f.flag("a").map(drop), "plugins[0].a: must be true or false, but is a number");
        check(json!({"a": [1, 2]}), |f| f.list("a", 1).map(drop), "plugins[0].a: has 2 entries, at most 1 are allowed");
        check(
            json!({"gw": "nine"}),
            |f| f.parsed::<std::net::IpAddr>("gw").map(drop),
            "plugins[0].gw: \"nine\": invalid IP address syntax",
        );
        check(
            json!({"ipam": {"a": true}}),
            |f| f.object("ipam")?.map(|ipam| ipam.text("a").map(drop)).unwrap_or(Ok(())),
            "plugins[0].ipam.a: must be text, but is true or false",
        );
    }
}
