//! Name servers: a `dns` object of a configuration, or a file like `/etc/resolv.conf`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
use crate::limits::{DNS_ENTRIES_MAX, RESOLV_CONF_BYTES_MAX};
use crate::spec::fields::Fields;

/// The `dns` object of a plugin or an `ipam`, checked; empty if it says nothing.
pub(crate) fn parse(fields: &Fields<'_>) -> Result<Map<String, Value>, Error> {
    let Some(dns) = fields.object("dns")? else { return Ok(Map::new()) };
    dns.text("domain")?;
    for field in ["nameservers", "search", "options"] {
        for (path, value) in dns.list(field, DNS_ENTRIES_MAX)? {
            if !value.is_string() {
                return Err(Error::Config { field: path, problem: "must be text".to_owned() });
            }
        }
    }
    let says = |value: &Value| match value {
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        other => !other.is_null(),
    };
    Ok(dns.map().iter().filter(|(_, value)| says(value)).map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// The capability `dns`, which has other words for the same.
pub(crate) fn wished(dns: &Fields<'_>) -> Result<Map<String, Value>, Error> {
    let mut told = Map::new();
    for (wished, field) in [("servers", "nameservers"), ("searches", "search"), ("options", "options")] {
        let list = dns.list(wished, DNS_ENTRIES_MAX)?;
        if let Some((path, _)) = list.iter().find(|(_, value)| !value.is_string()) {
            return Err(Error::Config { field: path.clone(), problem: "must be text".to_owned() });
        }
        if !list.is_empty() {
            told.insert(field.to_owned(), list.into_iter().map(|(_, value)| value.clone()).collect());
        }
    }
    Ok(told)
}

/// What a file like `/etc/resolv.conf` says (resolv.conf(5)).
pub(crate) fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(RESOLV_CONF_BYTES_MAX).read_to_end(&mut text))
        .map_err(Error::io("read", path))?;
    Ok(told(&String::from_utf8_lossy(&text)))
}

fn told(text: &str) -> Map<String, Value> {
    let mut dns = Map::new();
    let mut servers = Vec::new();
    let mut options = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let Some(key) = words.next() else { continue };
        let words: Vec<Value> = words.take(DNS_ENTRIES_MAX).map(Value::from).collect();
        match key {
            "nameserver" => servers.extend(words.into_iter().take(1)),
            "options" => options.extend(words),
            // The last one counts.
            "search" => drop(dns.insert("search".to_owned(), words.into())),
            "domain" => drop(words.into_iter().next().map(|word| dns.insert("domain".to_owned(), word))),
            _ => {}
        }
    }
    for (name, list) in [("nameservers", servers), ("options", options)] {
        if !list.is_empty() {
            dns.insert(name.to_owned(), list.into());
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_file_says_what_the_resolver_reads() {
        let text = "# made by hand\nnameserver 10.0.0.1\n nameserver  fd00::1 \ndomain a.example\nsearch x y\n\
            search a.example b.example\noptions ndots:2\noptions edns0\nsortlist 1.2.3.4\n;nameserver 9.9.9.9\n";
        let expected = json!({"nameservers": ["10.0.0.1", "fd00::1"], "domain": "a.example",
            "search": ["a.example", "b.example"], "options": ["ndots:2", "edns0"]});
        assert_eq!(Value::Object(told(text)), expected);
        assert!(told("").is_empty());
    }

    #[test]
    fn an_object_is_checked_and_kept() {
        let read = |value: Value| parse(&Fields::at("ipam".into(), &value).unwrap());
        let dns = json!({"nameservers": ["10.0.0.1"], "search": [], "domain": ""});
        assert_eq!(Value::Object(read(json!({"dns": dns})).unwrap()), json!({"nameservers": ["10.0.0.1"]}));
        let error = read(json!({"dns": {"search": [7]}})).unwrap_err();
        assert!(error.to_string().contains("ipam.dns.search[0]: must be text"), "{error}");
    }
}
