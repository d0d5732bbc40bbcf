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
use crate::limits::{CONFIG_BYTES_MAX, CONFIG_FILES_MAX, NAME_BYTES_MAX, PLUGINS_MAX};
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
    let version = fields.required("cniVersion")?;
    if !VERSIONS.contains(&version) {
        return Err(Error::Version { found: version.to_owned() });
    }
    let name = fields.required("name")?;
    if !is_id(name) || name.len() > NAME_BYTES_MAX {
        let problem = format!(
            "{name:?} must be letters, digits, '_', '.', '-', the first of them a letter or digit, at most {NAME_BYTES_MAX}"
        );
        return Err(fields.error("name", problem));
    }
    Ok((name.to_owned(), version.to_owned()))
}

/// The text of the first list in a folder, by name; `None` if there is none, or no folder.
pub(crate) fn first_in(folder: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
    let is_list = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "conflist");
    let Some(path) = files(folder)?.into_iter().take(CONFIG_FILES_MAX).find(is_list) else { return Ok(None) };
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut text))
        .map_err(Error::io("read", &path))?;
    Ok(Some((path, text)))
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
