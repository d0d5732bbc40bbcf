//! A root filesystem of some 300 MB as images, made and pushed by other programs than ours.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The images: how their layers are cut and compressed.
pub(crate) const KINDS: [&str; 3] = ["one-gzip-layer", "five-gzip-layers", "one-zstd-layer"];

/// How long the registry may take to answer.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Layouts with the images, once for all runs. The five layers are cut by folders of about the same size.
const MAKE: &str = r#"set -eu
    cd "$1"
    [ ! -e done ] || exit 0
    echo "making a root filesystem and its images (once): some minutes" >&2
    rm -rf layout layer-*.tar tree plain registry pushed
    mmdebstrap --quiet --variant=minbase --include=python3,perl,git,curl,vim bookworm rootfs.tar
    mkdir tree
    tar -xf rootfs.tar -C tree
    (
        cd tree
        layer() { number=$1; shift; tar --numeric-owner -cf "../layer-$number.tar" "$@"; }
        layer 1 $(ls -d ./* | grep -v '^./usr$')
        layer 2 ./usr/share
        layer 3 ./usr/lib/*-linux-gnu
        layer 4 $(ls -d ./usr/* | grep -v -e '/share$' -e '/lib$')
        layer 5 $(ls -d ./usr/lib/* | grep -v -e '-linux-gnu$')
    )
    umoci init --layout layout
    umoci new --image layout:one
    umoci raw add-layer --image layout:one rootfs.tar
    umoci new --image layout:five
    for layer in layer-*.tar; do umoci raw add-layer --image layout:five "$layer"; done
    skopeo copy --quiet --insecure-policy --dest-decompress oci:layout:one dir:plain
    rm -r tree layer-*.tar
    touch done"#;

/// A registry on the loopback interface that has the images; it ends with this value.
pub(crate) struct Registry {
    process: Child,
    host: String,
}

impl Registry {
    /// Starts it, with its data in `folder`, and pushes what it lacks.
    pub(crate) fn filled(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        run(Command::new("sh").args(["-c", MAKE, "sh"]).arg(folder));
        let registry = Self::start(folder);
        let push = |source: &str, kind: &str, how: &str| {
            let target = format!("docker://{}", registry.name(kind));
            let copy = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"];
            run(Command::new("skopeo").args(copy).args([how, source, &target]));
        };
        if !folder.join("pushed").exists() {
            let layout = folder.join("layout").display().to_string();
            // First: afterwards skopeo would find the layer there as gzip and leave it at that.
            push(&format!("dir:{}", folder.join("plain").display()), KINDS[2], "--dest-compress-format=zstd");
            push(&format!("oci:{layout}:one"), KINDS[0], "--preserve-digests");
            push(&format!("oci:{layout}:five"), KINDS[1], "--preserve-digests");
            std::fs::write(folder.join("pushed"), "").expect("the folder can be written to");
        }
        registry
    }

    /// The image of that kind, with its registry.
    pub(crate) fn name(&self, kind: &str) -> String {
        format!("{}/bench/{kind}:latest", self.host)
    }

    fn start(folder: &Path) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let host = free.expect("there is a free port").to_string();
        let config = folder.join("registry.yml");
        let storage = folder.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            storage.display()
        );
        std::fs::write(&config, text).expect("the folder can be written to");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { process: command.spawn().expect("docker-registry is installed"), host };
        let end = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < end, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
