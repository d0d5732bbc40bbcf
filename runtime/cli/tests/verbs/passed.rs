//! Descriptors that are passed to the container, and by sockets to others.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use crate::bundle::{Bundle, WAIT, ended, is_runc};

/// The message and the descriptor that came to a socket.
fn receive(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    let (stream, _) = listener.accept().unwrap();
    await_readable(&stream);
    let mut message = [0; 64];
    let received = berth_sys::socket::receive(stream.as_fd(), &mut message).unwrap();
    (message[..received.len].to_vec(), received.fds.into_iter().next().unwrap())
}

fn await_readable(file: impl AsFd) {
    let ready = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], PollTimeout::from(30_000_u16)).unwrap();
    assert_eq!(ready, 1);
}

fn listen(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap()
}

fn read_line(terminal: &mut File) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        await_readable(&*terminal);
        let mut byte = [0];
        assert_eq!(terminal.read(&mut byte).unwrap(), 1);
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_is_sent_to_who_waits_for_it() {
    let mut bundle = Bundle::of("tty; read x; echo got $x; sleep 1000");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.save();
    bundle.create(&["a"]).failed(1, "cannot allocate tty");
    let listener = listen(&bundle.path("console"));
    bundle.create(&["--console-socket", "console", "a"]).ok();
    let (name, terminal) = receive(&listener);
    assert_eq!(name, b"/dev/ptmx");
    let mut terminal = File::from(terminal);
    bundle.runtime(&["start", "a"]).ok();
    assert_eq!(read_line(&mut terminal), "/dev/pts/0\r\n");
    terminal.write_all(b"typed\n").unwrap();
    assert_eq!(read_line(&mut terminal), "typed\r\n");
    assert_eq!(read_line(&mut terminal), "got typed\r\n");
    bundle.runtime(&["exec", "--detach", "--tty", "--console-socket", "console", "a", "tty"]).ok();
    let mut terminal = File::from(receive(&listener).1);
    assert_eq!(read_line(&mut terminal), "/dev/pts/1\r\n");
    bundle.runtime(&["exec", "--console-socket", "console", "a", "tty"]).failed(255, "cannot use console socket");
}

#[test]
fn a_pidfd_is_sent_to_who_waits_for_it() {
    if is_runc() {
        return;
    }
    let bundle = Bundle::of(WAIT);
    let listener = listen(&bundle.path("pidfd"));
    bundle.create(&["--pidfd-socket", "pidfd", "a"]).ok();
    let (_, pidfd) = receive(&listener);
    bundle.runtime(&["delete", "--force", "a"]).ok();
    await_readable(pidfd);
}

#[test]
fn descriptors_are_preserved() {
    let bundle = Bundle::of("echo three >&3; echo four >&4; ls -l /proc/self/fd");
    let run = |words: &str, redirections: &str| {
        let line = format!("exec timeout 60 sh -c {:?}", bundle.line(&format!("run {words} a {redirections}")));
        ended(std::process::Command::new("sh").args(["-c", &line]))
    };
    let out = run("--preserve-fds 2", "3>three 4>four").ok();
    assert_eq!(std::fs::read_to_string(bundle.path("three")).unwrap(), "three\n");
    assert_eq!(std::fs::read_to_string(bundle.path("four")).unwrap(), "four\n");
    assert!(!out.contains(" 6 -> "), "{out}");
    let without = run("", "3>three 4>four");
    assert!(without.err.contains("Bad file descriptor") || without.err.contains("bad file descriptor"), "{without:?}");
    if !is_runc() {
        let missing = run("--preserve-fds 2", "3>three 4>&-");
        assert!(missing.err.contains("descriptor 4"), "{missing:?}");
    }
}

#[test]
fn a_socket_of_nobody_leaves_nothing() {
    let mut bundle = Bundle::of("true");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.save();
    drop(listen(&bundle.path("console")));
    assert_eq!(bundle.create(&["--console-socket", "console", "a"]).code, 1);
    assert_eq!(bundle.runtime(&["list", "--quiet"]).ok(), "");
}
