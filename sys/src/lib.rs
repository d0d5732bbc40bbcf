//! Linux, made safe: the only crate of berth with `unsafe` in it. It knows no containers and no Kubernetes.
//!
//! | room | what it makes safe |
//! |---|---|
//! | [`beneath`] | paths of a container or image, which stay below its root |
//! | [`caps`] | capability sets, user and groups of the calling thread |
//! | [`cgroup`] | cgroups of both versions: made, limited, killed, removed |
//! | [`mod@copy_tree`] | a folder copied without allocating |
//! | [`daemon`] | what a single-threaded daemon is made of |
//! | [`epoll`] | one place to wait for many descriptors |
//! | [`mod@file`] | atomic replacement of small files, locks |
//! | [`keyring`] | session keyrings |
//! | [`loopback`] | the device `lo` |
//! | [`mount`] | mounts by descriptor: made detached, shaped, attached |
//! | [`mountinfo`] | what is mounted where |
//! | [`namespace`] | namespaces made, pinned, opened, entered |
//! | [`netlink`] | links, addresses and routes by netlink |
//! | [`nft`] | nftables by netlink, as atomic batches |
//! | [`conntrack`] | forgetting connections that go a wrong way |
//! | [`presence`] | files that tell whether their owner lives |
//! | [`overlay`] | overlay mounts of any length |
//! | [`proc`] | what `/proc` tells about one process |
//! | [`process`] | pidfds, waiting, adoption of orphans |
//! | [`pty`] | pseudo-terminals |
//! | [`rlimit`] | resource limits |
//! | [`schedule`] | processors, priorities, memory nodes of a thread |
//! | [`scratch`] | room for work that comes and goes |
//! | [`seccomp`] | a filter loaded |
//! | [`selfexec`] | this program, out of the reach of what it starts |
//! | [`signal`] | signals back at their defaults |
//! | [`socket`] | local packet sockets that carry descriptors |
//! | [`sysctl`] | kernel parameters of a namespace |
//! | [`undo`] | what to take back when a set-up fails half way |
//! | [`xattr`] | extended attributes, of links too |
//!
//! Kernel floor: 5.15 (`mount_setattr`, `clone3` into a cgroup, `openat2`, pidfds).

pub mod beneath;
pub mod caps;
pub mod cgroup;
pub mod conntrack;
pub mod copy_tree;
pub mod daemon;
pub mod entry;
pub mod epoll;
pub mod file;
pub mod keyring;
pub mod loopback;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod overlay;
pub mod presence;
pub mod proc;
pub mod process;
pub mod pty;
pub mod rlimit;
pub mod schedule;
pub mod scratch;
pub mod seccomp;
pub mod selfexec;
pub mod signal;
pub mod socket;
pub mod sysctl;
mod tree;
pub mod undo;
pub mod xattr;
