//! Every limit and deadline of the master, by name.

use std::time::Duration;

/// Largest request body: what kube-apiserver takes.
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// Largest object that is stored, in JSON: etcd's bound on one request, so that no object is born here that could not
/// live on another control plane.
pub const OBJECT_BYTES_MAX: usize = 3 << 19;
/// Deepest nesting of a request body is serde_json's own bound (128).
pub const QUERY_BYTES_MAX: usize = 16 << 10;

/// Connections at one time; the next ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1024;
/// Requests at one time on one HTTP/2 connection, watches included.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 250;
/// Bytes of all headers of a request.
pub const HEADER_BYTES_MAX: u32 = 64 << 10;
/// From accept to the end of the TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// From the first byte of a request to the end of its headers (HTTP/1.1).
pub const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// For the body of a request to arrive.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// For a request that is no watch and no log to be answered: kube-apiserver's own.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// HTTP/2 connections that are silent for this long are asked whether they live.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// For running requests to end once the master is told to stop.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Changes that are remembered for watches that start, or pages that continue, in the past.
pub const HISTORY_CHANGES_MAX: usize = 10_000;
/// The same in bytes of JSON.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;
/// Writes that wait for the database; the next ones wait for room in the queue.
pub const WRITE_QUEUE_MAX: usize = 1024;
/// Writes that share one durable transaction.
pub const WRITE_BATCH_MAX: usize = 256;
/// For a revision that a client has seen to be told here; one that does not come is from another cluster.
pub const REVISION_DEADLINE: Duration = Duration::from_secs(3);
/// Memory that the database may use for its cache.
pub const DATABASE_CACHE_BYTES: usize = 16 << 20;
/// Objects read per step of a list; the reader yields between steps.
pub const LIST_STEP_MAX: usize = 500;
/// How often a change without an expected resourceVersion is tried again when others change the object meanwhile.
pub const CONFLICT_RETRIES_MAX: usize = 16;
/// How many random names are tried for one `generateName`, as kube-apiserver does.
pub const GENERATE_NAME_TRIES_MAX: usize = 8;
/// The longest prefix that is kept of a `generateName`: 63 less the five random characters.
pub const GENERATE_NAME_PREFIX_MAX: usize = 58;

/// A watch without `timeoutSeconds` lives this long, and no watch longer.
pub const WATCH_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);
/// The shortest life of a watch without `timeoutSeconds`; a random part of the rest keeps clients from returning at once.
pub const WATCH_LIFETIME_MIN: Duration = Duration::from_secs(30 * 60);
/// How often a watch is told where it stands, when it asked for bookmarks.
pub const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Changes handed to one watch before its bytes are sent.
pub const WATCH_STEP_MAX: usize = 100;

/// To reach a kubelet and shake hands.
pub const KUBELET_CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// For a kubelet to answer the headers of a log request.
pub const KUBELET_ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes that are read of a kubelet's refusal.
pub const KUBELET_ERROR_BYTES_MAX: usize = 64 << 10;

/// Events are kept this long after they were last seen: kube-apiserver's default.
pub const EVENT_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How often events that are older are looked for.
pub const EVENT_SWEEP_EVERY: Duration = Duration::from_secs(5 * 60);
