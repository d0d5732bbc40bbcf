//! config.md: the five sets of capabilities.

use berth_runtime_tests::machine::{has_capability, misses};
use berth_runtime_tests::report::Report;
use berth_runtime_tests::{Container, spec};
use serde_json::{Value, json};

fn seen(capabilities: Value, uid: u32) -> Report {
    let container = Container::probe().with(|spec| {
        spec["process"]["capabilities"] = capabilities;
        spec["process"]["user"] = json!({ "uid": uid, "gid": uid });
    });
    container.seen()
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

#[test]
fn root_has_the_usual_ones_and_none_to_inherit() {
    let seen = Container::probe().seen();
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(sorted(seen.set(set)), sorted(spec::CAPABILITIES.to_vec()), "{set}");
    }
    assert_eq!((seen.set("inheritable"), seen.set("ambient")), (vec![], vec![]));
}

#[test]
fn each_set_is_what_is_asked_for() {
    let capabilities = json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
    });
    for no_new_privileges in [true, false] {
        let container = Container::probe().with(|spec| {
            spec["process"]["capabilities"] = capabilities.clone();
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let seen = container.seen();
        assert_eq!(seen.set("bounding"), ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
        assert_eq!(seen.set("inheritable"), ["CAP_CHOWN"]);
        assert_eq!(seen.set("ambient"), Vec::<&str>::new());
        // When root runs a program, the kernel gives it all of the bounding set, unless that were a new privilege.
        let expected = if no_new_privileges {
            vec!["CAP_CHOWN", "CAP_KILL"]
        } else {
            vec!["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]
        };
        assert_eq!(seen.set("permitted"), expected);
    }
}

#[test]
fn another_user_keeps_the_ambient_ones_alone() {
    let usual = json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] });
    let without = seen(usual, 1000);
    assert_eq!((without.set("permitted"), without.set("effective")), (vec![], vec![]));
    let both = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let ambient = json!({
        "bounding": both, "permitted": both, "effective": both, "inheritable": both, "ambient": ["CAP_NET_BIND_SERVICE"],
    });
    let with = seen(ambient, 1000);
    for set in ["ambient", "permitted", "effective"] {
        assert_eq!(with.set(set), ["CAP_NET_BIND_SERVICE"], "{set}");
    }
}

#[test]
fn without_any_there_are_none() {
    for capabilities in [json!({}), json!({ "bounding": [], "permitted": [], "effective": [] })] {
        let seen = seen(capabilities, 0);
        for (set, names) in &seen.capabilities {
            assert_eq!(names, &[""; 0], "{set}");
        }
    }
}

#[test]
fn all_that_the_machine_has_can_be_granted() {
    let own = Report::take();
    let all = own.set("bounding");
    let seen = seen(json!({ "bounding": all, "permitted": all, "effective": all }), 0);
    assert_eq!(seen.set("effective"), all);
}

#[test]
fn a_name_that_the_kernel_does_not_know_does_not_stop_a_container() {
    // The specification lets a runtime warn, and asks that it does not fail.
    let seen = seen(
        json!({ "bounding": ["CAP_KILL", "CAP_NONSENSE"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] }),
        0,
    );
    assert_eq!(seen.set("bounding"), ["CAP_KILL"]);
}

#[test]
fn what_is_granted_works_and_what_is_not_does_not() {
    let check = |capability: &str, script: &str| {
        let run = |capabilities: &[&str]| {
            let container = Container::new(script).with(|spec| {
                spec["process"]["capabilities"] =
                    json!({ "bounding": capabilities, "permitted": capabilities, "effective": capabilities });
            });
            container.run()
        };
        let without = run(&[]);
        assert_ne!(without.code, 0, "without {capability}: {}", without.text());
        let with = run(&[capability]);
        assert_eq!(with.code, 0, "with {capability}: {}", with.text());
    };
    check("CAP_CHOWN", "chown 7 /etc/passwd");
    check("CAP_SYS_ADMIN", "hostname other");
    check("CAP_SYS_CHROOT", "chroot / true");
    check("CAP_NET_ADMIN", "ip link set lo mtu 1400");
    check("CAP_MKNOD", "mknod /tmp/null c 1 3");
}

#[test]
fn every_one_that_the_kernel_has_can_be_granted() {
    if misses(!has_capability(24), "CAP_SYS_RESOURCE, so there is no container with all capabilities") {
        return;
    }
    let all: Vec<String> = Report::take().capabilities["bounding"].clone();
    assert_eq!(seen(json!({ "bounding": all, "permitted": all, "effective": all }), 0).set("effective"), all);
}
