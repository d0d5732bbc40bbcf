//! Pulls from the docker registry, filled by skopeo with images that umoci made.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_rootfs::{Auth, Digest, Error, Keyring, Progress, Reference, RegistryConfig};

use super::fake::noise;
use super::support::{Bench, Made, Mounted, Tar, assert_same, make_tree, portrait, run, told};

const START_SECS_MAX: u64 = 20;

/// A registry process with its storage beside the store.
pub(crate) struct Registry {
    process: Child,
    pub(crate) host: String,
    config: PathBuf,
}

impl Registry {
    pub(crate) fn start(bench: &Bench, extra: &[(&str, &str)]) -> Self {
        // Free now; if another takes it meanwhile, the registry ends and the next port is tried.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let config = bench.path(&format!("registry-{port}.yml"));
            let storage = bench.folder("registry");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
                storage.display()
            );
            fs::write(&config, text).unwrap();
            let mut registry = Self { process: serve(&config, extra), host, config };
            if registry.answers() {
                return registry;
            }
        }
        panic!("no registry started");
    }

    /// Kills it in the middle of what it does, and starts it again in the same place.
    fn die_and_come_back(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = serve(&self.config, &[]);
        assert!(self.answers(), "the registry came back");
    }

    fn answers(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while Instant::now() < end {
            if std::net::TcpStream::connect(&self.host).is_ok() {
                return true;
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the registry does not answer");
    }

    pub(crate) fn push(&self, source: &str, name: &str, extra: &[&str]) {
        let target = format!("docker://{}/{name}", self.host);
        let arguments = ["copy", "--insecure-policy", "--dest-tls-verify=false", source, &target];
        run("skopeo", &[&arguments[..], extra].concat());
    }

    pub(crate) fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }
}

fn serve(config: &Path, extra: &[(&str, &str)]) -> Child {
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config).envs(extra.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("docker-registry is installed")
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// An OCI layout with an image of three layers, made by umoci; gives what `umoci unpack` makes of it.
pub(crate) fn make_image(bench: &Bench, layout: &Path) -> PathBuf {
    let image = format!("{}:v1", layout.to_str().unwrap());
    let umoci = |arguments: &[&str]| drop(run("umoci", arguments));
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    let changes: [fn(&Path); 3] = [
        make_tree,
        |root| {
            fs::remove_file(root.join("empty")).unwrap();
            fs::remove_dir_all(root.join("etc/deep")).unwrap();
            fs::write(root.join("bin/more"), "more").unwrap();
        },
        |root| {
            fs::create_dir(root.join("etc/deep")).unwrap();
            fs::write(root.join("etc/deep/new"), "new").unwrap();
            fs::write(root.join("etc/hostname"), "changed\n").unwrap();
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let bundle = bench.path(&format!("bundle-{index}"));
        umoci(&["unpack", "--image", &image, bundle.to_str().unwrap()]);
        change(&bundle.join("rootfs"));
        umoci(&["repack", "--image", &image, bundle.to_str().unwrap()]);
    }
    let bundle = bench.path("bundle-whole");
    umoci(&["unpack", "--image", &image, bundle.to_str().unwrap()]);
    bundle.join("rootfs")
}

async fn assert_mounts_as(bench: &Bench, name: &str, wanted: &Path) {
    let image = bench.store.image(name).unwrap().unwrap();
    let target = Mounted(bench.folder("target"));
    bench.store.mount(&image, "key", &target.0).await.unwrap();
    assert_same(wanted, &target.0);
    bench.store.unmount("key", &target.0).await.unwrap();
}

#[tokio::test]
async fn what_other_programs_made_and_pushed_is_what_they_unpack() {
    let bench = Bench::new();
    let layout = bench.path("layout");
    let wanted = make_image(&bench, &layout);
    let source = format!("oci:{}:v1", layout.to_str().unwrap());
    let registry = Registry::start(&bench, &[]);
    registry.push(&source, "team/app:v1", &[]);
    registry.push(&source, "team/app:docker", &["--format", "v2s2"]);
    registry.push(&source, "team/app:zstd", &["--dest-compress-format", "zstd", "--format", "oci"]);

    let (sender, mut progress) = tokio::sync::mpsc::channel(1000);
    let pulled = bench.store.pull(&registry.reference("team/app:v1"), None, Some(sender)).await;
    let pulled = pulled.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(pulled.tags, [format!("{}/team/app:v1", registry.host)]);
    assert_eq!(pulled.digests, [format!("{}/team/app@{}", registry.host, pulled.manifest_digest)]);
    assert_mounts_as(&bench, &format!("{}/team/app:v1", registry.host), &wanted).await;
    let mut told = Vec::new();
    while let Some(step) = progress.recv().await {
        told.push(step);
    }
    assert!(matches!(&told[0], Progress::Layers(layers) if layers.len() == 3));
    assert_eq!(told.iter().filter(|step| matches!(step, Progress::Unpacked { .. })).count(), 3);

    // Each into a store of its own: layers are known by what they hold, not by how they were compressed.
    for name in ["team/app:docker", "team/app:zstd", &format!("team/app@{}", pulled.manifest_digest)] {
        let other = Bench::new();
        let reference = registry.reference(name);
        other.store.pull(&reference, None, None).await.unwrap();
        assert_mounts_as(&other, &reference.to_string(), &wanted).await;
        assert_eq!(other.names("layers"), bench.names("layers"));
    }
    assert!(matches!(
        bench.store.pull(&registry.reference("team/app:none"), None, None).await,
        Err(Error::NotInRegistry { .. })
    ));
}

/// What a root filesystem of Debian needs to be one, without what only its installation would bring.
const DEBIAN: &str = "base-files,bash,coreutils,login,mount,ncurses-base,passwd,perl-base,tzdata,util-linux";

#[tokio::test]
async fn a_whole_debian_is_what_others_unpack() {
    let bench = Bench::new();
    let path = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let (include, archive) = (format!("--include={DEBIAN}"), path("debian.tar"));
    // Its device files would be left out of the unpacked layers.
    run("mmdebstrap", &["--quiet", "--variant=extract", "--skip=output/dev", &include, "bookworm", &archive]);
    let image = format!("{}:v1", path("layout"));
    run("umoci", &["init", "--layout", &path("layout")]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, &path("empty")]);
    run("tar", &["-C", &path("empty/rootfs"), "--xattrs", "--xattrs-include=*", "-xpf", &archive]);
    run("umoci", &["repack", "--image", &image, &path("empty")]);
    run("umoci", &["unpack", "--image", &image, &path("wanted")]);
    let registry = Registry::start(&bench, &[]);
    registry.push(&format!("oci:{image}"), "debian:v1", &[]);
    let reference = registry.reference("debian:v1");
    bench.store.pull(&reference, None, None).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let wanted = bench.path("wanted/rootfs");
    assert!(portrait(&wanted).len() > 3000, "it is a whole system");
    assert_mounts_as(&bench, &reference.to_string(), &wanted).await;
    // An archive of the root, as a machine without a registry gets its first image.
    let plain = bench.try_import(archive.as_ref(), "local/debian").await;
    let plain = plain.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_same(&wanted, &bench.layer(&plain, 0));
}

#[tokio::test]
async fn archives_of_other_programs_are_imported() {
    let bench = Bench::new();
    let layout = bench.path("layout");
    let wanted = make_image(&bench, &layout);
    let source = format!("oci:{}:v1", layout.to_str().unwrap());
    let path = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    run(
        "skopeo",
        &["copy", "--insecure-policy", &source, &format!("docker-archive:{}:team/app:saved", path("docker.tar"))],
    );
    run(
        "skopeo",
        &["copy", "--insecure-policy", &source, &format!("oci-archive:{}:oci.example/app:v2", path("oci.tar"))],
    );
    run("gzip", &["-k", &path("docker.tar")]);
    for (file, name) in
        [("docker.tar", "team/app:saved"), ("docker.tar.gz", "team/app:saved"), ("oci.tar", "oci.example/app:v2")]
    {
        let other = Bench::new();
        let images = other.store.import(&bench.path(file), None, &Default::default()).await.unwrap();
        assert_eq!(images.len(), 1, "{file}");
        assert_mounts_as(&other, name, &wanted).await;
    }
    let image = bench.import(&layout, "local/app").await;
    assert_eq!(image.tags, ["docker.io/local/app:latest"]);
    assert_mounts_as(&bench, "local/app", &wanted).await;
    assert_mounts_as(&bench, &image.id, &wanted).await;
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_the_right_one() {
    let bench = Bench::new();
    let layout = bench.path("layout");
    make_image(&bench, &layout);
    // bcrypt of "secret", as htpasswd -B writes it.
    let hash = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
    let known = bench.path("htpasswd");
    fs::write(&known, format!("user:{hash}\n")).unwrap();
    let registry = Registry::start(
        &bench,
        &[
            ("REGISTRY_AUTH", "htpasswd"),
            ("REGISTRY_AUTH_HTPASSWD_REALM", "test"),
            ("REGISTRY_AUTH_HTPASSWD_PATH", known.to_str().unwrap()),
        ],
    );
    registry.push(&format!("oci:{}:v1", layout.to_str().unwrap()), "app", &["--dest-creds", "user:secret"]);
    let reference = registry.reference("app");
    let auth = |password: &str| {
        let auth = Auth::Password { username: "user".into(), password: password.into() };
        Some(Keyring::of(&reference, auth))
    };
    for (wrong, shown) in [(None, "(there are no credentials for HOST)"), (auth("wrong"), "(credentials for HOST: 1)")]
    {
        let error = bench.store.pull(&reference, wrong, None).await.unwrap_err();
        let shown = shown.replace("HOST", &registry.host);
        assert!(matches!(error, Error::Unauthorized { .. }) && told(&error).ends_with(&shown), "{}", told(&error));
    }
    bench.store.pull(&reference, auth("secret"), None).await.unwrap();
}

/// Set for the helper: what to pull, with which `config.json`.
pub(crate) const REFERENCE: &str = "BERTH_TEST_REFERENCE";
pub(crate) const AUTHFILE: &str = "BERTH_TEST_AUTHFILE";

/// The test below as a program of its own, with what it needs to pull `reference`; gives whether it could and its words.
pub(crate) fn pulled_elsewhere(reference: &Reference, variables: &[(&str, &str)]) -> (bool, String) {
    let mut helper = Command::new(std::env::current_exe().unwrap());
    helper.args(["--exact", "registry::helper_pulls", "--nocapture"]).envs(variables.iter().copied());
    let output = helper.env(REFERENCE, reference.to_string()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Not a test by itself: a process that believes what its environment says.
#[tokio::test]
async fn helper_pulls() {
    let Some(reference) = std::env::var_os(REFERENCE) else { return };
    let reference: Reference = reference.to_str().unwrap().parse().unwrap();
    let keyring = std::env::var_os(AUTHFILE).map(|path| Keyring::read(Path::new(&path)).unwrap());
    let bench = match reference.registry().ends_with(".invalid") {
        true => Bench::reaching(RegistryConfig {
            insecure: vec![reference.registry().to_owned()],
            ..RegistryConfig::default()
        }),
        false => Bench::new(),
    };
    let result = bench.store.pull(&reference, keyring, None).await;
    result.unwrap_or_else(|error| panic!("{}", told(&error)));
}

#[tokio::test]
async fn a_registry_with_https_is_asked_if_the_system_trusts_it() {
    let bench = Bench::new();
    let layout = bench.path("layout");
    make_image(&bench, &layout);
    let path = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let registry =
        Registry::start(&bench, &[("REGISTRY_HTTP_TLS_CERTIFICATE", &certificate), ("REGISTRY_HTTP_TLS_KEY", &key)]);
    registry.push(&format!("oci:{}:v1", layout.to_str().unwrap()), "app", &[]);
    let pull = |trusted: &str| pulled_elsewhere(&registry.reference("app"), &[("SSL_CERT_FILE", trusted)]);
    let (success, words) = pull(&certificate);
    assert!(success, "{words}");
    let (success, words) = pull("/etc/ssl/certs/ca-certificates.crt");
    assert!(!success && words.contains("certificate"), "{words}");
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_told_soon() {
    let bench = Bench::new();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let reference: Reference = format!("{free}/app").parse().unwrap();
    let error = bench.store.pull(&reference, None, None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && told(&error).contains("refused"), "{}", told(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_killed_and_comes_back_is_gone_on_with() {
    let bench = Bench::new();
    let bytes = 64 << 20;
    let mut made = Made::of(&[]);
    let tar = Tar::new().file("noise", &noise(bytes)).end();
    made.layer(&tar, tar.clone(), "application/vnd.oci.image.layer.v1.tar");
    made.lay_out(&bench.folder("layout"));
    let mut registry = Registry::start(&bench, &[]);
    registry.push(&format!("oci:{}", bench.path("layout").display()), "team/large:v1", &["--preserve-digests"]);
    let reference = registry.reference("team/large:v1");
    let part = bench.inside("parts").join(Digest::of(&tar).to_string().split_once(':').unwrap().1);
    let (pulled, ()) = tokio::join!(bench.store.pull(&reference, None, None), async {
        while !part.exists() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        assert!(fs::metadata(&part).unwrap().len() < bytes as u64 / 2, "most of it is still to come");
        tokio::task::block_in_place(|| registry.die_and_come_back());
    });
    let image = pulled.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(fs::metadata(bench.layer(&image, 0).join("noise")).unwrap().len(), bytes as u64);
}
