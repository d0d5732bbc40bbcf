//! What ADD and DEL cost, next to the kernel's own share of it: the same requests, sent bare. Needs root.
//! `cargo bench -p berth-cni`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_cni::{Attachment, Dirs, Network};
use berth_sys::namespace::{Kind, in_netns, open, pin_new, unpin};
use berth_sys::netlink::link::{NewBridge, NewVeth};
use berth_sys::netlink::route::Way;
use berth_sys::netlink::{Changes, Route};
use serde_json::json;
use tempfile::TempDir;

/// How often each is done.
const TIMES: usize = 100;

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
}

impl Drop for Netns {
    fn drop(&mut self) {
        unpin(&self.folder.path().join("net")).unwrap();
    }
}

/// Times of one step, to be printed as median and minimum.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        self.0.push(start.elapsed());
        value
    }

    fn print(mut self, what: &str) {
        self.0.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!("{what:<44} median {:6.3} ms   best {:6.3} ms", ms(self.0[self.0.len() / 2]), ms(self.0[0]));
    }
}

fn main() {
    let host = Netns::new();
    in_netns(&host.fd, || {
        bare();
        network("ADD, DEL", &["10.77.0.0/16"], json!([]));
        network("ADD, DEL with IPv6", &["10.78.0.0/16", "fd78::/64"], json!([]));
        network("ADD, DEL with a host port", &["10.79.0.0/16"], json!([{"hostPort": 8080, "containerPort": 80}]));
    })
    .unwrap();
}

/// The kernel's share: a pair of interfaces, address, link, route.
fn bare() {
    let mut outside = Route::open().unwrap();
    let mut changes = Changes::new();
    changes.create_bridge(&NewBridge { name: "bare0", mac: None, mtu: None });
    outside.apply(changes).unwrap();
    let bridge = outside.link("bare0").unwrap().unwrap().index;
    let (mut times, mut pods) = (Times::default(), Vec::new());
    for number in 0..TIMES {
        let pod = Netns::new();
        times.measure(|| {
            let name = format!("veth{number}");
            let mut changes = Changes::new();
            let veth = NewVeth {
                name: &name,
                master: Some(bridge),
                mtu: None,
                peer_name: "eth0",
                peer_mac: None,
                peer_netns: pod.fd.as_fd(),
            };
            changes.create_veth(&veth);
            outside.apply(changes).unwrap();
            let mut inside = in_netns(&pod.fd, Route::open).unwrap().unwrap();
            let link = inside.link("eth0").unwrap().unwrap().index;
            let mut changes = Changes::new();
            changes.set_up(1);
            changes.add_address(link, "10.76.0.2/16".parse().unwrap());
            changes.set_up(link);
            let via = Some("10.76.0.1".parse().unwrap());
            changes.add_route(&Way { to: "0.0.0.0/0".parse().unwrap(), via, link });
            inside.apply(changes).unwrap();
        });
        pods.push(pod);
    }
    times.print("bare requests");
    let mut changes = Changes::new();
    changes.delete_link("bare0");
    outside.apply(changes).unwrap();
}

fn network(what: &str, ranges: &[&str], ports: serde_json::Value) {
    let state = tempfile::tempdir().unwrap();
    let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let dirs = Dirs { state: state.path().to_owned(), bin: vec![] };
    let network = Network::builtin("bench", "bench0", &ranges, None, dirs).unwrap();
    let (mut add, mut del, mut pods) = (Times::default(), Times::default(), Vec::new());
    for number in 0..=TIMES {
        let pod = Netns::new();
        let mut attachment = Attachment {
            container_id: format!("pod{number}"),
            netns: pod.folder.path().join("net"),
            ifname: "eth0".to_owned(),
            args: vec![],
            runtime_config: Default::default(),
        };
        attachment.runtime_config.insert("portMappings".to_owned(), ports.clone());
        if number == 0 {
            // The first one makes the bridge and the tables.
            network.add(&attachment).unwrap();
            network.del(&attachment).unwrap();
            continue;
        }
        add.measure(|| network.add(&attachment)).unwrap();
        del.measure(|| network.del(&attachment)).unwrap();
        // Kept until the end: the kernel takes namespaces apart in the background, under locks that ADD needs too.
        pods.push(pod);
    }
    add.print(&format!("{what}: ADD"));
    del.print(&format!("{what}: DEL"));
    network.remove().unwrap();
}
