//! Every limit of the crate, once. What comes from a registry or an archive is believed up to here and no further.

use std::time::Duration;

/// A manifest or an index.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// An image's configuration.
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// The answer of a token server, or a registry's words about an error.
pub(crate) const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// A registry's own words in our message, or a credential helper's, in letters.
pub(crate) const MESSAGE_LETTERS_MAX: usize = 300;
/// Docker's `config.json`, or a pull secret.
pub(crate) const KEYRING_BYTES_MAX: u64 = 1 << 20;
/// What a credential helper prints.
pub(crate) const HELPER_ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How long a credential helper may take: it may have to ask a cloud.
pub(crate) const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// Credentials that are tried at one registry for one image.
pub(crate) const LOGINS_MAX: usize = 16;
/// A `hosts.toml`, or a certificate that it names.
pub(crate) const HOSTS_BYTES_MAX: u64 = 1 << 20;
/// Mirrors of one registry.
pub(crate) const MIRRORS_MAX: usize = 16;
/// HTTP clients, one for each way to trust a server, that are kept for the next pull.
pub(crate) const CLIENTS_MAX: usize = 32;
/// Layers of one image: more than any builder makes, fewer than overlayfs can stack (500).
pub(crate) const LAYERS_MAX: usize = 256;
/// Entries of an index.
pub(crate) const INDEX_ENTRIES_MAX: usize = 1024;

/// What one layer may unpack to.
pub(crate) const LAYER_BYTES_MAX: u64 = 128 << 30;
/// How many times larger than its blob a layer may be …
pub(crate) const EXPANSION_MAX: u64 = 200;
/// … beyond this size, below which any ratio is fine.
pub(crate) const EXPANSION_FREE_BYTES: u64 = 1 << 30;
/// Entries in one layer.
pub(crate) const ENTRIES_MAX: u64 = 4_000_000;
/// A path in a layer, in bytes: what the kernel takes.
pub(crate) const PATH_BYTES_MAX: usize = 4095;
/// Folders above an entry.
pub(crate) const DEPTH_MAX: usize = 256;
/// A long name or the extended header of one entry.
pub(crate) const EXTENDED_HEADER_BYTES_MAX: u64 = 1 << 20;
/// Pieces of one sparse file.
pub(crate) const SPARSE_PIECES_MAX: usize = 1 << 16;
/// Folders of one layer that its archive does not describe.
pub(crate) const IMPLICIT_FOLDERS_MAX: usize = 65_536;

/// What the paths of one layer may take in memory that have to be remembered to its end.
pub(crate) const REMEMBERED_BYTES_MAX: usize = 256 << 20;
/// Steps into the layers of one image for the folders and links that not all of them describe: some five seconds of work for
/// each million.
pub(crate) const SIGHTS_MAX: usize = 4_000_000;

/// Entries of a docker archive or an OCI layout in a tar; with more it is taken for a root filesystem.
pub(crate) const ARCHIVE_ENTRIES_MAX: usize = 8192;

/// Layers that are fetched and unpacked at the same time in one store.
pub(crate) const LAYERS_AT_ONCE: usize = 4;
/// Chunks of a blob between the network and its unpacking; one can be some hundred kilobytes.
pub(crate) const CHUNKS_AHEAD: usize = 4;
/// How long a registry may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a mirror may take to accept a connection, if its `dial_timeout` says nothing: there are others to be asked.
pub(crate) const MIRROR_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a mirror may take to begin its answer.
pub(crate) const MIRROR_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a mirror that did not answer is not asked again.
pub(crate) const MIRROR_REST: Duration = Duration::from_secs(60);
/// How long a registry may be silent.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request or an interrupted blob is tried again.
pub(crate) const RETRIES_MAX: u32 = 4;
/// The wait before the first repetition; it doubles each time.
pub(crate) const RETRY_WAIT: Duration = Duration::from_millis(250);
/// The longest wait that a registry can ask for (`Retry-After`).
pub(crate) const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long the beginning of a blob, and a layer of a pull that was cut off, wait for a pull to go on with them.
pub(crate) const PART_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long somebody who changes the store may keep others waiting.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a sweep waits for a moment in which nobody is about to use anything, before it is put off.
pub(crate) const SWEEP_WAIT_MAX: Duration = Duration::from_secs(2);
/// What one worker may claim: the layers of a large archive.
pub(crate) const CLAIM_BYTES_MAX: u64 = 16 << 20;
/// Room kept on the disk so that the index can be replaced when it is full, to make room.
pub(crate) const RESERVE_BYTES: usize = 128 << 10;
/// What the store notes of a layer.
pub(crate) const NOTE_BYTES_MAX: u64 = 64 << 10;
/// Hard links of one layer to files of layers below.
pub(crate) const LINKS_MAX: usize = 65_536;
