//! podman 4.3: containers with a terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::ended::Ended;
use crate::podman::Podman;

/// Runs a command of podman's with a terminal of 20 lines, by script(1).
fn with_terminal(podman: &Podman, words: &[&str]) -> Ended {
    let command = podman.command(words);
    let quoted = std::iter::once(command.get_program()).chain(command.get_args());
    let line = quoted.map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"))).collect::<Vec<_>>();
    let mut script = Command::new("script");
    script.args([
        "--quiet",
        "--return",
        "--command",
        &format!("stty rows 20 cols 70; {}", line.join(" ")),
        "/dev/null",
    ]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ended::of(&mut script)
}

#[test]
fn a_program_has_a_terminal() {
    let podman = Podman::new();
    let run = podman.run(&["--rm", "--tty", "busybox", "sh", "-c", "tty; exit 3"]).failed_with(3);
    assert_eq!(run.out, "/dev/pts/0\r\n");
    podman.run_waiting(&["--tty"]);
    assert_eq!(podman.podman(&["exec", "--tty", "box", "tty"]).ok(), "/dev/pts/1\r\n");
    // It is told of the size while it begins.
    let program = "until [ \"$(stty size)\" = '20 70' ]; do sleep 0.1; done; exit 5";
    with_terminal(&podman, &["exec", "--interactive", "--tty", "box", "sh", "-c", program]).failed_with(5);
}

#[test]
fn what_is_typed_arrives() {
    let podman = Podman::new();
    podman.run_waiting(&[]);
    for flags in
        [&["exec", "--interactive", "box", "cat"][..], &["exec", "--interactive", "box", "sh", "-c", "read x; echo $x"]]
    {
        let mut command = podman.command(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"typed\n"[..]), "{flags:?}");
    }
}
