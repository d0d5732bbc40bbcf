//! The kernel's files in `/proc`, and what protects them.

use std::fs;
use std::os::unix::fs::symlink;

use berth_runtime_tests::socket::Socket;
use berth_runtime_tests::{Container, lacks, until};
use serde_json::json;

use super::{Outside, attempt};

/// CVE-2019-16884.
#[test]
fn proc_cannot_be_replaced_by_a_volume() {
    for (destination, kind, options) in [
        ("/proc", "tmpfs", json!([])),
        ("/proc", "bind", json!(["bind"])),
        ("/proc/self/attr", "bind", json!(["bind"])),
    ] {
        let mut container = Container::new("true");
        let volume = container.folder().join("volume");
        fs::create_dir_all(volume.join("self/attr")).unwrap();
        container.mount(json!({ "destination": destination, "type": kind, "source": volume, "options": options }));
        let accepted = container.try_create().code == 0;
        assert!(!accepted || lacks("crun", "lets a volume be where proc is"), "{destination}");
        container.delete();
    }
}

/// CVE-2019-16884, the other way round: proc is there, on what an image's link made of it.
#[test]
fn nothing_is_mounted_in_proc_by_way_of_a_link() {
    for link in ["/proc/sys", "proc/self", "/proc"] {
        let mut container = Container::new("true");
        symlink(link, container.rootfs().join("volume")).unwrap();
        container.mount(json!({ "destination": "/volume", "type": "tmpfs", "source": "tmpfs" }));
        let outcome = container.try_create();
        assert!(outcome.code != 0 || lacks("runc | crun", "mounts in proc by way of a link"), "{link}");
        container.delete();
    }
}

/// CVE-2025-31133, CVE-2025-62161.
#[test]
fn a_null_device_that_is_a_link_masks_nothing_with_what_it_points_at() {
    let check = |target: &str| {
        let mut container = Container::new("echo changed > /proc/timer_list; cat /proc/timer_list; true");
        // What masks is what the image has at /dev/null.
        let mounts = container.spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let devices = container.folder().join("devices");
        fs::create_dir(&devices).unwrap();
        symlink(target, devices.join("null")).unwrap();
        container.mount(json!({ "destination": "/dev", "source": devices, "options": ["bind"] }));
        let output = attempt(&container);
        // Refused, or masked by something that is empty.
        let shown = output.lines().any(|line| !line.contains("timer_list"));
        assert!(!shown || lacks("runc < 1.2.8 | crun < 1.25", "CVE-2025-31133"), "{target}: {output}");
        let passwd = fs::read_to_string(container.rootfs().join("etc/passwd")).unwrap();
        assert!(!passwd.contains("changed") || lacks("runc < 1.2.8 | crun < 1.25", "CVE-2025-31133"), "{target}");
    };
    check("/etc/passwd");
    check("/proc/sys/kernel/hostname");
    check("/nowhere");
}

/// A volume for a folder of the kernel's, with a link of this name to the name of the domain, which is the container's
/// own and read-only: who changes it has been led.
fn trap(container: &Container, names: &[(&str, &str)]) -> std::path::PathBuf {
    let volume = container.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    names.iter().for_each(|(name, target)| symlink(target, volume.join(name)).unwrap());
    volume
}

const DOMAIN: &str = "/proc/sys/kernel/domainname";

/// CVE-2025-52565.
#[test]
fn a_terminal_that_is_a_link_is_not_followed_to_make_the_console() {
    let mut container = Container::new("echo led > /dev/console; cat /proc/sys/kernel/domainname > /data/domain");
    container.spec["process"]["terminal"] = json!(true);
    // Terminals come from one place, and are looked for in another.
    let volume = trap(&container, &[("ptmx", "/dev/real/ptmx"), ("0", DOMAIN)]);
    container.mount(json!({ "destination": "/dev/real", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }));
    container.mount(json!({ "destination": "/dev/pts", "source": volume, "options": ["bind"] }));
    let socket = Socket::listen(container.folder(), "console");
    let created = container.create_by(container.create_call(&["--console-socket", socket.name()]));
    if created.code == 0 {
        let _terminal = socket.terminal();
        container.start();
        container.wait();
        let domain = fs::read_to_string(container.rootfs().join("data/domain")).unwrap_or_default();
        assert!(!domain.starts_with("led") || lacks("runc < 1.2.8 | crun < 1.25", "CVE-2025-52565"));
    }
}

/// CVE-2025-52565, at its simplest.
#[test]
fn a_console_that_is_a_link_in_the_image_is_not_followed() {
    let outside = Outside::new();
    let mut container = Container::new("true");
    container.spec["process"]["terminal"] = json!(true);
    container.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    for (name, target) in [
        ("console", outside.path().join("file")),
        ("pts", outside.path().to_owned()),
        ("ptmx", outside.path().join("file")),
    ] {
        symlink(target, container.rootfs().join("dev").join(name)).unwrap();
    }
    let socket = Socket::listen(container.folder(), "console");
    let _ = container.create_by(container.create_call(&["--console-socket", socket.name()]));
    outside.assert_untouched();
    container.delete();
    outside.assert_untouched();
}

/// CVE-2025-52881.
#[test]
fn a_parameter_is_not_written_where_a_volume_leads() {
    let check = |destination: &str, link: Option<&str>| {
        let mut container = Container::new(&format!("cat {DOMAIN}"));
        container.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        let volume = trap(&container, &[("ip_forward", DOMAIN)]);
        if let Some(link) = link {
            symlink(link, container.rootfs().join(destination.trim_start_matches('/'))).unwrap();
        }
        container.mount(json!({ "destination": destination, "source": volume, "options": ["bind"] }));
        let output = attempt(&container);
        assert!(output != "1\n" || lacks("runc < 1.2.8 | crun < 1.25", "CVE-2025-52881"), "{destination}");
    };
    check("/proc/sys/net/ipv4", None);
    check("/volume", Some("/proc/sys/net/ipv4"));
    check("/volume", Some("proc/sys/net/ipv4"));
}

/// Where a process takes on its labels, by every name.
const LABELS: [&str; 4] =
    ["self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/exec", "thread-self/attr/apparmor/exec"];

/// CVE-2019-16884, CVE-2025-52881: a label that goes to a file of the image's protects nobody.
#[test]
fn a_label_is_not_written_to_what_an_image_has_for_proc() {
    for name in ["apparmorProfile", "selinuxLabel"] {
        let mut container = Container::new("true").with(|spec| spec["process"][name] = json!("suite-label"));
        container.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        let files = LABELS.map(|file| container.rootfs().join("proc").join(file));
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        // There is no such label, or no module to ask for it.
        assert_eq!(attempt(&container), "", "{name}");
        let refused = container.try_create().code != 0 || container.verb("start").code != 0;
        assert!(refused, "{name}");
        files.iter().for_each(|file| assert_eq!(fs::read_to_string(file).unwrap(), "", "{name}: {}", file.display()));
    }
}

/// The same of a process that joins, when the container has covered what it was given.
#[test]
fn a_label_is_not_written_to_what_a_container_has_mounted_on_proc() {
    let cover = LABELS.map(|file| format!("mkdir -p $(dirname /proc/{file}) && : > /proc/{file} || exit 1; ")).concat();
    for curious in [false, true] {
        let mut container = Container::new(&format!("mount -t tmpfs none /proc; {cover} echo; exec sleep 1000"));
        container.spec["linux"]["maskedPaths"] = json!([]);
        container.spec["linux"]["readonlyPaths"] = json!([]);
        container.grant(&["CAP_SYS_ADMIN"]);
        if curious {
            container.grant(&["CAP_SYS_PTRACE"]);
        }
        let container = container.running();
        until("proc is covered", || !container.out().is_empty());
        for option in ["--apparmor", "--process-label"] {
            container.exec_with(&[option, "suite-label"], &["/bin/true"]).refused();
        }
        let root = format!("/proc/{}/root/proc", container.pid());
        for file in LABELS {
            assert_eq!(fs::read_to_string(format!("{root}/{file}")).unwrap(), "", "{file}, curious: {curious}");
        }
    }
}

#[test]
fn the_keys_of_the_session_are_the_container_s_own() {
    // /proc/keys shows what its reader possesses: the runtime's caller's session would be among it.
    let mut container = Container::new("grep -c keyring /proc/keys; grep -o '_ses[^:]*' /proc/keys | sort -u; true");
    container.spec["linux"]["maskedPaths"] = json!([]);
    let first = container.output();
    assert!(first.contains("_ses"), "no session of its own: {first}");
}
