//! `update` as it is typed: flags into the words of the runtime specification.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::args::{Command, Verb, Words};
use crate::error::Error;
use crate::quantity;

#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) id: String,
    pub(crate) source: Source,
}

/// Where the limits are said.
#[derive(Debug)]
pub(crate) enum Source {
    /// As JSON, on standard input.
    StandardInput,
    /// As JSON, in a file.
    File(PathBuf),
    /// By flags.
    Flags(Box<LinuxResources>),
}

pub(super) const FLAGS: &str = "\
    -r, --resources FILE        take them from this file, or - for standard input, and from no other flag
    --blkio-weight WEIGHT       10 to 1000
    --cpu-period TIME           in microseconds
    --cpu-quota TIME            in microseconds; -1 for no limit
    --cpu-burst TIME            in microseconds
    --cpu-share SHARES
    --cpu-rt-period TIME        in microseconds
    --cpu-rt-runtime TIME       in microseconds
    --cpu-idle 0|1
    --cpuset-cpus LIST
    --cpuset-mems LIST
    --memory BYTES              also 64M and the like; -1 for no limit
    --memory-reservation BYTES
    --memory-swap BYTES         memory and swap together
    --kernel-memory BYTES       taken without effect, as runc does
    --kernel-memory-tcp BYTES   taken without effect, as runc does
    --pids-limit COUNT          -1 for no limit
    --l3-cache-schema, --mem-bw-schema SCHEMA
                                refused: this runtime controls neither";

/// The groups that any flag was given of.
#[derive(Default)]
struct Typed {
    cpu: Option<LinuxCpu>,
    memory: Option<LinuxMemory>,
    pids: Option<LinuxPids>,
    block_io: Option<LinuxBlockIo>,
}

impl Typed {
    fn take(&mut self, flag: &str, words: &mut Words) -> Result<bool, Error> {
        match flag {
            "cpu-period" => drop(self.cpu().set_period(changed(words.parsed(flag)?))),
            "cpu-quota" => drop(self.cpu().set_quota(changed(words.parsed(flag)?))),
            "cpu-burst" => drop(self.cpu().set_burst(Some(words.parsed(flag)?))),
            "cpu-share" => drop(self.cpu().set_shares(changed(words.parsed(flag)?))),
            "cpu-rt-period" => drop(self.cpu().set_realtime_period(changed(words.parsed(flag)?))),
            "cpu-rt-runtime" => drop(self.cpu().set_realtime_runtime(changed(words.parsed(flag)?))),
            "cpu-idle" => drop(self.cpu().set_idle(Some(words.parsed(flag)?))),
            "cpuset-cpus" => drop(self.cpu().set_cpus(Some(words.text(flag)?))),
            "cpuset-mems" => drop(self.cpu().set_mems(Some(words.text(flag)?))),
            "memory" => drop(self.memory().set_limit(changed(bytes(flag, words)?))),
            "memory-reservation" => drop(self.memory().set_reservation(changed(bytes(flag, words)?))),
            "memory-swap" => drop(self.memory().set_swap(changed(bytes(flag, words)?))),
            "kernel-memory" | "kernel-memory-tcp" => drop(bytes(flag, words)?),
            "pids-limit" => self.pids = changed(words.parsed(flag)?).map(limit_of_processes),
            "blkio-weight" => drop(self.block_io.get_or_insert_default().set_weight(changed(words.parsed(flag)?))),
            "l3-cache-schema" | "mem-bw-schema" => {
                return Err(Error::Usage(format!("--{flag}: Intel RDT is not supported by this runtime")));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn cpu(&mut self) -> &mut LinuxCpu {
        self.cpu.get_or_insert_default()
    }

    fn memory(&mut self) -> &mut LinuxMemory {
        self.memory.get_or_insert_default()
    }

    fn finish(self) -> LinuxResources {
        let mut resources = LinuxResources::default();
        resources.set_devices(None);
        resources.set_cpu(self.cpu).set_memory(self.memory).set_pids(self.pids).set_block_io(self.block_io);
        resources
    }
}

/// runc takes 0 for what shall stay as it is.
fn changed<T: Default + PartialEq>(value: T) -> Option<T> {
    Some(value).filter(|value| *value != T::default())
}

fn limit_of_processes(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    pids
}

fn bytes(flag: &str, words: &mut Words) -> Result<i64, Error> {
    let text = words.text(flag)?;
    quantity::bytes(&text).ok_or_else(|| Error::Usage(format!("invalid value for {flag}: invalid size: '{text}'")))
}

pub(super) fn update(verb: &'static Verb, words: &mut Words) -> Result<Command, Error> {
    let (mut typed, mut file) = (Typed::default(), None);
    let operands = words.operands(|flag, words| {
        match flag {
            "resources" | "r" => file = Some(words.path(flag)?),
            _ => return typed.take(flag, words),
        }
        Ok(true)
    })?;
    let Some(operands) = operands else { return Ok(verb.help()) };
    let source = match file {
        Some(file) if file.as_os_str() == "-" => Source::StandardInput,
        Some(file) => Source::File(file),
        None => Source::Flags(Box::new(typed.finish())),
    };
    Ok(Command::Update(Update { id: verb.one(operands)?, source }))
}
