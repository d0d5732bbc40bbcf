//! Watches: the state, if it was asked for, then every change, one JSON object a line.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep_until};

use super::read::Filter;
use super::reply::{BodyError, Form, JSON, Reply};
use super::status::Refusal;
use super::{Api, Call, object};
use crate::limits::{BOOKMARK_EVERY, LIST_STEP_MAX, WATCH_LIFETIME_MAX, WATCH_LIFETIME_MIN, WATCH_STEP_MAX};
use crate::resource::Kind;
use crate::store::{Change, ChangeKind, Follower, PageStart, Prefix, Revision, StoreError};

/// Marks the bookmark that ends the initial state, for clients that asked for it.
const INITIAL_END_ANNOTATION: &str = "k8s.io/initial-events-end";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bookmarks {
    Wanted,
    Unwanted,
}

/// One watch on its way.
struct Watch {
    api: Arc<Api>,
    kind: &'static Kind,
    prefix: Prefix,
    filter: Filter,
    form: Form,
    bookmarks: Bookmarks,
    /// The client waits for a bookmark that says that it has the initial state.
    initial_end: Bookmarks,
    stage: Stage,
    ends: Instant,
    next_bookmark: Instant,
    lines: VecDeque<Value>,
}

enum Stage {
    /// Sends the state as it was at one revision.
    Initial(PageStart),
    /// Will follow from here.
    From(Revision),
    Following(Follower),
    Ended,
}

impl Api {
    pub(super) fn watch(self: &Arc<Self>, call: &Call) -> Result<Reply, Refusal> {
        let form = Form::choose(&call.headers, &call.options)?;
        let filter = Filter::parse(call.kind, &call.options)?;
        let options = &call.options;
        let bookmarks = if options.flag("allowWatchBookmarks") { Bookmarks::Wanted } else { Bookmarks::Unwanted };
        let wants_initial = options.flag("sendInitialEvents");
        if wants_initial && options.text("resourceVersionMatch") != Some("NotOlderThan") {
            return Err(Refusal::unprocessable(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let stage = match options.revision()? {
            // Whoever names no revision is sent the state, unless the request says no to that.
            _ if wants_initial => Stage::Initial(PageStart::default()),
            Some(revision) => Stage::From(revision),
            None if options.text("sendInitialEvents").is_some() => Stage::From(self.store.revision()),
            None => Stage::Initial(PageStart::default()),
        };
        let now = Instant::now();
        let watch = Watch {
            api: Arc::clone(self),
            kind: call.kind,
            prefix: call.prefix(),
            filter,
            form,
            bookmarks,
            initial_end: if wants_initial { bookmarks } else { Bookmarks::Unwanted },
            stage,
            ends: now + lifetime(options.number("timeoutSeconds")?),
            next_bookmark: now + BOOKMARK_EVERY,
            lines: VecDeque::new(),
        };
        let body = StreamBody::new(watch.stream()).boxed_unsync();
        let mut reply = Reply::new(body);
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        Ok(reply)
    }
}

fn lifetime(asked_secs: Option<u64>) -> Duration {
    match asked_secs {
        Some(secs) if secs > 0 => Duration::from_secs(secs).min(WATCH_LIFETIME_MAX),
        _ => {
            let spread = WATCH_LIFETIME_MAX.saturating_sub(WATCH_LIFETIME_MIN);
            WATCH_LIFETIME_MIN + Duration::from_secs(object::random_below(spread.as_secs()))
        }
    }
}

impl Watch {
    fn stream(self) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let bytes = watch.next_bytes().await?;
            Some((Ok(Frame::data(bytes)), watch))
        })
    }

    /// The next lines; `None` at the end.
    async fn next_bytes(&mut self) -> Option<Bytes> {
        while self.lines.is_empty() {
            if matches!(self.stage, Stage::Ended) {
                return None;
            }
            let stop = self.api.stop.clone();
            let (ends, bookmark) = (self.ends, self.next_bookmark);
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep_until(ends) => return None,
                () = sleep_until(bookmark) => self.bookmark(),
                outcome = self.step() => {
                    if let Err(refusal) = outcome {
                        self.lines.push_back(json!({ "type": "ERROR", "object": refusal.object() }));
                        self.stage = Stage::Ended;
                    }
                }
            }
        }
        let mut bytes = Vec::new();
        for line in self.lines.drain(..) {
            // Writing to memory does not fail, and a Value is always JSON.
            if serde_json::to_writer(&mut bytes, &line).is_ok() {
                bytes.push(b'\n');
            }
        }
        Some(bytes.into())
    }

    /// Goes on by one step; may be dropped while it waits and loses nothing by that.
    async fn step(&mut self) -> Result<(), Refusal> {
        match &mut self.stage {
            Stage::Initial(start) => {
                let page = self.api.store.page(&self.prefix, start, LIST_STEP_MAX).await?;
                start.revision = Some(page.revision);
                for (key, stored) in page.items {
                    let found = object::decode(&stored)?;
                    start.after = Some(key);
                    if self.filter.matches(&found) {
                        self.lines.push_back(event(self.form, self.kind, "ADDED", found));
                    }
                }
                if !page.more {
                    self.stage = Stage::From(page.revision);
                    if self.initial_end == Bookmarks::Wanted {
                        let mark = bookmark(self.form, self.kind, page.revision, Mark::InitialEnd);
                        self.lines.push_back(mark);
                    }
                }
            }
            Stage::From(revision) => {
                let revision = *revision;
                let follower = match self.api.store.follow(self.prefix.clone(), revision).await {
                    // It was given by another cluster, or one whose data is gone: the client must begin anew.
                    Err(StoreError::Future { newest, .. }) => {
                        return Err(Refusal::expired(format!("too new resource version: {revision} ({newest})")));
                    }
                    other => other?,
                };
                self.stage = Stage::Following(follower);
            }
            Stage::Following(follower) => {
                for change in follower.next(WATCH_STEP_MAX).await? {
                    if let Some(line) = line(&self.filter, self.form, self.kind, &change)? {
                        self.lines.push_back(line);
                    }
                }
            }
            Stage::Ended => {}
        }
        Ok(())
    }

    fn bookmark(&mut self) {
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
        if let (Bookmarks::Wanted, Stage::Following(follower)) = (self.bookmarks, &self.stage) {
            self.lines.push_back(bookmark(self.form, self.kind, follower.cursor(), Mark::Place));
        }
    }
}

/// What a change is to one who sees only what passes the filter.
fn line(filter: &Filter, form: Form, kind: &Kind, change: &Change) -> Result<Option<Value>, Refusal> {
    let before = match &change.previous {
        // Shown at the revision of the change, so that the client's place moves on.
        Some(previous) => Some(object::decode_at(&previous.text, change.revision)?).filter(|old| filter.matches(old)),
        None => None,
    };
    let now = object::decode_at(&change.text, change.revision)?;
    let matches = filter.matches(&now);
    let (word, shown) = match (change.kind, before, matches) {
        (ChangeKind::Deleted, Some(_), true) => ("DELETED", now),
        (_, Some(before), false) => ("DELETED", before),
        (ChangeKind::Deleted, None, _) | (_, None, false) => return Ok(None),
        (_, Some(_), true) => ("MODIFIED", now),
        (_, None, true) => ("ADDED", now),
    };
    Ok(Some(event(form, kind, word, shown)))
}

fn event(form: Form, kind: &Kind, word: &str, shown: Value) -> Value {
    json!({ "type": word, "object": form.one(kind, shown) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Place,
    InitialEnd,
}

/// Tells the client where it stands, in an object that has nothing but a resourceVersion.
fn bookmark(form: Form, kind: &Kind, revision: Revision, mark: Mark) -> Value {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if mark == Mark::InitialEnd {
        metadata["annotations"] = json!({ INITIAL_END_ANNOTATION: "true" });
    }
    let object = match form {
        Form::Table(_) => form.list(kind, Vec::new(), metadata),
        Form::Object | Form::Metadata => {
            form.one(kind, json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata }))
        }
    };
    json!({ "type": "BOOKMARK", "object": object })
}
