//! The whole path, as a user of kubectl sees it: a pod from the master runs on bare Linux.

use berth_tests::cluster::{Node, pod};
use berth_tests::eventually::{check, eventually};
use berth_tests::machine::succeeded;

/// The state of a pod's only container.
const STATE: &str = ".status.containerStatuses[0].state";

fn restarts(node: &Node, name: &str) -> u32 {
    node.field(&format!("pod/{name}"), ".status.containerStatuses[0].restartCount").parse().unwrap_or(0)
}

#[test]
fn a_pod_gets_an_address_its_environment_and_its_volumes() {
    let node = Node::up("one");
    let manifest = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, file.txt: 'from a config map'}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {word: open sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: all, labels: {app: all}}
spec:
  initContainers:
  - name: before
    image: busybox:1
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo prepared > /shared/before']
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: busybox:1
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'cat /shared/before; cat /etc/settings/file.txt; echo; cat /etc/hidden/word; echo; echo $COLOUR $NODE $IP $(WORDS) ; hostname; exec sleep 1000']
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /etc/settings}
    - {name: hidden, mountPath: /etc/hidden, readOnly: true}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: hidden, secret: {secretName: hidden}}
";
    node.apply(&manifest.replace(" $(WORDS) ", " "));
    node.wait_pods_ready(&["all"]);
    let address = node.field("pod/all", ".status.podIP");
    let log = node.kubectl_ok(&["logs", "all"]);
    let expected = format!("prepared\nfrom a config map\nopen sesame\nblue one {address}\nall\n");
    assert_eq!(log, expected);
    node.apply(&manifest.replace(" $(WORDS) ", " "));
    assert!(address.starts_with("10.42."), "{address}");
    assert_eq!(node.field("pod/all", ".status.qosClass"), "BestEffort");
    let events = node.kubectl_ok(&["describe", "pod", "all"]);
    for reason in ["Scheduled", "Created", "Started"] {
        assert!(events.contains(reason), "no event {reason}:\n{events}");
    }
    node.kubectl_ok(&["delete", "pod", "all", "--timeout=60s"]);
    assert!(node.field("pod/all", ".status").contains("not found"));
    eventually("nothing of the pod is left", || {
        let left = node.machine.shell("ls /run/berth/sandboxes /run/berth/bundles /run/berth/pods /var/lib/berth/pods /var/log/pods 2>/dev/null | grep -v : | grep . || true");
        check(left.is_empty(), left)
    });
}

#[test]
fn two_pods_reach_each_other_and_the_node_reaches_them() {
    let node = Node::up("two");
    node.apply(&pod(
        "server",
        "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www",
        "    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}\n",
    ));
    node.wait_pods_ready(&["server"]);
    let address = node.field("pod/server", ".status.podIP");
    let client = pod("client", &format!("wget -q -O - http://{address}:8080/"), "  restartPolicy: Never\n");
    node.apply(&client);
    node.wait_field("pod/client", ".status.phase", "Succeeded");
    assert_eq!(node.kubectl_ok(&["logs", "client"]), "hello\n");
    assert_eq!(node.machine.shell(&format!("busybox wget -q -O - http://{address}:8080/")), "hello\n");
}

#[test]
fn a_pod_that_takes_more_memory_than_its_limit_is_oom_killed_and_says_so() {
    let node = Node::up("oom");
    let limit = "    resources: {limits: {memory: 32Mi}}\n  restartPolicy: Never\n";
    node.apply(&pod("glutton", "tail -c 200m /dev/zero | tail > /dev/null; exec tail /dev/zero", limit));
    node.wait_field("pod/glutton", &format!("{STATE}.terminated.reason"), "OOMKilled");
    assert_eq!(node.field("pod/glutton", &format!("{STATE}.terminated.exitCode")), "137");
    assert_eq!(node.field("pod/glutton", ".status.phase"), "Failed");
}

#[test]
fn a_spinning_pod_gets_its_quota() {
    let node = Node::up("spin");
    let limit = "    resources: {limits: {cpu: 200m, memory: 32Mi}}\n";
    node.apply(&pod("spinner", "while :; do :; done", limit));
    node.wait_field("pod/spinner", ".status.phase", "Running");
    assert_eq!(node.field("pod/spinner", ".status.qosClass"), "Guaranteed");
    let uid = node.kubectl_ok(&["get", "pod", "spinner", "-o", "jsonpath={.metadata.uid}"]);
    let script = format!(
        "cd /sys/fs/cgroup
         for f in $(find . -path '*{0}*pod{uid}*/cpuacct.usage' -o -path '*{0}*pod{uid}*/cpu.stat'); do echo $f; cat $f; done
         cat /proc/uptime",
        node.machine.cgroup
    );
    let look = || -> (f64, f64) {
        let output = node.machine.shell(&script);
        (cpu_seconds(&output), output.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap())
    };
    let mut window = look();
    eventually("five seconds in which it got its quota", || {
        let ((before, start), (after, end)) = (window, look());
        if end - start < 5.0 {
            return Err("they are not over".to_owned());
        }
        window = (after, end);
        let share = (after - before) / (end - start);
        assert!(share <= 0.2 * 1.05, "it got {share} of a CPU, its limit is 0.2");
        // Less it may get while others want the machine: then the next five seconds count.
        check(share >= 0.2 * 0.95, format!("it got {share} of a CPU, its limit is 0.2"))
    });
}

/// Of the pod's cgroups the one that has most: that of the pod itself.
fn cpu_seconds(listing: &str) -> f64 {
    let mut most = 0.0_f64;
    let mut file = "";
    for line in listing.lines() {
        if line.starts_with("./") {
            file = line;
        } else if file.ends_with("cpuacct.usage") {
            most = most.max(line.parse::<f64>().unwrap_or(0.0) / 1e9);
        } else if let Some(micros) = line.strip_prefix("usage_usec ") {
            most = most.max(micros.parse::<f64>().unwrap() / 1e6);
        }
    }
    most
}

#[test]
fn data_on_a_host_volume_survive_the_pod() {
    let node = Node::up("volume");
    let volume = "    volumeMounts: [{name: data, mountPath: /data}]\n  restartPolicy: Never\n  volumes: [{name: data, hostPath: {path: /var/lib/kept, type: DirectoryOrCreate}}]\n";
    node.apply(&pod("writer", "echo kept > /data/file", volume));
    node.wait_field("pod/writer", ".status.phase", "Succeeded");
    node.kubectl_ok(&["delete", "pod", "writer"]);
    node.apply(&pod("reader", "cat /data/file", volume));
    node.wait_field("pod/reader", ".status.phase", "Succeeded");
    assert_eq!(node.kubectl_ok(&["logs", "reader"]), "kept\n");
}

#[test]
fn a_container_that_dies_is_restarted_with_back_off() {
    let node = Node::up("again");
    node.apply(&pod("fragile", "echo run; exit 3", ""));
    eventually("two restarts, then back-off", || {
        let reason = node.field("pod/fragile", &format!("{STATE}.waiting.reason"));
        let count = restarts(&node, "fragile");
        check(count >= 2 && reason == "CrashLoopBackOff", format!("{count} restarts, {reason:?}"))
    });
    assert_eq!(node.field("pod/fragile", ".status.containerStatuses[0].lastState.terminated.exitCode"), "3");
    assert_eq!(node.kubectl_ok(&["logs", "fragile", "--previous"]), "run\n");
    eventually("an event tells it", || {
        let events = node.kubectl_ok(&["get", "events"]);
        check(events.contains("BackOff"), events)
    });
}

#[test]
fn a_pod_that_is_not_alive_is_killed_and_one_that_is_not_ready_is_told() {
    let node = Node::up("probes");
    let liveness = "    livenessProbe: {exec: {command: [test, -e, /alive]}, periodSeconds: 1, failureThreshold: 1}\n";
    node.apply(&pod("mortal", "touch /alive; sleep 3; rm /alive; sleep 1000", liveness));
    let readiness = "    readinessProbe: {tcpSocket: {port: 9}, periodSeconds: 1}\n";
    node.apply(&pod("shy", "sleep 1000", readiness));
    eventually("the liveness probe restarts it", || {
        let count = restarts(&node, "mortal");
        check(count >= 1, count)
    });
    node.wait_field("pod/shy", ".status.phase", "Running");
    assert_eq!(node.field("pod/shy", ".status.containerStatuses[0].ready"), "false");
    eventually("an event tells why", || {
        let events = node.kubectl_ok(&["get", "events"]);
        check(events.contains("Unhealthy"), events)
    });
}

#[test]
fn the_agent_is_killed_and_comes_back_without_a_pod_noticing() {
    let mut node = Node::up("phoenix");
    let counting = "i=0; while :; do i=$((i+1)); echo line $i; usleep 20000; done";
    node.apply(&pod("counter", counting, ""));
    node.wait_pods_ready(&["counter"]);
    let id = node.field("pod/counter", ".status.containerStatuses[0].containerID");
    for _ in 0..3 {
        node.kill();
        node.start();
        node.wait_ready("phoenix");
    }
    node.wait_pods_ready(&["counter"]);
    assert_eq!(node.field("pod/counter", ".status.containerStatuses[0].containerID"), id);
    assert_eq!(restarts(&node, "counter"), 0);
    let log = node.kubectl_ok(&["logs", "counter"]);
    for (index, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {}", index + 1), "a line is lost or torn");
    }
    // And it is the agent's again: it sees an end that happens now, and one that happened while it was away.
    node.kubectl_ok(&["delete", "pod", "counter", "--timeout=60s"]);
    node.apply(&pod("short", "sleep 1; exit 7", "  restartPolicy: Never\n"));
    node.wait_field("pod/short", ".status.phase", "Running");
    node.kill();
    node.machine.shell("sleep 2");
    node.start();
    node.wait_field("pod/short", &format!("{STATE}.terminated.exitCode"), "7");
}

#[test]
fn kubectl_can_do_its_everyday_verbs() {
    let node = Node::up("verbs");
    let server = pod(
        "web",
        "echo to stdout; echo to stderr >&2; i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; usleep 100000; done; sleep 1000",
        "",
    );
    node.apply(&server);
    assert!(node.apply(&server).contains("unchanged"), "applied again, nothing changes");
    node.kubectl_ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    let wide = node.kubectl_ok(&["get", "pods", "-o", "wide"]);
    assert!(wide.contains("Running") && wide.contains("verbs") && wide.contains("10.42."), "{wide}");
    let yaml = node.kubectl_ok(&["get", "pod", "web", "-o", "yaml"]);
    assert!(yaml.contains("restartPolicy: Always"), "{yaml}");
    let description = node.kubectl_ok(&["describe", "pod", "web"]);
    assert!(description.contains("Successfully assigned default/web to verbs"), "{description}");
    node.kubectl_ok(&["label", "pod", "web", "tier=front"]);
    assert!(node.kubectl_ok(&["get", "pods", "-l", "tier=front"]).contains("web"));
    let mut following = node.kubectl_command(&["logs", "-f", "web"]);
    let following = following.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let nodes = node.kubectl_ok(&["get", "nodes"]);
    assert!(nodes.contains("Ready"), "{nodes}");
    eventually("the log has it all", || {
        let log = node.kubectl_ok(&["logs", "web", "--tail=1"]);
        check(log == "20\n", log)
    });
    node.kubectl_ok(&["delete", "pod", "web", "--timeout=60s"]);
    let followed = following.wait_with_output().unwrap();
    let lines = succeeded(&followed, "kubectl logs -f");
    assert!(lines.starts_with("to std") && lines.ends_with("19\n20\n"), "{lines}");
}

#[test]
fn what_makes_no_sense_is_refused_by_field_and_harms_nobody() {
    let node = Node::up("strict");
    node.apply(&pod("good", "sleep 1000", ""));
    let refused = |manifest: &str, expected: &[&str]| {
        let output = node.apply_raw(manifest);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "accepted:\n{manifest}");
        for word in expected {
            assert!(told.contains(word), "{word:?} is not in:\n{told}");
        }
    };
    refused(&pod("Bad_Name", "true", ""), &["metadata.name", "Bad_Name"]);
    refused(&pod("typo", "true", "    imagePulPolicy: Always\n"), &["imagePulPolicy"]);
    refused(&pod("limits", "true", "    resources: {limits: {memory: many}}\n"), &["memory"]);
    refused(
        &pod("mounts", "true", "    volumeMounts: [{name: none, mountPath: /x}]\n"),
        &["spec.containers[0].volumeMounts[0].name", "none"],
    );
    refused("apiVersion: v1\nkind: Pod\nmetadata: {name: empty}\nspec: {containers: []}\n", &["spec.containers"]);
    let unknown = pod("image", "true", "").replace("busybox:1", "127.0.0.1:1/none:1");
    node.apply(&unknown);
    eventually("the image's absence is told", || {
        let reason = node.field("pod/image", &format!("{STATE}.waiting.reason"));
        check(matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff"), reason)
    });
    node.wait_pods_ready(&["good"]);
}

#[test]
fn up_and_down_leave_the_machine_as_it_was() {
    // What other tests mount below /tmp meanwhile comes and goes.
    let look = "ip -brief link | sed 's/@.*//; s/ .*//' | sort; ip route; ls -A /run /var/lib /var/log; cat /proc/sys/net/ipv4/ip_forward; nft list ruleset; cut -d' ' -f5 /proc/self/mountinfo | grep -v ^/tmp/ | sort";
    let machine = berth_tests::machine::Machine::start("clean");
    let before = machine.shell(look);
    let mut node = Node::up_on(machine, &[]);
    node.apply(&pod(
        "web",
        "sleep 1000",
        "    volumeMounts: [{name: fast, mountPath: /fast}]\n  volumes: [{name: fast, emptyDir: {medium: Memory}}]\n",
    ));
    node.wait_pods_ready(&["web"]);
    let output = node.berth(&["down", "--purge"]);
    succeeded(&output, "berth down --purge");
    node.machine.shell("rm -f /run/agent.log /run/manifest.yaml; rm -rf /run/.kube");
    eventually("as it was", || {
        let after = node.machine.shell(look);
        check(after == before, format!("before:\n{before}after:\n{after}"))
    });
    let folders = berth_tests::machine::cgroup_folders(&node.machine.cgroup);
    let below: Vec<_> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(below.is_empty(), "cgroups are left: {below:?}");
    let _ = &mut node;
}
