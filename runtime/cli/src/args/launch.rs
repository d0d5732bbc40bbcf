//! `create`, `run` and `exec` as they are typed.

use std::path::PathBuf;

use crate::args::{Command, Verb, Words};
use crate::error::Error;
use crate::user::User;

/// How a process is launched and who is told of it.
#[derive(Debug, Default)]
pub(crate) struct Launching {
    /// Where the terminal's master is sent.
    pub(crate) console_socket: Option<PathBuf>,
    /// Where the process' pidfd is sent.
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Where its id is written.
    pub(crate) pid_file: Option<PathBuf>,
    /// How many descriptors beyond the standard streams are passed on.
    pub(crate) preserve_fds: u32,
    /// Whether it is left to itself.
    pub(crate) detach: bool,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
}

#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) launching: Launching,
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) create: Create,
    /// Whether the container stays when its program has ended.
    pub(crate) keep: bool,
    pub(crate) no_subreaper: bool,
}

/// What is executed: a description from a file, or a command that takes the rest from the container's own process.
#[derive(Debug, Default)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) command: Vec<String>,
    pub(crate) launching: Launching,
    pub(crate) process: Option<PathBuf>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) env: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) user: Option<User>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) process_label: Option<String>,
    pub(crate) apparmor: Option<String>,
    pub(crate) no_new_privs: Option<bool>,
    pub(crate) caps: Vec<String>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) ignore_paused: bool,
}

/// What `create` knows, and `run` too.
macro_rules! create_flags {
    () => {
        "\
    -b, --bundle DIR        where config.json is (default: the current directory)
    --console-socket PATH   where a terminal's master is sent
    --pidfd-socket PATH     where the process' pidfd is sent
    --pid-file FILE         where the process' id is written
    --preserve-fds N        pass on N descriptors after the standard streams and those of $LISTEN_FDS
    --no-pivot              change the root without pivot_root(2): for a machine that runs from a ramdisk
    --no-new-keyring        keep the caller's session keyring"
    };
}

pub(super) const CREATE_FLAGS: &str = create_flags!();

pub(super) const RUN_FLAGS: &str = concat!(
    "\
    -d, --detach            return once the program has begun
    --keep                  do not delete the container when its program has ended
    --no-subreaper          do not adopt the container's orphans
    ",
    create_flags!()
);

pub(super) const EXEC_FLAGS: &str = "\
    -p, --process FILE         take all of the process from this file
    --cwd DIR                  its working directory in the container
    -e, --env NAME=VALUE       one more variable
    -t, --tty                  give it a terminal
    -u, --user UID[:GID]       its user and group
    -g, --additional-gids GID  one more group
    -d, --detach               return once the program has begun
    -c, --cap CAPABILITY       one more capability
    --no-new-privs             let it gain no privileges by what it executes
    --process-label LABEL      its SELinux label
    --apparmor PROFILE         its AppArmor profile
    --cgroup PATH              the cgroup below the container's that it runs in
    --ignore-paused            also if the container is paused; it runs when that is resumed
    --console-socket PATH      where a terminal's master is sent
    --pidfd-socket PATH        where the process' pidfd is sent
    --pid-file FILE            where the process' id is written
    --preserve-fds N           pass on N descriptors after the standard streams and those of $LISTEN_FDS";

impl Launching {
    /// Takes a flag if it is one of these.
    fn take(&mut self, flag: &str, words: &mut Words) -> Result<bool, Error> {
        match flag {
            "console-socket" => self.console_socket = Some(words.path(flag)?),
            "pidfd-socket" => self.pidfd_socket = Some(words.path(flag)?),
            "pid-file" => self.pid_file = Some(words.path(flag)?),
            "preserve-fds" => self.preserve_fds = words.parsed(flag)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What `create` and `run` have in common, as far as it was typed.
#[derive(Default)]
struct Typed {
    bundle: Option<PathBuf>,
    launching: Launching,
}

impl Typed {
    fn take(&mut self, flag: &str, words: &mut Words) -> Result<bool, Error> {
        match flag {
            "bundle" | "b" => self.bundle = Some(words.path(flag)?),
            "no-pivot" => self.launching.no_pivot = words.switch(flag)?,
            "no-new-keyring" => self.launching.no_new_keyring = words.switch(flag)?,
            _ => return self.launching.take(flag, words),
        }
        Ok(true)
    }

    fn finish(self, id: String) -> Result<Create, Error> {
        let bundle = self.bundle.unwrap_or_else(|| PathBuf::from("."));
        let bundle = std::path::absolute(&bundle).map_err(Error::file("find", bundle))?;
        Ok(Create { id, bundle, launching: self.launching })
    }
}

pub(super) fn create(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut typed = Typed::default();
    let Some(operands) = words.operands(|flag, words| typed.take(flag, words))? else { return Ok(verb.help()) };
    let mut create = typed.finish(verb.one(operands)?)?;
    create.launching.detach = true;
    Ok(Command::Create(create))
}

pub(super) fn run(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut typed = Typed::default();
    let (mut keep, mut no_subreaper) = (false, false);
    let operands = words.operands(|flag, words| {
        match flag {
            "detach" | "d" => typed.launching.detach = words.switch(flag)?,
            "keep" => keep = words.switch(flag)?,
            "no-subreaper" => no_subreaper = words.switch(flag)?,
            _ => return typed.take(flag, words),
        }
        Ok(true)
    })?;
    let Some(operands) = operands else { return Ok(verb.help()) };
    Ok(Command::Run(Run { create: typed.finish(verb.one(operands)?)?, keep, no_subreaper }))
}

/// Below the container's cgroup, also if it looks absolute; `/` is that itself. Controllers may stand before it.
fn cgroup(flag: &str, words: &mut Words) -> Result<Option<PathBuf>, Error> {
    let text = words.text(flag)?;
    let (controllers, below) = match text.split_once(':') {
        Some((controllers, below)) => (format!("{controllers}:"), below),
        None => (String::new(), text.as_str()),
    };
    let below = below.trim_matches('/');
    Ok(Some(below).filter(|below| !below.is_empty()).map(|below| PathBuf::from(controllers + below)))
}

pub(super) fn exec(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let mut exec = Exec::default();
    while let Some(flag) = words.flag_before_operand()? {
        match flag.as_str() {
            "process" | "p" => exec.process = Some(words.path(&flag)?),
            "cwd" => exec.cwd = Some(words.path(&flag)?),
            "env" | "e" => exec.env.push(words.text(&flag)?),
            "tty" | "t" => exec.tty = words.switch(&flag)?,
            "user" | "u" => exec.user = Some(words.parsed(&flag)?),
            "additional-gids" | "g" => exec.additional_gids.push(words.parsed(&flag)?),
            "detach" | "d" => exec.launching.detach = words.switch(&flag)?,
            "cap" | "c" => exec.caps.push(words.text(&flag)?),
            "no-new-privs" => exec.no_new_privs = Some(words.switch(&flag)?),
            "process-label" => exec.process_label = Some(words.text(&flag)?),
            "apparmor" => exec.apparmor = Some(words.text(&flag)?),
            "cgroup" => exec.cgroup = cgroup(&flag, words)?,
            "ignore-paused" => exec.ignore_paused = words.switch(&flag)?,
            _ if exec.launching.take(&flag, words)? => {}
            _ => return verb.other_flag(&flag),
        }
    }
    // What follows the id belongs to the command, flags and all.
    let mut operands = words.rest()?.into_iter();
    exec.id = operands.next().ok_or_else(|| verb.wrong_count("a minimum of 1"))?;
    exec.command = operands.collect();
    if exec.command.is_empty() && exec.process.is_none() {
        return Err(Error::of(verb.name, 255)(Error::Usage("process args cannot be empty".to_owned())));
    }
    Ok(Command::Exec(Box::new(exec)))
}
