//! What a container's record in the engine remembers for us across restarts of the agent.

use std::collections::BTreeMap;

const STREAK: &str = "berth.streak";
const IMAGE: &str = "berth.image";

/// The annotations of a container.
pub(crate) fn annotations(streak: u32, image: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(STREAK.to_owned(), streak.to_string()), (IMAGE.to_owned(), image.to_owned())])
}

/// How many runs before this one ended early, in a row.
pub(crate) fn streak(annotations: &BTreeMap<String, String>) -> u32 {
    annotations.get(STREAK).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The image that the pod asked for; the engine itself knows it by its id.
pub fn image_asked_for(annotations: &BTreeMap<String, String>) -> String {
    annotations.get(IMAGE).cloned().unwrap_or_default()
}
