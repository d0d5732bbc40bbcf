//! The folders on the way to an entry: found, links followed below the layer's top, or made.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::Folder;
use nix::errno::Errno;

use super::{IMPLICIT_MODE, Refusal, Unpacker, is_whiteout, join, to};
use crate::error::UnpackError;
use crate::limits::IMPLICIT_FOLDERS_MAX;

impl Unpacker<'_> {
    /// The folder of that path, links in it followed below the layer's top; made if it is not there.
    pub(super) fn folder(&mut self, path: &[u8]) -> Result<Folder, Refusal> {
        if let Some((last, folder)) = self.last.take()
            && last == path
        {
            return Ok(folder);
        }
        match self.root.open_folder(Path::new(OsStr::from_bytes(path))) {
            Ok(folder) => Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_folders(path),
            // A whiteout may stand where a folder is to be.
            Err(error) if error.raw_os_error() == Some(Errno::ENOTDIR as i32) => self.make_folders(path),
            Err(error) => Err(to("open the folder that it is in")(error)),
        }
    }

    fn make_folders(&mut self, path: &[u8]) -> Result<Folder, Refusal> {
        let mut walked: Vec<u8> = Vec::new();
        let mut folder = self.root.open_folder(Path::new("")).map_err(to("open the layer"))?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            walked = join(&walked, part);
            let name = OsStr::from_bytes(part);
            folder = match self.root.open_folder(Path::new(OsStr::from_bytes(&walked))) {
                Ok(folder) => folder,
                Err(_) => self.make_implicit(folder, name, &walked)?,
            };
        }
        Ok(folder)
    }

    fn make_implicit(&mut self, folder: Folder, name: &OsStr, path: &[u8]) -> Result<Folder, Refusal> {
        let hidden = match folder.status(name) {
            Ok(status) if is_whiteout(&status) => {
                folder.remove_file(name).map_err(to("replace a whiteout"))?;
                true
            }
            Ok(_) => {
                return Err("a folder that it is in is no folder, or a link that leads nowhere in this layer".into());
            }
            Err(_) => false,
        };
        folder.make_folder(name, IMPLICIT_MODE).map_err(to("make a folder that it is in"))?;
        folder.set_mode(name, IMPLICIT_MODE).map_err(to("make a folder that it is in"))?;
        if hidden {
            self.mark_opaque(&folder, name, path)?;
        }
        self.remember(path)?;
        self.implicit.insert(path.to_vec());
        if self.implicit.len() > IMPLICIT_FOLDERS_MAX {
            let max = IMPLICIT_FOLDERS_MAX as u64;
            return Err(Refusal::Whole(UnpackError::Limit { what: "folders that are not described", max }));
        }
        folder.folder(name).map_err(to("open a folder that it is in"))
    }
}
