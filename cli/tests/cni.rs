//! `berth` as the CNI plugins of others. Run as root; in namespaces of the test's own, with folders of its own in the places
//! that such runtimes expect.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// A machine of one test: where things are of which there is one per machine.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir_in("/dev/shm").unwrap());
        for folder in ["var", "run", "netns", "bin", "conf"] {
            fs::create_dir(machine.path(folder)).unwrap();
        }
        for plugin in berth_cni::plugin::NAMES {
            symlink(env!("CARGO_BIN_EXE_berth"), machine.path("bin").join(plugin)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a script on it, with `$top` as its folder; gives what it printed.
    fn run(&self, script: &str) -> String {
        let prepare = "
            set -eu
            mkdir -p /var/lib/cni /run/berth /run/netns /opt/cni/bin /etc/cni/net.d
            mount --bind $top/var /var/lib/cni; mount --bind $top/run /run/berth; mount -t tmpfs none /run/netns
            mount --bind $top/bin /opt/cni/bin; mount --bind $top/conf /etc/cni/net.d
            ip link set lo up
            left() { find /sys/fs/cgroup -depth -type d -path \"*/berth-cni-$$*\"; }
            # What ended a moment ago may be in it still.
            remove_cgroups() {
                for try in $(seq 50); do
                    [ -n \"$(left)\" ] || return 0
                    left | xargs rmdir 2>/dev/null || sleep 0.1
                done
            }
            ";
        let output = Command::new("unshare")
            .args(["--mount", "--net", "--propagation=private", "bash", "-c"])
            .arg(format!("{prepare}\n{script}"))
            .env("top", self.0.path())
            .env("BERTH", env!("CARGO_BIN_EXE_berth"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
        told
    }

    fn addresses(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("var/networks/pods")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

/// A root filesystem of busybox.
fn rootfs(at: &Path) {
    fs::create_dir_all(at.join("bin")).unwrap();
    fs::create_dir_all(at.join("www")).unwrap();
    fs::write(at.join("www/index.html"), "served\n").unwrap();
    fs::copy(BUSYBOX, at.join("bin/busybox")).unwrap();
    for applet in ["sh", "httpd", "wget", "sleep", "ip"] {
        symlink("busybox", at.join("bin").join(applet)).unwrap();
    }
}

const LIST: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
              "ranges": [[{"subnet": "10.77.0.0/24", "gateway": "10.77.0.1"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall"}]}"#;

#[test]
fn podman_runs_containers_in_our_network() {
    let machine = Machine::new();
    fs::write(machine.path("conf/pods.conflist"), LIST).unwrap();
    rootfs(&machine.path("rootfs"));
    fs::write(
        machine.path("containers.conf"),
        "[containers]\ndefault_ulimits = []\n[engine]\nlock_type = \"file\"\n[network]\nnetwork_backend = \"cni\"\n\
         cni_plugin_dirs = [\"/opt/cni/bin\"]\nnetwork_config_dir = \"/etc/cni/net.d\"\n",
    )
    .unwrap();
    let told = machine.run(
        r#"
        export CONTAINERS_CONF=$top/containers.conf
        podman() {
            command podman --root $top/root --runroot $top/runroot --tmpdir $top/tmp --storage-driver=vfs \
                --cgroup-manager=cgroupfs --events-backend=file --runtime=runc "$@"
        }
        trap 'podman rm --all --force --time=0 >&2; remove_cgroups' EXIT
        # As docker leaves it.
        iptables-nft -P FORWARD DROP
        ours() { iptables-nft -S | grep -c BERTH || true; }
        tar -C $top/rootfs -c . | podman import - busybox >&2
        run() { podman run --detach --network=pods --cgroup-parent=/berth-cni-$$ "$@" >&2; }
        run --name web --publish 8080:80 --ip 10.77.0.50 busybox httpd -f -p 80 -h /www
        run --name other busybox sleep 1000
        echo "address $(podman inspect --format '{{.NetworkSettings.Networks.pods.IPAddress}}' web)"
        for try in $(seq 100); do busybox timeout 1 busybox wget -q -O /dev/null http://10.77.0.50/ && break; sleep 0.1; done
        echo "port $(busybox timeout 5 busybox wget -q -O - http://127.0.0.1:8080/)"
        echo "neighbour $(podman exec other busybox timeout 5 busybox wget -q -O - http://10.77.0.50/)"
        echo "itself $(podman exec web busybox timeout 5 busybox wget -q -O - http://10.77.0.1:8080/)"
        echo "reserved $(ls /var/lib/cni/networks/pods | grep -c '^10\.')"
        echo "let through by $(ours)"
        podman rm --force --time=0 web >&2
        echo "still by $(ours)"
        podman rm --force --time=0 other >&2
        echo "then by $(ours)"
        echo "left $(ip -brief link show master cni0 | wc -l)"
        "#,
    );
    // The chain, the rule that leads there, and two in it.
    let expected = "address 10.77.0.50\nport served\nneighbour served\nitself served\nreserved 2\n\
        let through by 4\nstill by 4\nthen by 0\nleft 0\n";
    assert_eq!(told, expected);
    assert!(machine.addresses().is_empty());
}

#[test]
fn containerd_runs_containers_in_our_network() {
    let machine = Machine::new();
    fs::write(machine.path("conf/pods.conflist"), LIST).unwrap();
    rootfs(&machine.path("rootfs"));
    let told = machine.run(
        r#"
        cat > $top/config.toml <<END
version = 2
root = "$top/containerd"
state = "$top/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "$top/containerd.sock"
[ttrpc]
address = "$top/containerd.sock.ttrpc"
END
        containerd --config $top/config.toml --log-level error >&2 & containerd=$!
        ctr() { command ctr --address $top/containerd.sock "$@"; }
        tasks() { ctr task ls -q; }
        clean() {
            for task in $(tasks); do ctr task kill -s KILL $task; done
            for try in $(seq 100); do ctr task rm $(tasks) 2>/dev/null; [ -n "$(tasks)" ] || break; sleep 0.1; done
            kill $containerd; wait $containerd || true; remove_cgroups
        }
        trap 'clean >&2' EXIT
        for try in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.1; done
        $BERTH image --state-dir $top/berth import $top/rootfs test/busybox >&2
        $BERTH image --state-dir $top/berth export $top/image.tar test/busybox >&2
        ctr image import --snapshotter native $top/image.tar >&2
        run() {
            name=$1; shift
            ctr run --detach --cni --snapshotter native --cgroup /berth-cni-$$/$name docker.io/test/busybox:latest $name "$@" >&2
        }
        run web httpd -f -p 80 -h /www
        address=$(ctr task exec --exec-id a web ip -4 -o address show eth0 | grep -o '10\.77\.0\.[0-9]*' | head -1)
        echo "address $address"
        for try in $(seq 100); do busybox timeout 1 busybox wget -q -O /dev/null http://$address/ && break; sleep 0.1; done
        run other sleep 1000
        echo "neighbour $(ctr task exec --exec-id b other busybox timeout 5 wget -q -O - http://$address/)"
        echo "reserved $(ls /var/lib/cni/networks/pods | grep -c '^10\.')"
        "#,
    );
    assert_eq!(told, "address 10.77.0.2\nneighbour served\nreserved 2\n");
}

/// Words for scripts: calls of plugins for one pod `p1`, with the result of the last ADD as the previous one.
const CALLS: &str = r#"
    ip netns add p1
    export CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/p1 CNI_IFNAME=eth0
    bridge='{"cniVersion":"1.1.0","name":"pods","type":"bridge","bridge":"cni0","isDefaultGateway":true,"ipMasq":true,
        "ipam":{"type":"host-local","ranges":[[{"subnet":"10.77.0.0/24"}],[{"subnet":"fd77::/64"}]]}}'
    portmap='{"cniVersion":"1.1.0","name":"pods","type":"portmap",
        "runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}}'
    # with_result CONFIGURATION RESULT: the configuration with it as the previous result
    with_result() { echo "${1%\}},\"prevResult\":$2}"; }
    # call VERB CONFIGURATION
    call() { CNI_COMMAND=$1 $BERTH cni <<<"$2"; }
    "#;

#[test]
fn what_was_killed_at_any_step_is_collected() {
    let machine = Machine::new();
    let told = machine.run(&[CALLS, r#"
        steps=sendto,sendmsg,write,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,openat,utimensat,setns,flock
        # trace VERB CONFIGURATION: each step of it and how often it came so far, once standard input is read
        trace() {
            CNI_COMMAND=$1 strace -f -o $top/trace -e trace=read,$steps $BERTH cni <<<"$2" >$top/result
            sed 's/^[0-9]* *//; s/(.*//' $top/trace | awk -v begun=0 '
                /^[a-z0-9_]+$/ { count[$1]++; if (begun && $1 != "read") print $1, count[$1] }
                $1 == "read" && count["read"] > 0 { begun = 1 }' | tail -n +1
        }
        # killed VERB CONFIGURATION STEP COUNT
        killed() {
            ! CNI_COMMAND=$1 strace -f -o $top/trace -e trace=$3 -e inject=$3:signal=KILL:when=$4 \
                $BERTH cni <<<"$2" >/dev/null 2>$top/said || echo "$1 was not killed at $3 $4"
        }
        state() {
            ls -A /var/lib/cni/networks/pods | grep -v -e '^last_reserved_ip' -e '^lock$' -e '^resting$' || true
            find /run/berth/cni -path '*/results/*' -type f
            ip -brief link | grep -o '^berth[^ @]*' || true
            nft list ruleset | grep -e 'elements = ' || true
        }
        collect() { call GC "$portmap"; call GC "$bridge"; }
        check() {
            left=$(state)
            [ -z "$left" ] || { echo "after $*: $left"; collect; }
        }
        # What the first call makes stays.
        result=$(call ADD "$bridge"); call ADD "$(with_result "$portmap" "$result")" >/dev/null
        call DEL "$(with_result "$portmap" "$result")"; call DEL "$(with_result "$bridge" "$result")"
        check the first round
        before=$(nft list ruleset | md5sum)
        trace ADD "$bridge" >$top/add; result=$(cat $top/result)
        mapped=$(with_result "$portmap" "$result")
        trace ADD "$mapped" >$top/add-port
        trace DEL "$mapped" >$top/del-port
        trace DEL "$(with_result "$bridge" "$result")" >$top/del
        while read step count; do
            killed ADD "$bridge" $step $count; collect; check ADD $step $count
        done <$top/add
        while read step count; do
            call ADD "$bridge" >/dev/null
            killed ADD "$mapped" $step $count; collect; check ADD of a port $step $count
        done <$top/add-port
        while read step count; do
            result=$(call ADD "$bridge"); call ADD "$(with_result "$portmap" "$result")" >/dev/null
            killed DEL "$(with_result "$portmap" "$result")" $step $count; collect; check DEL of a port $step $count
        done <$top/del-port
        while read step count; do
            result=$(call ADD "$bridge")
            killed DEL "$(with_result "$bridge" "$result")" $step $count; collect; check DEL $step $count
        done <$top/del
        for file in add add-port del-port del; do
            [ $(wc -l <$top/$file) -gt 8 ] || echo "$file has no steps: $(cat $top/$file)"
        done
        [ "$(nft list ruleset | md5sum)" = "$before" ] || nft list ruleset
        # And it all works still.
        result=$(call ADD "$bridge"); call CHECK "$(with_result "$bridge" "$result")"
        call DEL "$(with_result "$bridge" "$result")"; check all
        wc -l $top/add $top/add-port $top/del-port $top/del >&2
        "#].concat());
    assert_eq!(told, "");
}
