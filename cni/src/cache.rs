//! What ADD gave, kept on disk for DEL, CHECK and GC: `results/<network>/<container id>:<interface>.json`. A record is
//! written when an attachment is complete and removed when nothing of it is left.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use berth_sys::file::{self, Durability};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::attachment::{Attachment, Owner};
use crate::site::Site;
use crate::spec::result::AddResult;

/// An attachment and what ADD gave for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) attachment: Attachment,
    pub(crate) result: AddResult,
}

/// The records of one network.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn new(site: Site<'_>) -> Self {
        Self { folder: site.dirs.state.join("results").join(site.network) }
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.folder.join(owner.file_name())
    }

    /// Whether there is a record, readable or not.
    pub(crate) fn has(&self, owner: &Owner) -> bool {
        self.path(owner).exists()
    }

    /// The record, if there is one. One that is damaged, by a loss of power, counts as none: its attachment ended with
    /// the same loss of power, and what it had taken is found by its owner's name.
    pub(crate) fn read(&self, owner: &Owner) -> Result<Option<Record>, Error> {
        read(&self.path(owner))
    }

    /// Writes the record. It need not outlive a loss of power, since no namespace does.
    pub(crate) fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.path(&record.attachment.owner());
        let text = serde_json::to_vec(record)
            .map_err(|source| Error::Decode { what: "the result of ADD".to_owned(), source })?;
        let write = || file::replace(&path, &text, Durability::Process);
        let result = match write() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder).and_then(|()| write())
            }
            other => other,
        };
        result.map_err(Error::io("write the result", &path))
    }

    /// Removes the record; none is success.
    pub(crate) fn remove(&self, owner: &Owner) -> Result<(), Error> {
        let path = self.path(owner);
        file::remove(&path).map_err(Error::io("remove the result", &path))
    }

    /// Whether there is no record, readable or not.
    pub(crate) fn is_empty(&self) -> Result<bool, Error> {
        let failed = || Error::io("list", &self.folder);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(failed()(error)),
        };
        for entry in entries {
            if !is_unfinished(&entry.map_err(failed())?.path()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All records that can be read. Files that are damaged are removed; those that somebody may be writing are passed over.
    pub(crate) fn all(&self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for path in files(&self.folder)?.into_iter().filter(|path| !is_unfinished(path)) {
            match read(&path)? {
                Some(record) => records.push(record),
                None => file::remove(&path).map_err(Error::io("remove the damaged result", &path))?,
            }
        }
        Ok(records)
    }

    /// Removes what was killed before it was renamed, whole or not. Nobody may be writing.
    pub(crate) fn remove_unfinished(&self) -> Result<(), Error> {
        let mut unfinished = files(&self.folder)?.into_iter().filter(|path| is_unfinished(path));
        unfinished.try_for_each(|path| file::remove(&path).map_err(Error::io("remove the unfinished result", path)))
    }

    /// Forgets the network.
    pub(crate) fn remove_all(&self) -> Result<(), Error> {
        remove_folder(&self.folder)
    }
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(file::is_temporary)
}

fn read(path: &Path) -> Result<Option<Record>, Error> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read the result", path)(error)),
    }
}

/// The files of a folder, in the order of their names; none if there is no folder.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = || Error::io("list", folder);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        if !entry.file_type().map_err(failed())?.is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Removes a folder with all that is in it; none is success.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}
