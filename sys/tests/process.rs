//! Processes and their pidfds.

use std::process::Command;

use berth_sys::process::{Exit, pidfd_open, pidfd_send_signal, try_wait, wait};

#[test]
#[allow(clippy::zombie_processes, reason = "waited for by its pidfd")]
fn a_child_is_signalled_and_waited_for_by_its_pidfd() {
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let pidfd = pidfd_open(child.id() as i32).unwrap();
    assert_eq!(try_wait(&pidfd).unwrap(), None);
    pidfd_send_signal(&pidfd, 15).unwrap();
    let exit = wait(&pidfd).unwrap();
    assert_eq!((exit, exit.code()), (Exit::Signal(15), 143));
    assert_eq!(pidfd_send_signal(&pidfd, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
}
