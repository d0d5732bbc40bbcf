//! What comes, goes, and goes wrong: DEL, GC, exhaustion, concurrency, death in the middle. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use berth_cni::{Dirs, Network};
use berth_sys::namespace::{self, unpin};
use harness::{Host, Netns, Pod, attachment, eventually, nft};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const RANGES: &[&str] = &["10.77.0.0/24", "fd77::/64"];

/// How many pods come and go at the same time.
const AT_ONCE: usize = 200;

/// Tells the child of [`killed_between_any_two_steps_and_collected`] where to work; its value is the state folder.
const CHILD: &str = "BERTH_TEST_CNI_CHILD";

fn nothing_is_left(host: &Host) {
    assert_eq!(host.reserved(), Vec::<String>::new());
    assert_eq!(host.results(), Vec::<String>::new());
    eventually(|| match host.ports() {
        ports if ports.is_empty() => Ok(()),
        ports => Err(format!("ports are left: {ports:?}")),
    });
}

#[test]
fn deleting_twice_or_what_never_was_is_success() {
    let host = Host::new();
    let network = host.network(RANGES);
    let pod = host.pod(&network, "one");
    host.del(&network, &pod.attachment).unwrap();
    host.del(&network, &pod.attachment).unwrap();
    host.del(&network, &attachment("never", "/nonexistent/netns".as_ref())).unwrap();
    let Pod { netns, .. } = pod;
    drop(netns);
    nothing_is_left(&host);
}

#[test]
fn deleting_after_the_namespace_is_gone_is_success() {
    let host = Host::new();
    let network = host.network(RANGES);
    let Pod { netns, attachment, .. } = host.pod(&network, "one");
    drop(netns);
    host.del(&network, &attachment).unwrap();
    nothing_is_left(&host);
}

#[test]
fn a_namespace_that_lives_on_loses_its_addresses_and_can_be_attached_again() {
    let host = Host::new();
    let network = host.network(RANGES);
    let pod = host.pod(&network, "one");
    let error = host.add(&network, &pod.attachment).unwrap_err();
    assert_eq!(error.code(), 101);
    assert!(error.to_string().ends_with("already; DEL it first"), "{error}");

    host.del(&network, &pod.attachment).unwrap();
    let mut inside = pod.netns.route();
    let link = inside.link("eth0").unwrap().unwrap();
    let left = inside.addresses(link.index).unwrap();
    assert!(pod.result.ips.iter().all(|ip| !left.contains(&ip.address)), "{left:?}");

    let again = host.add(&network, &pod.attachment).unwrap();
    assert_ne!(again.ips[0].address, pod.result.ips[0].address, "a freed address rests");
    host.netns.run(|| network.check(&pod.attachment)).unwrap();
    host.netns.run(|| network.detach(&pod.attachment)).unwrap();
    assert_eq!(inside.link("eth0").unwrap(), None);
    nothing_is_left(&host);
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    let host = Host::new();
    let network = host.network(RANGES);
    let pod = host.pod(&network, "one");
    let error = host.add(&network, &attachment("two", &pod.netns.path())).unwrap_err();
    assert_eq!(error.to_string(), "CNI_IFNAME: the namespace has an interface eth0 already");
    assert_eq!(host.reserved().len(), 2);
    assert_eq!(host.ports().len(), 1);
    host.netns.run(|| network.check(&pod.attachment)).unwrap();
}

#[test]
fn a_range_that_is_full_says_so_and_takes_nothing() {
    let host = Host::new();
    let network = host.network(&["10.77.0.0/30"]);
    host.netns.run(|| network.status()).unwrap();
    let pod = host.pod(&network, "one");
    let netns = Netns::new();
    let error = host.add(&network, &attachment("two", &netns.path())).unwrap_err();
    assert_eq!(error.code(), 11);
    assert_eq!(
        error.to_string(),
        "network pods: no address left in 10.77.0.0/30 (10.77.0.1 to 10.77.0.2); 1 are taken"
    );
    let status = host.netns.run(|| network.status()).unwrap_err();
    assert_eq!(status.code(), 50);
    host.del(&network, &pod.attachment).unwrap();
    // It has not rested, but there is no other.
    host.add(&network, &attachment("two", &netns.path())).unwrap();
}

#[test]
fn a_namespace_that_is_none_takes_nothing() {
    let host = Host::new();
    let network = host.network(RANGES);
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in ["/nonexistent/netns".as_ref(), file.path()] {
        let error = host.add(&network, &attachment("one", path)).unwrap_err();
        assert_eq!(error.code(), 4);
        assert!(error.to_string().starts_with("CNI_NETNS: "), "{error}");
    }
    nothing_is_left(&host);
    let error = host.netns.run(|| network.check(&attachment("one", file.path()))).unwrap_err();
    assert_eq!(error.code(), 3);
}

#[test]
fn what_leaked_is_collected_and_what_is_valid_stays() {
    let host = Host::new();
    let network = host.network(RANGES);
    let (stays, leaks, lost) = (host.pod(&network, "stays"), host.pod(&network, "leaks"), host.pod(&network, "lost"));
    // As if ADD had been killed before it wrote the result.
    std::fs::remove_file(host.state.path().join("results/pods/lost:eth0.json")).unwrap();
    host.netns.run(|| network.gc(&[("stays".to_owned(), "eth0".to_owned())])).unwrap();
    assert_eq!(host.reserved(), ["10.77.0.2", "fd77::2"]);
    assert_eq!(host.results(), ["stays:eth0.json"]);
    assert_eq!(host.ports().len(), 1);
    host.netns.run(|| network.check(&stays.attachment)).unwrap();
    drop((leaks, lost));
}

#[test]
fn two_hundred_at_once_leave_nothing() {
    let host = Host::new();
    let network = host.network(RANGES);
    let pods: Vec<Netns> = (0..AT_ONCE).map(|_| Netns::new()).collect();
    thread::scope(|scope| {
        let work = pods.iter().enumerate().map(|(number, netns)| {
            let (host, network) = (&host, &network);
            scope.spawn(move || {
                let attachment = attachment(&format!("pod{number}"), &netns.path());
                let result = host.add(network, &attachment).unwrap();
                let ours = &result.interfaces[1].name;
                assert!(host.netns.route().link(ours).unwrap().unwrap().hairpin);
                host.netns.run(|| network.check(&attachment)).unwrap();
                host.del(network, &attachment).unwrap();
                result.ips[0].address
            })
        });
        let threads: Vec<_> = work.collect();
        let mut addresses: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), AT_ONCE, "round robin gives each address once");
    });
    drop(pods);
    nothing_is_left(&host);
}

#[test]
fn a_record_that_was_written_and_not_renamed_is_collected() {
    let host = Host::new();
    let network = host.network(RANGES);
    let pod = host.pod(&network, "stays");
    let results = host.state.path().join("results/pods");
    std::fs::copy(results.join("stays:eth0.json"), results.join(".tmp-1-stays:eth0.json")).unwrap();
    host.netns.run(|| network.gc(&[("stays".to_owned(), "eth0".to_owned())])).unwrap();
    assert_eq!(host.results(), ["stays:eth0.json"]);
    host.del(&network, &pod.attachment).unwrap();
    drop(pod);
    nothing_is_left(&host);
}

#[test]
fn killed_between_any_two_steps_and_collected() {
    if let Some(state) = std::env::var_os(CHILD) {
        return add_until_killed(state.into());
    }
    let host = Host::new();
    // Rules of ours stand in the table of another tool too.
    nft(
        &host.netns,
        &["add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"],
    );
    let before = nft(&host.netns, &["list", "table", "ip", "filter"]);
    let network = host.network(RANGES);
    // The namespaces live on in this process, as under a shim, while the child that attaches them dies.
    let pods: Vec<Netns> = (0..8).map(|_| Netns::new()).collect();
    for (number, pod) in pods.iter().enumerate() {
        std::os::unix::fs::symlink(pod.path(), host.state.path().join(format!("netns{number}"))).unwrap();
    }
    for round in 0..24u64 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed_between_any_two_steps_and_collected", "--nocapture"]);
        command.env(CHILD, host.state.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = host.netns.run(|| command.spawn()).unwrap();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("begins") {
            line.clear();
            assert_ne!(std::io::BufRead::read_line(&mut said, &mut line).unwrap(), 0, "the child ended early");
        }
        // Not a wait for a condition: the point is to hit anywhere.
        thread::sleep(Duration::from_micros(round * 397));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));

        host.netns.run(|| network.gc(&[])).unwrap();
        nothing_is_left(&host);
        assert_eq!(nft(&host.netns, &["list", "table", "ip", "filter"]), before);
    }
    // And it all works still.
    let pod = &pods[0];
    host.add(&network, &attachment("after", &pod.path())).unwrap();
    host.netns.run(|| network.check(&attachment("after", &pod.path()))).unwrap();
    host.netns.run(|| network.detach(&attachment("after", &pod.path()))).unwrap();
    nothing_is_left(&host);
}

/// Runs in a process of its own: attaches and detaches as fast as it can.
fn add_until_killed(state: PathBuf) {
    let ranges: Vec<_> = RANGES.iter().map(|range| range.parse().unwrap()).collect();
    let dirs = Dirs { state: state.clone(), bin: vec![] };
    let network = Network::builtin("pods", "berth0", &ranges, None, dirs).unwrap();
    println!("begins");
    for number in (0..8).cycle() {
        let attachment = attachment(&format!("pod{number}"), &state.join(format!("netns{number}")));
        network.add(&attachment).unwrap();
        network.del(&attachment).unwrap();
    }
}

#[test]
fn a_pin_without_a_namespace_is_a_namespace_that_is_gone() {
    let host = Host::new();
    let network = host.network(RANGES);
    let folder = tempfile::tempdir().unwrap();
    namespace::pin_new(&[namespace::Kind::Net], folder.path()).unwrap();
    let path = folder.path().join("net");
    let attachment = attachment("one", &path);
    host.add(&network, &attachment).unwrap();
    unpin(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    host.del(&network, &attachment).unwrap();
    nothing_is_left(&host);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let host = Host::new();
    // A disk of a few pages, which is full but for nothing.
    let disk = Disk::new(host.state.path().join("small"), "size=128k");
    let small = disk.0.clone();
    let dirs = Dirs { state: small.clone(), bin: vec![] };
    let ranges: Vec<_> = RANGES.iter().map(|range| range.parse().unwrap()).collect();
    let network = Network::builtin("pods", "berth0", &ranges, None, dirs).unwrap();
    let first = Netns::new();
    host.add(&network, &attachment("first", &first.path())).unwrap();
    let filler = small.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[0; 4096]).is_ok() {}
    let second = Netns::new();
    let error = host.add(&network, &attachment("second", &second.path())).unwrap_err();
    assert_eq!(error.code(), 5, "{error}");
    assert_eq!(second.route().link("eth0").unwrap(), None);
    host.netns.run(|| network.check(&attachment("first", &first.path()))).unwrap();
    // What goes needs no room.
    host.del(&network, &attachment("first", &first.path())).unwrap();
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    host.add(&network, &attachment("second", &second.path())).unwrap();
    host.netns.run(|| network.gc(&[])).unwrap();
    let taken = std::fs::read_dir(small.join("networks/pods")).unwrap();
    let taken = taken.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(['1', 'f']));
    assert_eq!(taken.count(), 0);
}

/// A filesystem in memory that goes with the test.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf, options: &str) -> Self {
        std::fs::create_dir(&path).unwrap();
        mount(None::<&str>, &path, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}
