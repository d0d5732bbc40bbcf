//! Processes that join a container.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};

use berth_runtime::shim::client::Error;
use berth_runtime::shim::protocol::{Answer, Call, Event, FaultKind};

use crate::pod::{Client, PATIENCE, Pod, eventually, lives, process};

fn exec(client: &mut Client, name: &str, args: &[&str], fds: &[BorrowedFd<'_>; 3]) -> Result<i32, Error> {
    let process = Box::new(serde_json::from_value(process(args)).unwrap());
    let call = Call::Exec { container: "c".into(), exec: name.into(), process };
    match client.0.call(call, fds, PATIENCE)? {
        Answer::Executed { pid } => Ok(pid),
        other => panic!("{other:?}"),
    }
}

fn exec_ended(client: &mut Client, name: &str) -> i32 {
    loop {
        match client.event() {
            Event::ExecExited { container, exec, code } if container == "c" && exec == name => return code,
            _ => {}
        }
    }
}

#[test]
fn a_process_joins_on_the_caller_s_own_descriptors() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "sleep 1000");
    let (stdin, mut to) = pipe().unwrap();
    let (mut from, stdout) = pipe().unwrap();
    let (mut errors, stderr) = pipe().unwrap();
    let script = "hostname; cat; echo bad >&2; exit 9";
    exec(&mut client, "e", &["sh", "-c", script], &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).unwrap();
    drop((stdin, stdout, stderr));
    to.write_all(b"through").unwrap();
    drop(to);
    let (mut out, mut err) = (String::new(), String::new());
    from.read_to_string(&mut out).unwrap();
    errors.read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("web-0\nthrough", "bad\n"));
    assert_eq!(exec_ended(&mut client, "e"), 9);
    assert!(pod.log("c").is_empty(), "what an exec writes is not the container's output");
}

#[test]
fn an_exec_is_killed_with_its_descendants() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "sleep 1000");
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let (mut from, stdout) = pipe().unwrap();
    let fds = [null.as_fd(), stdout.as_fd(), null.as_fd()];
    let pid = exec(&mut client, "e", &["sh", "-c", "sleep 2000 & echo; wait"], &fds).unwrap();
    drop(stdout);
    from.read_exact(&mut [0]).unwrap();
    let kill = || Call::ExecKill { container: "c".into(), exec: "e".into(), signal: 9 };
    client.ask(kill());
    assert_eq!(exec_ended(&mut client, "e"), 137);
    // The grandchild held the pipe: its end is the pipe's.
    assert_eq!(from.read(&mut [0]).unwrap(), 0);
    assert!(!lives(pid));
    assert!(matches!(client.try_ask(kill()), Err(Error::Fault(fault)) if fault.kind == FaultKind::NotFound));
}

#[test]
fn execs_end_with_their_container() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "sleep 1000");
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
    let pid = exec(&mut client, "e", &["sleep", "1000"], &fds).unwrap();
    let same_name = exec(&mut client, "e", &["true"], &fds);
    assert!(matches!(same_name, Err(Error::Fault(fault)) if fault.kind == FaultKind::Exists));
    let nothing = exec(&mut client, "f", &["/nothing"], &fds);
    assert!(matches!(nothing, Err(Error::Fault(fault)) if fault.kind == FaultKind::BadCommand));
    client.ask(Call::Kill { container: "c".into(), signal: 9, all: false });
    assert_eq!(exec_ended(&mut client, "e"), 137);
    eventually("the exec is gone", || !lives(pid));
    client.exit_of("c");
    let late = exec(&mut client, "g", &["true"], &fds);
    assert!(matches!(late, Err(Error::Fault(fault)) if fault.kind == FaultKind::WrongState));
}

#[test]
fn a_hundred_execs_leave_nothing_behind() {
    let pod = Pod::start();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "c", "sleep 1000");
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
    let open = || std::fs::read_dir(format!("/proc/{}/fd", pod.shim_pid())).unwrap().count();
    let before = open();
    for number in 0..100 {
        let name = format!("e{number}");
        exec(&mut client, &name, &["true"], &fds).unwrap();
        assert_eq!(exec_ended(&mut client, &name), 0);
    }
    assert_eq!(open(), before);
}
