//! Which images go: a pure function of what is here, how full the disk is, and the time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

/// When images go that nobody uses. The default lets none go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// How full the disk may be.
    pub space: Option<Thresholds>,
    /// How long an image stays after it came or was last used, however full the disk is.
    pub min_age: Duration,
    /// After how long without use an image goes, however empty the disk is.
    pub max_age: Option<Duration>,
    /// Images without a tag go, however young, and so does what pulls that were cut off left.
    pub untagged: bool,
}

/// How full a disk may become, in percent of its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// From here on images go …
    pub high_percent: u8,
    /// … until it is as empty as this.
    pub low_percent: u8,
}

/// Why an image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcReason {
    /// It has no tag.
    Untagged,
    /// It was not used for longer than images may.
    Unused,
    /// The disk is too full, and it was used the least recently.
    Space,
}

/// What the plan is made of.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) images: Vec<Candidate>,
    /// Layers that snapshots stand on.
    pub(crate) held: HashSet<String>,
    /// What each layer takes, unpacked and as a blob.
    pub(crate) layer_bytes: HashMap<String, u64>,
    pub(crate) disk: Disk,
}

/// An image as the plan sees it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: String,
    pub(crate) layers: Vec<String>,
    /// When it came or was mounted last.
    pub(crate) last_used: Timestamp,
    pub(crate) is_tagged: bool,
    /// Never to go.
    pub(crate) pinned: bool,
    /// A snapshot stands on it.
    pub(crate) in_use: bool,
}

/// The disk that the store is on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disk {
    pub(crate) capacity_bytes: u64,
    pub(crate) available_bytes: u64,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) removals: Vec<Removal>,
    /// What will still be missing to be as empty as wanted.
    pub(crate) missing_bytes: u64,
}

/// An image that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: GcReason,
    /// Bytes of its layers that nothing else needs.
    pub freed_bytes: u64,
}

/// Images in the order in which they go, the longest unused first.
pub(crate) fn plan(observed: &Observed, policy: &GcPolicy, now: Timestamp) -> Plan {
    let age = |image: &Candidate| now.duration_since(image.last_used).unsigned_abs();
    let mut unused: Vec<&Candidate> = observed.images.iter().filter(|image| !image.pinned && !image.in_use).collect();
    unused.sort_by(|one, other| (one.last_used, &one.id).cmp(&(other.last_used, &other.id)));
    let mut missing_bytes = wanted_bytes(observed.disk, policy.space);
    let mut needed = needs(observed);
    let mut removals = Vec::new();
    for image in unused {
        let old = age(image) >= policy.min_age && image.last_used <= now;
        let reason = match () {
            () if policy.untagged && !image.is_tagged => GcReason::Untagged,
            () if old && policy.max_age.is_some_and(|max| age(image) >= max) => GcReason::Unused,
            () if old && missing_bytes > 0 => GcReason::Space,
            () => continue,
        };
        let freed_bytes = release(image, &mut needed, &observed.layer_bytes);
        missing_bytes = missing_bytes.saturating_sub(freed_bytes);
        removals.push(Removal { id: image.id.clone(), reason, freed_bytes });
    }
    Plan { removals, missing_bytes }
}

fn wanted_bytes(disk: Disk, space: Option<Thresholds>) -> u64 {
    let Some(Thresholds { high_percent, low_percent }) = space else { return 0 };
    let used = disk.capacity_bytes.saturating_sub(disk.available_bytes);
    let share = |percent: u8| u64::try_from(u128::from(disk.capacity_bytes) * u128::from(percent.min(100)) / 100);
    let (high, low) = (share(high_percent).unwrap_or(u64::MAX), share(low_percent).unwrap_or(u64::MAX));
    if disk.capacity_bytes == 0 || used < high { 0 } else { used.saturating_sub(low) }
}

/// By how many each layer is needed.
fn needs(observed: &Observed) -> HashMap<&str, usize> {
    let mut needs: HashMap<&str, usize> = HashMap::new();
    let of_images = observed.images.iter().flat_map(|image| distinct(&image.layers));
    for layer in of_images.chain(observed.held.iter().map(String::as_str)) {
        *needs.entry(layer).or_default() += 1;
    }
    needs
}

/// Takes an image away; the bytes of its layers that nobody needs then.
fn release(image: &Candidate, needed: &mut HashMap<&str, usize>, bytes: &HashMap<String, u64>) -> u64 {
    let mut freed = 0u64;
    for layer in distinct(&image.layers) {
        let Some(count) = needed.get_mut(layer) else { continue };
        *count -= 1;
        if *count == 0 {
            freed = freed.saturating_add(bytes.get(layer).copied().unwrap_or_default());
        }
    }
    freed
}

fn distinct(layers: &[String]) -> HashSet<&str> {
    layers.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    /// An image that was last used so many seconds ago.
    fn image(id: &str, ago: i64, layers: &[&str]) -> Candidate {
        Candidate {
            id: id.to_owned(),
            layers: layers.iter().map(ToString::to_string).collect(),
            last_used: Timestamp::from_second(NOW - ago).unwrap(),
            is_tagged: true,
            pinned: false,
            in_use: false,
        }
    }

    fn observed(images: Vec<Candidate>, available_bytes: u64) -> Observed {
        let layers: HashSet<String> = images.iter().flat_map(|image| image.layers.clone()).collect();
        Observed {
            images,
            layer_bytes: layers.into_iter().map(|layer| (layer, 10)).collect(),
            disk: Disk { capacity_bytes: 100, available_bytes },
            ..Observed::default()
        }
    }

    fn space() -> GcPolicy {
        let space = Some(Thresholds { high_percent: 85, low_percent: 80 });
        GcPolicy { space, min_age: Duration::from_secs(120), ..GcPolicy::default() }
    }

    fn gone(plan: &Plan) -> Vec<&str> {
        plan.removals.iter().map(|removal| removal.id.as_str()).collect()
    }

    #[test]
    fn a_disk_that_is_not_full_loses_nothing() {
        assert_eq!(plan(&observed(vec![image("a", 9999, &["1"])], 16), &space(), now()), Plan::default());
    }

    #[test]
    fn the_longest_unused_go_until_the_disk_is_empty_enough() {
        let images = vec![image("a", 300, &["1"]), image("b", 900, &["2"]), image("c", 600, &["3"])];
        let plan = plan(&observed(images, 5), &space(), now());
        assert_eq!(gone(&plan), ["b", "c"]);
        assert_eq!(plan.missing_bytes, 0);
    }

    #[test]
    fn what_is_young_used_or_pinned_stays_and_what_is_missing_is_told() {
        let mut images = vec![image("young", 60, &["1"]), image("used", 900, &["2"]), image("pinned", 900, &["3"])];
        images[1].in_use = true;
        images[2].pinned = true;
        let plan = plan(&observed(images, 0), &space(), now());
        assert_eq!(plan, Plan { removals: Vec::new(), missing_bytes: 20 });
    }

    #[test]
    fn a_shared_layer_frees_nothing_until_its_last_image_goes() {
        let images = vec![image("a", 900, &["1", "2"]), image("b", 600, &["1"]), image("c", 300, &["3"])];
        let plan = plan(&observed(images, 5), &space(), now());
        let freed: Vec<u64> = plan.removals.iter().map(|removal| removal.freed_bytes).collect();
        assert_eq!((gone(&plan), freed), (vec!["a", "b"], vec![10, 10]));
    }

    #[test]
    fn a_layer_below_a_snapshot_frees_nothing() {
        let mut observed = observed(vec![image("a", 900, &["1"]), image("b", 600, &["2"])], 15);
        observed.held.insert("1".to_owned());
        assert_eq!(gone(&plan(&observed, &space(), now())), ["a", "b"]);
    }

    #[test]
    fn unused_and_untagged_images_go_from_an_empty_disk_too() {
        let mut images = vec![image("old", 900, &["1"]), image("new", 60, &["2"]), image("untagged", 1, &["3"])];
        images[2].is_tagged = false;
        let max_age = Some(Duration::from_secs(600));
        let policy = GcPolicy { max_age, untagged: true, ..GcPolicy::default() };
        let plan = plan(&observed(images, 100), &policy, now());
        let reasons: Vec<_> = plan.removals.iter().map(|removal| (removal.id.as_str(), removal.reason)).collect();
        assert_eq!(reasons, [("old", GcReason::Unused), ("untagged", GcReason::Untagged)]);
    }

    proptest! {
        #[test]
        fn nothing_that_must_stay_goes_and_no_more_than_is_wanted(
            images in proptest::collection::vec((0i64..2000, any::<[bool; 3]>(), proptest::collection::vec(0u8..6, 0..4)), 0..12),
            available in 0u64..=100,
        ) {
            let images = images.into_iter().enumerate().map(|(index, (ago, [tagged, pinned, used], layers))| {
                let layers: Vec<String> = layers.iter().map(u8::to_string).collect();
                let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
                Candidate { is_tagged: tagged, pinned, in_use: used, ..image(&index.to_string(), ago, &layers) }
            });
            let observed = observed(images.collect(), available);
            let plan = plan(&observed, &space(), now());
            for removal in &plan.removals {
                let image = observed.images.iter().find(|image| image.id == removal.id).unwrap();
                prop_assert!(!image.pinned && !image.in_use && NOW - image.last_used.as_second() >= 120);
            }
            let freed: u64 = plan.removals.iter().map(|removal| removal.freed_bytes).sum();
            let last = plan.removals.last().map_or(0, |removal| removal.freed_bytes);
            let wanted = wanted_bytes(observed.disk, space().space);
            prop_assert!(plan.removals.is_empty() || freed - last < wanted);
            prop_assert_eq!(plan.missing_bytes, wanted.saturating_sub(freed));
        }
    }
}
