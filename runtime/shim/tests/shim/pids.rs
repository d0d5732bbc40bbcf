//! The pid namespace that containers share.

use berth_runtime::shim::protocol::{Call, NamespaceMode};

use crate::pod::{Pod, eventually, lives, spec};

fn shared() -> Pod {
    let mut spec = spec();
    spec.namespaces.pid = NamespaceMode::New;
    Pod::with(spec)
}

#[test]
fn containers_see_one_another_and_an_init_that_shows_nothing() {
    let pod = shared();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    pod.run(&mut client, "a", "sleep 1000");
    let script = "cat /proc/1/comm; grep -E 'Uid|CapPrm|CapEff' /proc/1/status; ps | grep -c '[s]leep 1000'
                  cat /proc/1/root/etc/passwd; readlink /proc/1/exe; true";
    pod.run(&mut client, "b", script);
    assert_eq!(client.exit_of("b").code, 0);
    let log = pod.log("b");
    let stdout: Vec<_> = log.iter().filter_map(|line| line.strip_prefix("stdout F ")).collect();
    let none = "0000000000000000";
    let expected = [
        "pause".into(),
        "Uid:\t65535\t65535\t65535\t65535".into(),
        format!("CapPrm:\t{none}"),
        format!("CapEff:\t{none}"),
        "1".into(),
    ];
    assert_eq!(stdout, expected, "{log:?}");
}

#[test]
fn orphans_end_with_their_container_and_are_reaped() {
    let pod = shared();
    let mut client = pod.connect();
    client.ask(Call::Subscribe);
    // The orphan holds the log's pipe, and would for long.
    pod.run(&mut client, "a", "sleep 1234 & exit 5");
    let exit = client.exit_of("a");
    assert_eq!(exit.code, 5);
    pod.run(&mut client, "b", "ps; true");
    client.exit_of("b");
    let log = pod.log("b");
    assert!(!log.iter().any(|line| line.contains("sleep 1234") || line.contains("[sleep]")), "{log:?}");
}

#[test]
fn the_init_dies_with_the_shim() {
    let pod = shared();
    let mut client = pod.connect();
    let pid = pod.run(&mut client, "a", "sleep 1000");
    let shim = pod.shim_pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("init and container are gone", || !lives(pid));
}
