//! From start to end: sandboxes, containers, and what is left of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_runtime::shim::client::{self, Error};
use berth_runtime::shim::protocol::{Call, Event, Fault, FaultKind, NamespaceMode};
use berth_sys::cgroup::{Cgroup, Hierarchies};
use berth_sys::undo::Undo;
use serde_json::json;

use crate::pod::{Pod, eventually, lives, process, spec};

fn kind(result: Result<impl std::fmt::Debug, Error>) -> FaultKind {
    match result {
        Err(Error::Fault(Fault { kind, .. })) => kind,
        other => panic!("no fault: {other:?}"),
    }
}

#[test]
fn a_container_lives_from_create_to_delete() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let script = "hostname; ifconfig lo | grep -c 127.0.0.1; grep -E 'Sig(Blk|Ign)' /proc/self/status; exit 7";
    let pid = pod.create(&mut client, "c", pod.bundle("c", script));
    assert!(lives(pid) && client.state()["c"].started_at.is_none());
    client.ask(Call::Start { container: "c".into() });
    let exit = client.exit_of("c");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    assert_eq!(pod.exit_record("c").as_ref(), Some(&exit), "the record is on disk before the event is told");
    assert!(exit.started_at.unwrap() <= exit.finished_at);
    let log = pod.log("c");
    assert_eq!(log[..2], ["stdout F web-0", "stdout F 1"]);
    // All but the two that the C library keeps for itself, should somebody above have ignored them.
    for (line, name) in log[2..].iter().zip(["SigBlk", "SigIgn"]) {
        let mask = line.strip_prefix(&format!("stdout F {name}:\t")).unwrap();
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31), 0, "{line}");
    }
    let state = &client.state()["c"];
    assert_eq!((state.pid, state.exit.as_ref(), state.log_bytes_lost), (pid, Some(&exit), 0));
    client.ask(Call::Kill { container: "c".into(), signal: 15, all: false });
    client.ask(Call::Delete { container: "c".into() });
    assert!(client.state().is_empty() && pod.exit_record("c").is_none() && pod.log_path("c").exists());
    client.ask(Call::Delete { container: "c".into() });
    assert_eq!(pod.kept(), 0);
}

#[test]
fn what_makes_no_sense_is_refused_by_kind() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let start = |id: &str| Call::Start { container: id.into() };
    assert_eq!(kind(client.try_ask(start("c"))), FaultKind::NotFound);
    assert_eq!(kind(client.try_ask(Call::Kill { container: "c".into(), signal: 9, all: false })), FaultKind::NotFound);
    let create = |id: &str, bundle: PathBuf| Call::create(id, bundle, None);
    assert_eq!(kind(client.try_ask(create("../c", pod.bundle("c", "")))), FaultKind::Invalid);
    assert_eq!(kind(client.try_ask(create("c", "/nonexistent".into()))), FaultKind::Failed);
    client.ask(create("c", pod.bundle("c", "sleep 1000")));
    assert_eq!(kind(client.try_ask(create("c", pod.bundle("c", "")))), FaultKind::Exists);
    client.ask(start("c"));
    assert_eq!(kind(client.try_ask(start("c"))), FaultKind::WrongState);
    // runc finds that out when it creates the container.
    match client.try_ask(create("d", pod.bundle_with("d", &["/bin/nothing"], |_| {}))) {
        Ok(_) => {
            assert_eq!(kind(client.try_ask(start("d"))), FaultKind::BadCommand);
            assert_ne!(client.exit_of("d").code, 0);
        }
        refused => assert_eq!(kind(refused), FaultKind::BadCommand),
    }
    let exec = Call::Exec {
        container: "c".into(),
        exec: "e".into(),
        process: Box::new(serde_json::from_value(process(&["true"])).unwrap()),
    };
    assert_eq!(kind(client.try_ask(exec)), FaultKind::Invalid, "an exec without descriptors");
}

#[test]
fn signals_end_containers_and_are_told() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    eventually("the trap is set", || !pod.log("c").is_empty());
    client.ask(Call::Kill { container: "c".into(), signal: 15, all: false });
    assert_eq!(client.exit_of("c").code, 3);
    pod.run(&mut client, "d", "sleep 1000");
    client.ask(Call::Kill { container: "d".into(), signal: 9, all: true });
    let exit = client.exit_of("d");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
}

#[test]
fn deleting_a_living_container_kills_it_first() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let pid = pod.run(&mut client, "c", "sleep 1000");
    let created = pod.create(&mut client, "d", pod.bundle("d", "true"));
    for id in ["c", "d"] {
        client.ask(Call::Delete { container: id.into() });
        assert!(matches!(client.event(), Event::Exited { container, exit } if container == id && exit.code == 137));
    }
    assert!(!lives(pid) && !lives(created) && client.state().is_empty());
}

#[test]
fn containers_share_the_sandbox_namespaces_and_have_their_own_pids() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    for id in ["a", "b"] {
        pod.run(&mut client, id, "for n in net ipc uts; do readlink /proc/self/ns/$n; done; echo $$");
        client.exit_of(id);
    }
    let (a, b) = (pod.log("a"), pod.log("b"));
    assert_eq!(a, b);
    assert_eq!(a[3], "stdout F 1");
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(a[0], format!("stdout F {}", host.display()));
    let shim = fs::read_link(format!("/proc/{}/ns/net", pod.shim_pid())).unwrap();
    assert_eq!(shim, host, "the shim itself stays where it was started");
}

#[test]
fn sysctls_are_set_inside() {
    let mut spec = spec();
    spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    spec.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let pod = Pod::with(spec);
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    pod.run(&mut client, "c", script);
    client.exit_of("c");
    assert_eq!(pod.log("c"), ["stdout F 0", "stdout F 1"]);
}

#[test]
fn a_sandbox_that_cannot_be_made_says_why_and_leaves_nothing() {
    let mut bad = spec();
    bad.sysctls.insert("vm.swappiness".into(), "1".into());
    let mut late = spec();
    late.sysctls.insert("net.ipv4.nonexistent".into(), "1".into());
    let mut modes = spec();
    modes.namespaces.net = NamespaceMode::Container;
    for (spec, word) in [(bad, "vm.swappiness"), (late, "net.ipv4.nonexistent"), (modes, "namespaces.net")] {
        let pod = Pod::unstarted(spec);
        let error = client::start_shim(&Pod::program(), &pod.dir, &pod.spec).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        eventually("the failed shim is gone", || client::living(&pod.dir).unwrap().is_none());
        assert!(pod.mounts().is_empty() && !pod.dir.join("ns").exists());
        client::reap_dead(&pod.dir).unwrap();
        assert!(!pod.dir.exists());
    }
}

#[test]
fn a_second_shim_for_a_sandbox_is_refused() {
    let pod = Pod::start();
    let error = client::start_shim(&Pod::program(), &pod.dir, &pod.spec).unwrap_err().to_string();
    assert!(error.contains("shim.lock"), "{error}");
    assert!(matches!(client::reap_dead(&pod.dir), Err(Error::Alive { pid, .. }) if pid == pod.shim_pid()));
    pod.connect().state();
}

#[test]
fn shutdown_takes_everything_along() {
    let mut shared = spec();
    shared.namespaces.pid = NamespaceMode::New;
    for spec in [spec(), shared] {
        let pod = Pod::with(spec);
        let mut client = pod.connect();
        let shim = pod.shim_pid();
        let pids = [pod.run(&mut client, "c", "sleep 1000"), pod.run(&mut client, "d", "sleep 1000 & exit 0")];
        assert!(!pod.mounts().is_empty() && !pod.cgroups().is_empty());
        client.ask(Call::Shutdown);
        client::reap_dead(&pod.dir).unwrap();
        assert!(!pids.into_iter().any(lives));
        assert!(pod.mounts().is_empty(), "{:?}", pod.mounts());
        assert!(pod.cgroups().is_empty(), "{:?}", pod.cgroups());
        assert!(matches!(client::Connection::connect(&pod.dir, crate::pod::PATIENCE), Err(Error::Gone { .. })));
        assert!(!pod.dir.exists());
        eventually("the shim is dead", || !lives(shim));
    }
}

#[test]
fn the_pod_s_cgroup_comes_and_goes_with_the_sandbox() {
    let pod = Pod::start();
    assert!(!pod.cgroups().is_empty(), "it waited for the first container");
    pod.connect().ask(Call::Shutdown);
    assert!(pod.cgroups().is_empty(), "{:?}", pod.cgroups());
}

#[test]
fn what_somebody_made_of_the_pod_s_cgroup_before_stays() {
    for is_killed in [false, true] {
        let spec = spec();
        let everywhere = Cgroup::new(Hierarchies::of_machine().unwrap(), Path::new(&spec.cgroup), &[]).unwrap();
        let some: Vec<&Path> = everywhere.folders().map(|(_, folder, _)| folder).take(2).collect();
        some.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let mut undo = Undo::new();
        undo.push(|| drop(everywhere.remove()));
        let pod = Pod::unstarted(spec);
        let before = pod.cgroups();
        client::start_shim(&Pod::program(), &pod.dir, &pod.spec).unwrap();
        let pid = pod.run(&mut pod.connect(), "c", "sleep 1000");
        assert!(pod.cgroups().len() > before.len());
        if is_killed {
            client::kill_shim(&pod.dir).unwrap();
        } else {
            pod.connect().ask(Call::Shutdown);
        }
        client::reap_dead(&pod.dir).unwrap();
        assert!(!lives(pid));
        assert_eq!(pod.cgroups(), before);
        assert!(!before.iter().any(|folder| folder.join("c").exists()));
    }
}

#[test]
fn a_pod_s_user_namespace_owns_the_others_and_its_containers_are_in_it() {
    for pid in [NamespaceMode::Container, NamespaceMode::New] {
        let mut spec = spec();
        spec.namespaces.user = NamespaceMode::New;
        spec.namespaces.pid = pid;
        let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        spec.uid_mappings = serde_json::from_value(mapping.clone()).unwrap();
        spec.gid_mappings = serde_json::from_value(mapping.clone()).unwrap();
        spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        spec.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        let pod = Pod::with(spec);
        // The users of the pod have to find the way to their root folder.
        fs::set_permissions(pod.folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut client = pod.connect();
        client.ask(Call::Subscribe);
        // An address is given only by who has the capability in the namespace that owns the network's.
        let script = "cat /proc/self/uid_map; cat /proc/self/gid_map; hostname
            cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ifconfig lo 127.0.0.2 && echo owned";
        let bundle = pod.bundle_with("c", &["/bin/sh", "-c", script], |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user", "path": pod.dir.join("ns/user")}));
            // runc reads them there too.
            (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (mapping.clone(), mapping);
            let all = ["CAP_NET_ADMIN"];
            config["process"]["capabilities"] = json!({"bounding": all, "permitted": all, "effective": all});
        });
        pod.create(&mut client, "c", bundle);
        client.ask(Call::Start { container: "c".into() });
        client.exit_of("c");
        let log = pod.log("c");
        let words: Vec<Vec<&str>> = log.iter().map(|line| line.split_whitespace().skip(2).collect()).collect();
        let map = vec!["0", "100000", "65536"];
        assert_eq!(words, [map.clone(), map, vec!["web-0"], vec!["0"], vec!["owned"]], "{log:?}");
        client.ask(Call::Shutdown);
        assert!(pod.mounts().is_empty(), "{:?}", pod.mounts());
    }
}
