//! Plugins that are programs of others: found in the plugin folders, run with the specification's environment, the
//! configuration on their standard input, the result on their standard output (CNI specification, section 2 and 3).

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_sys::process;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::attachment::Owner;
use crate::call::Call;
use crate::limits::{PLUGIN_OUTPUT_BYTES_MAX, PLUGIN_RUN_MAX, PLUGIN_STDERR_BYTES_MAX};
use crate::site::Site;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;
use crate::{Dirs, Error};

/// The first version that knows GC and STATUS.
const VERSION_OF_GC: &str = "1.1.0";
/// Number of an error that has none of its own.
const CODE_UNKNOWN: u32 = 999;

/// A foreign plugin and its configuration.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    kind: String,
    config: Map<String, Value>,
}

/// The error that a plugin prints.
#[derive(Debug, Deserialize)]
struct Complaint {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl Foreign {
    /// A plugin of this type, which is the name of a program; `config` is the plugin object that it gets.
    pub(crate) fn parse(kind: &str, field: &str, config: &Fields<'_>) -> Result<Self, Error> {
        if kind.contains('/') || kind == "." || kind == ".." || kind.contains('\0') {
            let problem = format!("{kind:?} is no name of a program");
            return Err(Error::Config { field: field.to_owned(), problem });
        }
        Ok(Self { kind: kind.to_owned(), config: config.map().clone() })
    }

    pub(crate) fn add(&self, call: &Call<'_>, previous: Option<&AddResult>) -> Result<AddResult, Error> {
        let output = self.run("ADD", call, previous)?;
        let what = format!("the result of plugin {}", self.kind);
        serde_json::from_slice(&output).map_err(|source| Error::Decode { what, source })
    }

    pub(crate) fn del(&self, call: &Call<'_>, result: Option<&AddResult>) -> Result<(), Error> {
        self.run("DEL", call, result).map(drop)
    }

    pub(crate) fn check(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        self.run("CHECK", call, Some(result)).map(drop)
    }

    /// GC, where the plugin's version has it.
    pub(crate) fn gc(&self, site: Site<'_>, valid: &[Owner]) -> Result<(), Error> {
        if site.version != VERSION_OF_GC {
            return Ok(());
        }
        let mut config = self.config(site);
        let valid: Vec<_> =
            valid.iter().map(|owner| json!({"containerID": owner.container_id, "ifname": owner.ifname})).collect();
        config.insert("cni.dev/valid-attachments".to_owned(), Value::Array(valid));
        self.execute("GC", &[], site.dirs, config).map(drop)
    }

    /// STATUS, where the plugin's version has it; else whether there is such a program.
    pub(crate) fn status(&self, site: Site<'_>) -> Result<(), Error> {
        if site.version != VERSION_OF_GC {
            return self.find(site.dirs).map(drop);
        }
        self.execute("STATUS", &[], site.dirs, self.config(site)).map(drop)
    }

    fn config(&self, site: Site<'_>) -> Map<String, Value> {
        let mut config = self.config.clone();
        config.insert("name".to_owned(), site.network.into());
        config.insert("cniVersion".to_owned(), site.version.into());
        config
    }

    fn run(&self, verb: &str, call: &Call<'_>, previous: Option<&AddResult>) -> Result<Vec<u8>, Error> {
        let mut config = self.config(call.site);
        let offered = runtime_config(&config, &call.attachment.runtime_config);
        if !offered.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(offered));
        }
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous.in_version(call.site.version)?);
        }
        let args = call.attachment.args.iter().map(|(key, value)| format!("{key}={value}"));
        let environment = [
            ("CNI_CONTAINERID", call.attachment.container_id.clone()),
            ("CNI_NETNS", call.attachment.netns.to_string_lossy().into_owned()),
            ("CNI_IFNAME", call.attachment.ifname.clone()),
            ("CNI_ARGS", args.collect::<Vec<_>>().join(";")),
        ];
        self.execute(verb, &environment, call.site.dirs, config)
    }

    fn execute(
        &self,
        verb: &str,
        environment: &[(&str, String)],
        dirs: &Dirs,
        config: Map<String, Value>,
    ) -> Result<Vec<u8>, Error> {
        let program = self.find(dirs)?;
        let failed = |source| Error::Io { action: "run the plugin", path: program.clone(), source };
        let search = dirs.bin.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(":");
        let mut command = Command::new(&program);
        command.env("CNI_COMMAND", verb).env("CNI_PATH", search);
        command.envs(environment.iter().map(|(key, value)| (*key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let input = Value::Object(config).to_string();
        let talk = converse(&mut child, input.as_bytes(), Instant::now() + PLUGIN_RUN_MAX);
        if talk.is_err() {
            // It is a group of its own: what it started ends with it.
            let group = nix::unistd::Pid::from_raw(child.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let status = child.wait().map_err(failed)?;
        let (output, errors) = talk.map_err(failed)?;
        if status.success() {
            return Ok(output);
        }
        let start = errors.len().saturating_sub(PLUGIN_STDERR_BYTES_MAX);
        let stderr = String::from_utf8_lossy(&errors[start..]).trim().to_owned();
        let complaint = serde_json::from_slice(&output).unwrap_or_else(|_| Complaint {
            code: CODE_UNKNOWN,
            msg: format!("{verb} failed with {status}"),
            details: String::from_utf8_lossy(&output[..output.len().min(PLUGIN_STDERR_BYTES_MAX)]).trim().to_owned(),
        });
        let Complaint { code, msg, details } = complaint;
        Err(Error::Plugin { kind: self.kind.clone(), code, message: msg, details, stderr })
    }

    /// The program, in the first folder that has it.
    pub(crate) fn find(&self, dirs: &Dirs) -> Result<PathBuf, Error> {
        dirs.bin.iter().map(|folder| folder.join(&self.kind)).find(|path| path.is_file()).ok_or_else(|| {
            let folders: Vec<_> = dirs.bin.iter().map(|folder| folder.display().to_string()).collect();
            let searched =
                if folders.is_empty() { "any folder: none is configured".to_owned() } else { folders.join(", ") };
            Error::PluginMissing { kind: self.kind.clone(), searched }
        })
    }
}

/// The part of `runtimeConfig` that a plugin says it is capable of.
pub(crate) fn runtime_config(config: &Map<String, Value>, offered: &Map<String, Value>) -> Map<String, Value> {
    let capable = |name: &str| config.get("capabilities").and_then(|all| all.get(name)) == Some(&Value::Bool(true));
    offered.iter().filter(|(name, _)| capable(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The end of a plugin's error: what else it said.
pub(crate) fn tail(details: &str, stderr: &str) -> String {
    [details, stderr].iter().filter(|text| !text.is_empty()).map(|text| format!("; {text}")).collect()
}

/// Writes the input, reads both outputs, all at once and within the deadline; ends when the program has.
fn converse(child: &mut Child, input: &[u8], deadline: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let exit = process::pidfd_open(child.id() as i32)?;
    let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    for fd in [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)] {
        let Some(fd) = fd else { continue };
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?)))?;
    }
    let (mut output, mut errors, mut written) = (Vec::new(), Vec::new(), 0);
    let mut exited = false;
    while !exited || stdout.is_some() || stderr.is_some() {
        // A program that has ended is not waited for, even if it left others behind that hold its outputs open.
        let wait = if exited { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        let mut ready = vec![PollFd::new(exit.as_fd(), PollFlags::POLLIN)];
        ready.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        ready.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        ready.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        let count = match poll(&mut ready, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let ended = ready[0].any().unwrap_or(false);
        if count == 0 && !exited {
            let problem = format!("it has not ended within {} s", PLUGIN_RUN_MAX.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(&input[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It does not want to read it all.
                Err(_) => written = input.len(),
            }
        }
        if written == input.len() {
            stdin = None;
        }
        let open = [drain(&mut stdout, &mut output)?, drain(&mut stderr, &mut errors)?];
        if exited && open == [Progress::Waiting; 2] {
            break;
        }
        exited |= ended;
    }
    Ok((output, errors))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Read,
    Waiting,
}

/// Reads what is there; closes the pipe at its end.
fn drain(pipe: &mut Option<impl Read + AsFd>, into: &mut Vec<u8>) -> io::Result<Progress> {
    let mut progress = Progress::Waiting;
    let mut chunk = [0; 8192];
    while let Some(open) = pipe {
        match open.read(&mut chunk) {
            Ok(0) => *pipe = None,
            Ok(length) if into.len() + length > PLUGIN_OUTPUT_BYTES_MAX => {
                let problem = format!("it says more than {PLUGIN_OUTPUT_BYTES_MAX} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            Ok(length) => {
                into.extend(&chunk[..length]);
                progress = Progress::Read;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, input: &[u8], patience: Duration) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let talk = converse(&mut child, input, Instant::now() + patience);
        child.kill()?;
        child.wait()?;
        talk
    }

    #[test]
    fn a_program_may_talk_while_it_listens() {
        let input = vec![b'x'; 300_000];
        let (output, errors) = run("echo careful >&2; cat", &input, Duration::from_secs(20)).unwrap();
        assert_eq!((output.len(), errors.as_slice()), (input.len(), &b"careful\n"[..]));
    }

    #[test]
    fn a_program_need_not_listen() {
        let (output, _) = run("exec 0<&-; echo done", &vec![b'x'; 300_000], Duration::from_secs(20)).unwrap();
        assert_eq!(output, b"done\n");
    }

    #[test]
    fn whoever_a_program_leaves_behind_is_not_waited_for() {
        let (output, _) = run("sleep 3 & echo done", b"", Duration::from_secs(20)).unwrap();
        assert_eq!(output, b"done\n");
    }

    #[test]
    fn a_program_that_does_not_end_or_says_too_much_is_an_error() {
        let error = run("sleep 20", b"", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = run("exec cat /dev/zero", b"", Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
