//! The API server: Kubernetes' REST API over the store.
//!
//! ```text
//!  serve ─ connection, TLS, user (authn)
//!    └▶ route ─ request ▸ authz ▸ read | watch | create, update, delete | pod | proxy | discovery
//!         └▶ reply ─ object, list, Table or Status
//! ```
//!
//! The verbs are the same for every kind; what is special about a kind stands in the table of kinds, but for what
//! reaches beyond one object: binding, logs, and the lives of namespaces.

mod authn;
mod authz;
mod create;
mod delete;
mod discovery;
mod expiry;
mod namespace;
mod object;
mod pod;
mod protobuf;
mod proxy;
mod read;
mod reply;
mod route;
mod serve;
mod status;
mod tls;
mod update;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

pub(crate) use namespace::make_initial;
pub(crate) use proxy::Kubelets;
pub(crate) use serve::serve;
pub(crate) use tls::server_config;

use crate::request::{Options, Target, Verb};
use crate::resource::Kind;
use crate::store::{Key, Prefix, Store, StoreError};
use authn::User;
use status::{About, Refusal};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) kubelets: Kubelets,
    /// Watches and logs end with it.
    pub(crate) stop: CancellationToken,
}

/// One request about objects of a kind that exists.
struct Call {
    user: Arc<User>,
    verb: Verb,
    kind: &'static Kind,
    target: Target,
    options: Options,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn prefix(&self) -> Prefix {
        Prefix::new(self.kind.group, self.kind.plural, self.target.namespace.as_deref())
    }

    /// The name in the path; empty for a collection.
    fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    fn key(&self) -> Key {
        self.prefix().key(self.name())
    }

    fn about(&self) -> About<'_> {
        About::object(self.kind, self.name())
    }

    fn subresource(&self) -> Option<&str> {
        self.target.subresource.as_deref()
    }

    /// Whether the request only asks what would happen.
    fn dry_run(&self) -> Result<DryRun, Refusal> {
        let mut asked = DryRun::No;
        for value in self.options.all("dryRun").filter(|value| !value.is_empty()) {
            if value != "All" {
                return Err(Refusal::unprocessable(format!(
                    "dryRun: Unsupported value: {value:?}: supported values: \"All\""
                )));
            }
            asked = DryRun::Yes;
        }
        Ok(asked)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DryRun {
    Yes,
    No,
}

impl From<StoreError> for Refusal {
    /// For errors that no verb expects; those that it does are told in its own words.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooOld { asked, oldest } => Self::too_old(asked, oldest),
            StoreError::Future { asked, newest } => Self::too_large_revision(asked, newest),
            StoreError::Closed => Self::unavailable("the server is shutting down"),
            other => Self::internal(other),
        }
    }
}

#[cfg(test)]
mod tests;
