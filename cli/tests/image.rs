//! `berth image`, verb by verb, as a person and a script use it. Run as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A node's folders, and room beside them, on a filesystem that an overlay's upper folder can be on.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
        command.args(["image", "--state-dir"]).arg(self.path("state")).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a verb that succeeds prints.
    fn told(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.told(words)).unwrap()
    }

    /// What a verb that fails says.
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// A folder with one file.
    fn tree(&self) -> PathBuf {
        let tree = self.path("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/hostname"), "tree").unwrap();
        tree
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_image_comes_is_looked_at_travels_and_goes() {
    let (node, other) = (Node::new(), Node::new());
    let tree = node.tree();
    let imported = node.json(&["import", text(&tree), "my/app:1", "--entrypoint", "/app", "-o", "json"]);
    let id = imported[0]["id"].as_str().unwrap();
    assert!(node.told(&["ls"]).lines().any(|line| line.starts_with("docker.io/my/app:1")));
    assert_eq!(node.json(&["ls", "-o", "json"])[0]["id"], id);
    let details = node.json(&["inspect", "my/app:1"]);
    assert_eq!((&details[0]["id"], &details[0]["config"]["config"]["Entrypoint"][0]), (&id.into(), &"/app".into()));

    let archive = node.path("app.tar");
    node.told(&["export", text(&archive), "my/app:1"]);
    assert_eq!(fs::read(&archive).unwrap(), node.run(&["export", "-", id]).stdout, "to a pipe the same");
    let names: Vec<_> = fs::read_dir(node.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "nothing unfinished: {names:?}");
    assert!(other.told(&["import", text(&archive)]).contains(id));

    let mut import = other.command(&["import", "-", "from/pipe:1"]);
    let mut import = import.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&fs::read(&archive).unwrap()).unwrap();
    assert!(import.wait().unwrap().success());
    assert_eq!(other.json(&["inspect", "from/pipe:1"])[0]["id"], id);

    assert!(node.refused(&["rm", "my/other:1", "my/app:1"]).contains("no image \"my/other:1\""));
    assert_eq!(node.told(&["ls"]).lines().count(), 1);
    assert!(node.refused(&["inspect", "my/app:1"]).contains("my/app:1"));
    assert!(node.refused(&["export", text(&archive), "my/app:1"]).contains("my/app:1"));
    assert!(archive.exists(), "what was there before stays");
}

#[test]
fn a_root_is_shown_and_taken_away() {
    let node = Node::new();
    node.told(&["import", text(&node.tree()), "my/app:1"]);
    let target = node.path("target");
    fs::create_dir(&target).unwrap();
    for (options, writable) in [(&[][..], false), (&["--writable"], true)] {
        node.told(&[&["mount", "my/app:1", text(&target)], options].concat());
        assert_eq!(fs::read_to_string(target.join("etc/hostname")).unwrap(), "tree");
        assert_eq!(fs::write(target.join("new"), "").is_ok(), writable);
        assert_eq!(node.json(&["prune", "--all", "-o", "json"]), serde_json::json!([]), "it is in use");
        node.told(&["unmount", text(&target)]);
        assert!(node.refused(&["unmount", text(&target)]).contains("no image is mounted"));
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }
    // By whatever name the folder goes.
    let link = node.path("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    node.told(&["mount", "my/app:1", text(&link)]);
    node.told(&["unmount", text(&target)]);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    let mapped = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"];
    node.told(&[&["mount", "my/app:1", text(&target)], &mapped[..]].concat());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(target.join("etc/hostname")).unwrap());
    node.told(&["unmount", text(&target)]);
    assert_eq!(owner, 100_000);
    assert!(
        node.refused(&["mount", "my/app:1", text(&target), "--uidmap", "0:1", "--gidmap", "0"])
            .contains("0:100000:65536")
    );
    assert!(node.refused(&["mount", "my/app:1", "/nonexistent/target"]).contains("/nonexistent/target"));
    assert_eq!(node.json(&["prune", "--all", "-o", "json"]).as_array().unwrap().len(), 1);
    assert!(node.told(&["prune"]).contains("0 images removed"));
}

#[test]
fn what_cannot_be_pulled_is_told_with_its_registry() {
    let node = Node::new();
    let error = node.refused(&["pull", "127.0.0.1:1/app:1"]);
    assert!(error.contains("127.0.0.1:1"), "{error}");
    assert!(node.refused(&["pull", "Nonsense"]).contains("lower case"));
}

/// A registry with the content of an OCI layout, under any name and tag; gives where it is.
fn registry(layout: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        for stream in listener.incoming() {
            let Some(head) = read_head(stream.as_ref().unwrap()) else { continue };
            let manifest = index["manifests"][0]["digest"].as_str().unwrap();
            let path = head.split([' ', '?']).nth(1).unwrap();
            let digest = if path.contains("/manifests/") { manifest } else { path.rsplit('/').next().unwrap() };
            let kind = if digest == manifest { "application/vnd.oci.image.manifest.v1+json" } else { "x/y" };
            let body = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
            let mut stream = stream.unwrap();
            stream.write_all(format!("{answer}Connection: close\r\n\r\n").as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    host
}

#[test]
fn an_image_is_pulled_kept_and_seen() {
    let (node, other) = (Node::new(), Node::new());
    let (tree, layout) = (node.path("devices.tar"), node.path("layout"));
    // A root filesystem with a device, which only tar can make everywhere.
    fs::create_dir_all(node.tree().join("dev")).unwrap();
    let null = node.tree().join("dev/null");
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRWXU);
    nix::sys::stat::mknod(&null, kind, mode, nix::sys::stat::makedev(1, 3)).unwrap();
    let run = |program: &str, words: &[&str]| assert!(Command::new(program).args(words).status().unwrap().success());
    run("tar", &["-C", text(&node.tree()), "-cf", text(&tree), "."]);
    node.told(&["import", text(&tree), "my/app:1", "--devices"]);
    let archive = node.path("app.tar");
    node.told(&["export", text(&archive), "my/app:1"]);
    fs::create_dir(&layout).unwrap();
    run("tar", &["-C", text(&layout), "-xf", text(&archive)]);
    let host = registry(layout);

    let image = format!("{host}/any/app:1");
    let target = other.path("target");
    fs::create_dir(&target).unwrap();
    let pulled = other.json(&["pull", &image, "-o", "json"]);
    assert_eq!(pulled[0]["tags"][0], image.as_str());
    other.told(&["mount", &image, text(&target)]);
    assert!(target.join("etc/hostname").exists() && !target.join("dev/null").exists());
    other.told(&["unmount", text(&target)]);
    other.told(&["rm", &image]);

    let output = other.run(&["pull", "--pin", "--devices", "--insecure-registry", &host, &image]);
    let (plain, progress) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(plain, format!("{} {image}\n", pulled[0]["id"].as_str().unwrap()));
    assert!(progress.ends_with(": unpacked\n") && progress.lines().count() == 1, "{progress}");
    other.told(&["mount", &image, text(&target)]);
    assert!(target.join("dev/null").exists());
    other.told(&["unmount", text(&target)]);
    assert_eq!(other.json(&["prune", "--all", "-o", "json"]), serde_json::json!([]), "it is pinned");

    // A person sees a bar for each layer.
    let fourth = Node::new();
    let pull = fourth.command(&["pull", &image]);
    let words: Vec<_> = pull.get_args().map(|word| word.to_str().unwrap()).collect();
    let command = format!("stty cols 100; {} {}", env!("CARGO_BIN_EXE_berth"), words.join(" "));
    let shown = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let layer = progress.trim_end_matches(": unpacked\n");
    assert!(shown.contains(&format!("{layer} [██████████████████████████████]")), "{shown}");
    assert!(shown.contains(pulled[0]["id"].as_str().unwrap()), "{shown}");

    // By a mirror that is configured as containerd has it.
    let (third, config) = (Node::new(), other.path("hosts"));
    fs::create_dir_all(config.join("registry.example")).unwrap();
    fs::write(config.join("registry.example/hosts.toml"), format!("[host.\"http://{host}\"]\n")).unwrap();
    third.told(&["pull", "registry.example/app:1", "--registry-config-dir", text(&config)]);
    assert_eq!(third.json(&["ls", "-o", "json"])[0]["tags"][0], "registry.example/app:1");
}

/// A registry that lets nobody in; gives where it is, and each user that tried, in base64.
fn locked_registry() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (sender, users) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(head) = read_head(stream.as_ref().unwrap()) else { continue };
            let user = head.lines().find(|line| line.to_lowercase().starts_with("authorization: "));
            if let Some(user) = user {
                drop(sender.send(user.rsplit(' ').next().unwrap().to_owned()));
            }
            let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n";
            stream.unwrap().write_all(format!("{answer}Connection: close\r\n\r\n").as_bytes()).unwrap();
        }
    });
    (host, users)
}

/// The lines of a request without a body; nothing of what is none, as the greeting of TLS.
fn read_head(mut stream: &TcpStream) -> Option<String> {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&part[..count]);
        head.starts_with(b"GET").then_some(())?;
    }
    String::from_utf8(head).ok()
}

#[test]
fn credentials_come_from_where_other_clients_have_them() {
    let node = Node::new();
    let (host, users) = locked_registry();
    // A user and a password of the same letter.
    let file = |name: &str, user: &str| {
        let path = node.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let entry = serde_json::json!({ "auths": { &host: { "auth": user } } });
        fs::write(&path, serde_json::to_vec(&entry).unwrap()).unwrap();
        path
    };
    let (flag, podman) = (file("flag.json", "Zjpm"), file("podman.json", "cDpw"));
    let (docker, home) = (file("docker/config.json", "ZDpk"), file("home/.docker/config.json", "aDpo"));
    let (docker, home) = (docker.parent().unwrap(), home.ancestors().nth(2).unwrap());
    let (now, always) = (file("now/containers/auth.json", "bjpu"), file("config/containers/auth.json", "eDp4"));
    let (now, always) = (now.ancestors().nth(2).unwrap(), always.ancestors().nth(2).unwrap());
    // The strongest first; each is as before and one less.
    let image = format!("{host}/app:1");
    let mut variables = vec![
        ("HOME", home),
        ("DOCKER_CONFIG", docker),
        ("XDG_CONFIG_HOME", always),
        ("XDG_RUNTIME_DIR", now),
        ("REGISTRY_AUTH_FILE", podman.as_path()),
    ];
    let tried = |words: &[&str], variables: &[(&str, &Path)]| {
        let mut command = node.command(&["pull", &image]);
        for name in ["HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"] {
            command.env_remove(name);
        }
        let output = command.args(words).envs(variables.iter().copied()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("does not let us read"), "{error}");
        // Where several files know the registry, the next one's are tried when the first one's are refused.
        users.try_iter().collect::<Vec<_>>().first().cloned().unwrap_or_default()
    };
    assert_eq!(tried(&["--creds", "c:c"], &variables), "Yzpj");
    assert_eq!(tried(&["--authfile", text(&flag)], &variables), "Zjpm");
    for wanted in ["cDpw", "bjpu", "eDp4", "ZDpk", "aDpo", ""] {
        assert_eq!(tried(&[], &variables), wanted);
        variables.pop();
    }
}
