//! Get and list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_api::selector::{FieldSelector, LabelSelector};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::reply::{self, Form, Reply};
use super::status::Refusal;
use super::{Api, Call, object};
use crate::limits::LIST_STEP_MAX;
use crate::request::Options;
use crate::resource::Kind;
use crate::store::{Key, Page, PageStart, Prefix, Revision};

/// Which objects of a kind are meant.
pub(super) struct Filter {
    kind: &'static Kind,
    labels: LabelSelector,
    pub(super) fields: FieldSelector,
}

impl Filter {
    pub(super) fn parse(kind: &'static Kind, options: &Options) -> Result<Self, Refusal> {
        let (labels, fields) = (options.text("labelSelector"), options.text("fieldSelector"));
        let bad = |error: berth_api::selector::SelectorError| Refusal::bad_request(error.to_string());
        let filter = Self {
            kind,
            labels: labels.unwrap_or_default().parse().map_err(bad)?,
            fields: fields.unwrap_or_default().parse().map_err(bad)?,
        };
        for term in filter.fields.terms() {
            if kind.field(&Value::Null, &term.field).is_none() {
                return Err(Refusal::bad_request(format!(
                    "Unable to find {:?} that match label selector {:?}, field selector {:?}: field label not supported: {}",
                    format!("{}, Resource={}", kind.api_version(), kind.plural),
                    labels.unwrap_or_default(),
                    fields.unwrap_or_default(),
                    term.field
                )));
            }
        }
        Ok(filter)
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.matches_with(|key| labels.get(key).and_then(Value::as_str))
            && self.fields.matches_with(|field| self.kind.field(object, field))
    }
}

/// Where the next page begins; opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "rv")]
    revision: Revision,
    /// The last key before it, below the prefix of the list.
    after: String,
}

impl Continue {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::bad_request("continue key is not valid: it is none that this server has given");
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        serde_json::from_slice(&json).map_err(|_| bad())
    }

    fn text(&self) -> Result<String, Refusal> {
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).map_err(Refusal::internal)?))
    }
}

impl Api {
    /// One object.
    pub(super) fn read(&self, kind: &Kind, key: &Key, name: &str) -> Result<Value, Refusal> {
        let found = self.store.get(key)?;
        let found = found.ok_or_else(|| Refusal::not_found(super::About::object(kind, name)))?;
        object::decode(&found)
    }

    pub(super) fn get(&self, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        let object = self.read(call.kind, &call.key(), call.name())?;
        Ok(reply::json(StatusCode::OK, &form.one(call.kind, object)))
    }

    pub(super) async fn list(&self, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        let filter = Filter::parse(call.kind, &call.options)?;
        let prefix = call.prefix();
        let start = self.list_start(call, &prefix)?;
        let limit = call.options.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|n| *n > 0);
        let found = self.collect(&prefix, start, &filter, limit).await?;
        let mut list_meta = json!({ "resourceVersion": found.revision.to_string() });
        if let Some(after) = found.after {
            let after = prefix.rest(&after).unwrap_or_default().to_owned();
            list_meta["continue"] = Continue { revision: found.revision, after }.text()?.into();
        }
        Ok(reply::json(StatusCode::OK, &form.list(call.kind, found.objects, list_meta)))
    }

    fn list_start(&self, call: &Call, prefix: &Prefix) -> Result<PageStart, Refusal> {
        if let Some(text) = call.options.text("continue") {
            let Continue { revision, after } = Continue::parse(text)?;
            return Ok(PageStart { after: Some(prefix.key(&after)), revision: Some(revision) });
        }
        let asked = call.options.revision()?;
        let newest = self.store.revision();
        match (asked, call.options.text("resourceVersionMatch")) {
            (Some(asked), Some("Exact")) => Ok(PageStart { after: None, revision: Some(asked) }),
            (_, None | Some("NotOlderThan")) => match asked.filter(|asked| *asked > newest) {
                Some(asked) => Err(Refusal::too_large_revision(asked, newest)),
                None => Ok(PageStart::default()),
            },
            (_, Some(other)) => Err(Refusal::bad_request(format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\" (with a resourceVersion), \"NotOlderThan\""
            ))),
        }
    }

    /// All objects that pass a filter, or the first `limit` of them.
    pub(super) async fn collect(
        &self,
        prefix: &Prefix,
        mut start: PageStart,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Found, Refusal> {
        let mut found = Found { revision: 0, objects: Vec::new(), after: None };
        let limit = limit.unwrap_or(usize::MAX);
        loop {
            let page = self.store.page(prefix, &start, LIST_STEP_MAX).await?;
            let Page { revision, items, more } = page;
            found.revision = revision;
            let count = items.len();
            for (at, (key, stored)) in items.into_iter().enumerate() {
                let object = object::decode(&stored)?;
                if filter.matches(&object) {
                    found.objects.push(object);
                }
                let is_last = !more && at + 1 == count;
                if found.objects.len() == limit && !is_last {
                    found.after = Some(key);
                    return Ok(found);
                }
                start.after = Some(key);
            }
            if !more {
                return Ok(found);
            }
            // The rest must show the same state as the first step.
            start.revision = Some(revision);
            tokio::task::yield_now().await;
        }
    }
}

/// A filtered list, or its beginning.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) revision: Revision,
    pub(super) objects: Vec<Value>,
    /// Where it was cut.
    after: Option<Key>,
}
