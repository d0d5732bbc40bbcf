//! The binary under test: where it is, what it calls itself, and what is known to be missing from it.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The name of our own runtime, which may lack nothing.
const OWN: &str = "berth-runtime";

/// A runtime's binary, by what its `--version` says.
#[derive(Debug)]
pub struct Runtime {
    /// The file.
    pub path: PathBuf,
    /// As it calls itself: `runc`, `crun`, …
    pub name: String,
    /// Its version's first three numbers.
    pub version: [u32; 3],
}

/// The binary that this run of the suite tests: `RUNTIME`, or our own beside the tests.
pub fn runtime() -> &'static Runtime {
    static TESTED: OnceLock<Runtime> = OnceLock::new();
    TESTED.get_or_init(|| {
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers: run them as root");
        let path = std::env::var_os("RUNTIME").map_or_else(|| beside_the_tests(OWN), PathBuf::from);
        let answer = Command::new(&path).arg("--version").output();
        let answer = answer.unwrap_or_else(|error| {
            panic!("{}: {error}; name the runtime to test with RUNTIME=, or build {OWN} first", path.display())
        });
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let words: Vec<_> = text.lines().next().unwrap_or_default().split_whitespace().collect();
        let name = (*words.first().unwrap_or_else(|| panic!("{} --version says nothing", path.display()))).to_owned();
        let is_version = |word: &&&str| word.starts_with(|first: char| first.is_ascii_digit());
        let version = numbers(words.iter().find(is_version).unwrap_or_else(|| panic!("{name} has no version: {text}")));
        Runtime { path, name, version }
    })
}

/// A program of the same build as the tests that run.
pub(crate) fn beside_the_tests(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own program");
    let folder = own.parent().expect("a program is in a folder");
    // Tests are in target/<profile>/deps, programs one above.
    folder.ancestors().find(|folder| !folder.ends_with("deps")).expect("deps is in a folder").join(name)
}

fn numbers(text: &str) -> [u32; 3] {
    let mut parts = text.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// Whether the binary is one of these peers, `runc`, `runc < 1.2` or `runc < 1.2 | crun`, of which it is known that they
/// lack something or do it wrong. Then the test or the case ends here, and says so.
pub fn lacks(peers: &str, why: &str) -> bool {
    let tested = runtime();
    assert!(!peers.contains(OWN), "our own runtime lacks nothing");
    let known = peers.split('|').any(|peer| {
        let mut words = peer.split_whitespace();
        let name = words.next().expect("a peer has a name");
        match (words.next(), words.next()) {
            (None, None) => name == tested.name,
            (Some("<"), Some(version)) => name == tested.name && tested.version < numbers(version),
            _ => panic!("not a peer: {peer}"),
        }
    });
    if known {
        skip(&format!("{} {}", tested.name, tested.version.map(|number| number.to_string()).join(".")), why);
    }
    known
}

/// Tells that a test or a case is skipped. The tests' harness keeps what is printed to itself, but not what is written.
pub(crate) fn skip(who: &str, why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test} ({who}): {why}");
}
