//! What a request asks for, read from its method, path and query. Pure.

use http::Method;
use thiserror::Error;

use crate::limits::QUERY_BYTES_MAX;

/// What is to be done with a resource, in the words of authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// Add an object.
    Create,
    /// Replace an object.
    Update,
    /// Change parts of an object.
    Patch,
    /// Delete an object.
    Delete,
    /// Delete all objects of a collection.
    DeleteCollection,
}

impl Verb {
    /// The word in discovery and in refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// Which resource a path names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `None` for what is not namespaced and for all namespaces.
    pub namespace: Option<String>,
    /// Plural name.
    pub resource: String,
    /// `None` for a collection.
    pub name: Option<String>,
    /// `status`, `log` and the like.
    pub subresource: Option<String>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To objects.
    Resource {
        /// What to do.
        verb: Verb,
        /// With what.
        target: Target,
    },
    /// To a path that is not about objects, such as `/healthz`, without a slash at its end.
    Path(String),
}

/// A request that says nothing that could be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A part of the path that no object could be called.
    #[error("invalid path segment {segment:?}")]
    Segment {
        /// As decoded.
        segment: String,
    },
    /// A `%` without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("invalid escape in {text:?}")]
    Escape {
        /// As sent.
        text: String,
    },
    /// More than [`QUERY_BYTES_MAX`].
    #[error("the query is longer than {QUERY_BYTES_MAX} bytes")]
    QueryTooLong,
    /// A parameter that cannot be read.
    #[error("invalid value {value:?} for query parameter {name}: {detail}")]
    Parameter {
        /// Which one.
        name: &'static str,
        /// As sent.
        value: String,
        /// What it must be.
        detail: &'static str,
    },
    /// A method that no resource has.
    #[error("the server does not allow this method on the requested resource")]
    Method,
}

/// Query parameters of all verbs; each verb looks at its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    pairs: Vec<(String, String)>,
}

impl Options {
    /// Reads a query.
    ///
    /// # Errors
    /// When it is too long or not well formed.
    pub fn parse(query: &str) -> Result<Self, RequestError> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(RequestError::QueryTooLong);
        }
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        };
        let pairs = query.split('&').filter(|part| !part.is_empty()).map(pair).collect::<Result<_, _>>()?;
        Ok(Self { pairs })
    }

    /// The first value of a parameter, unless it is empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A switch as Kubernetes reads it: there, and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.all(name).next().is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&self, name: &'static str) -> Result<Option<u64>, RequestError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let detail = "must be a whole number that is not negative";
        value.parse().map(Some).map_err(|_| RequestError::Parameter { name, value: value.to_owned(), detail })
    }

    /// The revision in `resourceVersion`; `None` when the client does not care (absent or `0`).
    ///
    /// # Errors
    /// When it is no number.
    pub fn revision(&self) -> Result<Option<u64>, RequestError> {
        Ok(self.number("resourceVersion")?.filter(|revision| *revision != 0))
    }

    /// The query as it is sent on, with these parameters only.
    pub fn query_of(&self, names: &[&str]) -> String {
        let chosen = self.pairs.iter().filter(|(name, _)| names.contains(&name.as_str()));
        chosen.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
    }
}

/// Reads where a request goes.
///
/// # Errors
/// When the path cannot be decoded, or holds a part that no object could be called, or the method is unknown.
pub fn route(method: &Method, path: &str, options: &Options) -> Result<Route, RequestError> {
    let parts = path.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Result<Vec<_>, _>>()?;
    if let Some(segment) = parts.iter().find(|part| *part == "." || *part == ".." || part.contains(['/', '%', '\0'])) {
        return Err(RequestError::Segment { segment: segment.clone() });
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let target = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => target("", version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => target(group, version, rest),
        _ => None,
    };
    match target {
        Some(target) => Ok(Route::Resource { verb: verb(method, &target, options)?, target }),
        None => Ok(Route::Path(format!("/{}", parts.join("/")))),
    }
}

fn target(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let own = |text: &str| Some(text.to_owned());
    let (namespace, rest) = match rest {
        // A namespace's own subresources; everything else below it is a collection in it.
        ["namespaces", _, "status" | "finalize"] | ["namespaces"] | ["namespaces", _] => (None, rest),
        ["namespaces", namespace, rest @ ..] => (own(namespace), rest),
        _ => (None, rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (resource, None, None),
        [resource, name] => (resource, own(name), None),
        [resource, name, subresource] => (resource, own(name), own(subresource)),
        _ => return None,
    };
    Some(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        resource: (*resource).to_owned(),
        name,
        subresource,
    })
}

fn verb(method: &Method, target: &Target, options: &Options) -> Result<Verb, RequestError> {
    let named = target.name.is_some();
    match *method {
        Method::GET | Method::HEAD if named => Ok(Verb::Get),
        Method::GET | Method::HEAD if options.flag("watch") => Ok(Verb::Watch),
        Method::GET | Method::HEAD => Ok(Verb::List),
        Method::POST => Ok(Verb::Create),
        Method::PUT => Ok(Verb::Update),
        Method::PATCH => Ok(Verb::Patch),
        Method::DELETE if named => Ok(Verb::Delete),
        Method::DELETE => Ok(Verb::DeleteCollection),
        _ => Err(RequestError::Method),
    }
}

fn decode(text: &str) -> Result<String, RequestError> {
    let escape = || RequestError::Escape { text: text.to_owned() };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else { return Err(escape()) };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(high).ok_or_else(escape)? * 16 + digit(low).ok_or_else(escape)?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| escape())
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(method: &Method, path: &str, query: &str, verb: Verb, expected: [&str; 6]) {
        let options = Options::parse(query).unwrap();
        let Route::Resource { verb: found, target } = route(method, path, &options).unwrap() else {
            panic!("{path} is no resource");
        };
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let parts = [
            target.group.clone(),
            target.version.clone(),
            text(&target.namespace),
            target.resource.clone(),
            text(&target.name),
            text(&target.subresource),
        ];
        assert_eq!((found, parts.each_ref().map(String::as_str)), (verb, expected), "{path}");
    }

    #[test]
    fn paths_name_resources() {
        let get = Method::GET;
        check(&get, "/api/v1/pods", "", Verb::List, ["", "v1", "", "pods", "", ""]);
        check(&get, "/api/v1/pods", "watch=true", Verb::Watch, ["", "v1", "", "pods", "", ""]);
        check(&get, "/api/v1/pods/", "watch=false", Verb::List, ["", "v1", "", "pods", "", ""]);
        check(&get, "/api/v1/namespaces/a/pods/b", "watch=1", Verb::Get, ["", "v1", "a", "pods", "b", ""]);
        check(&get, "/api/v1/namespaces/a/pods/b/log", "", Verb::Get, ["", "v1", "a", "pods", "b", "log"]);
        check(&get, "/api/v1/namespaces/a", "", Verb::Get, ["", "v1", "", "namespaces", "a", ""]);
        check(&get, "/api/v1/namespaces", "", Verb::List, ["", "v1", "", "namespaces", "", ""]);
        check(&get, "/api/v1/nodes/n.b%2Dc", "", Verb::Get, ["", "v1", "", "nodes", "n.b-c", ""]);
        let (put, post, delete) = (Method::PUT, Method::POST, Method::DELETE);
        check(&put, "/api/v1/namespaces/a/finalize", "", Verb::Update, ["", "v1", "", "namespaces", "a", "finalize"]);
        check(&post, "/api/v1/namespaces/a/pods", "", Verb::Create, ["", "v1", "a", "pods", "", ""]);
        check(&delete, "/api/v1/namespaces/a/pods", "", Verb::DeleteCollection, ["", "v1", "a", "pods", "", ""]);
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
        let expected = ["coordination.k8s.io", "v1", "kube-node-lease", "leases", "n", ""];
        check(&Method::PATCH, leases, "", Verb::Patch, expected);
    }

    #[test]
    fn other_paths_stay_paths() {
        let none = Options::default();
        for path in ["/", "/healthz", "/api", "/api/v1", "/apis/coordination.k8s.io/v1", "/api/v1/a/b/c/d/e"] {
            assert_eq!(route(&Method::GET, path, &none), Ok(Route::Path(path.to_owned())));
        }
    }

    #[test]
    fn nothing_gets_out_of_its_place_in_a_key() {
        let none = Options::default();
        for path in ["/api/v1/nodes/a%2Fb", "/api/v1/nodes/..", "/api/v1/nodes/%2e", "/api/v1/namespaces/%00/pods"] {
            assert!(matches!(route(&Method::GET, path, &none), Err(RequestError::Segment { .. })), "{path}");
        }
        assert!(matches!(route(&Method::GET, "/api/v1/nodes/%F", &none), Err(RequestError::Escape { .. })));
        assert!(matches!(route(&Method::GET, "/api/v1/nodes/%FF", &none), Err(RequestError::Escape { .. })));
    }

    #[test]
    fn switches_and_numbers_are_read_as_kubernetes_does() {
        let options = Options::parse("a&b=false&c=0&d=1&limit=5&continue=&x=a%3Db+c").unwrap();
        assert!(options.flag("a") && options.flag("d"));
        assert!(!options.flag("b") && !options.flag("c") && !options.flag("none"));
        assert_eq!(options.number("limit"), Ok(Some(5)));
        assert_eq!(options.number("continue"), Ok(None));
        assert_eq!(options.text("x"), Some("a=b c"));
        assert_eq!(options.query_of(&["x", "limit"]), "limit=5&x=a%3Db%20c");
        assert!(Options::parse("limit=-1").unwrap().number("limit").is_err());
    }

    proptest! {
        #[test]
        fn any_path_and_query_is_answered(path in ".{0,80}", query in ".{0,80}", method in "[A-Z]{1,7}") {
            if let (Ok(options), Ok(method)) = (Options::parse(&query), Method::from_bytes(method.as_bytes())) {
                if let Ok(Route::Resource { target, .. }) = route(&method, &path, &options) {
                    let parts = [target.namespace, target.name, Some(target.resource)];
                    prop_assert!(parts.iter().flatten().all(|part| !part.is_empty() && !part.contains('/')));
                }
                let _ = (options.number("limit"), options.revision());
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(text in ".{0,60}") {
            prop_assert_eq!(decode(&encode(&text)), Ok(text));
        }
    }
}
