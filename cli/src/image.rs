//! `berth image`: the images of this node, with or without an agent running.

use std::env;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use berth_rootfs::{
    Access, Auth, Collected, Devices, Digest, GcPolicy, Image, ImportConfig, Keyring, MountOptions, Owners, Progress,
    Reference, RegistryConfig, Store,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::args::{ImageOptions, ImageVerb, ImportOptions, MountImageOptions, Output, RegistryOptions};
use crate::node::runtime;
use crate::output;

/// How many pieces of news of a pull may wait to be shown.
const NEWS_MAX: usize = 256;

const HEADINGS: [&str; 4] = ["IMAGE", "ID", "SIZE", "AGE"];

pub(crate) fn run(options: ImageOptions) -> Result<ExitCode> {
    let dir = options.folders.state_dir.join("images");
    let open = |registries, devices| {
        let devices = if devices { Devices::Make } else { Devices::LeaveOut };
        Store::open_with(&dir, registries, devices).context("cannot open the images")
    };
    let open_here = || open(RegistryConfig::default(), false);
    let runtime = runtime()?;
    match options.verb {
        ImageVerb::Ls { output } => list(&open_here()?, output)?,
        ImageVerb::Pull { image, registry, pin, devices, output } => {
            let reference: Reference = image.parse()?;
            let keyring = keyring(&reference, &registry)?;
            let (insecure, config_dir) = (registry.insecure_registry, Some(registry.registry_config_dir));
            let store = open(RegistryConfig { insecure, config_dir, ..RegistryConfig::default() }, devices)?;
            let image = runtime.block_on(pull(&store, &reference, keyring))?;
            if pin {
                runtime.block_on(store.pin(&image.id, true))?;
            }
            tell(&[image], output)?;
        }
        ImageVerb::Import(options) => {
            let store = open(RegistryConfig::default(), options.devices)?;
            runtime.block_on(import(&store, &options))?;
        }
        ImageVerb::Export { file, images } => runtime.block_on(export(&open_here()?, &file, &images))?,
        ImageVerb::Inspect { images } => inspect(&open_here()?, &images)?,
        ImageVerb::Rm { images } => {
            let store = open_here()?;
            let remove = |image: &String| {
                let removed = runtime.block_on(store.remove(image));
                let removed = removed.with_context(|| format!("cannot remove {image:?}"))?;
                if removed { Ok(()) } else { Err(missing(image)) }
            };
            // One that is not there keeps no other.
            let outcomes: Vec<Result<()>> = images.iter().map(remove).collect();
            outcomes.into_iter().collect::<Result<()>>()?;
        }
        ImageVerb::Prune { all, unused_for, output } => {
            let max_age = all.then(|| unused_for.unwrap_or_default().unsigned_abs());
            let policy = GcPolicy { max_age, untagged: true, ..GcPolicy::default() };
            told_pruned(&runtime.block_on(open_here()?.collect(&policy))?, output)?;
        }
        ImageVerb::Mount(options) => runtime.block_on(mount(&open_here()?, &options))?,
        ImageVerb::Unmount { target } => {
            let (store, target) = (open_here()?, real(&target)?);
            let key = key_of(&target);
            if !store.snapshots()?.contains(&key) {
                bail!("no image is mounted at {}", target.display());
            }
            runtime.block_on(store.unmount(&key, &target))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a script is told of new images, or a person: just their ids and names.
fn tell(images: &[Image], output: Output) -> Result<()> {
    match output {
        Output::Json => output::json(&images.iter().map(row).collect::<Vec<_>>()),
        Output::Table => {
            images.iter().for_each(|image| println!("{} {}", image.id, image.tags.join(" ")));
            Ok(())
        }
    }
}

/// What scripts are told of an image.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    tags: &'a [String],
    digests: &'a [String],
    size_bytes: u64,
    created_at: String,
}

fn list(store: &Store, output: Output) -> Result<()> {
    let images = store.images()?;
    match output {
        Output::Json => output::json(&images.iter().map(row).collect::<Vec<_>>()),
        Output::Table => Ok(output::table(&HEADINGS, &images.iter().flat_map(cells).collect::<Vec<_>>())?),
    }
}

fn row(image: &Image) -> Row<'_> {
    Row {
        id: &image.id,
        tags: &image.tags,
        digests: &image.digests,
        size_bytes: image.size_bytes,
        created_at: image.created_at.to_string(),
    }
}

/// One line for each name; an image without one has a line all the same.
fn cells(image: &Image) -> Vec<Vec<String>> {
    let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
    let names = if image.tags.is_empty() { vec!["<none>".to_owned()] } else { image.tags.clone() };
    let line = |name| vec![name, id.clone(), output::size(image.size_bytes), output::age(image.created_at)];
    names.into_iter().map(line).collect()
}

async fn pull(store: &Store, reference: &Reference, keyring: Option<Keyring>) -> Result<Image> {
    let (news, inbox) = mpsc::channel(NEWS_MAX);
    let shown = tokio::spawn(show(inbox));
    let image = store.pull(reference, keyring, Some(news)).await;
    shown.await?;
    Ok(image?)
}

/// The credentials that were given, or else those that podman (containers-auth.json(5)) and docker have of the user.
fn keyring(reference: &Reference, options: &RegistryOptions) -> Result<Option<Keyring>> {
    if let Some(text) = &options.creds {
        let Some((username, password)) = text.split_once(':') else { bail!("--creds: expected USER:PASSWORD") };
        let auth = Auth::Password { username: username.to_owned(), password: password.to_owned() };
        return Ok(Some(Keyring::of(reference, auth)));
    }
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = options.authfile.clone().or_else(|| named("REGISTRY_AUTH_FILE")) {
        return Ok(Some(Keyring::read(&path)?));
    }
    let home = named("HOME");
    let config = named("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let of_user = PathBuf::from(format!("/run/containers/{}", nix::unistd::getuid()));
    let of_podman = [
        named("XDG_RUNTIME_DIR").map(|dir| dir.join("containers")),
        Some(of_user),
        config.map(|dir| dir.join("containers")),
    ];
    let of_docker = named("DOCKER_CONFIG").or_else(|| home.map(|home| home.join(".docker")));
    let files = of_podman.into_iter().flatten().map(|dir| dir.join("auth.json"));
    let files = files.chain(of_docker.map(|dir| dir.join("config.json"))).filter(|path| path.exists());
    let keyrings = files.map(|path| Keyring::read(&path)).collect::<Result<Vec<_>, _>>()?;
    Ok(keyrings.into_iter().reduce(Keyring::and))
}

/// A bar for each layer on a terminal, a line for each elsewhere.
async fn show(mut inbox: mpsc::Receiver<Progress>) {
    let bars = MultiProgress::new();
    let terminal = io::stderr().is_terminal();
    let mut layers: Vec<(String, ProgressBar)> = Vec::new();
    while let Some(news) = inbox.recv().await {
        match news {
            Progress::Layers(all) => {
                layers =
                    all.into_iter().map(|(digest, bytes)| (digest.clone(), bars.add(bar(&digest, bytes)))).collect();
            }
            Progress::Bytes { layer, done } => {
                if let Some((_, bar)) = layers.iter().find(|(digest, _)| *digest == layer) {
                    bar.set_position(done);
                }
            }
            Progress::Unpacked { layer } => match layers.iter().find(|(digest, _)| *digest == layer) {
                Some((_, bar)) if terminal => bar.finish(),
                _ => eprintln!("{}: unpacked", short(&layer)),
            },
            _ => {}
        }
    }
}

fn bar(digest: &str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes}");
    let bar = ProgressBar::new(bytes).with_prefix(short(digest));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

async fn import(store: &Store, options: &ImportOptions) -> Result<()> {
    let name = options.name.as_deref().map(str::parse::<Reference>).transpose()?;
    let config = ImportConfig {
        entrypoint: options.entrypoint.clone(),
        cmd: options.cmd.clone(),
        env: options.env.clone(),
        user: options.user.clone(),
        working_dir: options.workdir.clone(),
    };
    let source: &Path = if options.source.as_os_str() == "-" { "/dev/stdin".as_ref() } else { &options.source };
    let images = store.import(source, name.as_ref(), &config).await;
    tell(&images.with_context(|| format!("cannot import {}", source.display()))?, options.output)
}

/// To a file that has its name only when it is whole.
async fn export(store: &Store, file: &Path, images: &[String]) -> Result<()> {
    if file.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            bail!("an archive is not for a terminal: give a file, or lead standard output elsewhere");
        }
        return Ok(store.export(images, io::stdout()).await?);
    }
    let name = file.file_name().with_context(|| format!("{} names no file", file.display()))?;
    let partial = file.with_file_name(format!(".{}.part", name.to_string_lossy()));
    let out = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
    let written = store.export(images, io::BufWriter::new(out)).await.context("cannot export");
    let written = written.and_then(|()| Ok(fs::rename(&partial, file)?));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// What a script is told of one image, in full.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    manifest_digest: &'a str,
    pinned: bool,
    /// As the image has it (OCI image specification, config.md).
    config: &'a oci_spec::image::ImageConfiguration,
}

fn inspect(store: &Store, names: &[String]) -> Result<()> {
    let find = |name: &String| store.image(name)?.ok_or_else(|| missing(name));
    let images = names.iter().map(find).collect::<Result<Vec<_>>>()?;
    let details = images.iter().map(|image| Details {
        row: row(image),
        manifest_digest: &image.manifest_digest,
        pinned: image.pinned,
        config: &image.config,
    });
    output::json(&details.collect::<Vec<_>>())
}

fn told_pruned(collected: &Collected, output: Output) -> Result<()> {
    let removed = &collected.removed;
    if output == Output::Json {
        let rows = removed.iter().map(|gone| serde_json::json!({ "id": gone.id, "freedBytes": gone.freed_bytes }));
        return output::json(&rows.collect::<Vec<_>>());
    }
    removed.iter().for_each(|gone| println!("{}", gone.id));
    let freed = removed.iter().map(|gone| gone.freed_bytes).sum();
    println!("{} images removed, {} freed", removed.len(), output::size(freed));
    Ok(())
}

async fn mount(store: &Store, options: &MountImageOptions) -> Result<()> {
    let image = store.image(&options.image)?.ok_or_else(|| missing(&options.image))?;
    let target = real(&options.target)?;
    let owners = Owners { users: options.uidmap.clone(), groups: options.gidmap.clone() };
    let mount = MountOptions {
        access: if options.writable { Access::Writable } else { Access::ReadOnly },
        owners: Some(owners).filter(|owners| !owners.users.is_empty()),
    };
    Ok(store.mount_with(&image, &key_of(&target), &target, &mount).await?)
}

fn missing(image: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no image {image:?} here")
}

/// A folder by its one name: it may be given by another each time.
fn real(target: &Path) -> Result<PathBuf> {
    fs::canonicalize(target).with_context(|| format!("cannot find {}", target.display()))
}

/// The snapshot of a root that was mounted by hand; a container's never has such a name.
fn key_of(target: &Path) -> String {
    format!("mount-{}", Digest::of(target.as_os_str().as_bytes()).hex())
}
