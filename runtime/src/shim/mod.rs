//! Both ends of the conversation with a pod's shim: the words ([`protocol`]) and a blocking client ([`client`]).
//!
//! The shim itself is a program of its own, `berth-shim`. It is started with one argument, the sandbox's directory,
//! which holds everything that outlives any one process:
//!
//! ```text
//! <run>/sandboxes/<id>/
//!   sandbox.json         what to make: protocol::SandboxSpec, written by the client before it starts the shim
//!   shim.json            who made it: protocol::ShimRecord, written by the shim once it listens
//!   shim.lock            locked for as long as the shim lives, from its first instant
//!   shim.sock            where it answers: SOCK_SEQPACKET, one JSON message per packet
//!   ns/{user,net,ipc,uts,pid} the pinned namespaces (bind mounts of nsfs); only those that the spec asks for
//!   cgroup.json          which folders of the pod's cgroup are the sandbox's to remove
//!   exits/<container>.json   protocol::ExitRecord of each container that ended; survives the shim
//!   runtime/<container>/     the state of the library's containers
//!   handler/             that of another runtime's, and the files of its runs (protocol::Handler)
//!   shim.log             what the shim had to say when nobody listened
//! ```

pub mod cgroup;
pub mod client;
pub mod document;
pub mod protocol;
mod reap;
mod start;
