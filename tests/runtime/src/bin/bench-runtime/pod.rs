//! The library in a shim: no program is executed but the containers'.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_runtime::shim::protocol::{Call, Event};
use berth_runtime_tests::bundle::Bundle;

use crate::figures::Figures;
use crate::shim::{PATIENCE, Shim};

/// A shim and what is asked of it.
pub(crate) struct Pod {
    shim: Shim,
    bundle: PathBuf,
    round: u32,
}

impl Pod {
    pub(crate) fn start(program: &Path, folder: &Path, bundle: &Bundle, sleeper: &Bundle) -> Self {
        let mut shim = Shim::start(program, folder, "pod");
        shim.ask(Call::create(sleeper_id(), sleeper.path.clone(), None));
        shim.ask(Call::Start { container: sleeper_id() });
        Self { shim, bundle: bundle.path.clone(), round: 0 }
    }

    pub(crate) fn measure(&mut self, figures: &mut Figures) {
        self.round += 1;
        let id = format!("bench-{}-pod-{}", std::process::id(), self.round);
        let (shim, bundle) = (&mut self.shim, self.bundle.clone());
        figures.measure("shim create+start", || {
            shim.ask(Call::create(id.clone(), bundle, None));
            shim.ask(Call::Start { container: id.clone() });
        });
        while !matches!(shim.event(), Event::Exited { .. }) {}
        figures.measure("shim delete", || shim.ask(Call::Delete { container: id.clone() }));
        figures.measure("shim exec", || {
            exec(shim, sleeper_id(), id);
            while !matches!(shim.event(), Event::ExecExited { .. }) {}
        });
    }
}

/// Executes `true` in a container.
pub(crate) fn exec(shim: &mut Shim, container: String, exec: String) {
    let null = File::options().read(true).write(true).open("/dev/null").expect("every machine has it");
    let process = serde_json::from_value(serde_json::json!({
        "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
    }))
    .expect("it is a process");
    let call = Call::Exec { container, exec, process: Box::new(process) };
    shim.connection.call(call, &[null.as_fd(); 3], PATIENCE).expect("the shim runs it");
}

/// The container in which other processes are run.
fn sleeper_id() -> String {
    format!("bench-{}-pod-sleeper", std::process::id())
}
