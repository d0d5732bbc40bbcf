//! Real pods on the real engine, through the workers: namespaces, cgroups, mounts and processes are the kernel's. Run
//! as root; each test is on a machine of its own (mount, network and host name), which its thread and all that come
//! from it live in.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_engine::{Engine, EngineConfig, PodNetwork};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{StatusUpdate, Workers, World, a_config};
use crate::config::Config;
use crate::node::NodeFacts;
use crate::objects::Objects;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(60);

/// An agent without a master.
struct Rig {
    config: Arc<Config>,
    engine: Engine,
    workers: Workers,
    statuses: mpsc::Receiver<StatusUpdate>,
    _node: watch::Sender<NodeFacts>,
}

/// Runs a test on a machine of its own, and takes everything down after it, however it ends.
fn on_a_machine<F: Future<Output = Rig>>(test: impl FnOnce(Rig) -> F + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces, mounts and cgroups: run it as root");
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let cgroup = format!("/berth-kubelet-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let (folder, root) = (tempfile::tempdir().unwrap(), cgroup.clone());
    let path = folder.path().to_owned();
    let ended = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS).unwrap();
        shell("mount --make-rprivate / && ip link set lo up", &path);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::start(&path, &root).await;
            let config = Arc::clone(&rig.config);
            let ended = AssertUnwindSafe(async { drop(test(rig).await) }).catch_unwind().await;
            let engine = engine(&config).await;
            for sandbox in engine.sandboxes().await {
                engine.remove_sandbox(&sandbox.id).await.unwrap();
            }
            engine.remove_pod_network().await.unwrap();
            ended.unwrap();
        });
    })
    .join();
    // What a failed test left running is killed with its cgroup.
    let hierarchies = berth_sys::cgroup::Hierarchies::of_machine().unwrap();
    let cgroup = berth_sys::cgroup::Cgroup::new(hierarchies, Path::new(&cgroup), &[]).unwrap();
    if cgroup.exists() {
        cgroup.kill().unwrap();
        cgroup.remove().unwrap();
    }
    ended.unwrap();
}

fn shell(script: &str, argument: &Path) {
    let output = Command::new("sh").args(["-euc", script]).arg(argument).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A docker archive of Debian's static busybox, named `busybox:1`.
const BUSYBOX: &str = r#"cd "$0"
mkdir -p image/root/bin image/root/tmp image/root/etc
cp /bin/busybox image/root/bin/busybox
for name in sh sleep echo cat httpd true false wget mount touch sync id dd tail; do ln -s busybox image/root/bin/$name; done
echo root:x:0:0:root:/root:/bin/sh > image/root/etc/passwd
tar -C image/root -cf image/layer.tar .
sum=$(sha256sum image/layer.tar | cut -d' ' -f1)
printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$(dpkg --print-architecture)" "$sum" > image/config.json
printf '[{"Config":"config.json","RepoTags":["busybox:1"],"Layers":["layer.tar"]}]' > image/manifest.json
tar -C image -cf busybox.tar manifest.json config.json layer.tar"#;

impl Rig {
    async fn start(folder: &Path, cgroup: &str) -> Self {
        let mut config = a_config(folder);
        config.cgroup_root = cgroup.to_owned();
        std::fs::create_dir_all(&config.pod_log_dir).unwrap();
        shell(BUSYBOX, folder);
        let config = Arc::new(config);
        let engine = engine(&config).await;
        engine.store().import(&folder.join("busybox.tar"), None, &Default::default()).await.unwrap();
        Self::with(config, engine)
    }

    fn with(config: Arc<Config>, engine: Engine) -> Self {
        let (statuses_in, statuses) = mpsc::channel(1024);
        let (recorder, outbox) = crate::recorder::recorder();
        let rate = crate::recorder::Rate { per_second: 1000, burst: 1000 };
        tokio::spawn(outbox.run(None, "node".to_owned(), rate));
        let facts = NodeFacts {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            allocatable_cpu_millis: 2000,
            allocatable_memory_bytes: 1 << 30,
        };
        let (node, facts) = watch::channel(facts);
        let workers = Workers::new(World {
            engine: engine.clone(),
            config: Arc::clone(&config),
            statuses: statuses_in,
            recorder,
            objects: Objects::new(None),
            node: facts,
        });
        Self { config, engine, workers, statuses, _node: node }
    }

    /// Another agent takes over, as after a crash: nothing is handed on but what is on disk and in the kernel.
    async fn restart(self) -> Self {
        let config = Arc::clone(&self.config);
        drop(self);
        let engine = engine(&config).await;
        Self::with(config, engine)
    }

    /// Waits until a pod's status is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&PodStatus) -> bool) -> PodStatus {
        self.until_update(what, |update| wanted(&update.status)).await.status
    }

    async fn until_update(&mut self, what: &str, wanted: impl Fn(&StatusUpdate) -> bool) -> StatusUpdate {
        let mut last = None;
        let waited = tokio::time::timeout(DEADLINE, async {
            while let Some(update) = self.statuses.recv().await {
                if wanted(&update) {
                    return update;
                }
                last = Some(update);
            }
            panic!("the workers are gone");
        });
        let waited = waited.await;
        waited.unwrap_or_else(|_| panic!("waited for {what}; last: {:#?}", last.map(|update| update.status)))
    }

    /// Deletes a pod and waits until nothing of it is left.
    async fn delete(&mut self, mut pod: Value, grace: i64) -> PodStatus {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.workers.update(read(&pod));
        let last = self.until_update("the pod to be finished", |update| update.finished).await;
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        self.workers.remove(&uid.parse().unwrap());
        assert!(self.engine.sandboxes().await.is_empty());
        assert!(!self.config.state_dir.join("pods").join(uid).exists());
        assert!(std::fs::read_dir(&self.config.pod_log_dir).unwrap().next().is_none());
        for (_, folder, _) in cgroup(&format!("{}/kubepods", self.config.cgroup_root)).folders() {
            assert!(!folder.exists(), "{} is left", folder.display());
        }
        let mounts = berth_sys::mountinfo::read().unwrap();
        assert!(mounts.iter().all(|mount| !mount.target.starts_with(&self.config.state_dir)), "{mounts:?}");
        last.status
    }

    async fn log(&self, container: &str, previous: bool) -> String {
        let log = self.workers.log_file("default", "p", container, previous).await.unwrap();
        std::fs::read_to_string(log.path).unwrap()
    }
}

async fn engine(config: &Config) -> Engine {
    let engine = Engine::open(EngineConfig {
        state_dir: config.state_dir.clone(),
        run_dir: config.run_dir.clone(),
        shim: shim(),
        cni_bin_dirs: Vec::new(),
        cni_conf_dir: config.state_dir.join("no-cni"),
        insecure_registries: Vec::new(),
        registry_config_dir: None,
        log_max_bytes: 1 << 20,
        log_max_files: 2,
    });
    let engine = engine.await.unwrap();
    let pod_cidrs = vec!["10.250.0.0/24".parse().unwrap()];
    engine.set_pod_network(PodNetwork { bridge: "berth0".to_owned(), pod_cidrs, mtu: None }).await.unwrap();
    engine
}

/// The built shim: beside the folder of the test programs.
fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("berth-shim");
    assert!(path.exists(), "{} is not built: cargo build -p berth-shim", path.display());
    path
}

fn cgroup(path: &str) -> berth_sys::cgroup::Cgroup {
    let hierarchies = berth_sys::cgroup::Hierarchies::of_machine().unwrap();
    berth_sys::cgroup::Cgroup::new(hierarchies, Path::new(path), &[]).unwrap()
}

fn a_pod(spec: &Value) -> Value {
    json!({ "metadata": { "name": "p", "namespace": "default", "uid": "0b5c6a2e" }, "spec": spec })
}

/// A busybox container that runs a script.
fn script(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": "busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", script] })
}

fn read(pod: &Value) -> Arc<Pod> {
    Arc::new(serde_json::from_value(pod.clone()).unwrap())
}

fn is_ready(status: &PodStatus) -> bool {
    berth_api::condition::holds(status.conditions.as_deref().unwrap_or_default(), "Ready")
}

/// One field of a status, by JSON pointer below the first container's.
fn container(status: &PodStatus, pointer: &str) -> Value {
    let value = serde_json::to_value(status).unwrap();
    value.pointer(&format!("/containerStatuses/0{pointer}")).cloned().unwrap_or_default()
}

#[test]
fn a_pod_lives_through_a_restart_of_the_agent_and_leaves_nothing() {
    on_a_machine(|mut rig| async {
        let mounts = json!([{ "name": "data", "mountPath": "/data" }, { "name": "data", "mountPath": "/part", "subPath": "a/b" }]);
        let mut init = script("before", "echo hello > /data/index.html; echo inner > /part/file");
        init["volumeMounts"] = mounts.clone();
        let mut web = script("web", "cat /data/a/b/file /memory/x; echo $NODE $POD_IP; exec httpd -f -p 8080 -h /data");
        web["volumeMounts"] = json!([mounts[0], { "name": "memory", "mountPath": "/memory" }]);
        web["env"] = json!([
            { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
            { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        ]);
        web["readinessProbe"] = json!({ "httpGet": { "path": "/index.html", "port": 8080 } });
        web["livenessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
        web["resources"] = json!({ "limits": { "cpu": "500m", "memory": "64Mi" } });
        let volumes = json!([
            { "name": "data", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        ]);
        let pod = a_pod(&json!({ "initContainers": [init], "containers": [web], "volumes": volumes }));

        rig.workers.update(read(&pod));
        let up = rig.until("the pod to be ready", is_ready).await;
        assert_eq!(up.phase.as_deref(), Some("Running"));
        let ip = up.pod_ip.clone().unwrap();
        assert!(ip.starts_with("10.250.0."), "{ip}");
        assert!(rig.log("web", false).await.contains(&format!("F node {ip}")));
        assert!(rig.log("web", false).await.contains("F inner"));

        let mut told = pod.clone();
        told["status"] = serde_json::to_value(&up).unwrap();
        let mut rig = rig.restart().await;
        rig.workers.update(read(&told));
        rig.workers.synced(&HashSet::from(["0b5c6a2e".parse().unwrap()]));
        let again = rig.until("the status after the restart", |_| true).await;
        assert!(is_ready(&again), "{again:#?}");
        assert_eq!(container(&again, "/containerID"), container(&up, "/containerID"));
        assert_eq!(container(&again, "/restartCount"), 0);

        let last = rig.delete(told, 1).await;
        assert!(container(&last, "/state/terminated/exitCode").is_number(), "{last:#?}");
        rig
    });
}

#[test]
fn a_container_that_ends_is_started_again_with_back_off() {
    on_a_machine(|mut rig| async {
        let pod = a_pod(&json!({ "containers": [script("web", "echo run; echo bye > /dev/termination-log; exit 3")] }));
        rig.workers.update(read(&pod));
        let looping =
            rig.until("the back-off", |status| container(status, "/state/waiting/reason") == "CrashLoopBackOff");
        let looping = looping.await;
        assert_eq!(container(&looping, "/restartCount"), 1);
        assert_eq!(container(&looping, "/lastState/terminated/exitCode"), 3);
        assert_eq!(container(&looping, "/lastState/terminated/message"), "bye\n");
        assert!(container(&looping, "/state/waiting/message").as_str().unwrap().starts_with("back-off 10s restarting"));
        assert!(rig.log("web", true).await.ends_with("F run\n"));
        rig.delete(pod, 1).await;
        rig
    });
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_told_so() {
    on_a_machine(|mut rig| async {
        let mut greedy = script("web", "tail /dev/zero");
        greedy["resources"] = json!({ "limits": { "memory": "16Mi" } });
        let pod = a_pod(&json!({ "restartPolicy": "Never", "containers": [greedy] }));
        rig.workers.update(read(&pod));
        let over = rig.until("the end", |status| status.phase.as_deref() == Some("Failed")).await;
        assert_eq!(container(&over, "/state/terminated/reason"), "OOMKilled");
        assert_eq!(container(&over, "/state/terminated/exitCode"), 137);
        rig.delete(pod, 1).await;
        rig
    });
}

#[test]
fn a_container_that_does_not_care_is_killed_when_its_grace_is_over() {
    on_a_machine(|mut rig| async {
        let pod = a_pod(&json!({ "containers": [script("web", "trap '' TERM; while :; do sleep 1; done")] }));
        rig.workers.update(read(&pod));
        rig.until("the pod to be ready", is_ready).await;
        let asked = std::time::Instant::now();
        let last = rig.delete(pod, 2).await;
        assert!(asked.elapsed() >= Duration::from_secs(2));
        assert_eq!(container(&last, "/state/terminated/exitCode"), 137);
        rig
    });
}

#[test]
fn who_fails_its_liveness_probe_is_started_again() {
    on_a_machine(|mut rig| async {
        let mut ill =
            script("web", "trap 'exit 0' TERM; touch /tmp/well; sleep 1 & wait; while :; do sleep 1 & wait; done");
        let probe = json!({ "exec": { "command": ["cat", "/tmp/none"] }, "periodSeconds": 1, "failureThreshold": 1 });
        ill["livenessProbe"] = probe;
        let pod = a_pod(&json!({ "terminationGracePeriodSeconds": 5, "containers": [ill] }));
        rig.workers.update(read(&pod));
        let again = rig.until("the restart", |status| container(status, "/restartCount") == 1).await;
        assert_eq!(container(&again, "/lastState/terminated/exitCode"), 0);
        rig.delete(pod, 1).await;
        rig
    });
}

#[test]
fn what_cannot_be_had_is_told() {
    on_a_machine(|mut rig| async {
        let nfs = json!([{ "name": "share", "nfs": { "server": "192.0.2.7", "path": "/data" } }]);
        let pod = a_pod(&json!({ "volumes": nfs, "containers": [script("web", "true")] }));
        rig.workers.update(read(&pod));
        let sandboxed = |status: &PodStatus| {
            let conditions = status.conditions.as_deref().unwrap_or_default();
            berth_api::condition::holds(conditions, "PodReadyToStartContainers")
        };
        let waiting = rig.until("the sandbox", sandboxed).await;
        assert_eq!(container(&waiting, "/state/waiting/reason"), "ContainerCreating");
        rig.delete(pod, 1).await;

        let mut missing = script("web", "true");
        missing["image"] = json!("nothing:1");
        let pod = a_pod(&json!({ "containers": [missing] }));
        rig.workers.update(read(&pod));
        let told =
            |reason: &'static str| move |status: &PodStatus| container(status, "/state/waiting/reason") == reason;
        rig.until("the image", told("ErrImageNeverPull")).await;
        rig.delete(pod, 1).await;

        let mut broken = script("web", "true");
        broken["command"] = json!(["/no/such/program"]);
        let pod = a_pod(&json!({ "restartPolicy": "Never", "containers": [broken] }));
        rig.workers.update(read(&pod));
        let refused = rig.until("the refusal", |status| {
            container(status, "/state/waiting/reason") == "RunContainerError"
                || status.phase.as_deref() == Some("Failed")
        });
        refused.await;
        rig.delete(pod, 1).await;
        rig
    });
}

#[test]
fn what_nobody_knows_any_more_is_ended() {
    on_a_machine(|mut rig| async {
        let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [script("web", "sleep 1000")] });
        rig.workers.update(read(&a_pod(&spec)));
        rig.until("the pod to be ready", is_ready).await;
        let mut rig = rig.restart().await;
        rig.workers.synced(&HashSet::new());
        rig.until_update("the end", |update| update.finished).await;
        assert!(rig.engine.sandboxes().await.is_empty());
        rig
    });
}
