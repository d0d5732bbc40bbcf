//! What the shim has to say when nobody listens: lines in `shim.log`, which is its standard error.

use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use crate::limits::OWN_LOG_BYTES_MAX;

/// Opens the file for the notes of one shim.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Writes one line. A file that has grown too long is begun anew; what cannot be written is lost.
pub(crate) fn note(message: Arguments<'_>) {
    let stderr = io::stderr();
    if let Ok(file) = stderr.as_fd().try_clone_to_owned().map(File::from)
        && file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > OWN_LOG_BYTES_MAX)
    {
        let _ = file.set_len(0);
    }
    let _ = writeln!(stderr.lock(), "{:.3} {message}", Timestamp::now());
}
