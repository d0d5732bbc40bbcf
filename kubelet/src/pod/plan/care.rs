//! A container that runs: its probes, and reasons to stop it.

use std::time::Duration;

use berth_api::pod::grace_secs;
use berth_engine::ContainerState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container as Spec;

use super::terminate::{ask, insist, was_not_asked};
use super::{Action, Draft, Stop};
use crate::pod::desired::Desired;
use crate::pod::memory::later;
use crate::pod::observe::{Container, Observed};
use crate::probe::{Kind, Rules, State, Verdict};

pub(super) fn plan(desired: &Desired, observed: &Observed<'_>, spec: &Spec, draft: &mut Draft<'_>) {
    let Some(container) = observed.current(&spec.name) else { return };
    let ContainerState::Running { started_at } = container.state else { return };
    if let Some(stopping) = draft.memory.stops.get(&container.id) {
        let deadline = later(stopping.since, Duration::from_secs(stopping.grace_secs));
        if deadline > draft.now && was_not_asked(container, draft) {
            ask(desired, container, deadline, draft);
        }
        insist(container, deadline, draft);
        return;
    }
    if !draft.memory.hooked(&spec.name) {
        return;
    }
    if let Some((why, grace_secs)) = reason_to_stop(desired, spec, container, draft) {
        draft.begin(Action::Stop(stop(spec, container, grace_secs, why)));
        return;
    }
    let started = observed.is_started(desired, spec, container);
    for kind in Kind::ALL {
        // The startup probe until it has passed, the others from then on.
        if started != (kind == Kind::Startup) {
            probe(spec, container, kind, started_at, draft);
        }
    }
}

/// How a container is asked to end.
pub(super) fn stop(spec: &Spec, container: &Container, grace_secs: u64, why: String) -> Stop {
    let pre_stop = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone()).map(Box::new);
    Stop { id: container.id.clone(), name: container.name.clone(), grace_secs, pre_stop, why }
}

/// Why a container that runs must be stopped and started again, and how long it has.
fn reason_to_stop(desired: &Desired, spec: &Spec, container: &Container, draft: &Draft<'_>) -> Option<(String, u64)> {
    let grace = grace_secs(&desired.pod);
    let name = &spec.name;
    if spec.image.as_deref().is_some_and(|image| image != container.image) {
        return Some((format!("Container {name} definition changed, will be restarted"), grace));
    }
    [Kind::Startup, Kind::Liveness].into_iter().find_map(|kind| {
        let probe = kind.of(spec)?;
        (draft.memory.verdict(&container.id, kind)? == Verdict::Failed).then_some(())?;
        let own = probe.termination_grace_period_seconds.and_then(|secs| u64::try_from(secs).ok());
        let word = kind.word().to_lowercase();
        Some((format!("Container {name} failed {word} probe, will be restarted"), own.unwrap_or(grace)))
    })
}

fn probe(spec: &Spec, container: &Container, kind: Kind, started_at: Timestamp, draft: &mut Draft<'_>) {
    let Some(probe) = kind.of(spec) else { return };
    let rules = Rules::of(probe);
    let state = draft.memory.probes.get(&(container.id.clone(), kind));
    let due = state.map_or_else(|| State::first_at(&rules, started_at), |state| state.next_at);
    if due > draft.now {
        draft.wake(due);
        return;
    }
    draft.begin(Action::Probe { id: container.id.clone(), name: container.name.clone(), kind, rules });
}
