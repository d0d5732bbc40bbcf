//! The verbs that make no process, as they are typed.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::args::{Command, Verb, Words};
use crate::error::Error;
use crate::quantity;
use crate::signal::Signal;

/// How often `events` tells figures unless the caller says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) signal: Signal,
    /// Every process instead of the first.
    pub(crate) all: bool,
}

#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) id: String,
    pub(crate) force: bool,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Listing {
    #[default]
    Table,
    Json,
}

#[derive(Debug)]
pub(crate) struct List {
    pub(crate) listing: Listing,
    /// Only the ids.
    pub(crate) quiet: bool,
}

#[derive(Debug)]
pub(crate) struct Ps {
    pub(crate) id: String,
    pub(crate) listing: Listing,
    /// What ps(1) is told.
    pub(crate) options: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) id: String,
    pub(crate) interval: Duration,
    /// Figures once, and nothing else.
    pub(crate) once: bool,
}

#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) bundle: PathBuf,
    pub(crate) rootless: bool,
}

pub(super) const KILL_FLAGS: &str = "    -a, --all   to every process of the container";
pub(super) const DELETE_FLAGS: &str = "    -f, --force   kill it first if it runs; success if it does not exist";
pub(super) const LIST_FLAGS: &str = "\
    -f, --format FORMAT   table (default) or json
    -q, --quiet           only the ids";
pub(super) const PS_FLAGS: &str = "    -f, --format FORMAT   table (default) or json";
pub(super) const EVENTS_FLAGS: &str = "\
    --interval TIME   how often (default 5s)
    --stats           figures once, and end";
pub(super) const SPEC_FLAGS: &str = "\
    -b, --bundle DIR   where it is written (default: the current directory)
    --rootless         for a container of a user who is not root";

impl FromStr for Listing {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err("it is table or json"),
        }
    }
}

/// A verb with an id and no flags.
fn of_id(verb: &'static Verb, words: &mut Words, make: fn(String) -> Command) -> Result<Command, Error> {
    let Some(operands) = words.operands(|_, _| Ok(false))? else { return Ok(verb.help()) };
    verb.one(operands).map(make)
}

pub(super) fn start(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    of_id(verb, words, |id| Command::Start { id })
}

pub(super) fn state(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    of_id(verb, words, |id| Command::State { id })
}

pub(super) fn pause(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    of_id(verb, words, |id| Command::Pause { id })
}

pub(super) fn resume(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    of_id(verb, words, |id| Command::Resume { id })
}

pub(super) fn features(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let Some(operands) = words.operands(|_, _| Ok(false))? else { return Ok(verb.help()) };
    verb.none(&operands)?;
    Ok(Command::Features)
}

pub(super) fn kill(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut all = false;
    let operands = words.operands(|flag, words| {
        match flag {
            "all" | "a" => all = words.switch(flag)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(operands) = operands else { return Ok(verb.help()) };
    let (id, signal) = match <[String; 2]>::try_from(operands) {
        Ok([id, signal]) => (id, signal.parse().map_err(Error::Usage)?),
        Err(operands) if operands.is_empty() => return Err(verb.wrong_count("a minimum of 1")),
        Err(operands) if operands.len() > 2 => return Err(verb.wrong_count("a maximum of 2")),
        Err(operands) => (verb.one(operands)?, Signal::TERM),
    };
    Ok(Command::Kill(Kill { id, signal, all }))
}

pub(super) fn delete(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut force = false;
    let operands = words.operands(|flag, words| {
        match flag {
            "force" | "f" => force = words.switch(flag)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(operands) = operands else { return Ok(verb.help()) };
    Ok(Command::Delete(Delete { id: verb.one(operands)?, force }))
}

pub(super) fn list(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut list = List { listing: Listing::default(), quiet: false };
    let operands = words.operands(|flag, words| {
        match flag {
            "format" | "f" => list.listing = words.parsed(flag)?,
            "quiet" | "q" => list.quiet = words.switch(flag)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(operands) = operands else { return Ok(verb.help()) };
    verb.none(&operands)?;
    Ok(Command::List(list))
}

pub(super) fn ps(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut listing = Listing::default();
    while let Some(flag) = words.flag_before_operand()? {
        match flag.as_str() {
            "format" | "f" => listing = words.parsed(&flag)?,
            _ => return verb.other_flag(&flag),
        }
    }
    let mut operands = words.rest()?.into_iter();
    let id = operands.next().ok_or_else(|| verb.wrong_count("a minimum of 1"))?;
    Ok(Command::Ps(Ps { id, listing, options: operands.collect() }))
}

pub(super) fn events(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let (mut interval, mut once) = (INTERVAL, false);
    let operands = words.operands(|flag, words| {
        match flag {
            "interval" => {
                let text = words.text(flag)?;
                interval =
                    quantity::duration(&text).ok_or_else(|| Error::value(flag, &text, &"it is like 5s or 1m30s"))?;
            }
            "stats" => once = words.switch(flag)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if interval.is_zero() {
        return Err(Error::Usage("duration interval must be greater than 0".to_owned()));
    }
    let Some(operands) = operands else { return Ok(verb.help()) };
    Ok(Command::Events(Events { id: verb.one(operands)?, interval, once }))
}

pub(super) fn spec(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut spec = Spec { bundle: PathBuf::from("."), rootless: false };
    let operands = words.operands(|flag, words| {
        match flag {
            "bundle" | "b" => spec.bundle = words.path(flag)?,
            "rootless" => spec.rootless = words.switch(flag)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(operands) = operands else { return Ok(verb.help()) };
    verb.none(&operands)?;
    Ok(Command::Spec(spec))
}
