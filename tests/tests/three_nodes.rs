//! Three nodes, each in a network namespace of its own, against one master.

use berth_tests::cluster::{Node, pod};
use berth_tests::eventually::{check, eventually};
use berth_tests::machine::{Machine, succeeded};
use berth_tests::switch::Switch;

#[test]
fn three_nodes_run_the_pods_of_one_master() {
    let switch = Switch::new();
    let machines = ["alpha", "beta", "gamma"].map(Machine::start);
    let addresses: Vec<_> = (10..).zip(&machines).map(|(number, machine)| switch.join(machine, number)).collect();
    let [first, second, third] = machines;
    let alpha = Node::up_on(first, &[]);
    let others = [(second, &addresses[1]), (third, &addresses[2])].map(|(machine, address)| {
        let name = machine.name.clone();
        let server = format!("https://{}:6443", addresses[0]);
        let out = format!("/run/credentials-{name}");
        let issued = alpha.berth(&["issue-node", &name, "--node-ip", address, "--server", &server, "--out", &out]);
        succeeded(&issued, "berth issue-node");
        copy(&alpha.machine, &machine, &out, "/run/credentials");
        Node::join(machine, "/run/credentials")
    });
    for name in ["alpha", "beta", "gamma"] {
        alpha.wait_ready(name);
    }
    let ranges = alpha.kubectl_ok(&["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"]);
    let mut ranges: Vec<_> = ranges.split(' ').collect();
    ranges.sort_unstable();
    ranges.dedup();
    assert_eq!(ranges.len(), 3, "every node has a range of its own: {ranges:?}");

    for (index, name) in ["alpha", "beta", "gamma"].iter().enumerate() {
        let pinned = format!("  nodeSelector: {{kubernetes.io/hostname: {name}}}\n");
        alpha.apply(&pod(&format!("pod-{index}"), &format!("echo I am on {name}; exec sleep 1000"), &pinned));
    }
    alpha.wait_pods_ready(&["pod-0", "pod-1", "pod-2"]);
    for (index, name) in ["alpha", "beta", "gamma"].iter().enumerate() {
        assert_eq!(alpha.field(&format!("pod/pod-{index}"), ".spec.nodeName"), *name);
        assert_eq!(alpha.kubectl_ok(&["logs", &format!("pod-{index}")]), format!("I am on {name}\n"));
    }
    master_dies_and_comes_back(alpha, &others);
}

/// Nothing is lost, and pods run on, also on the nodes that had no master meanwhile.
fn master_dies_and_comes_back(mut alpha: Node, others: &[Node]) {
    let before: Vec<_> = (0..3)
        .map(|index| alpha.field(&format!("pod/pod-{index}"), ".status.containerStatuses[0].containerID"))
        .collect();
    alpha.kill();
    for node in others {
        let running = succeeded(&node.berth(&["ps"]), "berth ps");
        assert!(running.contains("Running"), "{running}");
    }
    alpha.start();
    for name in ["alpha", "beta", "gamma"] {
        alpha.wait_ready(name);
    }
    alpha.wait_pods_ready(&["pod-0", "pod-1", "pod-2"]);
    let after: Vec<_> = (0..3)
        .map(|index| alpha.field(&format!("pod/pod-{index}"), ".status.containerStatuses[0].containerID"))
        .collect();
    assert_eq!(before, after, "a container was restarted");
    alpha.kubectl_ok(&["delete", "pod", "pod-1", "--timeout=60s"]);
    eventually("the node without a master has heard of it", || {
        let running = succeeded(&others[0].berth(&["ps"]), "berth ps");
        check(!running.contains("pod-1"), running)
    });
}

fn copy(from: &Machine, to: &Machine, source: &str, target: &str) {
    let output =
        std::process::Command::new("cp").arg("-r").arg(from.path(source)).arg(to.path(target)).output().unwrap();
    succeeded(&output, "copy credentials");
}
