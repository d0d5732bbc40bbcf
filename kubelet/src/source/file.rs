//! The folder of manifests: read when it changes, which the kernel tells.
//!
//! A file that cannot be understood is told and does not harm the others; the pod that it stood for before stays as it was
//! until the file is mended or gone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::manifest::{self, Origin};

/// The largest manifest.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// How many manifests are read.
const MANIFESTS_MAX: usize = 1000;
/// How long a folder must be quiet before it is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(20);
/// How often changes may put off a reading.
const QUIET_TRIES_MAX: u32 = 25;
/// The pause before a folder that is not there is looked for again.
const MISSING_RETRY: Duration = Duration::from_secs(20);

/// All pods of the folder, whenever they change.
pub(super) type Listing = Vec<Arc<Pod>>;

/// What a reading of the folder found.
#[derive(Debug, Default)]
struct Folder {
    /// By file: the pod, and the text that it was made of.
    pods: BTreeMap<PathBuf, (String, Arc<Pod>)>,
    /// By file: what was last said to be wrong with it.
    faults: HashMap<PathBuf, String>,
}

/// Follows the folder until nobody listens.
pub(super) async fn follow(path: PathBuf, node: String, listings: mpsc::Sender<Listing>) {
    let mut folder = Folder::default();
    loop {
        if let Err(error) = follow_existing(&path, &node, &mut folder, &listings).await {
            tracing::warn!(folder = %path.display(), %error, "cannot follow the folder of manifests; trying on");
        }
        if listings.is_closed() {
            return;
        }
        sleep(MISSING_RETRY).await;
    }
}

/// Follows the folder while it is there.
async fn follow_existing(
    path: &Path,
    node: &str,
    folder: &mut Folder,
    listings: &mpsc::Sender<Listing>,
) -> io::Result<()> {
    let inotify = Inotify::init()?;
    let changes = WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::CREATE | WatchMask::DELETE;
    let ends = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
    inotify.watches().add(path, changes | ends)?;
    let mut events = inotify.into_event_stream([0; 4096])?;
    loop {
        read_blocking(path, node, folder).await?;
        let listing = folder.pods.values().map(|(_, pod)| Arc::clone(pod)).collect();
        if listings.send(listing).await.is_err() {
            return Ok(());
        }
        let first = tokio::select! {
            event = events.next() => event,
            () = listings.closed() => return Ok(()),
        };
        match first {
            Some(event) => drop(event?),
            None => return Err(io::Error::other("the watch ended")),
        }
        for _ in 0..QUIET_TRIES_MAX {
            match timeout(QUIET, events.next()).await {
                Ok(Some(event)) => drop(event?),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

async fn read_blocking(path: &Path, node: &str, folder: &mut Folder) -> io::Result<()> {
    let (path, node) = (path.to_owned(), node.to_owned());
    let mut moved = std::mem::take(folder);
    let (result, back) =
        tokio::task::spawn_blocking(move || (moved.read(&path, &node), moved)).await.map_err(io::Error::other)?;
    *folder = back;
    result
}

impl Folder {
    /// Reads the folder as it is now.
    fn read(&mut self, path: &Path, node: &str) -> io::Result<()> {
        let files = manifests(path)?;
        self.pods.retain(|file, _| files.contains(file));
        self.faults.retain(|file, _| files.contains(file));
        for file in files {
            match self.read_file(&file, node) {
                Ok(()) => {
                    self.faults.remove(&file);
                }
                Err(fault) => self.tell(file, fault),
            }
        }
        Ok(())
    }

    fn read_file(&mut self, file: &Path, node: &str) -> Result<(), String> {
        let size = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
        if size > MANIFEST_BYTES_MAX {
            return Err(format!("is larger than {MANIFEST_BYTES_MAX} bytes"));
        }
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        if self.pods.get(file).is_some_and(|(known, _)| *known == text) {
            return Ok(());
        }
        let origin = Origin { path: &file.to_string_lossy(), node, seen: Timestamp::now() };
        let pod = manifest::pod(&text, origin).map_err(|error| error.to_string())?;
        self.refuse_double(file, &pod)?;
        self.pods.insert(file.to_owned(), (text, Arc::new(pod)));
        Ok(())
    }

    fn refuse_double(&self, file: &Path, pod: &Pod) -> Result<(), String> {
        let name = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        let uid = |pod: &Pod| pod.metadata.uid.clone();
        let same = |other: &Pod| name(other) == name(pod) || uid(other) == uid(pod);
        let double = self.pods.iter().find(|(path, (_, other))| path.as_path() != file && same(other));
        match double {
            None => Ok(()),
            Some((path, _)) => Err(format!("field metadata.name: {} has a pod of this name (or uid)", path.display())),
        }
    }

    /// Says once what is wrong with a file.
    fn tell(&mut self, file: PathBuf, fault: String) {
        if self.faults.get(&file) != Some(&fault) {
            let kept = if self.pods.contains_key(&file) { "; its pod stays as it was" } else { "" };
            tracing::error!(file = %file.display(), "manifest refused: {fault}{kept}");
            self.faults.insert(file, fault);
        }
    }
}

/// The files of the folder that are manifests by name, in order.
fn manifests(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let is_hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let is_manifest = file.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json");
        if is_manifest && !is_hidden && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.len() > MANIFESTS_MAX {
        tracing::error!(folder = %path.display(), "only the first {MANIFESTS_MAX} of {} manifests are read", files.len());
        files.truncate(MANIFESTS_MAX);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn manifest(name: &str, image: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: {image}}}]}}}}"
        )
    }

    fn names(folder: &Folder) -> Vec<String> {
        folder.pods.values().filter_map(|(_, pod)| pod.metadata.name.clone()).collect()
    }

    #[test]
    fn a_bad_file_is_told_and_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), manifest("a", "x")).unwrap();
        fs::write(dir.path().join("b.yml"), "kind: Pod").unwrap();
        fs::write(dir.path().join("c.json"), manifest("c", "x")).unwrap();
        fs::write(dir.path().join("d.txt"), manifest("d", "x")).unwrap();
        fs::write(dir.path().join(".e.yaml"), manifest("e", "x")).unwrap();
        fs::write(dir.path().join("f.yaml"), [0xff, 0xfe]).unwrap();
        fs::write(dir.path().join("g.yaml"), manifest("a", "z")).unwrap();
        fs::create_dir(dir.path().join("h.yaml")).unwrap();
        let mut folder = Folder::default();
        folder.read(dir.path(), "n").unwrap();
        assert_eq!(names(&folder), ["a-n", "c-n"]);
        assert_eq!(folder.faults[&dir.path().join("b.yml")], "field apiVersion: is missing; must be \"v1\"");
        assert!(folder.faults[&dir.path().join("g.yaml")].contains("a.yaml has a pod of this name"));
        assert_eq!(folder.faults.len(), 3);
    }

    #[test]
    fn a_pod_stays_while_its_file_is_bad_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        let mut folder = Folder::default();
        fs::write(&file, manifest("a", "x")).unwrap();
        folder.read(dir.path(), "n").unwrap();
        let before = folder.pods[&file].1.clone();
        fs::write(&file, "{").unwrap();
        folder.read(dir.path(), "n").unwrap();
        assert_eq!(folder.pods[&file].1, before);
        fs::write(&file, manifest("a", "z")).unwrap();
        folder.read(dir.path(), "n").unwrap();
        assert_ne!(folder.pods[&file].1.metadata.uid, before.metadata.uid);
        fs::remove_file(&file).unwrap();
        folder.read(dir.path(), "n").unwrap();
        assert!(folder.pods.is_empty() && folder.faults.is_empty());
    }

    #[tokio::test]
    async fn the_kernel_tells_of_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut listings) = mpsc::channel(4);
        let task = tokio::spawn(follow(dir.path().to_owned(), "n".to_owned(), sender));
        let first = timeout(DEADLINE, listings.recv()).await.unwrap().unwrap();
        assert!(first.is_empty());
        fs::write(dir.path().join("tmp"), manifest("a", "x")).unwrap();
        fs::rename(dir.path().join("tmp"), dir.path().join("a.yaml")).unwrap();
        expect(&mut listings, 1).await;
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        expect(&mut listings, 0).await;
        drop(listings);
        timeout(DEADLINE, task).await.unwrap().unwrap();
    }

    async fn expect(listings: &mut mpsc::Receiver<Listing>, count: usize) {
        let found = async { while listings.recv().await.is_some_and(|listing| listing.len() != count) {} };
        timeout(DEADLINE, found).await.unwrap();
    }
}
