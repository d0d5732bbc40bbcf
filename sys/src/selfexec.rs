//! This program, put out of the reach of what it is about to start.
//!
//! Until it executes its own program, a container's first process is a copy of the runtime, and it can be made to
//! execute the runtime once more: by `#!/proc/self/exe`, or by that name as its program. Then `/proc/<pid>/exe` leads
//! from inside the container to the runtime's file on the machine, which root may open for writing as soon as nobody
//! executes it (CVE-2019-5736). So the runtime executes itself anew before anything else, from a mount of that one
//! file which is read-only, attached nowhere, and gone with the last process that uses it. Writing by way of it is
//! `EROFS` to everybody; remounting what is in no mount namespace is `EINVAL`.
//!
//! It costs one more `execve`, 0.4 ms. A program that is installed on a read-only mount does not pay it.

use std::env;
use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::mount::{self, Attributes, MOUNT_ATTR_RDONLY, Reach};

/// Where the program finds itself.
const SELF: &CStr = c"/proc/self/exe";

/// All that could change a copy in memory.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// Sees to it that nobody can write to the file that this process executes: returns if that is so, and executes the
/// program anew otherwise, with the same arguments, environment and open descriptors. For the very beginning of a
/// program: nothing else of the process is left by then.
pub fn protect() -> io::Result<()> {
    let this = File::open(SELF.to_string_lossy().as_ref())?;
    if is_protected(&this)? {
        return Ok(());
    }
    let copy = match read_only(&this) {
        Ok(copy) => copy,
        // Without the right to mount, or where the file itself is not in our mount namespace.
        Err(_) => sealed(this)?,
    };
    Err(execute(&copy).into())
}

fn is_protected(this: &File) -> io::Result<bool> {
    if fstatvfs(this)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(true);
    }
    // Only files in memory have any.
    Ok(fcntl(this, FcntlArg::F_GET_SEALS).is_ok_and(|seals| SealFlag::from_bits_retain(seals).contains(SEALS)))
}

/// A read-only mount of the file, attached nowhere.
fn read_only(this: impl AsFd) -> nix::Result<OwnedFd> {
    let copy = mount::copy(this, c"", Reach::One)?;
    mount::set_attributes(&copy, &Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() }, Reach::One)?;
    Ok(copy)
}

/// A copy of the file in memory that nothing can change any more.
fn sealed(mut this: File) -> io::Result<OwnedFd> {
    let mut copy = File::from(memfd_create(c"self", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    io::copy(&mut this, &mut copy)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS))?;
    // Through the descriptor that wrote it, it could not be executed.
    Ok(File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?.into())
}

/// Returns only if it fails.
fn execute(program: &OwnedFd) -> Errno {
    let strings =
        |words: Vec<Vec<u8>>| words.into_iter().filter_map(|word| CString::new(word).ok()).collect::<Vec<_>>();
    let arguments = strings(env::args_os().map(OsStringExt::into_vec).collect());
    let environment = strings(
        env::vars_os()
            .map(|(name, value)| {
                let mut word = name.into_vec();
                word.push(b'=');
                word.append(&mut value.into_vec());
                word
            })
            .collect(),
    );
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both arrays end with null and point to strings that are dropped only when this function returns; the path
    // is a static string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            AtFlags::AT_EMPTY_PATH.bits(),
        )
    };
    Errno::last()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
