//! A container's environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Secret};

use super::ConfigFault;
use super::expand::expand;
use super::fields::Fields;
use crate::objects::ObjectKind;

/// The config maps and secrets that were looked up, by kind and name; `None` where there is none of that name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fetched {
    /// Config maps.
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    /// Secrets.
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

/// The config maps and secrets that a container's environment is made of.
pub(crate) fn references(container: &Container) -> Vec<(ObjectKind, String)> {
    let mut out = Vec::new();
    for from in container.env_from.iter().flatten() {
        out.extend(from.config_map_ref.iter().map(|map| (ObjectKind::ConfigMap, map.name.clone())));
        out.extend(from.secret_ref.iter().map(|secret| (ObjectKind::Secret, secret.name.clone())));
    }
    for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        out.extend(source.config_map_key_ref.iter().map(|key| (ObjectKind::ConfigMap, key.name.clone())));
        out.extend(source.secret_key_ref.iter().map(|key| (ObjectKind::Secret, key.name.clone())));
    }
    out.sort();
    out.dedup();
    out
}

/// The environment, in the order in which it is given to the container: later ones win.
pub(crate) fn environment(
    container: &Container,
    fields: Fields<'_>,
    fetched: &Fetched,
) -> Result<Vec<(String, String)>, ConfigFault> {
    let mut env = Env::default();
    from_objects(container, fetched, &mut env)?;
    for var in container.env.iter().flatten() {
        check_name(container, &var.name)?;
        if let Some(value) = value(container, var, fields, fetched, &env)? {
            env.set(&var.name, value);
        }
    }
    Ok(env.list)
}

#[derive(Default)]
struct Env {
    list: Vec<(String, String)>,
}

impl Env {
    fn set(&mut self, name: &str, value: String) {
        self.list.retain(|(known, _)| known != name);
        self.list.push((name.to_owned(), value));
    }

    fn get(&self, name: &str) -> Option<String> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

fn from_objects(container: &Container, fetched: &Fetched, env: &mut Env) -> Result<(), ConfigFault> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            match fetched.config_map(&source.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        set_if_named(env, prefix, key, value.clone());
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(ConfigFault::missing("configmap", &source.name)),
            }
        }
        if let Some(source) = &from.secret_ref {
            match fetched.secret(&source.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        set_if_named(env, prefix, key, String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if source.optional == Some(true) => {}
                None => return Err(ConfigFault::missing("secret", &source.name)),
            }
        }
    }
    Ok(())
}

/// A key of an object that could not be the name of a variable is passed over, as Kubernetes does.
fn set_if_named(env: &mut Env, prefix: &str, key: &str, value: String) {
    let name = format!("{prefix}{key}");
    if is_name(&name) && !value.contains('\0') {
        env.set(&name, value);
    }
}

fn value(
    container: &Container,
    var: &EnvVar,
    fields: Fields<'_>,
    fetched: &Fetched,
    env: &Env,
) -> Result<Option<String>, ConfigFault> {
    let value = match &var.value_from {
        None => Some(expand(var.value.as_deref().unwrap_or_default(), |name| env.get(name))),
        Some(source) => from_source(container, source, fields, fetched)
            .map_err(|message| ConfigFault { message: format!("env {}: {message}", var.name) })?,
    };
    match value {
        Some(value) if value.contains('\0') => {
            Err(ConfigFault { message: format!("env {}: the value contains a zero byte", var.name) })
        }
        other => Ok(other),
    }
}

fn from_source(
    container: &Container,
    source: &EnvVarSource,
    fields: Fields<'_>,
    fetched: &Fetched,
) -> Result<Option<String>, String> {
    if let Some(selector) = &source.config_map_key_ref {
        let map = fetched.config_map(&selector.name);
        let value = map.and_then(|map| map.data.as_ref()?.get(&selector.key).cloned());
        return found(value, selector.optional, "configmap", &selector.name, &selector.key, map.is_some());
    }
    if let Some(selector) = &source.secret_key_ref {
        let secret = fetched.secret(&selector.name);
        let value = secret.and_then(|secret| secret.data.as_ref()?.get(&selector.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return found(value, selector.optional, "secret", &selector.name, &selector.key, secret.is_some());
    }
    if let Some(selector) = &source.field_ref {
        return fields.field(selector).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields.resource(selector, Some(&container.name)).map(Some);
    }
    Err("this node does not know the kind of its valueFrom".to_owned())
}

fn found(
    value: Option<String>,
    optional: Option<bool>,
    kind: &str,
    name: &str,
    key: &str,
    exists: bool,
) -> Result<Option<String>, String> {
    match (value, exists) {
        (Some(value), _) => Ok(Some(value)),
        (None, _) if optional == Some(true) => Ok(None),
        (None, true) => Err(format!("couldn't find key {key} in {kind} {name}")),
        (None, false) => Err(format!("{kind} {name:?} not found")),
    }
}

fn check_name(container: &Container, name: &str) -> Result<(), ConfigFault> {
    if is_name(name) {
        return Ok(());
    }
    let message = format!("containers[{}].env: {name:?} cannot be the name of a variable", container.name);
    Err(ConfigFault { message })
}

/// Printable ASCII without `=`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

impl Fetched {
    fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(name)?.as_deref()
    }

    fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)?.as_deref()
    }
}
