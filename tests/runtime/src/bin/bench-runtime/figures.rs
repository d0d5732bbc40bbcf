//! Medians, least values and ratios.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Samples by what was measured, in the order in which each came first.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    order: Vec<String>,
    samples: BTreeMap<String, Vec<Sample>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    wall: Duration,
    /// Of the processes that ended meanwhile.
    cpu: Duration,
}

impl Figures {
    /// Measures something.
    pub(crate) fn measure<T>(&mut self, what: impl Into<String>, work: impl FnOnce() -> T) -> T {
        let (cpu, began) = (cpu_of_children(), Instant::now());
        let result = work();
        let sample = Sample { wall: began.elapsed(), cpu: cpu_of_children().saturating_sub(cpu) };
        self.add(what.into(), sample);
        result
    }

    /// The sum of the last samples of some, as a figure of its own.
    pub(crate) fn sum(&mut self, what: &str, parts: &[String]) {
        let last = |part: &String| self.samples.get(part).and_then(|all| all.last()).copied();
        let parts: Vec<_> = parts.iter().filter_map(last).collect();
        let sample = Sample {
            wall: parts.iter().map(|sample| sample.wall).sum(),
            cpu: parts.iter().map(|sample| sample.cpu).sum(),
        };
        self.add(what.to_owned(), sample);
    }

    fn add(&mut self, what: String, sample: Sample) {
        if !self.samples.contains_key(&what) {
            self.order.push(what.clone());
        }
        self.samples.entry(what).or_default().push(sample);
    }

    /// Takes over what another has.
    pub(crate) fn take(&mut self, other: Self) {
        for what in other.order {
            for sample in &other.samples[&what] {
                self.add(what.clone(), *sample);
            }
        }
    }

    pub(crate) fn print(&self) {
        println!("{:<26}{:>12}{:>12}{:>14}", "milliseconds", "median", "least", "CPU median");
        for what in &self.order {
            let walls = self.sorted(what, |sample| sample.wall);
            let cpus = self.sorted(what, |sample| sample.cpu);
            let row = [walls[walls.len() / 2], walls[0], cpus[cpus.len() / 2]].map(|it| it.as_secs_f64() * 1000.0);
            println!("{what:<26}{:>12.2}{:>12.2}{:>14.2}", row[0], row[1], row[2]);
        }
    }

    /// Prints one figure's median as a multiple of another's, and the goal.
    pub(crate) fn compare(&self, what: &str, than: &str, bar: f64) {
        let median = |what: &str| {
            let walls = self.samples.contains_key(what).then(|| self.sorted(what, |sample| sample.wall))?;
            Some(walls[walls.len() / 2].as_secs_f64())
        };
        if let (Some(one), Some(other)) = (median(what), median(than)) {
            println!("{what:<20} = {:>5.2} x {than:<14} (goal: at most {bar:.2})", one / other);
        }
    }

    fn sorted(&self, what: &str, part: impl Fn(&Sample) -> Duration) -> Vec<Duration> {
        let mut all: Vec<_> = self.samples[what].iter().map(part).collect();
        all.sort_unstable();
        all
    }
}

fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("every kernel has it");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}
