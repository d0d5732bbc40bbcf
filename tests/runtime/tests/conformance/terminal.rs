//! config.md: the process's terminal, and the socket on which its master is handed over.

use std::fs;

use berth_runtime_tests::container::report;
use berth_runtime_tests::socket::Socket;
use berth_runtime_tests::{Container, lacks};
use serde_json::json;

/// A container with a terminal, made, and its terminal's master.
fn with_terminal(container: Container) -> (Container, berth_runtime_tests::socket::Terminal) {
    let container = container.with(|spec| spec["process"]["terminal"] = json!(true));
    let socket = Socket::listen(container.folder(), "console");
    let call = container.create_call(&["--console-socket", socket.name()]).begin();
    let terminal = socket.terminal();
    call.wait().ok();
    (container, terminal)
}

#[test]
fn the_program_has_a_terminal_and_its_output_is_seen_on_the_master() {
    let (container, mut terminal) =
        with_terminal(Container::new("tty; echo shown; read line; echo got $line >&2; exit 3"));
    container.start();
    terminal.read_until("shown\r\n");
    terminal.write("typed\n");
    terminal.read_until("got typed\r\n");
    assert_eq!(container.wait(), 3);
    assert!(terminal.read_to_end().contains("/dev/pts/0"));
    container.delete();
}

#[test]
fn the_terminal_is_the_program_s_controlling_one() {
    let (container, mut terminal) = with_terminal(Container::new(
        "echo x > /dev/tty; trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 1000 & wait; done",
    ));
    container.start();
    terminal.read_until("ready");
    // Control and C.
    terminal.write("\u{3}");
    terminal.read_until("interrupted");
    assert_eq!(container.wait(), 4);
}

#[test]
fn who_hangs_up_tells_the_program() {
    // By a signal that the first process of a namespace has to ask for.
    let script = "trap 'exit 6' HUP; echo ready; while :; do sleep 1000 & wait; done";
    let (container, mut terminal) = with_terminal(Container::new(script));
    container.start();
    terminal.read_until("ready");
    drop(terminal);
    assert_eq!(container.wait(), 6);
}

#[test]
fn the_console_is_the_terminal() {
    let (container, mut terminal) = with_terminal(Container::new(
        "ls -l /dev/console; echo by the console > /dev/console; \
         stat -c '%t:%T' /dev/console; stat -L -c '%t:%T' /proc/self/fd/0",
    ));
    container.start();
    assert_eq!(container.wait(), 0);
    let shown = terminal.read_to_end();
    assert!(shown.contains("by the console"), "{shown}");
    let mut numbers = shown.lines().rev().take(2);
    assert_eq!(numbers.next(), numbers.next(), "{shown}");
}

#[test]
fn the_terminal_has_the_size_that_is_asked_for() {
    let container = Container::new("stty size").with(|spec| {
        spec["process"]["consoleSize"] = json!({ "height": 33, "width": 111 });
    });
    let (container, mut terminal) = with_terminal(container);
    container.start();
    assert_eq!(container.wait(), 0);
    assert_eq!(terminal.read_to_end().trim(), "33 111");
}

#[test]
fn the_terminal_is_the_user_s() {
    let container =
        Container::new("stat -L -c '%u:%g %a' /proc/self/fd/0; echo x > /dev/tty && echo writable").with(|spec| {
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        });
    let (container, mut terminal) = with_terminal(container);
    container.start();
    assert_eq!(container.wait(), 0);
    let shown = terminal.read_to_end();
    assert!(shown.starts_with("1000:5 620") && shown.contains("writable"), "{shown}");
}

#[test]
fn nothing_but_the_terminal_is_open() {
    let (container, mut terminal) = with_terminal(Container::probe());
    container.start();
    let shown = terminal.read_to_end();
    assert_eq!(container.wait(), 0);
    let seen = report(&shown);
    assert!(
        seen.descriptors.iter().all(|(number, target)| *number < 3 && target == "/dev/pts/0"),
        "{:?}",
        seen.descriptors
    );
    assert_eq!(seen.descriptors.len(), 3);
}

#[test]
fn a_terminal_needs_a_socket_and_a_socket_a_terminal() {
    let container = Container::new("true").with(|spec| spec["process"]["terminal"] = json!(true));
    container.try_create().refused();
    container.assert_gone();
    let container = container.with(|spec| spec["process"]["terminal"] = json!(true));
    container.create_by(container.create_call(&["--console-socket", "/no/such/socket"])).refused();
    container.assert_gone();
    if lacks("crun", "a socket that nobody needs is ignored") {
        return;
    }
    let container = container.with(|spec| spec["process"]["terminal"] = json!(false));
    let socket = Socket::listen(container.folder(), "console");
    container.create_by(container.create_call(&["--console-socket", socket.name()])).refused();
}

#[test]
fn a_process_that_joins_can_have_a_terminal_of_its_own() {
    let container = Container::sleeper().running();
    let socket = Socket::listen(container.folder(), "console");
    let pid_file = container.folder().join("exec-pid");
    let options = ["--tty", "--detach", "--console-socket", socket.name(), "--pid-file", pid_file.to_str().unwrap()];
    let call =
        container.exec_call(&options, &["/bin/sh", "-c", "tty; stty size; read line; echo got $line; exit 5"]).begin();
    let mut terminal = socket.terminal();
    call.wait().ok();
    terminal.read_until("/dev/pts/0");
    terminal.write("typed\n");
    terminal.read_until("got typed");
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert_eq!(berth_runtime_tests::container::exit_code(pid), 5);
}
