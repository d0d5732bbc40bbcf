//! The other side of the specification: the built-in plugins as programs, for runtimes that are others' (sections 2 and 3
//! of the specification). One program under many names, those of [`NAMES`], or under its own, where the configuration's
//! `type` says what it shall be.
//!
//! What it keeps is where such runtimes expect it to be, and gone with the next boot where it makes no sense after one:
//!
//! ```text
//! /var/lib/cni/networks/<network>/…    addresses, as the reference plugin keeps them
//! /run/berth/cni/<plugin>/…            results, and what was changed on the host
//! ```

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::builtin::bridge::Interfaces;
use crate::chain::Chain;
use crate::limits::{CONFIG_BYTES_MAX, VALID_ATTACHMENTS_MAX};
use crate::list::List;
use crate::site::NftSockets;
use crate::spec::VERSIONS;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;
use crate::{Attachment, Dirs, Error};

/// The plugins that there are, as they are called in a plugin folder.
pub const NAMES: &[&str] = &["bridge", "bandwidth", "firewall", "host-local", "loopback", "portmap", "static"];

/// Those that give out addresses; their configuration is the `ipam` of another plugin's.
const IPAMS: &[&str] = &["host-local", "static"];
/// Where addresses are if the configuration does not say.
const ADDRESSES: &str = "/var/lib/cni";
/// Where all else is.
const STATE: &str = "/run/berth/cni";
/// The version of an answer to who does not tell his.
const VERSION_NEWEST: &str = "1.1.0";

/// Is the plugin of this name, or the one that the configuration's `type` says: reads the environment and the standard
/// input, writes the result or the error to the standard output.
pub fn main(name: Option<&str>) -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none() {
        let names = NAMES.join(", ");
        eprintln!("berth's CNI plugins: {names}\nCNI protocol versions supported: {}", VERSIONS.join(", "));
        return ExitCode::SUCCESS;
    }
    let mut input = Vec::new();
    let read = io::stdin().take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut input);
    let config = match read {
        Ok(_) => parse(&input),
        Err(error) => Err(Error::io("read", "the standard input")(error)),
    };
    let version = config.as_ref().ok().and_then(|config| config.get("cniVersion")?.as_str());
    let version = version.unwrap_or(VERSION_NEWEST).to_owned();
    let environment = Environment { variable: &|variable| std::env::var_os(variable) };
    let (reply, code) = match config.and_then(|config| answer(name, &environment, config)) {
        Ok(reply) => (reply, ExitCode::SUCCESS),
        Err(error) => (Some(complaint(&version, &error)), ExitCode::FAILURE),
    };
    match reply.map_or(Ok(()), |reply| writeln!(io::stdout(), "{reply}")) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whether a plugin's program would take this configuration, with what it wants for one attachment. The error names the
/// field. Nothing is looked at nor changed.
pub fn check(name: Option<&str>, config: &[u8]) -> Result<(), Error> {
    let nothing = Environment { variable: &|_| None };
    let plugin = Plugin::new(name, &nothing, parse(config)?)?;
    let attachment = Attachment {
        container_id: "any".to_owned(),
        netns: PathBuf::new(),
        ifname: "eth0".to_owned(),
        args: Vec::new(),
        runtime_config: plugin.runtime_config.clone(),
    };
    let chain = plugin.chain();
    chain.understand(&chain.call(&attachment)?, plugin.previous.as_ref())
}

/// What a call is answered with: a result or nothing.
fn answer(
    name: Option<&str>,
    environment: &Environment<'_>,
    config: Map<String, Value>,
) -> Result<Option<Value>, Error> {
    let verb = environment.required("CNI_COMMAND")?;
    if verb == "VERSION" {
        let version = Fields::top(&config).text("cniVersion")?.unwrap_or(VERSION_NEWEST);
        return Ok(Some(json!({"cniVersion": version, "supportedVersions": VERSIONS})));
    }
    let plugin = Plugin::new(name, environment, config)?;
    match verb.as_str() {
        "ADD" => plugin.add(&environment.attachment(&plugin.runtime_config, true)?).map(Some),
        "DEL" => plugin.del(&environment.attachment(&plugin.runtime_config, false)?).map(|()| None),
        "CHECK" => plugin.check(&environment.attachment(&plugin.runtime_config, true)?).map(|()| None),
        "GC" => plugin.gc().map(|()| None),
        "STATUS" => plugin.chain().status().map(|()| None),
        other => {
            let problem = format!("{other:?} is no verb; use ADD, DEL, CHECK, GC, STATUS or VERSION");
            Err(Error::Attachment { variable: "CNI_COMMAND", problem })
        }
    }
}

fn parse(input: &[u8]) -> Result<Map<String, Value>, Error> {
    if input.len() > CONFIG_BYTES_MAX {
        let problem = format!("is longer than {CONFIG_BYTES_MAX} bytes");
        return Err(Error::Config { field: "the standard input".to_owned(), problem });
    }
    serde_json::from_slice(input).map_err(|source| Error::Decode { what: "the standard input".to_owned(), source })
}

/// An error as the specification has it.
fn complaint(version: &str, error: &Error) -> Value {
    let mut details = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        details.push(error.to_string());
        cause = error.source();
    }
    json!({"cniVersion": version, "code": error.code(), "msg": error.to_string(), "details": details.join(": ")})
}

/// The variables of the specification.
struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Environment<'_> {
    fn text(&self, variable: &'static str) -> Result<Option<String>, Error> {
        let text = (self.variable)(variable).filter(|text| !text.is_empty()).map(OsString::into_string).transpose();
        text.map_err(|_| Error::Attachment { variable, problem: "is no UTF-8".to_owned() })
    }

    fn required(&self, variable: &'static str) -> Result<String, Error> {
        self.text(variable)?.ok_or_else(|| Error::Attachment { variable, problem: "is missing".to_owned() })
    }

    fn attachment(&self, runtime_config: &Map<String, Value>, has_namespace: bool) -> Result<Attachment, Error> {
        let netns = if has_namespace { Some(self.required("CNI_NETNS")?) } else { self.text("CNI_NETNS")? };
        let args = self.text("CNI_ARGS")?.unwrap_or_default();
        let args = args.split(';').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::Attachment { variable: "CNI_ARGS", problem: format!("{pair:?} is not KEY=VALUE") }),
        });
        let attachment = Attachment {
            container_id: self.required("CNI_CONTAINERID")?,
            netns: netns.unwrap_or_default().into(),
            ifname: self.required("CNI_IFNAME")?,
            args: args.collect::<Result<_, _>>()?,
            runtime_config: runtime_config.clone(),
        };
        attachment.validate()?;
        Ok(attachment)
    }
}

/// One plugin, as a list of its own.
struct Plugin {
    list: List,
    dirs: Dirs,
    sockets: Arc<NftSockets>,
    previous: Option<AddResult>,
    valid: Vec<(String, String)>,
    runtime_config: Map<String, Value>,
}

impl Plugin {
    fn new(name: Option<&str>, environment: &Environment<'_>, mut config: Map<String, Value>) -> Result<Self, Error> {
        let previous = config.remove("prevResult").filter(|previous| !previous.is_null());
        let previous = previous.map(serde_json::from_value).transpose();
        let previous = previous.map_err(|source| Error::Decode { what: "prevResult".to_owned(), source })?;
        let valid = valid(&Fields::top(&config))?;
        let runtime_config = match config.remove("runtimeConfig") {
            None | Some(Value::Null) => Map::new(),
            Some(value) => Fields::at("runtimeConfig".to_owned(), &value)?.map().clone(),
        };
        // The runtime has chosen already.
        let capabilities = runtime_config.keys().map(|name| (name.clone(), Value::Bool(true))).collect();
        config.insert("capabilities".to_owned(), Value::Object(capabilities));
        let kind = match name {
            Some(name) => name.to_owned(),
            None => Fields::top(&config).required("type")?.to_owned(),
        };
        if !NAMES.contains(&kind.as_str()) {
            let problem = format!("{kind:?} is not built in; use {}", NAMES.join(", "));
            return Err(Error::Config { field: "type".to_owned(), problem });
        }
        let is_ipam = IPAMS.contains(&kind.as_str());
        if let Some(Value::Object(ipam)) = config.get_mut("ipam") {
            if is_ipam {
                ipam.insert("type".to_owned(), kind.clone().into());
            }
            ipam.entry("dataDir").or_insert_with(|| format!("{ADDRESSES}/networks").into());
        } else if is_ipam {
            return Err(Fields::top(&config).error("ipam", "is missing"));
        }
        config.insert("type".to_owned(), kind.clone().into());
        let list = if is_ipam { List::of_ipam(&config) } else { List::of_plugin(&config) }?;
        let search = environment.text("CNI_PATH")?.unwrap_or_default();
        let bin = search.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
        let dirs = Dirs { state: PathBuf::from(STATE).join(kind), bin };
        Ok(Self { list, dirs, sockets: Arc::default(), previous, valid, runtime_config })
    }

    fn chain(&self) -> Chain<'_> {
        Chain { list: &self.list, dirs: &self.dirs, sockets: &self.sockets }
    }

    fn add(&self, attachment: &Attachment) -> Result<Value, Error> {
        let result = self.chain().add(attachment, self.previous.clone())?;
        result.in_version(&self.list.version)
    }

    fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        self.chain().del(attachment, self.previous.as_ref(), Interfaces::Delete)
    }

    fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        let missing = || Error::Config { field: "prevResult".to_owned(), problem: "is missing".to_owned() };
        self.chain().check_against(attachment, self.previous.as_ref().ok_or_else(missing)?)
    }

    fn gc(&self) -> Result<(), Error> {
        self.chain().gc(&self.valid)
    }
}

/// Who is attached, for GC.
fn valid(config: &Fields<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut valid = Vec::new();
    for (path, value) in config.list("cni.dev/valid-attachments", VALID_ATTACHMENTS_MAX)? {
        let one = Fields::at(path, value)?;
        valid.push((one.required("containerID")?.to_owned(), one.required("ifname")?.to_owned()));
    }
    Ok(valid)
}
