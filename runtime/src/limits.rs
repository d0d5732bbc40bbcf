//! How much of anything the runtime takes, and how long it waits.

use std::time::Duration;

/// The longest container id: it is a folder's name, and part of a socket's.
pub(crate) const ID_BYTES_MAX: usize = 128;

/// The largest `config.json`.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The longest path in a `config.json`: below it, no path call allocates in the child.
pub(crate) const PATH_BYTES_MAX: usize = 1000;

/// The longest path of the machine (`PATH_MAX` without its closing zero).
pub(crate) const MACHINE_PATH_BYTES_MAX: usize = 4095;

/// How many mounts, devices, rules for devices, masked or read-only paths, kernel parameters or network devices a
/// container may have, each.
pub(crate) const LIST_MAX: usize = 4096;

/// How many rules of a seccomp profile may be about calls that this machine has: far more than fit into a filter, but
/// those that are alike for neighbouring calls are one there.
pub(crate) const SECCOMP_RULES_MAX: usize = 1 << 16;

/// How many steps the way to a program may have: they are told by numbers of 16 bits.
pub(crate) const STEPS_MAX: usize = u16::MAX as usize;

/// How many folders `PATH` may name: the program is sought in each by a path laid out before.
pub(crate) const PATH_FOLDERS_MAX: usize = 1024;

/// The longest list of processors or memory nodes: room for each by itself.
pub(crate) const NUMBERS_BYTES_MAX: usize = 8192;

/// How much of a field's name, and of what is wrong with it, an error tells.
pub(crate) const WORDS_BYTES_MAX: usize = 1024;

/// The largest file below the runtime's root.
pub(crate) const STATE_BYTES_MAX: u64 = 8 << 20;

/// How much is told of a hook that failed: more than its standard error is kept of.
pub(crate) const STORY_BYTES_MAX: usize = 2048;

/// How long a hook may take that sets itself no limit.
pub(crate) const HOOK_DEADLINE: Duration = Duration::from_secs(300);

/// How long a container may be in somebody else's hands: longer than any of the waits for its cgroup.
pub(crate) const LOCK_DEADLINE: Duration = Duration::from_secs(30);

/// How long a new process may take for a part of its set-up.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// How many lines the mappings of a user namespace may have (user_namespaces(7)).
pub(crate) const ID_MAPPINGS_MAX: usize = 340;

/// How many descriptors a program may find beside its standard streams.
pub(crate) const PRESERVED_MAX: usize = 1024;
