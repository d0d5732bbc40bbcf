//! Label selectors and field selectors: their text forms, their object form, and whether something matches.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as WireSelector;

/// Longest selector text that is read.
pub const SELECTOR_BYTES_MAX: usize = 16 * 1024;

/// What labels must look like: all requirements hold. Without requirements it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// Why a text or an object is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {detail}")]
pub struct SelectorError {
    /// What is wrong, and where.
    pub detail: String,
}

fn error(detail: impl Into<String>) -> SelectorError {
    SelectorError { detail: detail.into() }
}

impl LabelSelector {
    /// Whether it asks for nothing, so that everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels meet every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether labels that are looked up one by one meet every requirement.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.test.holds(label(&r.key)))
    }

    /// Adds one requirement in the words of `matchExpressions` and of node selectors (`In`, `NotIn`, `Exists`,
    /// `DoesNotExist`, `Gt`, `Lt`).
    pub fn require(&mut self, key: &str, operator: &str, values: &[String]) -> Result<(), SelectorError> {
        let number = || match values {
            [one] => one.parse().map_err(|_| error(format!("{key} {operator}: {one:?} is not an integer"))),
            _ => Err(error(format!("{key} {operator}: exactly one value is needed"))),
        };
        let some = || match values {
            [] => Err(error(format!("{key} {operator}: at least one value is needed"))),
            _ => Ok(values.to_vec()),
        };
        let test = match operator {
            "In" => Test::In(some()?),
            "NotIn" => Test::NotIn(some()?),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            "Gt" => Test::GreaterThan(number()?),
            "Lt" => Test::LessThan(number()?),
            other => return Err(error(format!("{key}: {other:?} is not a valid selector operator"))),
        };
        self.requirements.push(Requirement { key: key.to_owned(), test });
        Ok(())
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Self::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

impl TryFrom<&WireSelector> for LabelSelector {
    type Error = SelectorError;

    fn try_from(wire: &WireSelector) -> Result<Self, SelectorError> {
        let mut selector = Self::default();
        for (key, value) in wire.match_labels.iter().flatten() {
            selector.require(key, "In", std::slice::from_ref(value))?;
        }
        for expression in wire.match_expressions.iter().flatten() {
            selector.require(
                &expression.key,
                &expression.operator,
                expression.values.as_deref().unwrap_or_default(),
            )?;
        }
        Ok(selector)
    }
}

/// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(error(format!("selector is longer than {SELECTOR_BYTES_MAX} bytes")));
        }
        let requirements = split_outside_parentheses(text)
            .map(|part| parse_requirement(part.trim()))
            .collect::<Result<_, SelectorError>>()?;
        Ok(Self { requirements })
    }
}

/// The parts between commas that are not within parentheses; nothing at all for an empty text.
fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    let parts = text.split(move |c| {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        c == ',' && !inside
    });
    let count = if text.trim().is_empty() { 0 } else { usize::MAX };
    parts.take(count)
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    let done = |key: &str, test| {
        let key = key.trim();
        if !is_label_key(key) {
            return Err(error(format!("{part:?}: {key:?} is not a label key")));
        }
        Ok(Requirement { key: key.to_owned(), test })
    };
    let one = |value: &str| {
        let value = value.trim();
        if is_label_value(value) { Ok(value.to_owned()) } else { Err(error(format!("{value:?} is not a label value"))) }
    };
    let number =
        |value: &str| value.trim().parse().map_err(|_| error(format!("{part:?}: {value:?} is not an integer")));

    if let Some(key) = part.strip_prefix('!') {
        return done(key, Test::DoesNotExist);
    }
    if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(|| error(format!("{part:?}: no closing parenthesis")))?;
        let values = list.split(',').map(one).collect::<Result<_, _>>()?;
        return match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => done(key, Test::In(values)),
            [key, "notin"] => done(key, Test::NotIn(values)),
            _ => Err(error(format!("{part:?}: expected KEY in (…) or KEY notin (…)"))),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return done(key, Test::NotIn(vec![one(value)?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return done(key, Test::In(vec![one(value)?]));
    }
    if let Some((key, value)) = part.split_once('>') {
        return done(key, Test::GreaterThan(number(value)?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return done(key, Test::LessThan(number(value)?));
    }
    done(part, Test::Exists)
}

/// Whether a text can be a label's value: up to 63 letters, digits, `-`, `_`, `.`, alphanumeric at both ends, or empty.
pub fn is_label_value(text: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
}

/// Whether a text can be a label's or annotation's key: a name like a label value, with an optional DNS prefix.
pub fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_dns_subdomain)
}

/// Whether a text is a DNS-1123 label: up to 63 lower-case letters, digits and `-`, alphanumeric at both ends.
pub fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

/// Whether a text is a DNS-1123 subdomain: up to 253 bytes of labels joined by dots.
pub fn is_dns_subdomain(text: &str) -> bool {
    // The labels of a subdomain may be longer than 63 bytes; only the whole is limited.
    let label = |part: &str| {
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
            && bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// What fields must be: `spec.nodeName=n1,status.phase!=Running`. Without terms it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One field and what it must, or must not, be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// Path of the field.
    pub field: String,
    /// The value that it is compared with.
    pub value: String,
    /// Whether the value is wanted or shunned.
    pub relation: Relation,
}

/// How a field and a value relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `=` and `==`.
    Equal,
    /// `!=`.
    NotEqual,
}

impl FieldSelector {
    /// What it asks for, so that a server can refuse fields that cannot be selected by.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that a field must have, when it must have one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.field == field && t.relation == Relation::Equal).map(|t| t.value.as_str())
    }

    /// Whether fields that are looked up one by one are as asked. An absent field is the empty text.
    pub fn matches_with(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|t| (value(&t.field).unwrap_or_default() == t.value) == (t.relation == Relation::Equal))
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(error(format!("selector is longer than {SELECTOR_BYTES_MAX} bytes")));
        }
        let mut terms = Vec::new();
        for part in split_unescaped_commas(text).into_iter().filter(|p| !p.is_empty()) {
            terms.push(parse_term(part)?);
        }
        Ok(Self { terms })
    }
}

/// The parts between commas that no backslash precedes.
fn split_unescaped_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_term(part: &str) -> Result<FieldTerm, SelectorError> {
    let invalid = || error(format!("invalid selector: {part:?}; expected FIELD=VALUE or FIELD!=VALUE"));
    let at = part.find('=').ok_or_else(invalid)?;
    let (left, right) = part.split_at(at);
    let (field, relation) = match left.strip_suffix('!') {
        Some(field) => (field, Relation::NotEqual),
        None => (left, Relation::Equal),
    };
    let value = right.strip_prefix("==").or_else(|| right.strip_prefix('=')).ok_or_else(invalid)?;
    if field.is_empty() {
        return Err(invalid());
    }
    Ok(FieldTerm { field: field.to_owned(), value: unescape(value)?, relation })
}

/// Undoes `\\`, `\,` and `\=`, the only escapes there are.
fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                _ => return Err(error(format!("invalid field selector: invalid escape sequence in {value:?}"))),
            },
            ',' | '=' => return Err(error(format!("invalid field selector: unescaped {c:?} in value {value:?}"))),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let relation = if term.relation == Relation::Equal { "=" } else { "!=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{relation}{value}", term.field)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
