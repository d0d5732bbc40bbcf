//! A container's configuration and its image's, made into the `config.json` that the OCI runtime executes. Pure: whatever
//! has to be looked up (the user's numbers, the files on the host) was looked up before and comes in as [`Inputs`].

mod identity;
mod mounts;
mod resources;
mod seccomp;
mod security;

use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Process, ProcessBuilder, Root,
    RootBuilder, Spec, SpecBuilder,
};

pub(crate) use self::identity::{Identity, UserSpec};
pub(crate) use self::seccomp::runtime_default;
use crate::config::{ContainerConfig, NetworkMode, PidMode, SandboxConfig, Seccomp};

/// The version of the runtime specification that the result follows.
const OCI_VERSION: &str = "1.2.1";

/// The search path of a container whose image names none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that a container's specification is made of.
pub(crate) struct Inputs<'a> {
    /// The sandbox that the container is for.
    pub(crate) sandbox: &'a SandboxConfig,
    /// The container.
    pub(crate) container: &'a ContainerConfig,
    /// The image's own configuration.
    pub(crate) image: &'a ImageConfiguration,
    /// Who the process is, its user's name resolved in the image.
    pub(crate) identity: Identity,
    /// The mounted root.
    pub(crate) rootfs: &'a Path,
    /// The folder of the pinned namespaces.
    pub(crate) namespaces: &'a Path,
    /// The pod's own files: `hosts`, `resolv.conf`, `hostname`, `shm`.
    pub(crate) pod_files: &'a Path,
    /// The container's cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// The capabilities that can be given at all, as the kernel's bit set.
    pub(crate) bounding: u64,
    /// The system call filter, read already where it is a file.
    pub(crate) seccomp: Option<oci_spec::runtime::LinuxSeccomp>,
}

/// Why a configuration cannot become a specification: the field and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// Neither the pod nor the image says what to run.
    #[error("no command specified: neither the container nor its image has one")]
    NoCommand,
    /// A capability's name is not known.
    #[error("securityContext.capabilities: {name:?} is no capability")]
    Capability {
        /// As given.
        name: String,
    },
    /// A path in the container is not absolute.
    #[error("{field}: {path:?} is not an absolute path")]
    RelativePath {
        /// Which field.
        field: &'static str,
        /// As given.
        path: String,
    },
    /// The specification's own rules were broken.
    #[error(transparent)]
    Oci(#[from] OciSpecError),
}

/// Makes the specification.
pub(crate) fn spec(inputs: &Inputs<'_>) -> Result<Spec, SpecError> {
    let privileged = inputs.container.security.privileged;
    let mut spec = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(root(inputs)?)
        .process(process(inputs)?)
        .mounts(mounts::mounts(inputs)?)
        .linux(linux(inputs, privileged)?)
        .build()?;
    // The pod has one name, and the shim has set it.
    spec.set_hostname(None);
    Ok(spec)
}

/// The process that [`crate::Engine::exec`] adds to a container: the container's own, with another command.
pub(crate) fn exec_process(container: &Process, command: &[String]) -> Process {
    let mut process = container.clone();
    process.set_args(Some(command.to_vec()));
    process.set_terminal(Some(false));
    process
}

fn root(inputs: &Inputs<'_>) -> Result<Root, SpecError> {
    Ok(RootBuilder::default().path(inputs.rootfs).readonly(inputs.container.security.read_only_rootfs).build()?)
}

fn process(inputs: &Inputs<'_>) -> Result<Process, SpecError> {
    let container = inputs.container;
    let mut process = ProcessBuilder::default()
        .args(args(inputs)?)
        .env(env(inputs))
        .cwd(cwd(inputs)?)
        .user(inputs.identity.user()?)
        .no_new_privileges(container.security.no_new_privs)
        .capabilities(security::capabilities(&container.security, inputs.identity.uid, inputs.bounding)?)
        .build()?;
    process.set_oom_score_adj(container.resources.oom_score_adj);
    process.set_rlimits(None);
    Ok(process)
}

/// The image's entrypoint and command, each replaced by the pod's `command` and `args` as Kubernetes has it.
fn args(inputs: &Inputs<'_>) -> Result<Vec<String>, SpecError> {
    let (container, image) = (inputs.container, inputs.image.config().as_ref());
    let entrypoint = image.and_then(|image| image.entrypoint().clone()).unwrap_or_default();
    let cmd = image.and_then(|image| image.cmd().clone()).unwrap_or_default();
    let (program, arguments) = match (container.command.is_empty(), container.args.is_empty()) {
        (true, true) => (entrypoint, cmd),
        (true, false) => (entrypoint, container.args.clone()),
        (false, _) => (container.command.clone(), container.args.clone()),
    };
    let all: Vec<String> = program.into_iter().chain(arguments).collect();
    if all.is_empty() { Err(SpecError::NoCommand) } else { Ok(all) }
}

/// The image's environment, then the pod's; a later value of one name replaces an earlier one in its place.
fn env(inputs: &Inputs<'_>) -> Vec<String> {
    let image = inputs.image.config().as_ref().and_then(|image| image.env().clone()).unwrap_or_default();
    let mut all: Vec<(String, String)> = Vec::with_capacity(image.len() + inputs.container.env.len() + 2);
    let mut put = |name: &str, value: &str| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.to_owned(),
        None => all.push((name.to_owned(), value.to_owned())),
    };
    if let Some((name, value)) = DEFAULT_PATH.split_once('=') {
        put(name, value);
    }
    if !inputs.sandbox.hostname.is_empty() {
        put("HOSTNAME", &inputs.sandbox.hostname);
    }
    for line in &image {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        put(name, value);
    }
    for (name, value) in &inputs.container.env {
        put(name, value);
    }
    if let (Some(home), false) = (&inputs.identity.home, all.iter().any(|(name, _)| name == "HOME")) {
        all.push(("HOME".to_owned(), home.clone()));
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn cwd(inputs: &Inputs<'_>) -> Result<String, SpecError> {
    let image = inputs.image.config().as_ref().and_then(|image| image.working_dir().clone());
    let chosen = inputs.container.working_dir.clone().filter(|path| !path.is_empty()).or(image).unwrap_or_default();
    match chosen.as_str() {
        "" => Ok("/".to_owned()),
        path if path.starts_with('/') => Ok(path.to_owned()),
        path => Err(SpecError::RelativePath { field: "workingDir", path: path.to_owned() }),
    }
}

fn linux(inputs: &Inputs<'_>, privileged: bool) -> Result<Linux, SpecError> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(inputs)?)
        .cgroups_path(&inputs.cgroup)
        .resources(resources::resources(&inputs.container.resources, privileged)?)
        .build()?;
    // The pod's sysctls belong to its namespaces and are set by the shim, once.
    linux.set_sysctl(None);
    linux.set_masked_paths(Some(if privileged { Vec::new() } else { security::masked_paths() }));
    linux.set_readonly_paths(Some(if privileged { Vec::new() } else { security::readonly_paths() }));
    if privileged {
        linux.set_devices(Some(security::host_devices()));
    }
    let filtered = !privileged && inputs.container.security.seccomp != Seccomp::Unconfined;
    linux.set_seccomp(inputs.seccomp.clone().filter(|_| filtered));
    linux.set_rootfs_propagation(mounts::rootfs_propagation(&inputs.container.mounts));
    Ok(linux)
}

fn namespaces(inputs: &Inputs<'_>) -> Result<Vec<LinuxNamespace>, SpecError> {
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let pinned = |kind, name| LinuxNamespaceBuilder::default().typ(kind).path(inputs.namespaces.join(name)).build();
    let mut all = vec![own(LinuxNamespaceType::Mount)?, own(LinuxNamespaceType::Cgroup)?];
    match inputs.sandbox.pid {
        PidMode::Container => all.push(own(LinuxNamespaceType::Pid)?),
        PidMode::Pod => all.push(pinned(LinuxNamespaceType::Pid, "pid")?),
        PidMode::Host => {}
    }
    if inputs.sandbox.network == NetworkMode::Pod {
        all.push(pinned(LinuxNamespaceType::Network, "net")?);
        all.push(pinned(LinuxNamespaceType::Uts, "uts")?);
    }
    if !inputs.sandbox.host_ipc {
        all.push(pinned(LinuxNamespaceType::Ipc, "ipc")?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
