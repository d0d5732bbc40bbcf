//! Paths of the host: what must be there is looked at, and made where the pod allows it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::VolumeError;
use super::recipe::HostPathKind;

/// Sees to it that a path of the host is what the pod says.
pub(super) fn make(path: &Path, kind: HostPathKind) -> Result<(), VolumeError> {
    match fs::metadata(path) {
        Ok(meta) if is(kind, &meta.file_type()) => Ok(()),
        Ok(_) => Err(VolumeError::Spec { message: format!("hostPath {} is not a {}", path.display(), word(kind)) }),
        Err(error) if error.kind() == ErrorKind::NotFound => create(path, kind),
        Err(error) => Err(VolumeError::file("look at", path)(error)),
    }
}

fn create(path: &Path, kind: HostPathKind) -> Result<(), VolumeError> {
    let made = match kind {
        HostPathKind::Any | HostPathKind::DirectoryOrCreate => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
        }
        HostPathKind::FileOrCreate => fs::OpenOptions::new().append(true).create(true).mode(0o644).open(path).map(drop),
        _ => {
            let message = format!("hostPath {} is not there, and must be a {}", path.display(), word(kind));
            return Err(VolumeError::Spec { message });
        }
    };
    made.map_err(VolumeError::file("make", path))
}

fn is(kind: HostPathKind, found: &fs::FileType) -> bool {
    match kind {
        HostPathKind::Any => true,
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => found.is_dir(),
        HostPathKind::FileOrCreate | HostPathKind::File => found.is_file(),
        HostPathKind::Socket => found.is_socket(),
        HostPathKind::CharDevice => found.is_char_device(),
        HostPathKind::BlockDevice => found.is_block_device(),
    }
}

fn word(kind: HostPathKind) -> &'static str {
    match kind {
        HostPathKind::Any => "path",
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => "directory",
        HostPathKind::FileOrCreate | HostPathKind::File => "file",
        HostPathKind::Socket => "socket",
        HostPathKind::CharDevice => "character device",
        HostPathKind::BlockDevice => "block device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_takes_what_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, file, none) = (folder.path(), folder.path().join("f"), folder.path().join("x/y"));
        fs::write(&file, "").unwrap();
        let null = Path::new("/dev/null");
        for (path, kind, good) in [
            (dir, HostPathKind::Directory, true),
            (dir, HostPathKind::File, false),
            (&file, HostPathKind::File, true),
            (&file, HostPathKind::DirectoryOrCreate, false),
            (&file, HostPathKind::Socket, false),
            (null, HostPathKind::CharDevice, true),
            (null, HostPathKind::BlockDevice, false),
            (&none, HostPathKind::Directory, false),
            (&none, HostPathKind::FileOrCreate, false),
            (&none, HostPathKind::DirectoryOrCreate, true),
            (&folder.path().join("g"), HostPathKind::FileOrCreate, true),
            (&folder.path().join("h/i"), HostPathKind::Any, true),
        ] {
            assert_eq!(make(path, kind).is_ok(), good, "{} {kind:?}", path.display());
        }
    }
}
