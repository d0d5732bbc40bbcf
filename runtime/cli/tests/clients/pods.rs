//! podman 4.3: what a container may be and see, and pods.

use std::fs;

use crate::podman::Podman;

#[test]
fn users_and_capabilities() {
    let podman = Podman::new();
    let id = podman.run(&["--rm", "--user=1000:1001", "--group-add=5", "busybox", "id"]).ok();
    assert!(id.starts_with("uid=1000") && id.contains("gid=1001") && id.contains('5'), "{id}");
    let caps = |flags: &[&str]| {
        podman.run(&[flags, &["--rm", "busybox", "grep", "CapEff", "/proc/self/status"]].concat()).ok()
    };
    assert_eq!(caps(&["--cap-drop=all"]), "CapEff:\t0000000000000000\n");
    assert_eq!(caps(&["--cap-drop=all", "--cap-add=chown"]), "CapEff:\t0000000000000001\n");
    assert_eq!(caps(&["--user=1000"]), "CapEff:\t0000000000000000\n");
    podman.run_waiting(&[]);
    let id = podman.podman(&["exec", "--user=1000:1001", "box", "id"]).ok();
    assert!(id.starts_with("uid=1000") && id.contains("gid=1001"), "{id}");
    let all = podman.podman(&["exec", "--privileged", "box", "grep", "CapEff", "/proc/self/status"]).ok();
    assert_ne!(all, caps(&[]));
}

#[test]
fn files_and_folders() {
    let podman = Podman::new();
    podman.run(&["--rm", "--read-only", "busybox", "touch", "/x"]).failed_with(1);
    podman.run(&["--rm", "--read-only", "busybox", "touch", "/tmp/x"]).ok();
    let shared = podman.folder().join("shared");
    fs::create_dir(&shared).unwrap();
    let volume = |options: &str| format!("--volume={}:/shared{options}", shared.display());
    podman.run(&["--rm", &volume(""), "busybox", "sh", "-c", "echo text > /shared/file"]).ok();
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "text\n");
    podman.run(&["--rm", &volume(":ro"), "busybox", "touch", "/shared/file"]).failed_with(1);
    podman.run(&["--rm", "--volume=named:/data", "busybox", "touch", "/data/kept"]).ok();
    podman.run(&["--rm", "--volume=named:/data", "busybox", "ls", "/data/kept"]).ok();
    let mounted = podman.run(&["--rm", "--tmpfs=/t:size=1m", "busybox", "grep", " /t ", "/proc/mounts"]).ok();
    assert!(mounted.starts_with("tmpfs") && mounted.contains("size=1024k"), "{mounted}");
    let device =
        podman.run(&["--rm", "--device=/dev/null:/dev/nothing", "busybox", "sh", "-c", "echo x > /dev/nothing"]);
    device.ok();
}

#[test]
fn names_parameters_and_limits_of_a_process() {
    let podman = Podman::new();
    let flags =
        ["--rm", "--hostname=other", "--sysctl=kernel.msgmax=9000", "--ulimit=nofile=100:200", "--ulimit=nproc=90:90"];
    let program = "hostname; cat /proc/sys/kernel/msgmax; ulimit -Sn; ulimit -Hn";
    let told = podman.run(&[&flags[..], &["busybox", "sh", "-c", program]].concat()).ok();
    assert_eq!(told, "other\n9000\n100\n200\n");
    let seccomp = podman.run(&["--rm", "busybox", "grep", "^Seccomp:", "/proc/self/status"]).ok();
    assert_eq!(seccomp, "Seccomp:\t2\n");
    podman.run(&["--rm", "busybox", "unshare", "-m", "true"]).failed_with(1);
    let first = podman.run(&["--rm", "busybox", "sh", "-c", "echo $$"]).ok();
    assert_eq!(first, "1\n");
}

#[test]
fn a_privileged_container_has_the_machine() {
    let podman = Podman::new();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(podman.run(&["--rm", "--uts=host", "busybox", "hostname"]).ok(), host);
    let pids = podman.run(&["--rm", "--pid=host", "busybox", "ls", &format!("/proc/{}", std::process::id())]);
    assert!(pids.ok().contains("status"));
}

#[test]
fn users_are_mapped() {
    let podman = Podman::new();
    let map = podman.run(&["--rm", "--uidmap=0:100000:1000", "busybox", "cat", "/proc/self/uid_map"]).ok();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "1000"]);
    let shared = podman.folder().join("shared");
    fs::create_dir(&shared).unwrap();
    let volume = format!("--volume={}:/shared", shared.display());
    podman.run(&["--rm", "--uidmap=0:100000:1000", &volume, "busybox", "touch", "/shared/file"]).failed_with(1);
}

#[test]
fn the_containers_of_a_pod_share_namespaces() {
    let podman = Podman::new();
    let parent = format!("--cgroup-parent=/{}", podman.cgroup());
    let infra = ["--infra-image=busybox", "--infra-command=sleep 1000", "--network=none", "--hostname=together"];
    podman.podman(&[&["pod", "create", "--name=p", &parent], &infra[..]].concat()).ok();
    let one = ["run", "--detach", "--pod=p", "--name=one", "busybox", "sh", "-c", "touch /dev/shm/there; sleep 1000"];
    podman.podman(&one).ok();
    let two =
        podman.podman(&["run", "--rm", "--pod=p", "busybox", "sh", "-c", "hostname; readlink /proc/self/ns/net"]).ok();
    let one = podman.podman(&["exec", "one", "sh", "-c", "hostname; readlink /proc/self/ns/net"]).ok();
    assert_eq!(one, two);
    assert!(one.starts_with("together\n"), "{one}");
    podman.podman(&["pod", "pause", "p"]).ok();
    assert_eq!(podman.status("one"), "paused");
    podman.podman(&["pod", "unpause", "p"]).ok();
    podman.podman(&["pod", "rm", "--force", "--time=0", "p"]).ok();
}
