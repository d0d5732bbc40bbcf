//! When a probe is due, and what a row of answers means. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;

use super::Kind;

/// Longest period, delay or timeout that is honoured: a day.
const SECS_MAX: i32 = 86_400;
/// A container that has just started is asked again this soon, then half as often each time, until it is ready or the
/// period is reached: Kubernetes lets a readiness probe of a container that is not ready run at other times than its
/// period, so that the pod becomes ready sooner.
const EAGER_FIRST: Duration = Duration::from_millis(50);

/// What one question gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The container is well.
    Healthy,
    /// It is not: what it said, or why it said nothing.
    Unhealthy(String),
}

/// What a row of answers means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// `successThreshold` good answers in a row.
    Passed,
    /// `failureThreshold` bad answers in a row.
    Failed,
}

/// A probe's numbers, with Kubernetes' defaults where the pod says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// From the container's start to the first question.
    pub initial_delay: Duration,
    /// Between questions.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row that make it pass.
    pub successes: u32,
    /// Bad answers in a row that make it fail.
    pub failures: u32,
}

impl Rules {
    /// The numbers of a probe.
    pub(crate) fn of(probe: &Probe) -> Self {
        let secs = |value: Option<i32>, default: i32, least: i32| {
            Duration::from_secs(value.unwrap_or(default).clamp(least, SECS_MAX).unsigned_abs().into())
        };
        let count = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1).unsigned_abs();
        Self {
            initial_delay: secs(probe.initial_delay_seconds, 0, 0),
            // Zero means "not given" on the wire.
            period: secs(probe.period_seconds.filter(|&period| period > 0), 10, 1),
            timeout: secs(probe.timeout_seconds, 1, 1),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold.filter(|&failures| failures > 0), 3),
        }
    }
}

/// What is known from the answers so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// What the last full row of answers meant.
    pub verdict: Option<Verdict>,
    /// When to ask next.
    pub next_at: Timestamp,
    last: Verdict,
    in_a_row: u32,
    asked: u32,
}

impl State {
    /// When to ask for the first time.
    pub(crate) fn first_at(rules: &Rules, started_at: Timestamp) -> Timestamp {
        started_at.saturating_add(rules.initial_delay).unwrap_or(started_at)
    }

    /// What is known after one more answer. `before` is `None` with the first one.
    pub(crate) fn after(before: Option<&Self>, kind: Kind, rules: &Rules, answer: &Answer, now: Timestamp) -> Self {
        let said = if *answer == Answer::Healthy { Verdict::Passed } else { Verdict::Failed };
        let in_a_row = match before {
            Some(before) if before.last == said => before.in_a_row.saturating_add(1),
            _ => 1,
        };
        let asked = before.map_or(0, |before| before.asked).saturating_add(1);
        let enough = in_a_row >= if said == Verdict::Passed { rules.successes } else { rules.failures };
        let verdict = if enough { Some(said) } else { before.and_then(|before| before.verdict) };
        let ready = verdict == Some(Verdict::Passed);
        let wait = match kind {
            Kind::Readiness if !ready => eager(asked).min(rules.period),
            _ => rules.period,
        };
        // Counted from when it was due: a slow answer does not make the period longer.
        let due = before.map_or(now, |before| before.next_at).saturating_add(wait).unwrap_or(now);
        let next_at = if due > now { due } else { now.saturating_add(wait).unwrap_or(now) };
        Self { verdict, next_at, last: said, in_a_row, asked }
    }

    /// Whether a bad answer is worth an event: those of the first eager moments are not.
    pub(crate) fn is_steady(&self, kind: Kind, rules: &Rules) -> bool {
        kind != Kind::Readiness || eager(self.asked) >= rules.period
    }
}

fn eager(asked: u32) -> Duration {
    EAGER_FIRST.saturating_mul(1u32.checked_shl(asked.saturating_sub(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn rules(successes: u32, failures: u32) -> Rules {
        let secs = Duration::from_secs;
        Rules { initial_delay: secs(5), period: secs(10), timeout: secs(1), successes, failures }
    }

    /// Answers as a word of `+` and `-`, the verdict after each as a word of `P`, `F` and `.`.
    fn check(rules: Rules, answers: &str, expected: &str) {
        let mut state = None;
        let mut verdicts = String::new();
        for (index, letter) in answers.chars().enumerate() {
            let answer = if letter == '+' { Answer::Healthy } else { Answer::Unhealthy(String::new()) };
            let now = at(10 * index as i64);
            let next = State::after(state.as_ref(), Kind::Liveness, &rules, &answer, now);
            verdicts.push(match next.verdict {
                Some(Verdict::Passed) => 'P',
                Some(Verdict::Failed) => 'F',
                None => '.',
            });
            state = Some(next);
        }
        assert_eq!(verdicts, expected, "{answers}");
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        check(rules(1, 3), "+--+---+", "PPPPPPFP");
        check(rules(2, 1), "+-++", ".FFP");
        check(rules(1, 3), "---", "..F");
    }

    #[test]
    fn a_container_that_is_not_ready_yet_is_asked_eagerly() {
        let bad = Answer::Unhealthy(String::new());
        let mut state = State::after(None, Kind::Readiness, &rules(1, 3), &bad, at(0));
        let mut waits = vec![state.next_at.duration_since(at(0)).as_millis()];
        for _ in 0..9 {
            let now = state.next_at;
            state = State::after(Some(&state), Kind::Readiness, &rules(1, 3), &bad, now);
            waits.push(state.next_at.duration_since(now).as_millis());
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert!(state.is_steady(Kind::Readiness, &rules(1, 3)));
    }

    #[test]
    fn a_slow_answer_does_not_stretch_the_period() {
        let first = State::after(None, Kind::Liveness, &rules(1, 3), &Answer::Healthy, at(0));
        assert_eq!(first.next_at, at(10));
        let second = State::after(Some(&first), Kind::Liveness, &rules(1, 3), &Answer::Healthy, at(11));
        assert_eq!(second.next_at, at(20));
        let late = State::after(Some(&second), Kind::Liveness, &rules(1, 3), &Answer::Healthy, at(35));
        assert_eq!(late.next_at, at(45));
    }

    #[test]
    fn absurd_numbers_are_cut() {
        let probe = Probe {
            initial_delay_seconds: Some(-1),
            period_seconds: Some(0),
            timeout_seconds: Some(i32::MAX),
            success_threshold: Some(0),
            failure_threshold: Some(-3),
            ..Probe::default()
        };
        let rules = Rules::of(&probe);
        assert_eq!(rules.initial_delay, Duration::ZERO);
        assert_eq!((rules.period.as_secs(), rules.timeout.as_secs()), (10, 86_400));
        assert_eq!((rules.successes, rules.failures), (1, 3));
    }
}
