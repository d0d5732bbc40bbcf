//! The engine on this kernel: sandboxes and containers that really run, each test on a machine of its own.

mod world;

use std::time::Duration;

use berth_engine::{ContainerConfig, ContainerState, Event, SandboxConfig, SandboxState};
use world::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_container_runs_is_asked_and_ends() {
    world::on_a_machine("a_container_runs_is_asked_and_ends", async |world: World| {
        let engine = world.engine.clone();
        let sandbox = engine.run_sandbox(world.sandbox("web")).await.unwrap();
        let status = engine.sandbox(&sandbox).await.unwrap();
        assert_eq!(status.state, SandboxState::Ready);
        assert_eq!(status.ips.len(), 1);

        let mut events = engine.events();
        let script = "cat /etc/hostname; cat /etc/resolv.conf; trap 'exit 7' TERM; while :; do sleep 0.1; done";
        let container = engine.create_container(&sandbox, world.container("main", script)).await.unwrap();
        engine.start_container(&container).await.unwrap();
        assert!(matches!(events.recv().await.unwrap(), Event::Started { .. }));

        let run = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let output =
            engine.exec(&container, &run(&["sh", "-c", "echo out; echo err >&2; exit 3"]), 20 * SECOND, 100).await;
        let output = output.unwrap();
        assert_eq!((output.exit_code, &output.stdout[..], &output.stderr[..]), (3, &b"out\n"[..], &b"err\n"[..]));
        let cut = engine.exec(&container, &run(&["sh", "-c", "yes | head -c 100000"]), 20 * SECOND, 10).await.unwrap();
        assert_eq!(cut.stdout, b"y\ny\ny\ny\ny\n");
        let late = engine.exec(&container, &run(&["sleep", "1000"]), SECOND / 5, 10).await.unwrap_err();
        assert!(late.to_string().contains("did not end within"), "{late}");
        let missing = engine.exec(&container, &run(&["/no/such"]), 20 * SECOND, 10).await.unwrap_err();
        assert!(missing.to_string().contains("/no/such"), "{missing}");

        engine.signal_container(&container, engine.stop_signal(&container).await.unwrap()).await.unwrap();
        while !matches!(events.recv().await.unwrap(), Event::Exited { .. }) {}
        let status = engine.sandbox(&sandbox).await.unwrap();
        let ContainerState::Exited { exit_code: 7, signal: None, oom_killed: false, .. } = status.containers[0].state
        else {
            panic!("{:?}", status.containers[0].state)
        };
        let log = std::fs::read_to_string(&status.containers[0].config.log_path).unwrap();
        assert!(log.contains(" stdout F web\n") && log.contains("nameserver 192.0.2.53"), "{log}");
        engine.remove_sandbox(&sandbox).await.unwrap();
        engine.remove_sandbox(&sandbox).await.unwrap();
        assert!(engine.sandboxes().await.is_empty());
        world.assert_nothing_left();
    });
}

#[test]
fn an_engine_that_comes_back_finds_what_runs_and_what_ended() {
    world::on_a_machine("an_engine_that_comes_back_finds_what_runs_and_what_ended", async |mut world: World| {
        let sandbox = world.engine.run_sandbox(world.sandbox("web")).await.unwrap();
        let long = world.engine.create_container(&sandbox, world.container("long", "exec sleep 1000")).await.unwrap();
        let short = world.engine.create_container(&sandbox, world.container("short", "exit 9")).await.unwrap();
        world.engine.start_container(&long).await.unwrap();
        world.reopen().await;
        world.engine.start_container(&short).await.unwrap();
        world.until(|status| matches!(status.containers[1].state, ContainerState::Exited { exit_code: 9, .. })).await;
        world.reopen().await;
        let status = world.engine.sandbox(&sandbox).await.unwrap();
        assert_eq!(status.state, SandboxState::Ready);
        assert!(matches!(status.containers[0].state, ContainerState::Running { .. }));
        assert!(matches!(status.containers[1].state, ContainerState::Exited { exit_code: 9, .. }));
        world.engine.remove_sandbox(&sandbox).await.unwrap();
        world.assert_nothing_left();
    });
}

#[test]
fn a_sandbox_whose_shim_is_killed_is_told_of_and_can_be_removed() {
    world::on_a_machine("a_sandbox_whose_shim_is_killed_is_told_of_and_can_be_removed", async |world: World| {
        let engine = world.engine.clone();
        let sandbox = engine.run_sandbox(world.sandbox("web")).await.unwrap();
        let container = engine.create_container(&sandbox, world.container("main", "exec sleep 1000")).await.unwrap();
        engine.start_container(&container).await.unwrap();
        let mut events = engine.events();
        world.signal_shim(&sandbox, "KILL");
        while !matches!(events.recv().await.unwrap(), Event::SandboxLost { .. }) {}
        assert_eq!(engine.sandbox(&sandbox).await.unwrap().state, SandboxState::NotReady);
        engine.stop_sandbox(&sandbox).await.unwrap();
        let status = engine.sandbox(&sandbox).await.unwrap();
        assert!(!matches!(status.containers[0].state, ContainerState::Running { .. }));
        engine.remove_sandbox(&sandbox).await.unwrap();
        world.assert_nothing_left();
    });
}

#[test]
fn a_sandbox_whose_maker_died_half_way_is_taken_down() {
    world::on_a_machine("a_sandbox_whose_maker_died_half_way_is_taken_down", async |mut world: World| {
        let sandbox = world.engine.run_sandbox(world.sandbox("web")).await.unwrap();
        world.pretend_half_made(&sandbox);
        world.reopen().await;
        assert!(world.engine.sandboxes().await.is_empty());
        let sandbox = world.engine.run_sandbox(world.sandbox("web")).await.unwrap();
        world.pretend_half_made(&sandbox);
        world.signal_shim(&sandbox, "STOP");
        world.reopen().await;
        assert!(world.engine.sandboxes().await.is_empty(), "a shim that hangs is killed");
        world.assert_nothing_left();
    });
}

#[test]
fn a_command_too_long_for_the_shim_fails_alone() {
    world::on_a_machine("a_command_too_long_for_the_shim_fails_alone", async |world: World| {
        let engine = world.engine.clone();
        let sandbox = engine.run_sandbox(world.sandbox("web")).await.unwrap();
        let container = engine.create_container(&sandbox, world.container("main", "exec sleep 1000")).await.unwrap();
        engine.start_container(&container).await.unwrap();
        let run = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let long = engine.exec(&container, &run(&["echo", &"x".repeat(100_000)]), 20 * SECOND, 10).await.unwrap_err();
        assert!(long.to_string().contains("the limit is"), "{long}");
        assert_eq!(engine.sandbox(&sandbox).await.unwrap().state, SandboxState::Ready);
        assert_eq!(engine.exec(&container, &run(&["echo"]), 20 * SECOND, 10).await.unwrap().stdout, b"\n");
        engine.remove_sandbox(&sandbox).await.unwrap();
        world.assert_nothing_left();
    });
}

#[test]
fn a_command_has_its_time_from_when_it_is_asked_for() {
    world::on_a_machine("a_command_has_its_time_from_when_it_is_asked_for", async |world: World| {
        let engine = world.engine.clone();
        let sandbox = engine.run_sandbox(world.sandbox("web")).await.unwrap();
        let container = engine.create_container(&sandbox, world.container("main", "exec sleep 999")).await.unwrap();
        engine.start_container(&container).await.unwrap();
        let run = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        world.signal_shim(&sandbox, "STOP");
        let command = run(&["sleep", "1000"]);
        let late = engine.exec(&container, &command, SECOND / 5, 10);
        let late = tokio::time::timeout(20 * SECOND, late).await.expect("in time").unwrap_err();
        assert!(late.to_string().contains("did not end within"), "{late}");
        world.signal_shim(&sandbox, "CONT");
        // The shim takes calls in order: by now it was asked to run the command, which must not stay.
        engine.exec(&container, &run(&["true"]), 20 * SECOND, 10).await.unwrap();
        world.assert_no_process("sleep 1000");
        engine.remove_sandbox(&sandbox).await.unwrap();
        world.assert_nothing_left();
    });
}

#[test]
fn the_address_of_a_sandbox_that_is_being_made_is_not_freed() {
    world::on_a_machine("the_address_of_a_sandbox_that_is_being_made_is_not_freed", async |world: World| {
        let engine = world.engine.clone();
        let making = (0..12).map(|number| engine.run_sandbox(world.sandbox(&format!("pod-{number}"))));
        let mut making = std::pin::pin!(futures::future::try_join_all(making));
        let made = loop {
            tokio::select! {
                made = &mut making => break made.unwrap(),
                () = world.set_pod_network() => {}
            }
        };
        for sandbox in made {
            let address = engine.sandbox(&sandbox).await.unwrap().ips[0];
            let owner = std::fs::read_to_string(format!("/var/lib/berth/cni/networks/berth/{address}")).unwrap();
            assert!(owner.starts_with(sandbox.as_str()), "{owner}");
            engine.remove_sandbox(&sandbox).await.unwrap();
        }
        world.assert_nothing_left();
    });
}

#[test]
fn what_cannot_run_says_why_and_leaves_nothing() {
    world::on_a_machine("what_cannot_run_says_why_and_leaves_nothing", async |world: World| {
        let engine = world.engine.clone();
        let sandbox = engine.run_sandbox(world.sandbox("web")).await.unwrap();
        let missing = ContainerConfig { command: vec!["/no/such".into()], ..world.container("main", "") };
        let container = engine.create_container(&sandbox, missing).await.unwrap();
        let error = engine.start_container(&container).await.unwrap_err();
        assert_eq!(error.reason(), "RunContainerError");
        assert!(error.to_string().contains("/no/such"), "{error}");
        let unknown = ContainerConfig { image: "nobody/none:1".into(), ..world.container("main", "") };
        let error = engine.create_container(&sandbox, unknown).await.unwrap_err();
        assert!(error.to_string().contains("nobody/none:1"), "{error}");
        let mut root = world.container("main", "");
        root.security.run_as_non_root = true;
        let error = engine.create_container(&sandbox, root).await.unwrap_err();
        assert_eq!(error.reason(), "CreateContainerConfigError");
        assert_eq!(engine.sandbox(&sandbox).await.unwrap().containers.len(), 1);
        let bad = SandboxConfig { sysctls: [("no.such".into(), "1".into())].into(), ..world.sandbox("bad") };
        let error = engine.run_sandbox(bad).await.unwrap_err();
        assert_eq!(error.reason(), "FailedCreatePodSandBox");
        engine.remove_sandbox(&sandbox).await.unwrap();
        world.assert_nothing_left();
    });
}

#[test]
fn twenty_sandboxes_at_once() {
    world::on_a_machine("twenty_sandboxes_at_once", async |world: World| {
        let engine = world.engine.clone();
        let make = |number: usize| {
            let (sandbox, container) =
                (world.sandbox(&format!("pod-{number}")), world.container("main", "exec sleep 1000"));
            let engine = engine.clone();
            async move {
                let sandbox = engine.run_sandbox(sandbox).await.unwrap();
                let container = engine.create_container(&sandbox, container).await.unwrap();
                engine.start_container(&container).await.unwrap();
                sandbox
            }
        };
        let sandboxes = futures::future::join_all((0..20).map(make)).await;
        let all = engine.sandboxes().await;
        let mut ips: Vec<_> = all.iter().map(|status| status.ips[0]).collect();
        ips.sort();
        ips.dedup();
        assert_eq!(ips.len(), 20, "every pod has an address of its own");
        futures::future::join_all(sandboxes.iter().map(|id| async { engine.remove_sandbox(id).await.unwrap() })).await;
        world.assert_nothing_left();
    });
}
