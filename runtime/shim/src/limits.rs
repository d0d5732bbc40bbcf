//! Every limit of the shim, by name.

use std::time::Duration;

/// Containers in one sandbox, ended ones included: what `State` can tell in one packet.
pub(crate) const CONTAINERS_MAX: usize = 100;

/// Processes started by `Exec` that run in one container at the same time.
pub(crate) const EXECS_MAX: usize = 64;

/// Descriptors that one of a container's streams is copied to at the same time.
pub(crate) const COPIES_MAX: usize = 16;

/// What is read of each file that such a run wrote.
pub(crate) const TOOL_OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// How long one verb of the library's may take. It has closer deadlines of its own for all but hooks, whose number and
/// time only their configuration limits.
pub(crate) const LIBRARY_TIME_MAX: Duration = Duration::from_secs(600);

/// How long the processes of a shared pid namespace may take to end once its init is killed.
pub(crate) const INIT_END_TIME_MAX: Duration = Duration::from_secs(10);

/// Clients that are connected at the same time.
pub(crate) const CLIENTS_MAX: usize = 64;

/// Packets that wait for one client; beyond this it is taken for dead and dropped.
pub(crate) const CLIENT_QUEUE_PACKETS_MAX: usize = 256;

/// Requests that are taken from one client before the others have their turn.
pub(crate) const REQUESTS_PER_TURN_MAX: usize = 8;

/// The longest line of a log; a longer one is logged in parts, as CRI prescribes.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 16 * 1024;

/// Formatted lines that are written with one system call.
pub(crate) const LOG_BATCH_BYTES_MAX: usize = 256 * 1024;

/// Output that is read from one stream before the others have their turn.
pub(crate) const READ_BYTES_MAX: usize = 256 * 1024;

/// A read of this length says that the writer is faster than a pipe of the usual size lets it be.
pub(crate) const BUSY_READ_BYTES: usize = 64 * 1024;

/// The size of a busy pipe; the most that the kernel gives unasked (`/proc/sys/fs/pipe-max-size`).
pub(crate) const BUSY_PIPE_BYTES: i32 = 1024 * 1024;

/// Output up to this length leaves so little behind that no rest is taken to clean it up.
pub(crate) const QUIET_READ_BYTES: usize = 1024;

/// How long nothing must happen before the memory of what did is given back.
pub(crate) const REST_AFTER: Duration = Duration::from_millis(50);

/// How long to wait before trying again to open a log that could not be opened.
pub(crate) const LOG_RETRY_TIME: Duration = Duration::from_secs(1);

/// How long output may still come after a container's end, should somebody else hold its pipes open.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// How long to wait before trying again to write an exit record.
pub(crate) const RECORD_RETRY_TIME: Duration = Duration::from_secs(5);

/// How long to leave new clients waiting after one could not be accepted.
pub(crate) const ACCEPT_RETRY_TIME: Duration = Duration::from_secs(1);

/// How long a `Shutdown` waits for killed containers to end.
pub(crate) const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the last answer may take to leave.
pub(crate) const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// The size at which `shim.log` is begun anew.
pub(crate) const OWN_LOG_BYTES_MAX: u64 = 64 * 1024;

/// The longest container id or name of an exec.
pub(crate) const ID_BYTES_MAX: usize = 128;

/// Signals for an exec that is being made.
pub(crate) const SIGNALS_WAITING_MAX: usize = 16;
