//! Which events are repeats, and which are too many. Pure: time comes in with each event.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::EventType;

/// How many different events are remembered for counting.
const REMEMBERED_MAX: usize = 4096;
/// Events about one object at once.
const OBJECT_BURST: f64 = 25.0;
/// Events about one object on average: one in five minutes, once the burst is used up.
const OBJECT_PER_SECOND: f64 = 1.0 / 300.0;
/// The longest message; the API takes no longer one.
const MESSAGE_BYTES_MAX: usize = 1024;
/// An event's name is `<object>.<16 digits>` and a DNS subdomain.
const NAME_BYTES_MAX: usize = 253 - 17;
const COMPONENT: &str = "kubelet";

/// One thing that happened.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub about: ObjectReference,
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
    pub at: Timestamp,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Write {
    /// An event that is not there yet.
    Create(Event),
    /// One that is: its count and last time change.
    Repeat(Event),
}

/// Tokens that come back with time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    pub(super) fn full(tokens: f64, at: Timestamp) -> Self {
        Self { tokens, at }
    }

    /// Takes one token if there is one.
    pub(super) fn take(&mut self, now: Timestamp, burst: f64, per_second: f64) -> bool {
        let elapsed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + elapsed * per_second).min(burst.max(1.0));
        self.at = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    object: (Option<String>, Option<String>, Option<String>),
    field: Option<String>,
    kind: EventType,
    reason: &'static str,
    message: String,
}

/// Remembers what was told.
#[derive(Debug)]
pub(super) struct Aggregator {
    node: String,
    told: HashMap<Key, Event>,
    buckets: HashMap<Option<String>, Bucket>,
}

impl Aggregator {
    pub(super) fn new(node: String) -> Self {
        Self { node, told: HashMap::new(), buckets: HashMap::new() }
    }

    /// What is to be written for one thing that happened; nothing if there were too many about its object.
    pub(super) fn take(&mut self, mut seen: Seen) -> Option<Write> {
        truncate(&mut seen.message, MESSAGE_BYTES_MAX);
        self.forget_oldest();
        let bucket = self.buckets.entry(seen.about.uid.clone()).or_insert_with(|| Bucket::full(OBJECT_BURST, seen.at));
        if !bucket.take(seen.at, OBJECT_BURST, OBJECT_PER_SECOND) {
            return None;
        }
        let key = key(&seen);
        if let Some(event) = self.told.get_mut(&key) {
            event.count = event.count.map(|count| count.saturating_add(1));
            event.last_timestamp = Some(Time(seen.at));
            return Some(Write::Repeat(event.clone()));
        }
        let event = self.event(seen);
        self.told.insert(key, event.clone());
        Some(Write::Create(event))
    }

    /// The event under a name made of its last time, so that one that the master has forgotten can be made again.
    pub(super) fn rename(&mut self, event: &Event) -> Event {
        let mut renamed = event.clone();
        let object = event.involved_object.name.as_deref().unwrap_or_default();
        let at = event.last_timestamp.as_ref().map_or(0, |time| time.0.as_nanosecond());
        renamed.metadata.name = Some(name(object, at));
        for told in self.told.values_mut().filter(|told| told.metadata.name == event.metadata.name) {
            told.metadata.name.clone_from(&renamed.metadata.name);
        }
        renamed
    }

    fn event(&self, seen: Seen) -> Event {
        let at = Some(Time(seen.at));
        Event {
            metadata: ObjectMeta {
                name: Some(name(seen.about.name.as_deref().unwrap_or_default(), seen.at.as_nanosecond())),
                namespace: Some(seen.about.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: seen.about,
            reason: Some(seen.reason.to_owned()),
            message: Some(seen.message),
            type_: Some(seen.kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: at.clone(),
            last_timestamp: at,
            source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(self.node.clone()) }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }

    /// Keeps the memory bounded: half of it is given up at once, so that this is rare.
    fn forget_oldest(&mut self) {
        if self.told.len() >= REMEMBERED_MAX {
            let mut times: Vec<_> = self.told.values().map(|event| event.last_timestamp.clone()).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2].clone();
            self.told.retain(|_, event| event.last_timestamp > middle);
        }
        if self.buckets.len() >= REMEMBERED_MAX {
            let mut times: Vec<_> = self.buckets.values().map(|bucket| bucket.at).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.buckets.retain(|_, bucket| bucket.at > middle);
        }
    }
}

fn key(seen: &Seen) -> Key {
    Key {
        object: (seen.about.namespace.clone(), seen.about.name.clone(), seen.about.uid.clone()),
        field: seen.about.field_path.clone(),
        kind: seen.kind,
        reason: seen.reason,
        message: seen.message.clone(),
    }
}

fn name(object: &str, nanoseconds: i128) -> String {
    let mut object = object.to_owned();
    truncate(&mut object, NAME_BYTES_MAX);
    format!("{}.{nanoseconds:016x}", object.trim_end_matches(['.', '-']))
}

fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pod: &str, message: &str, second: i64) -> Seen {
        Seen {
            about: ObjectReference {
                namespace: Some("ns".to_owned()),
                name: Some(pod.to_owned()),
                uid: Some(format!("uid-{pod}")),
                ..ObjectReference::default()
            },
            kind: EventType::Warning,
            reason: "BackOff",
            message: message.to_owned(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn repeats_are_counted() {
        let mut aggregator = Aggregator::new("node".to_owned());
        let Some(Write::Create(first)) = aggregator.take(seen("a", "back-off", 1)) else { panic!() };
        let Some(Write::Repeat(second)) = aggregator.take(seen("a", "back-off", 5)) else { panic!() };
        assert_eq!(second.metadata.name, first.metadata.name);
        assert_eq!((second.count, second.first_timestamp), (Some(2), first.first_timestamp));
        assert_eq!(second.last_timestamp, Some(Time(Timestamp::from_second(5).unwrap())));
        assert!(matches!(aggregator.take(seen("a", "another", 6)), Some(Write::Create(_))));
        assert!(matches!(aggregator.take(seen("b", "back-off", 6)), Some(Write::Create(_))));
    }

    #[test]
    fn an_event_that_the_master_forgot_gets_a_new_name_for_good() {
        let mut aggregator = Aggregator::new("node".to_owned());
        let Some(Write::Create(first)) = aggregator.take(seen("a", "x", 1)) else { panic!() };
        let Some(Write::Repeat(second)) = aggregator.take(seen("a", "x", 4000)) else { panic!() };
        let renamed = aggregator.rename(&second);
        assert_ne!(renamed.metadata.name, first.metadata.name);
        let Some(Write::Repeat(third)) = aggregator.take(seen("a", "x", 4001)) else { panic!() };
        assert_eq!(third.metadata.name, renamed.metadata.name);
    }

    #[test]
    fn one_object_cannot_flood() {
        let mut aggregator = Aggregator::new("node".to_owned());
        let written = (0..100).filter(|n| aggregator.take(seen("a", &n.to_string(), 1)).is_some()).count();
        assert_eq!(written, 25);
        assert!(aggregator.take(seen("b", "x", 1)).is_some());
        assert!(aggregator.take(seen("a", "x", 400)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_messages_are_cut() {
        let mut aggregator = Aggregator::new("node".to_owned());
        for n in 0..10_000 {
            aggregator.take(seen(&n.to_string(), &"ä".repeat(2000), n));
        }
        assert!(aggregator.told.len() <= REMEMBERED_MAX && aggregator.buckets.len() <= REMEMBERED_MAX);
        assert!(aggregator.told.values().all(|event| event.message.as_ref().unwrap().len() <= MESSAGE_BYTES_MAX));
    }

    #[test]
    fn names_are_names() {
        assert_eq!(name("a", 255), "a.00000000000000ff");
        assert!(name(&"a".repeat(300), i128::from(i64::MAX)).len() <= 253);
    }
}
