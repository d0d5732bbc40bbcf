use bytes::Bytes;

use super::*;

fn key(name: &str) -> Key {
    Key::new("", "pods", Some("default"), name)
}

fn create(name: &str, text: &str) -> Write {
    Write::Create { key: key(name), text: Bytes::copy_from_slice(text.as_bytes()) }
}

fn update(name: &str, expected: Revision, text: &str) -> Write {
    Write::Update { key: key(name), expected, text: Bytes::copy_from_slice(text.as_bytes()) }
}

fn delete(name: &str, expected: Revision) -> Write {
    Write::Delete { key: key(name), expected, last: Bytes::from_static(b"last") }
}

fn pods() -> Prefix {
    Prefix::new("", "pods", None)
}

fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("store.redb")).unwrap()
}

fn names(page: &Page) -> Vec<&str> {
    page.items.iter().map(|(key, _)| pods().rest(key).unwrap().rsplit('/').next().unwrap()).collect()
}

#[tokio::test]
async fn a_write_with_the_wrong_expectation_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let first = store.write(create("a", "1")).await.unwrap();
    assert!(matches!(store.write(create("a", "2")).await, Err(StoreError::Exists { .. })));
    assert!(matches!(store.write(update("b", first, "2")).await, Err(StoreError::Missing { .. })));
    assert!(matches!(store.write(delete("b", first)).await, Err(StoreError::Missing { .. })));
    let second = store.write(update("a", first, "2")).await.unwrap();
    assert!(second > first);
    let refused = store.write(update("a", first, "3")).await;
    assert!(matches!(refused, Err(StoreError::Conflict { current, .. }) if current == second));
    assert!(matches!(store.write(delete("a", first)).await, Err(StoreError::Conflict { .. })));
    let found = store.get(&key("a")).unwrap().unwrap();
    assert_eq!((found.revision, found.text.as_ref()), (second, b"2".as_ref()));
    assert_eq!(store.revision(), second);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_drop_without_a_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let revision = {
        let store = Store::open(&path).unwrap();
        store.write(create("a", "1")).await.unwrap();
        let revision = store.write(create("b", "2")).await.unwrap();
        // A copy of the file as it is now is what a power cut would leave.
        std::fs::copy(&path, folder.path().join("cut.redb")).unwrap();
        revision
    };
    let store = Store::open(&folder.path().join("cut.redb")).unwrap();
    assert_eq!(store.revision(), revision);
    assert_eq!(store.get(&key("b")).unwrap().unwrap().text.as_ref(), b"2");
    assert!(store.write(create("c", "3")).await.unwrap() > revision);
}

#[tokio::test]
async fn a_closed_store_can_be_opened_again_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    store.write(create("a", "1")).await.unwrap();
    store.close().await;
    assert!(matches!(store.write(create("b", "1")).await, Err(StoreError::Closed)));
    drop(store);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let again = loop {
        match Store::open(&folder.path().join("store.redb")) {
            Ok(again) => break again,
            Err(error) if std::time::Instant::now() > deadline => panic!("{error}"),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(again.get(&key("a")).unwrap().is_some());
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(&path, vec![7_u8; 10_000]).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Database { .. })));
}

#[tokio::test]
async fn pages_show_one_revision_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    for name in ["a", "b", "c", "d", "e"] {
        store.write(create(name, "old")).await.unwrap();
    }
    let first = store.page(&pods(), &PageStart::default(), 2).await.unwrap();
    assert_eq!((names(&first), first.more), (vec!["a", "b"], true));

    let c = store.get(&key("c")).unwrap().unwrap().revision;
    store.write(delete("c", c)).await.unwrap();
    store.write(create("bb", "new")).await.unwrap();
    let d = store.get(&key("d")).unwrap().unwrap().revision;
    store.write(update("d", d, "new")).await.unwrap();

    let start = PageStart { after: Some(first.items[1].0.clone()), revision: Some(first.revision) };
    let second = store.page(&pods(), &start, 2).await.unwrap();
    assert_eq!((names(&second), second.more, second.revision), (vec!["c", "d"], true, first.revision));
    assert!(second.items.iter().all(|(_, stored)| stored.text.as_ref() == b"old"));
    let start = PageStart { after: Some(second.items[1].0.clone()), revision: Some(first.revision) };
    let third = store.page(&pods(), &start, 2).await.unwrap();
    assert_eq!((names(&third), third.more), (vec!["e"], false));

    let now = store.page(&pods(), &PageStart::default(), 100).await.unwrap();
    assert_eq!(names(&now), ["a", "b", "bb", "d", "e"]);
    let future = PageStart { after: None, revision: Some(now.revision + 1) };
    assert!(matches!(store.page(&pods(), &future, 1).await, Err(StoreError::Future { .. })));
}

#[tokio::test]
async fn a_follower_hears_every_change_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let start = store.revision();
    let mut follower = store.follow(pods(), start).await.unwrap();
    let a = store.write(create("a", "1")).await.unwrap();
    store.write(Write::Create { key: Key::new("", "nodes", None, "n"), text: Bytes::new() }).await.unwrap();
    let b = store.write(update("a", a, "2")).await.unwrap();
    let c = store.write(delete("a", b)).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 3 {
        for change in follower.next(2).await.unwrap() {
            heard.push((change.revision, change.kind));
        }
    }
    assert_eq!(heard, [(a, ChangeKind::Created), (b, ChangeKind::Updated), (c, ChangeKind::Deleted)]);
    // One who comes later hears the same.
    let mut late = store.follow(pods(), start).await.unwrap();
    assert_eq!(late.next(10).await.unwrap().len(), 3);
    assert_eq!(late.cursor(), c);
}

#[tokio::test]
async fn a_past_that_is_forgotten_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let before = store.revision();
    let first = store.write(create("a", "1")).await.unwrap();
    drop(store.follow(pods(), before).await.unwrap());
    store.close().await;
    drop(store);
    let store = loop {
        if let Ok(store) = Store::open(&folder.path().join("store.redb")) {
            break store;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(store.follow(pods(), before).await, Err(StoreError::TooOld { oldest, .. }) if oldest == first));
    assert!(store.follow(pods(), first).await.is_ok());
}

#[tokio::test]
async fn concurrent_writers_all_get_through() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let writers: Vec<_> = (0..300)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.write(create(&format!("p{number}"), "x")).await.unwrap() })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 300);
    assert_eq!(store.page(&pods(), &PageStart::default(), 1000).await.unwrap().items.len(), 300);
}
