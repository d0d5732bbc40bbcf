//! A terminal in the foreground: ours and the process' as one.

use std::fs::File;
use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, Ended, WAIT, ended};

/// A shell's line with a terminal of 20 lines, by script(1), where this is typed.
fn typed(bundle: &Bundle, words: &str, text: &str) -> Ended {
    std::fs::write(bundle.path("typed"), text).unwrap();
    let line =
        format!("stty rows 20 cols 70 -echo; {}; code=$?; stty -a | grep -o ' .isig'; exit $code", bundle.line(words));
    let mut script = Command::new("timeout");
    script.args(["--kill-after=5", "60", "script", "--quiet", "--return", "--command", &line, "/dev/null"]);
    ended(script.stdin(File::open(bundle.path("typed")).unwrap()))
}

#[test]
fn run_attends_the_terminal() {
    let mut bundle = Bundle::of("tty; stty size; stty -echo; read x; echo got $x; exit 4");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.save();
    let ended = typed(&bundle, "run a", "typed\n");
    assert_eq!(ended.code, 4, "{ended:?}");
    for wanted in ["/dev/pts/0\r\n", "20 70\r\n", "got typed\r\n"] {
        assert!(ended.out.contains(wanted), "{wanted:?} in {ended:?}");
    }
    assert!(!ended.out.contains("-isig"), "the terminal was left raw: {ended:?}");
}

#[test]
fn exec_attends_the_terminal() {
    let bundle = Bundle::running(WAIT);
    let ended =
        typed(&bundle, "exec --tty a sh -c 'tty; stty size; stty -echo; read x; echo got $x; exit 5'", "typed\n");
    assert_eq!(ended.code, 5, "{ended:?}");
    for wanted in ["/dev/pts/0\r\n", "20 70\r\n", "got typed\r\n"] {
        assert!(ended.out.contains(wanted), "{wanted:?} in {ended:?}");
    }
}

#[test]
fn much_output_arrives_whole() {
    let mut bundle = Bundle::of("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.save();
    let ended = typed(&bundle, "run a", "");
    assert_eq!(ended.code, 0, "{:?}", ended.err);
    assert_eq!(ended.out.matches("line ").count(), 20_000);
}
