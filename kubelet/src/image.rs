//! Images: whether to pull, with whose credentials, and what users are told of it.

use std::time::{Duration, Instant};

use berth_api::reason::{event, waiting};
use berth_engine::{Engine, Error, ImageStatus, PullPolicy, RegistryAuth};
use k8s_openapi::api::core::v1::{Container, Secret};
use serde_json::Value;

use crate::objects::{ObjectError, Objects};
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
    // The engine is asked for what the policy has decided already: whatever the registry has now.
    let auths = credentials(objects, desired, reference)
        .await
        .map_err(|error| Fault { reason: waiting::ERR_IMAGE_PULL, message: format!("image pull secret: {error}") })?;
    let mut tries = auths.into_iter().map(Some).collect::<Vec<_>>();
    if tries.is_empty() {
        tries.push(None);
    }
    let mut last = None;
    for auth in tries {
        match engine.pull(reference, PullPolicy::Always, auth).await {
            Ok(image) => return Ok(image),
            Err(error) => last = Some(fault(&error)),
        }
    }
    let nothing = || Fault { reason: waiting::ERR_IMAGE_PULL, message: "nothing was tried".to_owned() };
    Err(last.unwrap_or_else(nothing))
}

fn fault(error: &Error) -> Fault {
    let reason = match error {
        Error::InvalidImageName { .. } => waiting::INVALID_IMAGE_NAME,
        _ => waiting::ERR_IMAGE_PULL,
    };
    Fault { reason, message: error.to_string() }
}

/// The credentials for an image's registry from the pod's `imagePullSecrets`. A secret that is not there is passed
/// over, as Kubernetes does: the image may need none.
async fn credentials(objects: &Objects, desired: &Desired, reference: &str) -> Result<Vec<RegistryAuth>, ObjectError> {
    let mut found = Vec::new();
    for named in desired.spec().image_pull_secrets.iter().flatten() {
        if let Some(secret) = objects.secret(&desired.id.namespace, &named.name).await? {
            found.extend(credentials_of(&secret, registry_of(reference)));
        }
    }
    Ok(found)
}

/// The registry that an image's name leads to; Docker Hub where it names none.
fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The credentials for a registry in a secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`.
fn credentials_of(secret: &Secret, registry: &str) -> Vec<RegistryAuth> {
    let Some(data) = &secret.data else { return Vec::new() };
    let parse = |key: &str| data.get(key).and_then(|bytes| serde_json::from_slice::<Value>(&bytes.0).ok());
    let new = parse(".dockerconfigjson").and_then(|config| config.get("auths").cloned());
    let auths = new.or_else(|| parse(".dockercfg"));
    let Some(Value::Object(auths)) = auths else { return Vec::new() };
    let matching = auths.iter().filter(|(server, _)| is_server_of(server, registry));
    matching.filter_map(|(_, entry)| credential(entry)).collect()
}

fn is_server_of(server: &str, registry: &str) -> bool {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    host == registry || (registry == "docker.io" && matches!(host, "index.docker.io" | "registry-1.docker.io"))
}

fn credential(entry: &Value) -> Option<RegistryAuth> {
    use base64::Engine as _;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() });
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

    fn check_credentials(config: Value, registry: &str, expected: Option<(&str, &str)>) {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret = serde_json::from_value(json!({ "data": { ".dockerconfigjson": text } })).unwrap();
        let found = credentials_of(&secret, registry).into_iter().next();
        let found = found.as_ref().map(|auth| (auth.username.as_str(), auth.password.as_str()));
        assert_eq!(found, expected);
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let plain = json!({ "auths": { "r.example": { "username": "u", "password": "p" } } });
        check_credentials(plain.clone(), "r.example", Some(("u", "p")));
        check_credentials(plain, "other.example", None);
        let encoded = json!({ "auths": { "https://index.docker.io/v1/": { "auth": "dTpwOnE=" } } });
        check_credentials(encoded, registry_of("busybox"), Some(("u", "p:q")));
        check_credentials(json!({ "auths": { "r": { "auth": "!" } } }), "r", None);
        assert_eq!(registry_of("host:5000/a/b"), "host:5000");
        assert_eq!(registry_of("library/busybox"), "docker.io");
    }
}
