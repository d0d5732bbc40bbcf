//! Resource limits of the calling process.

use nix::errno::Errno;

/// The number of the limit that the OCI and `getrlimit(2)` call `RLIMIT_…`.
pub fn named(name: &str) -> Option<u32> {
    Some(match name {
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        _ => return None,
    })
}

/// Sets a limit. Who may not raise the hard limit gets as much as there is.
pub fn set_as_far_as_allowed(resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    match set(resource, soft, hard) {
        Err(Errno::EPERM) => {
            let ceiling = hard_limit(resource)?;
            set(resource, soft.min(ceiling), hard.min(ceiling))
        }
        result => result,
    }
}

fn set(resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure outlives the call and is only read; a resource that is none gives EINVAL.
    Errno::result(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

fn hard_limit(resource: u32) -> nix::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the call, which fills it.
    Errno::result(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok(limit.rlim_max)
}
