//! Namespaces that stand for a host, its pods and the world outside. Each test has its own; all end with their values.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use berth_cni::{AddResult, Attachment, Dirs, Error, Network};
use berth_sys::namespace::{Kind, in_netns, open, pin_new, unpin};
use berth_sys::netlink::link::NewVeth;
use berth_sys::netlink::route::Way;
use berth_sys::netlink::{Changes, Route};
use tempfile::TempDir;

/// How long anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often a datagram is sent again.
const ASKED_MAX: usize = 3;

/// A network namespace, pinned at a path.
pub struct Netns {
    folder: TempDir,
    pub fd: OwnedFd,
}

impl Netns {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        pin_new(&[Kind::Net], folder.path()).expect("tests of the network need root");
        let fd = open(&folder.path().join("net")).unwrap();
        Self { folder, fd }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("net")
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(&self.fd, work).unwrap()
    }

    pub fn route(&self) -> Route {
        self.run(Route::open).unwrap()
    }

    /// Sets `lo` up.
    pub fn loopback(&self) {
        let mut changes = Changes::new();
        changes.set_up(1);
        self.route().apply(changes).unwrap();
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = unpin(&self.path());
    }
}

/// A host: its namespace, its state.
pub struct Host {
    pub netns: Netns,
    pub state: TempDir,
}

impl Host {
    pub fn new() -> Self {
        let netns = Netns::new();
        netns.loopback();
        Self { netns, state: tempfile::tempdir().unwrap() }
    }

    pub fn dirs(&self) -> Dirs {
        Dirs { state: self.state.path().to_owned(), bin: vec![] }
    }

    /// The built-in network with these ranges.
    pub fn network(&self, ranges: &[&str]) -> Network {
        let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Network::builtin("pods", "berth0", &ranges, None, self.dirs()).unwrap()
    }

    pub fn add(&self, network: &Network, attachment: &Attachment) -> Result<AddResult, Error> {
        self.netns.run(|| network.add(attachment))
    }

    pub fn del(&self, network: &Network, attachment: &Attachment) -> Result<(), Error> {
        self.netns.run(|| network.del(attachment))
    }

    /// A pod that is attached.
    pub fn pod(&self, network: &Network, id: &str) -> Pod {
        let netns = Netns::new();
        let attachment = attachment(id, &netns.path());
        let result = self.add(network, &attachment).unwrap();
        Pod { netns, attachment, result }
    }

    /// Files below the folder of the network's addresses that are addresses.
    pub fn reserved(&self) -> Vec<String> {
        names(&self.state.path().join("networks/pods"))
            .into_iter()
            .filter(|name| name.parse::<IpAddr>().is_ok())
            .collect()
    }

    /// Cached results.
    pub fn results(&self) -> Vec<String> {
        names(&self.state.path().join("results/pods"))
    }

    /// Names of the bridge's ports.
    pub fn ports(&self) -> Vec<String> {
        let mut route = self.netns.route();
        let Some(bridge) = route.link("berth0").unwrap() else { return vec![] };
        route.ports(bridge.index).unwrap().into_iter().map(|port| port.name).collect()
    }
}

/// An attached pod.
pub struct Pod {
    pub netns: Netns,
    pub attachment: Attachment,
    pub result: AddResult,
}

impl Pod {
    pub fn ip(&self, index: usize) -> IpAddr {
        self.result.ips[index].address.ip()
    }
}

pub fn attachment(id: &str, netns: &Path) -> Attachment {
    Attachment {
        container_id: id.to_owned(),
        netns: netns.to_owned(),
        ifname: "eth0".to_owned(),
        args: vec![],
        runtime_config: Default::default(),
    }
}

/// Joins two namespaces by a pair of interfaces with these addresses.
pub fn join(one: &Netns, name: &str, addresses: &[&str], other: &Netns, other_name: &str, other_addresses: &[&str]) {
    let mut changes = Changes::new();
    changes.create_veth(&NewVeth {
        name,
        mac: None,
        group: 0,
        master: None,
        mtu: None,
        peer_name: other_name,
        peer_mac: None,
        peer_netns: other.fd.as_fd(),
    });
    one.route().apply(changes).unwrap();
    for (netns, name, addresses) in [(one, name, addresses), (other, other_name, other_addresses)] {
        let mut route = netns.route();
        let link = route.link(name).unwrap().unwrap();
        let mut changes = Changes::new();
        addresses.iter().for_each(|address| changes.add_address(link.index, address.parse().unwrap()));
        changes.set_up(link.index);
        route.apply(changes).unwrap();
    }
}

/// Gives a namespace a route.
pub fn route(netns: &Netns, to: &str, via: &str, link: &str) {
    let mut route = netns.route();
    let link = route.link(link).unwrap().unwrap().index;
    let mut changes = Changes::new();
    changes.add_route(&Way { to: to.parse().unwrap(), via: Some(via.parse().unwrap()), link });
    route.apply(changes).unwrap();
}

/// A program that another test begins has all descriptors for a moment, that of the last listener too.
fn listen_at(netns: &Netns, address: SocketAddr) -> TcpListener {
    eventually(|| netns.run(|| TcpListener::bind(address)).map_err(|error| format!("bind {address}: {error}")))
}

/// Connects from one namespace to a server that listens in another on `listen`; the client talks to `target`. The
/// address that the server saw is returned, after a byte went each way.
pub fn talk(from: &Netns, target: SocketAddr, to: &Netns, listen: SocketAddr) -> Result<IpAddr, String> {
    let listener = listen_at(to, listen);
    listener.set_nonblocking(true).unwrap();
    let given_up = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&given_up);
    let server = thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match listener.accept() {
                Ok((mut stream, peer)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                    let mut byte = [0];
                    stream.read_exact(&mut byte).map_err(|error| format!("the server reads: {error}"))?;
                    stream.write_all(&byte).map_err(|error| format!("the server writes: {error}"))?;
                    return Ok(peer.ip().to_canonical());
                }
                Err(_) if Instant::now() < deadline && !stop.load(Ordering::Relaxed) => {
                    thread::sleep(Duration::from_millis(2))
                }
                Err(error) => return Err(format!("nobody came: {error}")),
            }
        }
    });
    let client = from.run(|| -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])
    });
    given_up.store(true, Ordering::Relaxed);
    let seen = server.join().unwrap();
    client.map_err(|error| format!("connect to {target}: {error}"))?;
    seen
}

/// How long it takes until a listener there has got so many bytes from here.
pub fn transfer(from: &Netns, to: &Netns, target: SocketAddr, bytes: usize) -> Duration {
    let listener = listen_at(to, target);
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut got, mut buffer) = (0, vec![0; 64 * 1024]);
            while got < bytes {
                match stream.read(&mut buffer).unwrap() {
                    0 => panic!("{got} of {bytes} bytes"),
                    count => got += count,
                }
            }
        });
        let begin = Instant::now();
        let mut stream = from.run(|| TcpStream::connect(target)).unwrap();
        stream.write_all(&vec![7; bytes]).unwrap();
        server.join().unwrap();
        begin.elapsed()
    })
}

/// A socket in a namespace that answers whatever it is told with its name, until it is dropped.
pub struct Echo(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Echo {
    pub fn new(netns: &Netns, at: SocketAddr, name: &'static str) -> Self {
        let socket = eventually(|| netns.run(|| UdpSocket::bind(at)).map_err(|error| format!("bind {at}: {error}")));
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                    socket.send_to(name.as_bytes(), from).unwrap();
                }
            }
        });
        Self(ends, Some(thread))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

/// Says something by UDP and waits for what comes back from the same address; a datagram may be lost on the way.
pub fn ask(from: &Netns, target: SocketAddr) -> Result<String, String> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap();
    socket.connect(target).map_err(|error| format!("ask {target}: {error}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut last = String::new();
    for _ in 0..ASKED_MAX {
        let mut buffer = [0; 64];
        match socket.send(b"?").and_then(|_| socket.recv(&mut buffer)) {
            Ok(count) => return Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("ask {target}: {last}"))
}

/// A pod that is attached, with ports of the host that lead to it.
pub fn pod_with_ports(host: &Host, network: &Network, id: &str, ports: &str) -> Pod {
    let netns = Netns::new();
    let mut attachment = attachment(id, &netns.path());
    attachment.runtime_config.insert("portMappings".into(), serde_json::from_str(ports).unwrap());
    let result = host.add(network, &attachment).unwrap();
    Pod { netns, attachment, result }
}

/// What `nft` says in a namespace.
pub fn nft(netns: &Netns, words: &[&str]) -> String {
    run(netns, "nft", words)
}

/// What a program says in a namespace.
pub fn run(netns: &Netns, program: &str, words: &[&str]) -> String {
    let output = netns.run(|| Command::new(program).args(words).output()).unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a condition holds; on timeout what it said last is the failure.
pub fn eventually<T>(mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(refusal) if Instant::now() >= deadline => panic!("not within {PATIENCE:?}: {refusal}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn setting(netns: &Netns, name: &str) -> String {
    netns.run(|| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap().trim().to_owned())
}
