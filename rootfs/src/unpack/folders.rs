//! The folders on the way to an entry: found, links followed below the layer's top, or made.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::Folder;
use nix::errno::Errno;

use super::{IMPLICIT_MODE, Refusal, Unpacker, is_whiteout, join, to};
use crate::error::UnpackError;
use crate::limits::IMPLICIT_FOLDERS_MAX;

impl Unpacker<'_> {
    /// The folder of that path, links in it followed below the layer's top; made if it is not there. Its own path, which no
    /// link is in, comes with it.
    pub(super) fn folder(&mut self, path: &[u8]) -> Result<(Vec<u8>, Folder), Refusal> {
        if let Some((last, own, folder)) = self.last.take()
            && last == path
        {
            return Ok((own, folder));
        }
        let folder = match self.root.open_folder(Path::new(OsStr::from_bytes(path))) {
            Ok(folder) => folder,
            // A whiteout may stand where a folder is to be.
            Err(error)
                if matches!(Errno::from_raw(error.raw_os_error().unwrap_or(0)), Errno::ENOENT | Errno::ENOTDIR) =>
            {
                self.make_folders(path)?
            }
            Err(error) => return Err(to("open the folder that it is in")(error)),
        };
        Ok((self.path_of(&folder)?, folder))
    }

    /// Where a folder is, below the layer's top.
    pub(super) fn path_of(&self, folder: &Folder) -> Result<Vec<u8>, Refusal> {
        let place = |folder: &Folder| folder.place().map_err(to("find the folder that it is in"));
        let (top, full) = (place(self.root.folder())?, place(folder)?);
        let below = full.strip_prefix(top).map_err(|_| "the folder that it is in left the layer")?;
        Ok(below.as_os_str().as_bytes().to_vec())
    }

    fn make_folders(&mut self, path: &[u8]) -> Result<Folder, Refusal> {
        let mut walked: Vec<u8> = Vec::new();
        let mut folder = self.root.open_folder(Path::new("")).map_err(to("open the layer"))?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            walked = join(&walked, part);
            let name = OsStr::from_bytes(part);
            folder = match self.root.open_folder(Path::new(OsStr::from_bytes(&walked))) {
                Ok(folder) => folder,
                Err(_) => self.make_implicit(folder, name)?,
            };
        }
        Ok(folder)
    }

    fn make_implicit(&mut self, folder: Folder, name: &OsStr) -> Result<Folder, Refusal> {
        const NO_FOLDER: &str = "a folder that it is in is no folder, or a link that leads nowhere in this layer";
        let path = join(&self.path_of(&folder)?, name.as_bytes());
        if self.links.contains_key(&path) {
            return Err(NO_FOLDER.into());
        }
        let hidden = match folder.status(name) {
            Ok(status) if is_whiteout(&status) => {
                folder.remove_file(name).map_err(to("replace a whiteout"))?;
                true
            }
            Ok(_) => return Err(NO_FOLDER.into()),
            Err(_) => false,
        };
        folder.make_folder(name, IMPLICIT_MODE).map_err(to("make a folder that it is in"))?;
        folder.set_mode(name, IMPLICIT_MODE).map_err(to("make a folder that it is in"))?;
        if hidden {
            self.mark_opaque(&folder, name, &path)?;
        }
        self.remember(&path)?;
        self.implicit.insert(path);
        if self.implicit.len() > IMPLICIT_FOLDERS_MAX {
            let max = IMPLICIT_FOLDERS_MAX as u64;
            return Err(Refusal::Whole(UnpackError::Limit { what: "folders that are not described", max }));
        }
        folder.folder(name).map_err(to("open a folder that it is in"))
    }
}
