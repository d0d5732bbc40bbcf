//! Where a registry's content is asked for: containerd's folder of `<host>/hosts.toml` files.
//!
//! ```toml
//! server = "https://registry-1.docker.io"      # the registry itself, asked last
//!
//! [host."https://mirror.example:5000"]         # mirrors, in the file's order
//! capabilities = ["pull", "resolve"]           # by digest; by tag
//! ca = "mirror.pem"                            # or a list; relative to the file
//! client = ["cert.pem", "key.pem"]             # or one file with both
//! skip_verify = false
//! override_path = false                        # the URL's path has the API's /v2 already
//! dial_timeout = "3s"
//! [host."https://mirror.example:5000".header]
//! x-name = "value"                             # or a list
//! ```
//!
//! What stands above the first `[host]` is for `server` too. A registry without a folder has that of `_default`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

use super::transport::{Check, Trust};
use crate::error::Error;
use crate::limits::{CONNECT_TIMEOUT, HOSTS_BYTES_MAX, MIRROR_CONNECT_TIMEOUT, MIRRORS_MAX};
use crate::reference::DEFAULT_REGISTRY;

/// The hub's web site and its registry have different hosts.
const HUB: &str = "registry-1.docker.io";

/// Where to ask, the mirrors first, and the registry itself.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) mirrors: Vec<Endpoint>,
    pub(super) server: Endpoint,
}

/// A host that speaks the registry's API.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]`.
    pub(super) host: String,
    /// Before the host; to be found out if the configuration does not say.
    pub(super) scheme: Option<String>,
    /// Between the host and the repository.
    pub(super) path: String,
    /// Whether it knows tags.
    pub(super) resolves: bool,
    /// Whether it has content by digest.
    pub(super) pulls: bool,
    pub(super) headers: HeaderMap,
    pub(super) trust: Trust,
}

impl Endpoint {
    /// The registry itself, of which nothing is configured.
    fn of(registry: &str) -> Self {
        let host = if registry == DEFAULT_REGISTRY { HUB } else { registry };
        let headers = HeaderMap::new();
        Self {
            host: host.to_owned(),
            scheme: None,
            path: "/v2".to_owned(),
            resolves: true,
            pulls: true,
            headers,
            trust: Trust::default(),
        }
    }

    /// Whether this is what `registry` is, and not another that has the same.
    pub(super) fn is(&self, registry: &str) -> bool {
        self.host == registry || (registry == DEFAULT_REGISTRY && self.host == HUB)
    }
}

/// What can be said of a host.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Options {
    capabilities: Vec<String>,
    ca: Many,
    client: Many,
    skip_verify: bool,
    override_path: bool,
    dial_timeout: Option<String>,
    header: BTreeMap<String, Many>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "it is no text and no list of texts")]
enum Many {
    One(String),
    List(Vec<String>),
}

impl Default for Many {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Many {
    fn list(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::List(texts) => texts,
        }
    }
}

/// The hosts for `registry`, as `folder` has them.
pub(super) async fn load(folder: Option<&Path>, registry: &str) -> Result<Hosts, Error> {
    let folders = folder.into_iter().flat_map(|folder| names(registry).into_iter().map(|name| folder.join(name)));
    for folder in folders {
        let path = folder.join("hosts.toml");
        if let Some(text) = read(&path).await? {
            let text = String::from_utf8(text).map_err(|_| wrong(&path, "it is no UTF-8"))?;
            return parse(&path, &text, registry).await;
        }
    }
    Ok(Hosts { mirrors: Vec::new(), server: Endpoint::of(registry) })
}

/// Folders for a registry, the best first: some filesystems cannot have a colon in a name.
fn names(registry: &str) -> Vec<String> {
    let escaped = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    escaped.into_iter().chain([registry.to_owned(), "_default".to_owned()]).collect()
}

async fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    let mut text = Vec::new();
    file.take(HOSTS_BYTES_MAX + 1).read_to_end(&mut text).await.map_err(Error::file("read", path))?;
    match text.len() as u64 > HOSTS_BYTES_MAX {
        true => Err(wrong(path, format!("it is larger than {HOSTS_BYTES_MAX} bytes"))),
        false => Ok(Some(text)),
    }
}

async fn parse(path: &Path, text: &str, registry: &str) -> Result<Hosts, Error> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        wrong(path, format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
    })?;
    let server = table.remove("server").map(|value| typed::<String>(path, "server", value)).transpose()?;
    let hosts = match table.remove("host") {
        Some(hosts) => typed::<toml::Table>(path, "host", hosts)?,
        None => toml::Table::new(),
    };
    if hosts.len() > MIRRORS_MAX {
        return Err(wrong(path, format!("it has more than {MIRRORS_MAX} hosts")));
    }
    let own = typed::<Options>(path, "", toml::Value::Table(table))?;
    let server = server.map(|server| place(path, "server", &server, &own)).transpose()?;
    let server = endpoint(path, "", server, own, Endpoint::of(registry), CONNECT_TIMEOUT).await?;
    let mut mirrors = Vec::new();
    for (name, options) in hosts {
        let field = format!("host.{name:?}");
        let options = typed::<Options>(path, &field, options)?;
        let place = place(path, &field, &name, &options)?;
        let mirror =
            endpoint(path, &field, Some(place), options, Endpoint::of(registry), MIRROR_CONNECT_TIMEOUT).await?;
        mirrors.push(mirror);
    }
    Ok(Hosts { mirrors, server })
}

/// Scheme, host and path of `[scheme://]host[:port][/path]`.
fn place(path: &Path, field: &str, text: &str, options: &Options) -> Result<(String, String, String), Error> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let refuse = |why: &str| wrong(path, format!("{field}: {why}"));
    let url = Url::parse(&full).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("it is neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("credentials do not belong into a URL: use an authfile or a pull secret"));
    }
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (DEFAULT_REGISTRY, None) => HUB.to_owned(),
        (host, None) => host.to_owned(),
        (host, Some(port)) => format!("{host}:{port}"),
    };
    let given = url.path().trim_end_matches('/');
    let api = if options.override_path || given.ends_with("/v2") { "" } else { "/v2" };
    Ok((url.scheme().to_owned(), host, format!("{given}{api}")))
}

async fn endpoint(
    path: &Path,
    field: &str,
    place: Option<(String, String, String)>,
    options: Options,
    mut endpoint: Endpoint,
    connect_timeout: Duration,
) -> Result<Endpoint, Error> {
    let of = |key: &str| if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") };
    if let Some((scheme, host, path)) = place {
        (endpoint.scheme, endpoint.host, endpoint.path) = (Some(scheme), host, path);
    }
    if !options.capabilities.is_empty() {
        (endpoint.resolves, endpoint.pulls) = (false, false);
    }
    for capability in &options.capabilities {
        match &*capability.to_ascii_lowercase() {
            "resolve" => endpoint.resolves = true,
            "pull" => endpoint.pulls = true,
            "push" | "referrers" => {}
            _ => return Err(wrong(path, format!("{}: {capability:?} is none", of("capabilities")))),
        }
    }
    for (name, values) in &options.header {
        let field = of("header");
        let name: HeaderName = name.parse().map_err(|_| wrong(path, format!("{field}: {name:?} is no header")))?;
        for value in values.list() {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| wrong(path, format!("{field}.{name}: a header cannot have this value")))?;
            value.set_sensitive(true);
            endpoint.headers.append(name.clone(), value);
        }
    }
    endpoint.trust = Trust {
        authorities: files(path, options.ca.list()).await?,
        identity: files(path, options.client.list()).await?.concat(),
        certificate: if options.skip_verify { Check::Skipped } else { Check::Verified },
        connect_timeout: match &options.dial_timeout {
            Some(text) => duration(text)
                .ok_or_else(|| wrong(path, format!("{}: {text:?} is no time such as \"3s\"", of("dial_timeout"))))?,
            None => connect_timeout,
        },
    };
    Ok(endpoint)
}

/// Files that are named in the one at `path`.
async fn files(path: &Path, names: &[String]) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = Vec::new();
    for name in names {
        let file: PathBuf = path.parent().unwrap_or(path).join(name);
        let text = read(&file).await?;
        found.push(text.ok_or_else(|| wrong(path, format!("there is no file {}", file.display())))?);
    }
    Ok(found)
}

fn duration(text: &str) -> Option<Duration> {
    let duration: SignedDuration = text.parse().ok()?;
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero())
}

/// A part of the file as what it should be, or an error that names the field.
fn typed<T: DeserializeOwned>(path: &Path, field: &str, value: toml::Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let inner = if inner == "." { "" } else { &inner };
        let dot = if field.is_empty() || inner.is_empty() { "" } else { "." };
        wrong(path, format!("{field}{dot}{inner}: {}", error.inner().message()))
    })
}

fn wrong(path: &Path, why: impl Into<String>) -> Error {
    Error::Hosts { path: path.to_owned(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "/certs.d/r.io/hosts.toml";

    async fn parsed(text: &str) -> Result<Hosts, Error> {
        parse(Path::new(FILE), text, "docker.io").await
    }

    async fn refused(text: &str, told: &str) {
        let error = parsed(text).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot use {FILE}: ")) && error.contains(told), "{error}");
    }

    #[tokio::test]
    async fn mirrors_are_asked_in_the_order_of_the_file() {
        let text = r#"
            server = "https://docker.io"
            dial_timeout = "1m30s"
            [host."https://z.io"]
            capabilities = ["pull"]
            dial_timeout = "500ms"
            [host."http://b.io:5000/prefix"]
            skip_verify = true
            [host."http://b.io:5000/prefix".header]
            X-One = "1"
            x-two = ["2", "3"]
            [host."a.io/api/v2"]
            override_path = true
        "#;
        let hosts = parsed(text).await.unwrap();
        let place = |of: &Endpoint| format!("{}://{}{}", of.scheme.as_deref().unwrap_or_default(), of.host, of.path);
        let places: Vec<_> = hosts.mirrors.iter().map(place).collect();
        assert_eq!(places, ["https://z.io/v2", "http://b.io:5000/prefix/v2", "https://a.io/api/v2"]);
        assert_eq!(place(&hosts.server), "https://registry-1.docker.io/v2");
        assert!(hosts.server.is("docker.io") && !hosts.mirrors[0].is("docker.io"));
        assert_eq!(hosts.server.trust.connect_timeout, Duration::from_secs(90));
        let [z, b, a] = &hosts.mirrors[..] else { panic!("{hosts:?}") };
        assert!((z.pulls, z.resolves) == (true, false) && (a.pulls, a.resolves) == (true, true));
        assert_eq!(z.trust.connect_timeout, Duration::from_millis(500));
        assert_eq!(a.trust.connect_timeout, MIRROR_CONNECT_TIMEOUT);
        assert!(b.trust.certificate == Check::Skipped && z.trust.certificate == Check::Verified);
        assert_eq!(b.headers.get_all("x-two").iter().collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!(b.headers["x-one"], "1");
    }

    #[tokio::test]
    async fn a_registry_without_a_server_is_itself() {
        let hosts = parsed("[host.\"https://m\"]").await.unwrap();
        assert_eq!(hosts.server, Endpoint::of("docker.io"));
        assert_eq!(hosts.server.host, "registry-1.docker.io");
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_told_by_field() {
        refused("server = 7", "server: invalid type: integer").await;
        refused("\nserver = ", "line 2: ").await;
        refused("[host.\"ftp://m\"]", "host.\"ftp://m\": it is neither").await;
        refused("server = \"https://u:p@m\"", "server: credentials do not belong").await;
        refused("server = \"https://\"", "server: empty host").await;
        refused("[host.m]\ncapabilities = [\"fly\"]", "host.\"m\".capabilities: \"fly\" is none").await;
        refused("[host.m]\nskip_verify = 1", "host.\"m\".skip_verify: invalid type").await;
        refused("[host.m]\nca = 1", "host.\"m\".ca: it is no text").await;
        refused("[host.m]\nca = \"none.pem\"", "there is no file /certs.d/r.io/none.pem").await;
        refused("[host.m]\ndial_timeout = \"soon\"", "host.\"m\".dial_timeout: \"soon\" is no time").await;
        refused("dial_timeout = \"0s\"", "dial_timeout: \"0s\" is no time").await;
        refused("[host.m.header]\n\"a b\" = \"1\"", "host.\"m\".header: \"a b\" is no header").await;
        refused("host = 1", "host: invalid type").await;
        let many: String = (0..=MIRRORS_MAX).map(|number| format!("[host.m{number}]\n")).collect();
        refused(&many, "more than").await;
    }

    #[tokio::test]
    async fn a_registry_has_its_own_folder_or_the_common_one() {
        let top = tempfile::tempdir().unwrap();
        let mirror = async |registry: &str| {
            let hosts = load(Some(top.path()), registry).await.unwrap();
            hosts.mirrors.into_iter().next().map(|mirror| mirror.host)
        };
        assert_eq!(mirror("r.io:5000").await, None);
        let order = ["_default", "r.io:5000", "r.io_5000_"];
        for (number, name) in order.into_iter().enumerate() {
            std::fs::create_dir(top.path().join(name)).unwrap();
            std::fs::write(top.path().join(name).join("hosts.toml"), format!("[host.m{number}]")).unwrap();
            assert_eq!(mirror("r.io:5000").await, Some(format!("m{number}")));
        }
        assert_eq!(mirror("r.io").await, Some("m0".to_owned()));
    }

    proptest! {
        #[test]
        fn any_text_is_hosts_or_an_error(text in "(\\PC|\n){0,80}|(server|\\[host\\.\"?m[:/5]{0,3}\"?\\]|ca|header|[=\"\\[\\]\n1a{}, ]){0,24}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(parsed(&text));
        }
    }
}
