//! Every bound of this crate, by name.

use std::time::Duration;

/// Longest configuration list.
pub(crate) const CONFIG_BYTES_MAX: usize = 256 * 1024;
/// Most configuration files that are looked at in one folder.
pub(crate) const CONFIG_FILES_MAX: usize = 1024;
/// Most plugins in a list.
pub(crate) const PLUGINS_MAX: usize = 32;
/// Most attachments that GC can be told of.
pub(crate) const VALID_ATTACHMENTS_MAX: usize = 65_536;
/// Longest name of a network: it becomes a folder and part of the name of an nft table.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Longest id of a container: it becomes part of a file's name.
pub(crate) const CONTAINER_ID_BYTES_MAX: usize = 128;
/// Most sets of ranges: addresses of one interface.
pub(crate) const RANGE_SETS_MAX: usize = 16;
/// Most ranges in a set.
pub(crate) const RANGES_MAX: usize = 64;
/// Most addresses that an attachment can want.
pub(crate) const ADDRESSES_WISHED_MAX: usize = 16;
/// Most entries of each kind that name servers are told with.
pub(crate) const DNS_ENTRIES_MAX: usize = 32;
/// How much of a file like `/etc/resolv.conf` is read.
pub(crate) const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;
/// Most routes.
pub(crate) const ROUTES_MAX: usize = 1024;
/// Most ports of a container that the host forwards.
pub(crate) const PORT_MAPPINGS_MAX: usize = 1024;
/// Most addresses that are tried for one reservation; a range of version 6 has more than anyone can count.
pub(crate) const ADDRESSES_TRIED_MAX: usize = 1 << 16;
/// How long a freed address rests before it is preferred again: others may still talk to its last owner.
pub(crate) const ADDRESS_REST: Duration = Duration::from_secs(30);
/// How long the lock of a store may be held by others. They hold it for one file's work.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(20);
/// Longest pause between two tries for a lock.
pub(crate) const LOCK_PAUSE_MAX: Duration = Duration::from_millis(4);
/// How long a foreign plugin may run.
pub(crate) const PLUGIN_RUN_MAX: Duration = Duration::from_secs(60);
/// Most that a foreign plugin may say, on each of its outputs.
pub(crate) const PLUGIN_OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// How much of a foreign plugin's standard error goes into the error.
pub(crate) const PLUGIN_STDERR_BYTES_MAX: usize = 4096;
/// Most conversations about nftables that are kept open.
pub(crate) const NFT_SOCKETS_MAX: usize = 4;
/// How often rules in a table of others are looked at and put in while somebody else changes it.
pub(crate) const FILTER_RACES_MAX: usize = 8;
/// How often the ways to other nodes are looked at and mended in one go: a device first, then what stands on it.
pub(crate) const RECONCILE_PASSES_MAX: usize = 6;
/// Versions that one configuration may offer.
pub(crate) const CNI_VERSIONS_MAX: usize = 64;
/// How long the kernel may take to find out whether an address of version 6 has another owner; by its defaults, two seconds.
pub(crate) const PROBE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it is asked.
pub(crate) const PROBE_AGAIN: Duration = Duration::from_millis(10);
