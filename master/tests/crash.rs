//! `kill -9` in the middle of writes: everything that was acknowledged is there afterwards.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::eventually;

const DIR: &str = "BERTH_TEST_MASTER_DIR";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ROUNDS: usize = 4;
const WRITERS: usize = 8;

/// The master that is killed: this program again, with a folder in its environment. On its own it does nothing.
#[tokio::test]
async fn the_master_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let master = berth_master::start(support::config(&dir)).await.unwrap();
    std::fs::write(dir.join("up.new"), "").unwrap();
    std::fs::rename(dir.join("up.new"), dir.join("up")).unwrap();
    master.wait().await.unwrap();
}

/// Ends with the test, however the test ends.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn start(dir: &std::path::Path) -> (Killed, kube::Client) {
    let _ = std::fs::remove_file(dir.join("up"));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_master_that_is_killed"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Killed(child);
    eventually("the master serves", async || if dir.join("up").exists() { Ok(()) } else { Err("no sign".to_owned()) })
        .await;
    let client = support::client(&dir.join("admin.kubeconfig")).await;
    (child, client)
}

/// Creates objects until the master is gone; returns those that it acknowledged.
async fn write(client: kube::Client, round: usize, writer: usize) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        let name = format!("r{round}-w{writer}-{number}");
        let body = json!({"metadata": {"name": name}, "data": {"k": "x".repeat(500)}}).to_string();
        let request = http::Request::post(MAPS).header("content-type", "application/json");
        match client.request::<Value>(request.body(body.into_bytes()).unwrap()).await {
            Ok(_) => drop(acknowledged.insert(name)),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let (mut child, client) = start(folder.path()).await;
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(client.clone(), round, writer))).collect();
        // Not a wait for something: each round is cut at another moment.
        tokio::time::sleep(Duration::from_millis(150 + 70 * round as u64)).await;
        child.kill();
        let before = acknowledged.len();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        assert!(acknowledged.len() > before, "round {round} wrote nothing");
    }
    let (_child, client) = start(folder.path()).await;
    let (code, list) = support::json(&client, "GET", MAPS, &Value::Null).await;
    assert_eq!(code, 200);
    let found: BTreeSet<String> =
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", acknowledged.len());
}
