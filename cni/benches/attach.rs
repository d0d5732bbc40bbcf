//! What ADD and DEL cost, in turn with the reference plugins (Debian's containernetworking-plugins) and next to the kernel's
//! own share: the same requests, sent bare. Needs root. `make bench-cni`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_cni::{Attachment, Dirs, Network};
use berth_sys::namespace::{Kind, in_netns, open, pin_new, unpin};
use berth_sys::netlink::link::{NewBridge, NewVeth};
use berth_sys::netlink::route::Way;
use berth_sys::netlink::{Changes, Route};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How often each is done.
const TIMES: usize = 100;
/// How many pods there are in the end of the second part.
const LIVE: usize = 300;
/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

struct Netns {
    folder: TempDir,
    fd: OwnedFd,
}

impl Netns {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        pin_new(&[Kind::Net], folder.path()).expect("the benchmark needs root");
        let fd = open(&folder.path().join("net")).unwrap();
        Self { folder, fd }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("net")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        unpin(&self.path()).unwrap();
    }
}

/// Times by what was measured, in the order of their names.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    fn measure<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        self.0.entry(what).or_default().push(start.elapsed());
        value
    }

    /// Median and least, in milliseconds.
    fn of(&self, what: &str) -> (f64, f64) {
        let mut all = self.0[what].clone();
        all.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        (ms(all[all.len() / 2]), ms(all[0]))
    }

    fn print(&self) {
        println!("{:<36}{:>10}{:>10}", "milliseconds", "median", "least");
        for what in self.0.keys() {
            let (median, least) = self.of(what);
            println!("{what:<36}{median:>10.3}{least:>10.3}");
        }
    }

    /// How many times `what` takes what `than` takes.
    fn compare(&self, what: &str, than: &str, goal: &str) {
        let ((median, least), (other, other_least)) = (self.of(what), self.of(than));
        let (ratio, of_least) = (median / other, least / other_least);
        println!("{what:<30} / {than:<30} = {ratio:>6.3} (of the least: {of_least:.3}; goal: {goal})");
    }
}

fn main() {
    let host = Netns::new();
    in_netns(&host.fd, || {
        let mut times = Times::default();
        side_by_side(&mut times);
        crowded(&mut times);
        times.print();
        println!();
        times.compare("add: berth", "add: reference", "at most 1/6 = 0.167");
        times.compare("add, a host port: berth", "add, a host port: reference", "at most 1/15 = 0.067");
        times.compare("del: berth", "del: reference", "at most 1/15 = 0.067");
        times.compare("del, a host port: berth", "del, a host port: reference", "at most 1/15 = 0.067");
        times.compare("add: berth", "add: bare netlink", "at most 2");
        times.compare("crowd, the last ten: berth", "crowd, the first ten: berth", "at most 1.5");
    })
    .unwrap();
}

/// Who does it, with a network of its own.
struct Rival {
    network: Network,
    add: &'static str,
    del: &'static str,
    ports: Value,
    /// Keeps the state.
    _state: TempDir,
}

impl Rival {
    /// One with a bridge and addresses, and a port of the host if there is one.
    fn new(name: &str, number: u8, port: Option<u16>, is_ours: bool, [add, del]: [&'static str; 2]) -> Self {
        let state = tempfile::tempdir_in("/dev/shm").unwrap();
        let list =
            json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins(number, port.is_some(), state.path())});
        let dirs = Dirs { state: state.path().to_owned(), bin: vec![REFERENCE.into()] };
        let parse = if is_ours { Network::parse } else { Network::of_programs };
        let network = parse(list.to_string().as_bytes(), dirs).unwrap();
        let ports = port.map(|port| json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]));
        Self { network, add, del, ports: ports.unwrap_or_else(|| json!([])), _state: state }
    }

    fn attachment(&self, pod: &Netns, id: String) -> Attachment {
        let mut attachment = Attachment {
            container_id: id,
            netns: pod.path(),
            ifname: "eth0".to_owned(),
            args: vec![],
            runtime_config: Default::default(),
        };
        attachment.runtime_config.insert("portMappings".to_owned(), self.ports.clone());
        attachment
    }

    /// One ADD and one DEL.
    fn round(&self, times: &mut Times, number: usize, pods: &mut Vec<Netns>) {
        let pod = Netns::new();
        let attachment = self.attachment(&pod, format!("{}-{number}", self.network.name()));
        if number == 0 {
            // The first one makes the bridge and the tables.
            self.network.add(&attachment).unwrap();
            self.network.del(&attachment).unwrap();
        } else {
            times.measure(self.add, || self.network.add(&attachment)).unwrap();
            times.measure(self.del, || self.network.del(&attachment)).unwrap();
        }
        // Kept until the end: the kernel takes namespaces apart in the background, under locks that ADD needs too.
        pods.push(pod);
    }
}

fn plugins(number: u8, has_port: bool, state: &Path) -> Value {
    let bridge = json!({"type": "bridge", "bridge": format!("bench{number}"), "isDefaultGateway": true,
        "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": state.join("networks").to_str().unwrap(),
        "ranges": [[{"subnet": format!("10.{number}.0.0/16")}]]}});
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    if has_port { json!([bridge, portmap]) } else { json!([bridge]) }
}

fn side_by_side(times: &mut Times) {
    let rivals = [
        Rival::new("ours", 70, None, true, ["add: berth", "del: berth"]),
        Rival::new("theirs", 71, None, false, ["add: reference", "del: reference"]),
        Rival::new("ours-port", 72, Some(8072), true, ["add, a host port: berth", "del, a host port: berth"]),
        Rival::new(
            "theirs-port",
            73,
            Some(8073),
            false,
            ["add, a host port: reference", "del, a host port: reference"],
        ),
    ];
    let mut bare = Bare::new();
    let mut pods = Vec::new();
    for number in 0..=TIMES {
        rivals.iter().for_each(|rival| rival.round(times, number, &mut pods));
        bare.round(times, number, &mut pods);
    }
    bare.remove();
}

/// Many pods on one bridge, all of which stay.
fn crowded(times: &mut Times) {
    let rival = Rival::new("crowd", 74, None, true, ["", ""]);
    let mut pods: Vec<(Netns, Attachment)> = Vec::new();
    for number in 0..=LIVE {
        let pod = Netns::new();
        let attachment = rival.attachment(&pod, format!("pod{number}"));
        match number {
            // It makes the bridge.
            0 => drop(rival.network.add(&attachment).unwrap()),
            1..=10 => drop(times.measure("crowd, the first ten: berth", || rival.network.add(&attachment)).unwrap()),
            _ if number + 10 > LIVE => {
                drop(times.measure("crowd, the last ten: berth", || rival.network.add(&attachment)).unwrap());
            }
            _ => drop(rival.network.add(&attachment).unwrap()),
        }
        pods.push((pod, attachment));
    }
    pods.iter().for_each(|(_, attachment)| rival.network.del(attachment).unwrap());
}

/// The kernel's share: a pair of interfaces, address, link, route.
struct Bare {
    outside: Route,
    bridge: u32,
}

impl Bare {
    fn new() -> Self {
        let mut outside = Route::open().unwrap();
        let mut changes = Changes::new();
        changes.create_bridge(&NewBridge { name: "bare0", mac: None, mtu: None });
        outside.apply(changes).unwrap();
        let bridge = outside.link("bare0").unwrap().unwrap().index;
        Self { outside, bridge }
    }

    fn round(&mut self, times: &mut Times, number: usize, pods: &mut Vec<Netns>) {
        let pod = Netns::new();
        let name = format!("veth{number}");
        times.measure("add: bare netlink", || self.attach(&pod, &name));
        pods.push(pod);
    }

    fn attach(&mut self, pod: &Netns, name: &str) {
        let mut changes = Changes::new();
        changes.create_veth(&NewVeth {
            name,
            mac: None,
            group: 0,
            master: Some(self.bridge),
            mtu: None,
            peer_name: "eth0",
            peer_mac: None,
            peer_netns: pod.fd.as_fd(),
        });
        self.outside.apply(changes).unwrap();
        let mut inside = in_netns(&pod.fd, Route::open).unwrap().unwrap();
        let link = inside.link("eth0").unwrap().unwrap().index;
        let mut changes = Changes::new();
        changes.set_up(1);
        changes.add_address(link, "10.76.0.2/16".parse().unwrap());
        changes.set_up(link);
        let via = Some("10.76.0.1".parse().unwrap());
        changes.add_route(&Way { to: "0.0.0.0/0".parse().unwrap(), via, link });
        inside.apply(changes).unwrap();
    }

    fn remove(mut self) {
        let mut changes = Changes::new();
        changes.delete_link("bare0");
        self.outside.apply(changes).unwrap();
    }
}
