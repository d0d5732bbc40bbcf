//! Terminals, and those who share a container's streams.

use std::fs::File;
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_runtime::shim::client::Error;
use berth_runtime::shim::protocol::{Answer, Call, Event, FaultKind, LogSpec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::pod::{Client, PATIENCE, Pod, eventually, process};

fn with_terminal(config: &mut Value) {
    config["process"]["terminal"] = true.into();
    config["process"]["consoleSize"] = json!({"width": 40, "height": 10});
    let options = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    let devpts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options});
    config["mounts"].as_array_mut().unwrap().push(devpts);
}

/// Runs a script as container `c`, with a standard input.
fn run(pod: &Pod, client: &mut Client, script: &str, stdin_once: bool, change: impl FnOnce(&mut Value)) {
    client.ask(Call::Subscribe);
    let bundle = pod.bundle_with("c", &["/bin/sh", "-c", script], change);
    let log = Some(LogSpec { path: pod.log_path("c"), max_bytes: 0, max_files: 1 });
    client.ask(Call::Create { container: "c".into(), bundle, log, stdin: true, stdin_once });
    client.ask(Call::Start { container: "c".into() });
}

fn try_attach(
    client: &mut Client,
    stdin: bool,
    stdout: Option<BorrowedFd<'_>>,
    stderr: Option<BorrowedFd<'_>>,
) -> Result<Option<File>, Error> {
    let call = Call::Attach { container: "c".into(), stdin, stdout: stdout.is_some(), stderr: stderr.is_some() };
    let fds: Vec<_> = stdout.into_iter().chain(stderr).collect();
    let (answer, fds) = client.0.call_for_fds(call, &fds, PATIENCE)?;
    assert!(matches!(answer, Answer::Attached { .. }), "{answer:?}");
    assert_eq!(fds.len(), usize::from(stdin));
    Ok(fds.into_iter().next().map(File::from))
}

/// Attaches to the output, and to the input if that is asked for.
fn attach(client: &mut Client, stdin: bool) -> (Option<File>, PipeReader) {
    let (output, end) = pipe().unwrap();
    let input = try_attach(client, stdin, Some(end.as_fd()), None).unwrap();
    (input, output)
}

fn fault(result: Result<impl std::fmt::Debug, Error>) -> FaultKind {
    match result {
        Err(Error::Fault(fault)) => fault.kind,
        other => panic!("no fault: {other:?}"),
    }
}

/// Reads until a text has come, and gives all that came.
fn read_until(mut from: impl Read + AsFd, text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = String::new();
    while !seen.contains(text) {
        assert!(Instant::now() < deadline, "{text:?} did not come: {seen:?}");
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(100u8)).unwrap() == 0 {
            continue;
        }
        let mut buffer = [0; 4096];
        match from.read(&mut buffer) {
            Ok(0) => panic!("it ended before {text:?} came: {seen:?}"),
            Ok(count) => seen.push_str(str::from_utf8(&buffer[..count]).unwrap()),
            Err(error) => panic!("{error}, before {text:?} came: {seen:?}"),
        }
    }
    seen
}

#[test]
fn several_share_the_streams_and_the_log_has_everything() {
    let pod = Pod::start();
    let mut client = pod.connect();
    run(&pod, &mut client, "while read word; do echo out $word; echo err $word >&2; done; echo end", false, |_| {});
    let (first, first_out) = attach(&mut client, true);
    let ((second_out, out_end), (second_err, err_end)) = (pipe().unwrap(), pipe().unwrap());
    let second = try_attach(&mut client, true, Some(out_end.as_fd()), Some(err_end.as_fd())).unwrap();
    drop((out_end, err_end));
    first.as_ref().unwrap().write_all(b"one\n").unwrap();
    read_until(&first_out, "out one\n");
    second.as_ref().unwrap().write_all(b"two\n").unwrap();
    read_until(&second_out, "out two\n");
    read_until(&second_err, "err two\n");
    // Who goes is not missed, and the input stays open for those who come.
    drop((first, first_out, second));
    let (third, third_out) = attach(&mut client, true);
    third.unwrap().write_all(b"three\n").unwrap();
    read_until(&third_out, "out three\n");
    read_until(&second_out, "out three\n");
    client.ask(Call::CloseStdin { container: "c".into() });
    assert_eq!(client.exit_of("c").code, 0);
    read_until(&third_out, "end\n");
    assert_eq!((&third_out).read(&mut [0; 9]).unwrap(), 0, "the copy ends with the stream");
    let lines = |stream: &str| {
        let wanted = format!("{stream} F ");
        let log = pod.log("c");
        log.iter().filter_map(|line| line.strip_prefix(&wanted)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines("stdout"), ["out one", "out two", "out three", "end"]);
    assert_eq!(lines("stderr"), ["err one", "err two", "err three"]);
    assert_eq!(fault(try_attach(&mut client, false, None, None)), FaultKind::WrongState);
}

#[test]
fn an_input_for_once_ends_with_the_first_who_had_it() {
    let pod = Pod::start();
    let mut client = pod.connect();
    run(&pod, &mut client, "cat; echo end", true, |_| {});
    let (first, out) = attach(&mut client, true);
    assert_eq!(fault(try_attach(&mut client, true, None, None)), FaultKind::WrongState);
    first.unwrap().write_all(b"all there is\n").unwrap();
    assert_eq!(client.exit_of("c").code, 0);
    read_until(&out, "all there is\nend\n");
}

#[test]
fn a_reader_who_sleeps_delays_neither_container_nor_log() {
    let pod = Pod::start();
    let mut client = pod.connect();
    run(&pod, &mut client, "read go; seq 1 100000", true, |_| {});
    let (input, mut sleeper) = attach(&mut client, true);
    let (_, reader) = attach(&mut client, false);
    input.unwrap().write_all(b"go\n").unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        (&reader).read_to_string(&mut text).map(|_| text).unwrap()
    });
    assert_eq!(client.exit_of("c").code, 0);
    assert_eq!(pod.log("c").len(), 100_000);
    let (mut slow, quick) = (String::new(), reading.join().unwrap());
    sleeper.read_to_string(&mut slow).unwrap();
    for text in [slow, quick] {
        assert!(text.starts_with("1\n2\n3\n") && text.len() < 600_000, "{}", text.len());
    }
}

#[test]
fn what_cannot_be_attached_is_told() {
    let pod = Pod::start();
    let mut client = pod.connect();
    assert_eq!(fault(try_attach(&mut client, true, None, None)), FaultKind::NotFound);
    client.ask(Call::create("c", pod.bundle("c", "sleep 1000"), None));
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert_eq!(fault(try_attach(&mut client, true, None, None)), FaultKind::WrongState);
    assert_eq!(fault(try_attach(&mut client, false, Some(null.as_fd()), None)), FaultKind::WrongState);
    let without = Call::Attach { container: "c".into(), stdin: false, stdout: true, stderr: false };
    assert_eq!(fault(client.try_ask(without)), FaultKind::Invalid);
    assert_eq!(fault(client.try_ask(Call::CloseStdin { container: "c".into() })), FaultKind::WrongState);
    let resize = Call::Resize { container: "c".into(), columns: 80, rows: 24 };
    assert_eq!(fault(client.try_ask(resize)), FaultKind::WrongState);
    client.ask(Call::Delete { container: "c".into() });
    client.ask(Call::create("c", pod.bundle("c", "sleep 1000"), Some(log_of(&pod))));
    for _ in 0..16 {
        try_attach(&mut client, false, Some(null.as_fd()), None).unwrap();
    }
    assert_eq!(fault(try_attach(&mut client, false, Some(null.as_fd()), None)), FaultKind::Failed);
}

fn log_of(pod: &Pod) -> LogSpec {
    LogSpec { path: pod.log_path("c"), max_bytes: 0, max_files: 1 }
}

#[test]
fn a_terminal_is_logged_shared_and_resized() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let script = "stty size; trap 'stty size; exit 4' WINCH; echo ready; while read word; do echo got $word; done";
    run(&pod, &mut client, script, false, with_terminal);
    eventually("it is ready", || pod.log("c").len() == 2);
    let (input, output) = attach(&mut client, true);
    let mut input = input.unwrap();
    input.write_all(b"it\n").unwrap();
    // The terminal echoes what is typed.
    assert_eq!(read_until(&output, "got it\r\n"), "it\r\ngot it\r\n");
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert_eq!(fault(try_attach(&mut client, false, None, Some(null.as_fd()))), FaultKind::WrongState);
    client.ask(Call::Resize { container: "c".into(), columns: 132, rows: 50 });
    assert_eq!(client.exit_of("c").code, 4);
    read_until(&output, "50 132\r\n");
    let expected = ["10 40", "ready", "it", "got it", "50 132"];
    assert_eq!(pod.log("c"), expected.map(|line| format!("stdout F {line}")));
    assert_eq!((&output).read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn a_terminal_that_nobody_has_open_for_a_moment_goes_on() {
    let pod = Pod::start();
    let mut client = pod.connect();
    let script = "tty=$(readlink /proc/self/fd/0); exec 0<&- 1>&- 2>&-; sleep 0.3; echo back > $tty; exit 3";
    run(&pod, &mut client, script, false, with_terminal);
    assert_eq!(client.exit_of("c").code, 3);
    assert_eq!(pod.log("c"), ["stdout F back"]);
}

fn exec_with_terminal(client: &mut Client, script: &str) -> (i32, File) {
    let mut process = process(&["/bin/sh", "-c", script]);
    process["terminal"] = true.into();
    process["consoleSize"] = json!({"width": 40, "height": 10});
    let process = Box::new(serde_json::from_value(process).unwrap());
    let call = Call::Exec { container: "c".into(), exec: "e".into(), process };
    match client.0.call_for_fds(call, &[], PATIENCE).unwrap() {
        (Answer::Executed { pid }, fds) => {
            (pid, <[OwnedFd; 1]>::try_from(fds).unwrap().map(File::from).into_iter().next().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_exec_s_terminal_is_its_caller_s_and_hangs_up_with_it() {
    let pod = Pod::start();
    let mut client = pod.connect();
    run(&pod, &mut client, "sleep 1000", false, with_terminal);
    let (_, mut terminal) = exec_with_terminal(&mut client, "stty size; read word; echo got $word; exit 5");
    assert_eq!(read_until(&terminal, "10 40\r\n"), "10 40\r\n");
    terminal.write_all(b"it\n").unwrap();
    read_until(&terminal, "got it\r\n");
    let ended = |client: &mut Client| match client.event() {
        Event::ExecExited { code, .. } => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(ended(&mut client), 5);
    let (_, terminal) = exec_with_terminal(&mut client, "sleep 2000");
    drop(terminal);
    assert_eq!(ended(&mut client), 129, "SIGHUP");
    assert!(pod.log("c").is_empty());
}

#[test]
fn a_container_is_paused_updated_and_looked_into() {
    let pod = Pod::start();
    let mut client = pod.connect();
    run(&pod, &mut client, "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done", false, |_| {});
    let lines = || pod.log("c").len();
    eventually("it writes", || lines() > 3);
    let of = || "c".to_owned();
    client.ask(Call::Pause { container: of() });
    let before = lines();
    std::thread::sleep(Duration::from_millis(200));
    // What it wrote before may have been on its way.
    assert!(lines() <= before + 1);
    client.ask(Call::Resume { container: of() });
    eventually("it goes on", || lines() > before + 3);
    let Answer::Processes { pids } = client.ask(Call::Processes { container: of() }) else { panic!("no processes") };
    assert!(pids.contains(&client.state()["c"].pid), "{pids:?}");
    let resources = Box::new(serde_json::from_value(json!({"pids": {"limit": 77}})).unwrap());
    client.ask(Call::Update { container: of(), resources });
    let Answer::Stats { stats } = client.ask(Call::Stats { container: of() }) else { panic!("no figures") };
    assert_eq!(stats["pids"]["limit"], 77, "{stats}");
    client.ask(Call::Kill { container: of(), signal: 9, all: true });
    client.exit_of("c");
    assert_eq!(fault(client.try_ask(Call::Pause { container: of() })), FaultKind::WrongState);
}
