//! podman 4.3: containers with a terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::ended::Ended;
use crate::podman::Podman;

/// Runs a command of podman's with a terminal of its own, by script(1).
fn with_terminal(podman: &Podman, words: &[&str]) -> Ended {
    let command = podman.command(words);
    let quoted = std::iter::once(command.get_program()).chain(command.get_args());
    let line = quoted.map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"))).collect::<Vec<_>>();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ended::of(&mut script)
}

#[test]
fn a_program_has_a_terminal() {
    let podman = Podman::new();
    let run = podman.run(&["--rm", "--tty", "busybox", "sh", "-c", "tty; exit 3"]).failed_with(3);
    assert_eq!(run.out, "/dev/pts/0\r\n");
    podman.run_waiting(&["--tty"]);
    assert_eq!(podman.podman(&["exec", "--tty", "c", "tty"]).ok(), "/dev/pts/1\r\n");
    let exec = with_terminal(&podman, &["exec", "--interactive", "--tty", "c", "sh", "-c", "stty size; exit 5"]);
    assert!(exec.failed_with(5).out.contains("0 0"), "script(1) without a terminal of its own has one of no size");
}

#[test]
fn what_is_typed_arrives() {
    let podman = Podman::new();
    podman.run_waiting(&[]);
    for flags in
        [&["exec", "--interactive", "c", "cat"][..], &["exec", "--interactive", "c", "sh", "-c", "read x; echo $x"]]
    {
        let mut command = podman.command(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"typed\n"[..]), "{flags:?}");
    }
}
