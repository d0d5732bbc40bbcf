//! What a registry wants to know before it answers: the `WWW-Authenticate` header (RFC 9110, section 11). Pure.

/// How a registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token from the server at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The first challenge in a header that we can meet.
pub(crate) fn parse(header: &str) -> Option<Challenge> {
    let mut rest = header.trim();
    while !rest.is_empty() {
        let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (parameters, after) = parameters(after);
        let find = |key: &str| {
            parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = find("realm")
        {
            return Some(Challenge::Bearer { realm, service: find("service"), scope: find("scope") });
        }
        if scheme.trim_end_matches(',').eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    None
}

/// `key=value` or `key="value"`, by commas, until something else comes: the next challenge.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([',', ' ']);
    while let Some((key, after)) = rest.split_once('=') {
        if key.is_empty() || key.contains([' ', ',', '"']) {
            break;
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted),
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                (value.to_owned(), after)
            }
        };
        found.push((key.to_owned(), value));
        rest = after.trim_start_matches([',', ' ']);
    }
    (found, rest)
}

/// The text up to the closing quote, escapes undone.
fn quoted_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn challenges_are_understood() {
        let docker = r#"Bearer realm="https://a/token",service="r.io",scope="repository:x:pull,push""#;
        assert_eq!(parse(docker), bearer("https://a/token", Some("r.io"), Some("repository:x:pull,push")));
        assert_eq!(parse(r#"bearer realm=https://a, service="a \"b\"""#), bearer("https://a", Some("a \"b\""), None));
        assert_eq!(parse(r#"Basic realm="Registry""#), Some(Challenge::Basic));
        assert_eq!(parse("Basic"), Some(Challenge::Basic));
        assert_eq!(parse(r#"Negotiate, Bearer realm="r""#), bearer("r", None, None));
        assert_eq!(parse(r#"Digest realm="x", qop="auth", Basic realm="y""#), Some(Challenge::Basic));
        for nothing in ["", "Bearer", "Bearer service=x", "Digest realm=x", "=", "\""] {
            assert_eq!(parse(nothing), None, "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_understood_or_not(text in "[a-zA-Z=,\" \\\\]{0,60}|.{0,40}") {
            let _ = parse(&text);
        }
    }
}
