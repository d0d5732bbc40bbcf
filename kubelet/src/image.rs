//! Images: whether to pull, with whose credentials, and what users are told of it.

use std::time::{Duration, Instant};

use berth_api::reason::{event, waiting};
use berth_engine::{CredentialsError, Engine, Error, ImageStatus, Keyring, PullPolicy};
use k8s_openapi::api::core::v1::{Container, Secret};

use crate::objects::Objects;
use crate::pod::desired::Desired;
use crate::pod::event::{Fault, Product};
use crate::pod::notice::Notice;

/// What a container says about pulling its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Ask the registry before each run.
    Always,
    /// Only if it is not here.
    IfNotPresent,
    /// It must be here.
    Never,
}

impl Policy {
    /// The policy of a container: without a word, an image that may change behind its name is asked for each time.
    pub(crate) fn of(container: &Container) -> Self {
        match container.image_pull_policy.as_deref() {
            Some("Always") => Self::Always,
            Some("IfNotPresent") => Self::IfNotPresent,
            Some("Never") => Self::Never,
            _ if is_latest(container.image.as_deref().unwrap_or_default()) => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

/// Whether an image's name has the tag `latest`, or no tag and no digest.
fn is_latest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    if image.contains('@') {
        return false;
    }
    name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Sees to it that the image for a container's next run is here. `tell` is called when a pull begins.
pub(crate) async fn provide(
    engine: &Engine,
    objects: &Objects,
    desired: &Desired,
    container: &Container,
    attempt: u32,
    tell: impl Fn(Notice),
) -> Result<Product, Fault> {
    let reference = container.image.as_deref().unwrap_or_default();
    if reference.is_empty() {
        let message = format!("containers[{}].image: is missing", container.name);
        return Err(Fault { reason: waiting::INVALID_IMAGE_NAME, message });
    }
    let policy = Policy::of(container);
    let present = engine.image(reference).await.map_err(|error| fault(&error))?;
    let here = |image: ImageStatus, message: String| Product::Image { attempt, id: image.id, message };
    match (policy, present) {
        (Policy::IfNotPresent | Policy::Never, Some(image)) => {
            let message = format!("Container image {reference:?} already present on machine");
            Ok(here(image, message))
        }
        (Policy::Never, None) => {
            let message = format!("Container image {reference:?} is not present with pull policy of Never");
            Err(Fault { reason: waiting::ERR_IMAGE_NEVER_PULL, message })
        }
        (Policy::Always, _) | (Policy::IfNotPresent, None) => {
            tell(Notice::normal(Some(&container.name), event::PULLING, format!("Pulling image {reference:?}")));
            let begun = Instant::now();
            let image = pull(engine, objects, desired, reference).await?;
            Ok(here(image, pulled_message(reference, begun.elapsed())))
        }
    }
}

fn pulled_message(reference: &str, took: Duration) -> String {
    format!("Successfully pulled image {reference:?} in {took:.3?}")
}

async fn pull(engine: &Engine, objects: &Objects, desired: &Desired, reference: &str) -> Result<ImageStatus, Fault> {
    let keyring = keyring(objects, desired).await?;
    // The engine is asked for what the policy has decided already: whatever the registry has now.
    engine.pull(reference, PullPolicy::Always, Some(keyring)).await.map_err(|error| fault(&error))
}

fn fault(error: &Error) -> Fault {
    let reason = match error {
        Error::InvalidImageName { .. } => waiting::INVALID_IMAGE_NAME,
        _ => waiting::ERR_IMAGE_PULL,
    };
    Fault { reason, message: error.to_string() }
}

/// The credentials in the pod's `imagePullSecrets`. A secret that is not there is passed over, as Kubernetes does: the
/// image may need none.
async fn keyring(objects: &Objects, desired: &Desired) -> Result<Keyring, Fault> {
    let mut keyring = Keyring::default();
    for named in desired.spec().image_pull_secrets.iter().flatten() {
        let wrong = |why: String| Fault {
            reason: waiting::ERR_IMAGE_PULL,
            message: format!("image pull secret {:?}: {why}", named.name),
        };
        let secret =
            objects.secret(&desired.id.namespace, &named.name).await.map_err(|error| wrong(error.to_string()))?;
        if let Some(secret) = secret {
            keyring = keyring.and(keyring_of(&secret).map_err(|error| wrong(error.to_string()))?);
        }
    }
    Ok(keyring)
}

/// The credentials in a secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`.
fn keyring_of(secret: &Secret) -> Result<Keyring, CredentialsError> {
    let value = |key: &str| Some(&secret.data.as_ref()?.get(key)?.0);
    match (value(".dockerconfigjson"), value(".dockercfg")) {
        (Some(text), _) => Keyring::of_docker_config_json(text),
        (None, Some(text)) => Keyring::of_docker_cfg(text),
        (None, None) => Ok(Keyring::default()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;

    fn check_policy(image: &str, policy: Option<&str>, expected: Policy) {
        let container = Container {
            image: Some(image.to_owned()),
            image_pull_policy: policy.map(str::to_owned),
            ..Container::default()
        };
        assert_eq!(Policy::of(&container), expected, "{image} {policy:?}");
    }

    #[test]
    fn names_that_may_change_are_asked_for_each_time() {
        check_policy("web", None, Policy::Always);
        check_policy("web:latest", None, Policy::Always);
        check_policy("host:5000/web", None, Policy::Always);
        check_policy("host:5000/web:1", None, Policy::IfNotPresent);
        check_policy("web:1", None, Policy::IfNotPresent);
        check_policy("web@sha256:00", None, Policy::IfNotPresent);
        check_policy("web", Some("Never"), Policy::Never);
        check_policy("web:1", Some("Always"), Policy::Always);
    }

    #[test]
    fn secrets_of_both_types_are_read() {
        let keyring = |key: &str, value: Value| {
            let data = BTreeMap::from([(key.to_owned(), ByteString(value.to_string().into_bytes()))]);
            keyring_of(&Secret { data: Some(data), ..Secret::default() })
        };
        let entries = json!({ "r.example": { "username": "u", "password": "p" } });
        let new = keyring(".dockerconfigjson", json!({ "auths": entries.clone() })).unwrap();
        assert_eq!(new, keyring(".dockercfg", entries.clone()).unwrap());
        assert_ne!(new, Keyring::default());
        assert_eq!(keyring("other", entries).unwrap(), Keyring::default());
        assert_eq!(keyring_of(&Secret::default()).unwrap(), Keyring::default());
        let error = keyring(".dockercfg", json!({ "r.example": 7 })).unwrap_err();
        assert!(error.to_string().contains("r.example"), "{error}");
    }
}
