//! What was typed, parsed into values: nothing behind here looks at a word again.
//!
//! | file | what it parses |
//! |---|---|
//! | `words` | words into flags and operands, as runc's parser does |
//! | `launch` | `create`, `run`, `exec` |
//! | `control` | the other verbs |
//! | `resources` | `update` |

mod control;
mod launch;
mod resources;
mod words;

use std::path::PathBuf;

use crate::error::Error;
use crate::log::Format;

pub(crate) use control::{Delete, Events, Kill, List, Listing, Ps, Spec};
pub(crate) use launch::{Create, Exec, Launching, Run};
pub(crate) use resources::{Source, Update};
pub(crate) use words::{Word, Words};

/// Where the containers' state is kept unless the caller says otherwise.
const ROOT: &str = "/run/berth-runtime";

/// What is said before the verb.
#[derive(Debug)]
pub(crate) struct Global {
    /// Where the containers' state is.
    pub(crate) root: PathBuf,
    /// Where errors and warnings go besides standard error.
    pub(crate) log: Option<PathBuf>,
    /// How they are written there.
    pub(crate) log_format: Format,
    /// Whether cgroups are asked of systemd.
    pub(crate) systemd_cgroup: bool,
}

/// A verb with all that it needs.
#[derive(Debug)]
pub(crate) enum Command {
    Create(Create),
    Run(Run),
    Exec(Box<Exec>),
    Start {
        id: String,
    },
    Kill(Kill),
    Delete(Delete),
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Update(Update),
    State {
        id: String,
    },
    List(List),
    Ps(Ps),
    Events(Events),
    Spec(Spec),
    Features,
    Version,
    /// Of one verb, or of all.
    Help(Option<&'static Verb>),
}

/// A verb as the command line knows it.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    /// Its operands, for people.
    pub(crate) operands: &'static str,
    /// What it does, for people.
    pub(crate) summary: &'static str,
    /// Its flags, for people.
    pub(crate) flags: &'static str,
    parse: fn(&'static Verb, &mut Words) -> Result<Command, Error>,
}

/// All verbs, in the order of a container's life.
pub(crate) const VERBS: &[Verb] = &[
    Verb {
        name: "create",
        operands: "ID",
        summary: "set a container up; its program waits for start",
        flags: launch::CREATE_FLAGS,
        parse: launch::create,
    },
    Verb {
        name: "start",
        operands: "ID",
        summary: "let a created container's program begin",
        flags: "",
        parse: control::start,
    },
    Verb {
        name: "run",
        operands: "ID",
        summary: "create, start, wait for the end, delete",
        flags: launch::RUN_FLAGS,
        parse: launch::run,
    },
    Verb {
        name: "exec",
        operands: "ID COMMAND [ARGUMENT ...] | -p process.json ID",
        summary: "run one more process in a container",
        flags: launch::EXEC_FLAGS,
        parse: launch::exec,
    },
    Verb { name: "state", operands: "ID", summary: "show a container as JSON", flags: "", parse: control::state },
    Verb {
        name: "list",
        operands: "",
        summary: "show all containers below the root",
        flags: control::LIST_FLAGS,
        parse: control::list,
    },
    Verb {
        name: "ps",
        operands: "ID [OPTION-OF-PS ...]",
        summary: "show a container's processes",
        flags: control::PS_FLAGS,
        parse: control::ps,
    },
    Verb {
        name: "events",
        operands: "ID",
        summary: "show a container's figures, and when it ran out of memory, as lines of JSON",
        flags: control::EVENTS_FLAGS,
        parse: control::events,
    },
    Verb {
        name: "kill",
        operands: "ID [SIGNAL]",
        summary: "send a signal, TERM unless said otherwise, to a container's first process",
        flags: control::KILL_FLAGS,
        parse: control::kill,
    },
    Verb { name: "pause", operands: "ID", summary: "freeze all processes", flags: "", parse: control::pause },
    Verb { name: "resume", operands: "ID", summary: "thaw all processes", flags: "", parse: control::resume },
    Verb {
        name: "update",
        operands: "ID",
        summary: "change a container's limits",
        flags: resources::FLAGS,
        parse: resources::update,
    },
    Verb {
        name: "delete",
        operands: "ID",
        summary: "remove what is left of a container",
        flags: control::DELETE_FLAGS,
        parse: control::delete,
    },
    Verb {
        name: "spec",
        operands: "",
        summary: "write a config.json to begin with",
        flags: control::SPEC_FLAGS,
        parse: control::spec,
    },
    Verb {
        name: "features",
        operands: "",
        summary: "show what this runtime can do as JSON",
        flags: "",
        parse: control::features,
    },
];

/// The global flags, for people.
pub(crate) const GLOBAL_FLAGS: &str = "\
    --root DIR            where the containers' state is kept (default /run/berth-runtime)
    --log FILE            where errors and warnings are written besides standard error
    --log-format FORMAT   text (default) or json
    --systemd-cgroup      ask systemd for cgroups: cgroupsPath is SLICE:PREFIX:NAME
    --debug --rootless VALUE --criu FILE
                          taken as runc takes them, without effect
    -v, --version
    -h, --help";

impl Global {
    /// Takes the flags before the verb.
    pub(crate) fn parse(words: &mut Words) -> Result<Self, Error> {
        let mut global =
            Self { root: PathBuf::from(ROOT), log: None, log_format: Format::default(), systemd_cgroup: false };
        while let Some(flag) = words.flag_before_operand()? {
            match flag.as_str() {
                "root" => global.root = words.path(&flag)?,
                "log" => global.log = Some(words.path(&flag)?).filter(|path| !path.as_os_str().is_empty()),
                "log-format" => global.log_format = words.parsed(&flag)?,
                "systemd-cgroup" => global.systemd_cgroup = words.switch(&flag)?,
                "debug" => drop(words.switch(&flag)?),
                "rootless" | "criu" => drop(words.value(&flag)?),
                // They stand where a verb stands.
                "version" | "v" | "help" | "h" => {
                    words.push_back(&flag);
                    break;
                }
                _ => return Err(Error::unknown_flag(&flag)),
            }
        }
        global.root = std::path::absolute(&global.root).map_err(Error::file("find", &global.root))?;
        Ok(global)
    }
}

impl Command {
    /// Takes the verb and all behind it.
    pub(crate) fn parse(words: &mut Words) -> Result<Self, Error> {
        let verb = match words.next()? {
            None => return Ok(Self::Help(None)),
            Some(Word::Operand(verb)) => verb.into_string().map_err(Error::not_text)?,
            Some(Word::Flag(flag)) => flag,
        };
        match (verb.as_str(), VERBS.iter().find(|known| known.name == verb)) {
            (_, Some(known)) => (known.parse)(known, words),
            ("version" | "v", None) => Ok(Self::Version),
            ("help" | "h", None) => {
                Ok(Self::Help(words.operand()?.and_then(|verb| VERBS.iter().find(|it| it.name == verb))))
            }
            _ => Err(Error::UnknownVerb { verb }),
        }
    }

    /// Whether it puts a process of this program's memory into a container.
    pub(crate) fn makes_processes(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Run(_) | Self::Exec(_))
    }
}

impl Verb {
    /// What a flag that the verb does not have comes to.
    fn other_flag(&'static self, flag: &str) -> Result<Command, Error> {
        if words::is_help(flag) { Ok(self.help()) } else { Err(Error::unknown_flag(flag)) }
    }

    fn help(&'static self) -> Command {
        Command::Help(Some(self))
    }

    /// No operand.
    fn none(&self, operands: &[String]) -> Result<(), Error> {
        if operands.is_empty() { Ok(()) } else { Err(self.wrong_count("exactly 0")) }
    }

    /// The only operand.
    fn one(&self, operands: Vec<String>) -> Result<String, Error> {
        match <[String; 1]>::try_from(operands) {
            Ok([one]) => Ok(one),
            Err(_) => Err(self.wrong_count("exactly 1")),
        }
    }

    fn wrong_count(&self, wanted: &'static str) -> Error {
        Error::Operands { verb: self.name, wanted }
    }
}
