//! Clients that die, sulk or babble, and shims that are killed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_runtime::shim::client::{self, Error};
use berth_runtime::shim::protocol::{Call, FaultKind, FromShim, NamespaceMode, Request};
use berth_sys::socket;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pod::{PATIENCE, Pod, eventually, lives, spec};

/// What the shim sends next.
fn next(socket: BorrowedFd<'_>) -> io::Result<FromShim> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client::receive(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

#[test]
fn garbage_is_answered_and_harms_nobody() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let pid = pod.run(&mut client, "c", "sleep 1000");
    let babbler = socket::connect(&pod.dir.join("shim.sock")).unwrap();
    let deep = "[".repeat(60_000);
    let long = vec![b'x'; 100_000];
    let packets: [(&[u8], u64); 8] = [
        (b"garbage", 0),
        (b"\xff\xfe\0", 0),
        (b"{}", 0),
        (b"{\"id\":3}", 3),
        (b"{\"id\":4,\"call\":{\"verb\":\"fly\"}}", 4),
        (b"{\"id\":5,\"call\":{\"verb\":\"kill\",\"container\":\"c\",\"signal\":\"x\"}}", 5),
        (deep.as_bytes(), 0),
        (&long, 0),
    ];
    let null = File::open("/dev/null").unwrap();
    for (packet, id) in packets {
        socket::send(babbler.as_fd(), packet, &[null.as_fd(); socket::FDS_MAX]).unwrap();
        let FromShim::Reply(reply) = next(babbler.as_fd()).unwrap() else { panic!("no reply") };
        assert_eq!((reply.id, reply.result.unwrap_err().kind), (id, FaultKind::Invalid));
    }
    assert!(lives(pid) && client.state().contains_key("c"));
    let open = fs::read_dir(format!("/proc/{}/fd", pod.shim_pid())).unwrap().count();
    assert!(open < 20, "{open} descriptors: some of the strays are kept");
}

#[test]
fn containers_outlive_their_clients_and_records_wait_for_the_next() {
    let pod = Pod::start();
    let mut first = pod.connect();
    first.ask(Call::Subscribe);
    pod.run(&mut first, "c", "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo done; exit 4");
    // It dies with a question unanswered.
    client::send(first.0.as_fd(), &Request { id: 99, call: Call::State }, &[]).unwrap();
    drop(first);
    fs::write(pod.folder.path().join("rootfs/tmp/go"), "").unwrap();
    eventually("the record is on disk", || pod.exit_record("c").is_some());
    assert_eq!(pod.log("c"), ["stdout F done"]);
    let mut second = pod.connect();
    assert_eq!(second.state()["c"].exit, pod.exit_record("c"));
    assert_eq!(pod.exit_record("c").unwrap().code, 4);
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_the_others_hear_everything() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let sulker = socket::connect(&pod.dir.join("shim.sock")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    loop {
        assert!(Instant::now() < deadline, "after {sent} unread answers it is still there");
        match client::send(sulker.as_fd(), &Request { id: 1, call: Call::State }, &[]) {
            Ok(()) => sent += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => {
                let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
                assert!(kinds.contains(&error.kind()), "{error}");
                break;
            }
        }
    }
    pod.run(&mut client, "c", "true");
    assert_eq!(client.exit_of("c").code, 0);
}

#[test]
fn more_clients_than_the_limit_are_turned_away_and_room_comes_back() {
    let pod = Pod::start();
    let mut crowd: Vec<_> = (0..64).map(|_| pod.connect()).collect();
    crowd.iter_mut().for_each(|client| drop(client.state()));
    assert!(matches!(pod.connect().try_ask(Call::State), Err(Error::Closed { .. })));
    crowd.truncate(10);
    eventually("there is room again", || pod.connect().try_ask(Call::State).is_ok());
}

#[test]
fn signals_of_the_service_manager_are_not_heeded() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let shim = Pid::from_raw(pod.shim_pid());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGUSR1] {
        kill(shim, signal).unwrap();
        client.state();
    }
}

#[test]
fn after_a_killed_shim_everything_is_found_and_cleaned() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let shim = pod.shim_pid();
    let pids = [
        pod.run(&mut client, "runs", "sleep 1000 & sleep 1000"),
        pod.create(&mut client, "waits", pod.bundle("waits", "true")),
    ];
    client.ask(Call::Subscribe);
    pod.run(&mut client, "ended", "exit 6");
    client.exit_of("ended");
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    eventually("the shim is dead", || client::living(&pod.dir).unwrap().is_none());
    assert!(matches!(client.try_ask(Call::State), Err(Error::Closed { .. })));
    assert!(matches!(client::Connection::connect(&pod.dir, PATIENCE), Err(Error::Gone { .. })));
    assert_eq!(pod.exit_record("ended").unwrap().code, 6);
    client::reap_dead(&pod.dir).unwrap();
    eventually("its containers are gone", || !pids.into_iter().any(lives));
    assert!(pod.mounts().is_empty(), "{:?}", pod.mounts());
    assert!(pod.cgroups().is_empty(), "{:?}", pod.cgroups());
    assert!(!pod.dir.exists());
    client::reap_dead(&pod.dir).unwrap();
}

#[test]
fn a_shim_killed_at_any_moment_of_its_work_leaves_nothing_that_is_not_found() {
    for delay in 0..16 {
        kill_at_work(Pod::start(), Duration::ZERO, Duration::from_micros(delay * 1500));
    }
}

/// Kills a shim this long after it was asked to create a container and, after a pause, to start it.
pub(crate) fn kill_at_work(pod: Pod, pause: Duration, delay: Duration) {
    let client = pod.connect();
    let create = Call::create("c", pod.bundle("c", "sleep 1000 & sleep 1000"), None);
    client::send(client.0.as_fd(), &Request { id: 1, call: create }, &[]).unwrap();
    std::thread::sleep(pause);
    client::send(client.0.as_fd(), &Request { id: 2, call: Call::Start { container: "c".into() } }, &[]).unwrap();
    std::thread::sleep(delay);
    kill(Pid::from_raw(pod.shim_pid()), Signal::SIGKILL).unwrap();
    eventually("the shim is dead", || client::living(&pod.dir).unwrap().is_none());
    client::reap_dead(&pod.dir).unwrap();
    assert!(pod.cgroups().is_empty(), "after {pause:?} and {delay:?}: {:?}", pod.cgroups());
    assert!(pod.mounts().is_empty(), "after {pause:?} and {delay:?}: {:?}", pod.mounts());
    assert!(!pod.dir.exists());
}

#[test]
fn a_shim_killed_while_it_starts_leaves_nothing_that_is_not_found() {
    for delay in 0..40 {
        let mut spec = spec();
        spec.namespaces.pid = NamespaceMode::New;
        let pod = Pod::unstarted(spec);
        fs::create_dir(&pod.dir).unwrap();
        fs::write(pod.dir.join("sandbox.json"), serde_json::to_vec(&pod.spec).unwrap()).unwrap();
        let mut starter =
            Command::new(Pod::program()).arg("--dir").arg(&pod.dir).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(delay * 150));
        if let Some(shim) = client::living(&pod.dir).unwrap() {
            let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
            let _ = starter.wait();
        } else {
            let _ = starter.kill();
            let _ = starter.wait();
        }
        // A daemon whose starter is dead finds nobody to tell, and ends by itself.
        eventually("the shim is dead", || client::living(&pod.dir).unwrap().is_none() && !holds(&pod));
        client::reap_dead(&pod.dir).unwrap();
        assert!(pod.mounts().is_empty(), "after {delay}: {:?}", pod.mounts());
        assert!(!pod.dir.exists());
    }
}

/// Whether a process has the sandbox's directory as an argument.
fn holds(pod: &Pod) -> bool {
    let dir = pod.dir.to_str().unwrap().as_bytes();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.into_iter().any(|command| command.split(|byte| *byte == 0).any(|argument| argument == dir))
}

#[test]
fn a_shim_that_hangs_can_be_killed_and_cleaned_up_after() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let pid = pod.run(&mut client, "c", "sleep 1000");
    let shim = pod.shim_pid();
    kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
    let call = client.0.call(Call::State, &[], Duration::from_millis(50));
    assert!(matches!(call, Err(Error::Timeout { .. })), "{call:?}");
    client::kill_shim(&pod.dir).unwrap();
    client::kill_shim(&pod.dir).unwrap();
    client::reap_dead(&pod.dir).unwrap();
    assert!(!lives(shim) && !lives(pid) && !pod.dir.exists());
}

#[test]
fn nobody_can_write_to_the_program_by_way_of_its_process() {
    let is_read_only = |pid: i32| {
        let exe = format!("/proc/{pid}/exe");
        nix::sys::statvfs::statvfs(exe.as_str()).unwrap().flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)
    };
    let pod = Pod::start();
    assert!(is_read_only(pod.shim_pid()));
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", pod.shim_pid())).unwrap(), "berth-shim\n");
    // One that was started by hand sees to it itself.
    let by_hand = Pod::unstarted(spec());
    fs::create_dir(&by_hand.dir).unwrap();
    fs::write(by_hand.dir.join("sandbox.json"), serde_json::to_vec(&by_hand.spec).unwrap()).unwrap();
    assert!(Command::new(Pod::program()).arg("--dir").arg(&by_hand.dir).status().unwrap().success());
    assert!(is_read_only(by_hand.shim_pid()));
}

#[test]
fn a_record_that_cannot_be_written_is_told_and_written_later() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    let exits = pod.dir.join("exits");
    fs::remove_dir(&exits).unwrap();
    pod.run(&mut client, "c", "exit 8");
    let exit = client.exit_of("c");
    assert_eq!(exit.code, 8);
    fs::create_dir(&exits).unwrap();
    eventually("the record is written", || pod.exit_record("c").is_some_and(|record| record == exit));
}
