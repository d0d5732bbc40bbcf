//! Hooks (runtime spec, config.md#posix-platform-hooks): programs that are told of a container's life.
//!
//! | hook | when | where | its failure |
//! |---|---|---|---|
//! | `prestart`, `createRuntime` | the namespaces are there, nothing is mounted | the machine | ends the creation |
//! | `createContainer` | everything is mounted, the root is still the machine's | the container's namespaces | ends the creation |
//! | `startContainer` | before the program is executed | the container | ends the start |
//! | `poststart` | after the program was executed | the machine | ends the container |
//! | `poststop` | after the container was deleted | the machine | is a warning |
//!
//! Each gets the container's state on its standard input; what it writes to its standard error is told if it fails.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Seek, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use berth_sys::process::{Exit, Program, Said, run_program};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{Hook, Hooks};
use serde::Serialize;

use crate::OCI_VERSION;
use crate::error::{self, Error};
use crate::limits::{HOOK_DEADLINE, LIST_MAX, MACHINE_PATH_BYTES_MAX, STORY_BYTES_MAX};
use crate::state::{Record, Status};

/// The container's state as hooks and listeners of seccomp filters are told it (runtime spec, runtime.md#state).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Told<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: Status,
    pid: i32,
    bundle: &'a Path,
    annotations: &'a BTreeMap<String, String>,
}

impl Record {
    pub(crate) fn told(&self, status: Status, pid: i32) -> Told<'_> {
        Told {
            oci_version: OCI_VERSION,
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }
}

/// A hook laid out so that running it allocates nothing.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) name: String,
    program: Program,
    deadline_ms: i32,
}

/// What a hook reads: a file of its own in memory, filled when the state is known.
#[derive(Debug)]
pub(crate) struct Input(File);

impl Input {
    pub(crate) fn new() -> Result<Self, Error> {
        let file = memfd_create(c"state", MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| Error::file("make", "a file in memory")(errno.into()))?;
        Ok(Self(file.into()))
    }

    pub(crate) fn fill(&self, told: &Told<'_>) -> Result<(), Error> {
        let failed = |error| Error::file("write", "a hook's input")(error);
        let text = serde_json::to_vec(told).map_err(|error| failed(error.into()))?;
        (&self.0).write_all(&text).map_err(failed)
    }

    /// A descriptor of it for the process that runs the hooks.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, Error> {
        self.0.as_fd().try_clone_to_owned().map_err(Error::Spawn)
    }
}

/// Why a hook failed, as a sentence that goes on from its name. Written without allocating; what has no room is left out.
#[derive(Debug)]
pub(crate) struct Story {
    bytes: [u8; STORY_BYTES_MAX],
    length: usize,
}

impl Default for Story {
    fn default() -> Self {
        Self { bytes: [0; STORY_BYTES_MAX], length: 0 }
    }
}

impl Story {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, more: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let fits = more.len().min(room.len());
        room[..fits].copy_from_slice(&more[..fits]);
        self.length += fits;
    }

    fn tell(&mut self, hook: &Ready, outcome: nix::Result<Exit>, said: &Said) {
        self.push(hook.name.as_bytes());
        // Writing to a buffer that leaves out what has no room cannot fail.
        let _ = match outcome {
            Ok(Exit::Code(code)) => write!(self, " exited with code {code}"),
            Ok(Exit::Signal(signal)) => write!(self, " was ended by signal {signal}"),
            Err(Errno::ETIMEDOUT) => write!(self, " was killed after {} s", hook.deadline_ms / 1000),
            Err(errno) => write!(self, " cannot be run: {}", errno.desc()),
        };
        let said = said.bytes().trim_ascii();
        if !said.is_empty() {
            self.push(b": ");
            self.push(said);
        }
    }
}

impl fmt::Write for Story {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Runs hooks one after the other, up to the first that fails; why, is in its story. Allocates nothing.
pub(crate) fn run(hooks: &[Ready], input: &OwnedFd, story: &mut Story) -> nix::Result<()> {
    for hook in hooks {
        let mut said = Said::default();
        let outcome = nix::unistd::lseek(input, 0, nix::unistd::Whence::SeekSet)
            .and_then(|_| run_program(&hook.program, input, hook.deadline_ms, &mut said));
        if outcome != Ok(Exit::Code(0)) {
            story.tell(hook, outcome, &said);
            return Err(outcome.err().unwrap_or(Errno::ECANCELED));
        }
    }
    Ok(())
}

/// The longest that these can take.
pub(crate) fn time_max(hooks: &[Ready]) -> Duration {
    hooks.iter().map(|hook| Duration::from_millis(u64::from(hook.deadline_ms.unsigned_abs()))).sum()
}

/// Lays hooks out; `kind` is their field's name below `hooks`.
pub(crate) fn ready(hooks: &Option<Vec<Hook>>, kind: &str) -> Result<Vec<Ready>, Error> {
    let hooks = hooks.as_deref().unwrap_or_default();
    if hooks.len() > LIST_MAX {
        return Err(Error::spec(format!("hooks.{kind}"), format!("has more than {LIST_MAX} entries")));
    }
    hooks.iter().enumerate().map(|(number, hook)| one(hook, &format!("hooks.{kind}[{number}]"))).collect()
}

fn one(hook: &Hook, field: &str) -> Result<Ready, Error> {
    if !hook.path().is_absolute() {
        return Err(Error::spec(format!("{field}.path"), format!("{} is not absolute", hook.path().display())));
    }
    if hook.path().as_os_str().len() > MACHINE_PATH_BYTES_MAX {
        return Err(Error::spec(format!("{field}.path"), "is too long"));
    }
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::spec(field, "has a zero byte"));
    let list =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|it| text(it.as_bytes())).collect::<Result<Vec<_>, _>>();
    let path = text(hook.path().as_os_str().as_bytes())?;
    let mut arguments = list(hook.args())?;
    if arguments.is_empty() {
        arguments.push(path.clone());
    }
    let deadline_ms = match hook.timeout() {
        None => HOOK_DEADLINE.as_millis() as i32,
        Some(seconds) if seconds > 0 => i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX),
        Some(seconds) => return Err(Error::spec(format!("{field}.timeout"), format!("{seconds} is not above zero"))),
    };
    let program = Program::new(vec![path], arguments, list(hook.env())?);
    Ok(Ready { name: format!("{} ({field})", hook.path().display()), program, deadline_ms })
}

/// Refuses hooks that make no sense, before anything is made.
pub(crate) fn check(hooks: &Hooks) -> Result<(), Error> {
    for (kind, list) in all(hooks) {
        ready(list, kind)?;
    }
    Ok(())
}

#[allow(deprecated, reason = "prestart is, and clients still use it")]
fn all(hooks: &Hooks) -> [(&'static str, &Option<Vec<Hook>>); 6] {
    [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ]
}

/// Whether there is a hook to run before anything is mounted.
pub(crate) fn has_early(hooks: &Hooks) -> bool {
    all(hooks)[..2].iter().any(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty()))
}

/// Runs the hooks of these kinds on the machine, with this state, up to the first that fails.
pub(crate) fn run_here(hooks: &Hooks, wanted: &[&str], told: &Told<'_>) -> Result<(), Error> {
    for (kind, list) in all(hooks).into_iter().filter(|(kind, _)| wanted.contains(kind)) {
        ready(list, kind)?.iter().try_for_each(|hook| run_one_here(hook, told))?;
    }
    Ok(())
}

impl Record {
    /// Runs the `poststop` hooks, whose failures are in nobody's way; all are run, and each failure is told.
    pub(crate) fn run_poststop(&self, pid: i32) -> Vec<String> {
        let told = self.told(Status::Stopped, pid);
        let list = self.hooks.as_ref().map(|hooks| ready(hooks.poststop(), "poststop").unwrap_or_default());
        let failures = list.into_iter().flatten().filter_map(|hook| run_one_here(&hook, &told).err());
        failures.map(|error| error::chain(&error)).collect()
    }
}

fn run_one_here(hook: &Ready, told: &Told<'_>) -> Result<(), Error> {
    let input = Input::new()?;
    input.fill(told)?;
    (&input.0).rewind().map_err(Error::file("rewind", "a hook's input"))?;
    let mut story = Story::default();
    run(std::slice::from_ref(hook), &input.descriptor()?, &mut story)
        .map_err(|_| Error::Hook { story: String::from_utf8_lossy(story.bytes()).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_hooks_waits_for_all_of_them() {
        let hooks = r#"[{"path":"/bin/true","timeout":90},{"path":"/bin/true"}]"#;
        let laid_out = ready(&serde_json::from_str(hooks).unwrap(), "startContainer").unwrap();
        assert_eq!(time_max(&laid_out), Duration::from_secs(90) + HOOK_DEADLINE);
        assert_eq!(time_max(&[]), Duration::ZERO);
    }
}
