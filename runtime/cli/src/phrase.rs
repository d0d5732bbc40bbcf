//! The runtime's errors in runc's words, where callers look for those: podman for `does not exist`, `executable file
//! not found in` and `permission denied` (`libpod/oci_util.go`), containerd for `does not exist` (`pkg/process`).

use std::fmt;

use berth_runtime::Error;
use nix::errno::Errno;

/// An error of the runtime, worded as runc words it.
#[derive(Debug)]
pub(crate) struct Phrase(pub(crate) Error);

impl fmt::Display for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::NotFound { .. } => f.write_str("container does not exist"),
            Error::Exists { .. } => f.write_str("container with given ID already exists"),
            Error::Exec { path, errno } => {
                let reason = match errno {
                    Errno::ENOENT if !path.contains('/') => "executable file not found in $PATH".to_owned(),
                    errno => errno.desc().to_lowercase(),
                };
                write!(f, "unable to start container process: exec: {path:?}: {reason}")
            }
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Phrase {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_find_what_they_look_for() {
        let exec = |path: &str, errno| Phrase(Error::Exec { path: path.to_owned(), errno }).to_string();
        assert!(exec("nosuch", Errno::ENOENT).contains("executable file not found in $PATH"));
        assert!(exec("/nosuch", Errno::ENOENT).ends_with("exec: \"/nosuch\": no such file or directory"));
        assert!(exec("/etc/passwd", Errno::EACCES).ends_with("permission denied"));
        assert!(Phrase(Error::NotFound { id: "a".to_owned() }).to_string().contains("does not exist"));
    }
}
