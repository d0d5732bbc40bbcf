//! The files of a volume that is written from objects. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret};

use super::VolumeError;
use super::recipe::{mode, stays_inside};
use crate::pod::container_config::Fields;

/// Files by their path in the volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The files.
    pub files: BTreeMap<PathBuf, File>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// What it says.
    pub content: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

impl Payload {
    /// Adds the keys of a config map. `None` is one that is not there.
    pub(crate) fn add_config_map(
        &mut self,
        name: &str,
        map: Option<&ConfigMap>,
        items: &[KeyToPath],
        optional: bool,
        default_mode: u32,
    ) -> Result<(), VolumeError> {
        let Some(map) = map else { return missing("configmap", name, optional) };
        let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
        self.add_keys(("configmap", name), &text.chain(binary).collect(), items, optional, default_mode)
    }

    /// Adds the keys of a secret. `None` is one that is not there.
    pub(crate) fn add_secret(
        &mut self,
        name: &str,
        secret: Option<&Secret>,
        items: &[KeyToPath],
        optional: bool,
        default_mode: u32,
    ) -> Result<(), VolumeError> {
        let Some(secret) = secret else { return missing("secret", name, optional) };
        let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
        self.add_keys(("secret", name), &data.collect(), items, optional, default_mode)
    }

    /// Adds fields of the pod.
    pub(crate) fn add_fields(
        &mut self,
        files: &[DownwardAPIVolumeFile],
        fields: Fields<'_>,
        default_mode: u32,
    ) -> Result<(), VolumeError> {
        for file in files {
            let value = match (&file.field_ref, &file.resource_field_ref) {
                (Some(selector), _) => fields.field(selector),
                (None, Some(selector)) => fields.resource(selector, None),
                (None, None) => Err("needs fieldRef or resourceFieldRef".to_owned()),
            };
            let value = value.map_err(|message| VolumeError::Spec {
                message: format!("downwardAPI item {:?}: {message}", file.path),
            })?;
            self.add(&file.path, value.into_bytes(), mode("mode", file.mode, default_mode)?)?;
        }
        Ok(())
    }

    fn add_keys(
        &mut self,
        (kind, name): (&str, &str),
        data: &BTreeMap<&str, &[u8]>,
        items: &[KeyToPath],
        optional: bool,
        default_mode: u32,
    ) -> Result<(), VolumeError> {
        if items.is_empty() {
            return data.iter().try_for_each(|(key, value)| self.add(key, value.to_vec(), default_mode));
        }
        for item in items {
            match data.get(item.key.as_str()) {
                Some(value) => self.add(&item.path, value.to_vec(), mode("mode", item.mode, default_mode)?)?,
                None if optional => {}
                None => {
                    let message = format!("{kind} references non-existent config key: {}", item.key);
                    return Err(VolumeError::Object { message: format!("{kind} {name:?}: {message}") });
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, content: Vec<u8>, mode: u32) -> Result<(), VolumeError> {
        let path = Path::new(path);
        if !stays_inside(path) {
            let message = format!("path {:?} must be relative and without \"..\"", path.display());
            return Err(VolumeError::Spec { message });
        }
        self.files.insert(path.components().collect(), File { content, mode });
        Ok(())
    }
}

fn missing(kind: &str, name: &str, optional: bool) -> Result<(), VolumeError> {
    if optional {
        return Ok(());
    }
    Err(VolumeError::Object { message: format!("{kind} {name:?} not found") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map() -> ConfigMap {
        serde_json::from_value(json!({ "data": { "a": "1", "b": "2" }, "binaryData": { "c": "AP8=" } })).unwrap()
    }

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath { key: key.to_owned(), path: path.to_owned(), mode, ..KeyToPath::default() }
    }

    fn build(items: &[KeyToPath], optional: bool) -> Result<Payload, VolumeError> {
        let mut payload = Payload::default();
        payload.add_config_map("conf", Some(&map()), items, optional, 0o644).map(|()| payload)
    }

    #[test]
    fn all_keys_are_files_unless_items_choose() {
        let all = build(&[], false).unwrap();
        assert_eq!(all.files.len(), 3);
        assert_eq!(all.files[Path::new("c")].content, [0, 255]);
        let some = build(&[item("a", "x/y", Some(0o400))], false).unwrap();
        assert_eq!(some.files.len(), 1);
        assert_eq!(some.files[Path::new("x/y")], File { content: b"1".to_vec(), mode: 0o400 });
    }

    #[test]
    fn what_is_missing_is_an_error_unless_it_is_optional() {
        assert!(build(&[item("none", "x", None)], false).is_err());
        assert!(build(&[item("none", "x", None)], true).unwrap().files.is_empty());
        let mut payload = Payload::default();
        assert!(payload.add_secret("s", None, &[], false, 0o644).is_err());
        assert!(payload.add_secret("s", None, &[], true, 0o644).is_ok());
    }

    #[test]
    fn no_path_leaves_the_volume() {
        for path in ["../x", "/x", "a/../../x", "", "..data/x"] {
            assert!(build(&[item("a", path, None)], false).is_err(), "{path:?}");
        }
    }
}
