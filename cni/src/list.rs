//! Configuration lists: found in a folder, parsed, or written for the built-in network.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::attachment::is_id;
use crate::builtin::Plugin;
use crate::builtin::ipam::Ipam;
use crate::cache::files;
use crate::limits::{CNI_VERSIONS_MAX, CONFIG_BYTES_MAX, CONFIG_FILES_MAX, NAME_BYTES_MAX, PLUGINS_MAX};
use crate::spec::VERSIONS;
use crate::spec::fields::Fields;

/// A parsed list.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) check: bool,
    pub(crate) gc: bool,
    pub(crate) plugins: Vec<Plugin>,
}

impl List {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Error> {
        Self::parse_with(text, Plugin::parse)
    }

    /// Parses a list, and each plugin in it by `plugin`, which is told those before it too.
    pub(crate) fn parse_with(
        text: &[u8],
        plugin: impl Fn(&Fields<'_>, &[Plugin]) -> Result<Plugin, Error>,
    ) -> Result<Self, Error> {
        if text.len() > CONFIG_BYTES_MAX {
            let problem = format!("is longer than {CONFIG_BYTES_MAX} bytes");
            return Err(Error::Config { field: "the list".to_owned(), problem });
        }
        let map: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|source| Error::Decode { what: "the network configuration list".to_owned(), source })?;
        let fields = Fields::top(&map);
        let (name, version) = head(&fields)?;
        let mut plugins = Vec::new();
        for (path, value) in fields.list("plugins", PLUGINS_MAX)? {
            plugins.push(plugin(&Fields::at(path, value)?, &plugins)?);
        }
        if plugins.is_empty() {
            return Err(fields.error("plugins", "has no plugin"));
        }
        let bridges = plugins.iter().filter(|plugin| matches!(plugin, Plugin::Bridge(_))).count();
        if bridges > 1 {
            return Err(fields.error("plugins", "has more than one bridge; an attachment has one interface"));
        }
        let (check, gc) = (!fields.flag("disableCheck")?, !fields.flag("disableGC")?);
        Ok(Self { name, version, check, gc, plugins })
    }

    /// One plugin alone, as a plugin's program is given it.
    pub(crate) fn of_plugin(config: &Map<String, Value>) -> Result<Self, Error> {
        let fields = Fields::top(config);
        Self::of(&fields, Plugin::parse(&fields, &[])?)
    }

    /// What gives out the addresses of a plugin, alone.
    pub(crate) fn of_ipam(config: &Map<String, Value>) -> Result<Self, Error> {
        let fields = Fields::top(config);
        Self::of(&fields, Plugin::Ipam(Ipam::parse(&fields)?, config.clone()))
    }

    fn of(fields: &Fields<'_>, plugin: Plugin) -> Result<Self, Error> {
        let (name, version) = head(fields)?;
        Ok(Self { name, version, check: true, gc: true, plugins: vec![plugin] })
    }
}

/// Name and version of a network.
fn head(fields: &Fields<'_>) -> Result<(String, String), Error> {
    let version = version(fields)?;
    let name = fields.required("name")?;
    if !is_id(name) || name.len() > NAME_BYTES_MAX {
        let problem = format!(
            "{name:?} must be letters, digits, '_', '.', '-', the first of them a letter or digit, at most {NAME_BYTES_MAX}"
        );
        return Err(fields.error("name", problem));
    }
    Ok((name.to_owned(), version.to_owned()))
}

/// The newest version that the configuration supports and that is spoken here (section 1, "Version considerations").
fn version<'a>(fields: &Fields<'a>) -> Result<&'a str, Error> {
    let mut offered = Vec::new();
    for (field, value) in fields.list("cniVersions", CNI_VERSIONS_MAX)? {
        let problem = || format!("{value} is no version such as \"1.1.0\"");
        offered.push(value.as_str().ok_or_else(|| Error::Config { field, problem: problem() })?);
    }
    match fields.text("cniVersion")? {
        Some(version) => offered.push(version),
        None if offered.is_empty() => return Err(fields.error("cniVersion", "is missing")),
        None => {}
    }
    let spoken = VERSIONS.iter().rev().find_map(|spoken| offered.iter().find(|version| *version == spoken));
    spoken.copied().ok_or_else(|| Error::Version { found: offered.join(", ") })
}

/// The text of the first list in a folder, by name, with the plugins that lie beside it; `None` if there is none, or no
/// folder.
pub(crate) fn first_in(folder: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
    let Some(path) = with_extension(folder, "conflist")?.into_iter().next() else { return Ok(None) };
    let text = read(&path)?;
    // What is wrong with it is told when it is parsed.
    let text = match serde_json::from_slice(&text) {
        Ok(list) => with_plugins_of_files(folder, list)?.unwrap_or(text),
        Err(_) => text,
    };
    Ok(Some((path, text)))
}

/// A list with those plugins that have files of their own, in a folder that is called as the network; `None` if there are
/// none, or the list does without (`loadOnlyInlinedPlugins`).
fn with_plugins_of_files(folder: &Path, mut list: Map<String, Value>) -> Result<Option<Vec<u8>>, Error> {
    let fields = Fields::top(&list);
    let Some(name) = fields.text("name")?.filter(|name| is_id(name)) else { return Ok(None) };
    if fields.flag("loadOnlyInlinedPlugins")? {
        return Ok(None);
    }
    let files = with_extension(&folder.join(name), "conf")?;
    if files.is_empty() {
        return Ok(None);
    }
    let plugins = list.entry("plugins").or_insert_with(|| json!([]));
    for path in files {
        let plugin: Value = serde_json::from_slice(&read(&path)?)
            .map_err(|source| Error::Decode { what: path.display().to_string(), source })?;
        if let Some(plugins) = plugins.as_array_mut() {
            plugins.push(plugin);
        }
    }
    Ok(Some(Value::Object(list).to_string().into_bytes()))
}

fn with_extension(folder: &Path, wanted: &str) -> Result<Vec<PathBuf>, Error> {
    let mut files = files(folder)?;
    files.truncate(CONFIG_FILES_MAX);
    files.retain(|path| path.extension().is_some_and(|extension| extension == wanted));
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let file = File::open(path).and_then(|file| file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut text));
    file.map(|_| text).map_err(Error::io("read", path))
}

/// The list of the built-in network.
pub(crate) fn builtin(name: &str, bridge: &str, ranges: &[IpNetwork], mtu: Option<u32>) -> Value {
    let ranges: Vec<_> = ranges.iter().map(|range| json!([{"subnet": range.to_string()}])).collect();
    json!({
        "cniVersion": "1.1.0",
        "name": name,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isDefaultGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "mtu": mtu,
                "ipam": {"type": "host-local", "ranges": ranges},
            },
            {"type": "loopback"},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            {"type": "firewall"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(head: &str) -> Result<List, Error> {
        let list = format!(r#"{{{head}, "name": "pods", "plugins": [{{"type": "loopback"}}]}}"#);
        List::parse(list.as_bytes())
    }

    #[test]
    fn the_newest_version_that_both_sides_speak_is_taken() {
        for (head, version) in [
            (r#""cniVersion": "0.4.0""#, "0.4.0"),
            (r#""cniVersion": "0.4.0", "cniVersions": ["0.3.1", "1.0.0"]"#, "1.0.0"),
            (r#""cniVersion": "1.1.0", "cniVersions": ["0.4.0", "9.0.0"]"#, "1.1.0"),
            (r#""cniVersions": ["0.3.1", "9.0.0"]"#, "0.3.1"),
            (r#""cniVersion": "9.0.0", "cniVersions": ["1.0.0"]"#, "1.0.0"),
        ] {
            assert_eq!(parse(head).unwrap().version, version, "{head}");
        }
        for (head, code, why) in [
            (r#""cniVersion": "9.0.0", "cniVersions": ["8.0.0"]"#, 1, "8.0.0, 9.0.0"),
            (r#""cniVersions": []"#, 7, "cniVersion"),
            (r#""cniVersions": ["1.0.0", 7]"#, 7, "cniVersions[1]"),
            (r#""cniVersions": "1.0.0""#, 7, "cniVersions"),
        ] {
            let error = parse(head).unwrap_err();
            assert!(error.code() == code && error.to_string().contains(why), "{head}: {error}");
        }
    }

    #[test]
    fn plugins_of_files_are_behind_those_of_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let head = r#""cniVersion": "1.1.0", "name": "pods""#;
        write("10-pods.conflist", &format!(r#"{{{head}, "plugins": [{{"type": "loopback"}}]}}"#));
        fs::create_dir(folder.path().join("pods")).unwrap();
        write("pods/20-other.conf", r#"{"type": "firewall"}"#);
        write("pods/10-one.conf", r#"{"type": "portmap"}"#);
        write("pods/readme", "no plugin");
        let first = || first_in(folder.path()).unwrap().unwrap().1;
        let count = || List::parse(&first()).unwrap().plugins.len();
        assert_eq!(count(), 3);
        let types = String::from_utf8(first()).unwrap();
        assert!(types.find("loopback") < types.find("portmap") && types.find("portmap") < types.find("firewall"));
        write(
            "10-pods.conflist",
            &format!(r#"{{{head}, "loadOnlyInlinedPlugins": true, "plugins": [{{"type": "loopback"}}]}}"#),
        );
        assert_eq!(count(), 1);
        write("10-pods.conflist", &format!("{{{head}}}"));
        assert_eq!(count(), 2, "all of them may be in files");
        write("pods/10-one.conf", "{");
        let error = first_in(folder.path()).unwrap_err();
        assert!(error.code() == 6 && error.to_string().contains("10-one.conf"), "{error}");
        write("10-pods.conflist", "{");
        assert_eq!(first(), b"{", "it is told when it is parsed");
    }
}
