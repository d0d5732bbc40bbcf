use std::path::PathBuf;

use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};
use oci_spec::runtime::LinuxNamespaceType;

use super::*;
use crate::config::{Mount, Propagation, Security};

fn image() -> ImageConfiguration {
    let config = ConfigBuilder::default()
        .entrypoint(vec!["/entry".to_owned()])
        .cmd(vec!["default".to_owned()])
        .env(vec!["PATH=/bin".to_owned(), "A=image".to_owned()])
        .working_dir("/srv")
        .build()
        .unwrap();
    ImageConfigurationBuilder::default()
        .architecture("amd64")
        .os("linux")
        .rootfs(oci_spec::image::RootFsBuilder::default().typ("layers").diff_ids(Vec::<String>::new()).build().unwrap())
        .config(config)
        .build()
        .unwrap()
}

fn made(sandbox: &SandboxConfig, container: &ContainerConfig) -> Result<Spec, SpecError> {
    spec(&Inputs {
        sandbox,
        container,
        image: &image(),
        identity: Identity { uid: container.security.run_as_user.unwrap_or(0), ..Identity::default() },
        rootfs: Path::new("/run/r"),
        namespaces: Path::new("/run/ns"),
        pod_files: Path::new("/run/pod"),
        cgroup: "/kubepods/podx/c".to_owned(),
        bounding: 0x1ff_feff_ffff,
        seccomp: Some(runtime_default(|_| false).unwrap()),
    })
}

fn process(container: &ContainerConfig) -> Process {
    made(&SandboxConfig::default(), container).unwrap().process().clone().unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn command_and_args_replace_what_the_image_says() {
    let cases = [
        ("", "", "/entry default"),
        ("", "x y", "/entry x y"),
        ("/bin/sh -c", "", "/bin/sh -c"),
        ("/bin/sh", "x", "/bin/sh x"),
    ];
    for (command, args, expected) in cases {
        let container = ContainerConfig { command: words(command), args: words(args), ..ContainerConfig::default() };
        assert_eq!(process(&container).args().clone().unwrap(), words(expected), "{command:?} {args:?}");
    }
}

#[test]
fn the_pods_environment_wins_and_keeps_its_place() {
    let env = vec![("A".to_owned(), "pod".to_owned()), ("B".to_owned(), "1=2".to_owned())];
    let found = process(&ContainerConfig { env, ..ContainerConfig::default() });
    assert_eq!(found.env().clone().unwrap(), ["PATH=/bin", "A=pod", "B=1=2"]);
}

#[test]
fn relative_paths_are_refused_by_field() {
    let container = ContainerConfig { working_dir: Some("srv".into()), ..ContainerConfig::default() };
    let error = made(&SandboxConfig::default(), &container).unwrap_err();
    assert_eq!(error.to_string(), "workingDir: \"srv\" is not an absolute path");
}

#[test]
fn namespaces_follow_the_pod() {
    let of = |sandbox: &SandboxConfig| {
        let spec = made(sandbox, &ContainerConfig::default()).unwrap();
        let all = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        all.into_iter().map(|one| (one.typ(), one.path().clone())).collect::<Vec<_>>()
    };
    let own = of(&SandboxConfig::default());
    assert!(own.contains(&(LinuxNamespaceType::Network, Some(PathBuf::from("/run/ns/net")))));
    assert!(own.contains(&(LinuxNamespaceType::Pid, None)));
    let host = SandboxConfig { network: NetworkMode::Host, host_ipc: true, pid: PidMode::Host, ..Default::default() };
    let kinds: Vec<_> = of(&host).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [LinuxNamespaceType::Mount, LinuxNamespaceType::Cgroup]);
}

#[test]
fn a_plain_container_can_little_and_a_privileged_one_all_there_is() {
    let caps = |security: Security| {
        let container = ContainerConfig { security, ..ContainerConfig::default() };
        process(&container).capabilities().clone().unwrap()
    };
    let plain = caps(Security::default());
    assert_eq!(plain.bounding().as_ref().unwrap().len(), 14);
    assert!(plain.inheritable().as_ref().is_none_or(|set| set.is_empty()));
    let user = caps(Security { run_as_user: Some(5), ..Security::default() });
    assert!(user.effective().as_ref().unwrap().is_empty());
    let privileged = caps(Security { privileged: true, ..Security::default() });
    assert_eq!(privileged.effective().as_ref().unwrap().len(), 40, "all but the one that the machine lacks");
    let one =
        caps(Security { drop_capabilities: words("ALL"), add_capabilities: words("net_admin"), ..Security::default() });
    assert_eq!(one.effective().as_ref().unwrap().len(), 1);
    let unknown = Security { add_capabilities: words("FLY"), ..Security::default() };
    let container = ContainerConfig { security: unknown, ..ContainerConfig::default() };
    let error = made(&SandboxConfig::default(), &container).unwrap_err();
    assert_eq!(error.to_string(), "securityContext.capabilities: \"FLY\" is no capability");
}

#[test]
fn a_volume_over_etc_hosts_replaces_the_pods_own() {
    let mount = Mount {
        host_path: "/x".into(),
        container_path: "/etc/hosts".into(),
        read_only: true,
        propagation: Propagation::HostToContainer,
    };
    let container = ContainerConfig { mounts: vec![mount], ..ContainerConfig::default() };
    let spec = made(&SandboxConfig::default(), &container).unwrap();
    let all = spec.mounts().clone().unwrap();
    let hosts: Vec<_> = all.iter().filter(|mount| mount.destination() == Path::new("/etc/hosts")).collect();
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0].options().clone().unwrap(), ["rbind", "rslave", "ro"]);
    assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().clone().unwrap(), "rslave");
}

#[test]
fn the_default_filter_knows_no_call_twice_and_refuses_the_machines_administration() {
    let profile = runtime_default(|_| false).unwrap();
    let mut names: Vec<String> = profile
        .syscalls()
        .as_ref()
        .unwrap()
        .iter()
        .filter(|call| call.args().is_none())
        .flat_map(|call| call.names().clone())
        .collect();
    for refused in ["mount", "init_module", "bpf", "kexec_load", "io_uring_setup", "keyctl", "unshare", "setns"] {
        assert!(!names.iter().any(|name| name == refused), "{refused}");
    }
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
