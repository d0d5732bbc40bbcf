//! Stopping every process of a cgroup, and letting them go on: `cgroup.freeze` of the unified hierarchy where there is
//! one, else the v1 freezer.

use std::path::Path;

use super::end::{tolerate_gone, tree, wait_for};
use super::{Cgroup, Error, Version, is_gone, read, write};

/// The v1 freezer's words.
pub(super) const FROZEN: &str = "FROZEN";
const THAWED: &str = "THAWED";

impl Cgroup {
    /// Stops every process in this cgroup and below; returns when all have stopped, or with [`Error::Busy`] after
    /// [`super::END_DEADLINE`].
    pub fn freeze(&self) -> Result<(), Error> {
        match self.freezer()? {
            (folder, Version::V2) => {
                write(&folder.join("cgroup.freeze"), "1")?;
                wait_for(folder, || Ok(events_say(folder, "frozen 1")?.unwrap_or(true)))
            }
            (folder, Version::V1) => {
                let file = folder.join("freezer.state");
                // It stays "freezing" while somebody inside is being born: asked again, it catches that one too.
                wait_for(folder, || {
                    write(&file, FROZEN)?;
                    Ok(read(&file)?.trim() == FROZEN)
                })
            }
        }
    }

    /// Lets every process in this cgroup and below go on. One that is not frozen is no error.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.freezer()? {
            (folder, Version::V2) => {
                tolerate_gone(write(&folder.join("cgroup.freeze"), "0"))?;
                // Others may have used the other freezer.
                self.thaw_v1()
            }
            (_, Version::V1) => self.thaw_v1(),
        }
    }

    /// Whether somebody froze it, in either version's way, here or above. A cgroup that is gone is not frozen.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        if let Some(folder) = self.unified()
            && events_say(folder, "frozen 1")?.unwrap_or(false)
        {
            return Ok(true);
        }
        let Some((folder, _)) = self.folder("freezer") else { return Ok(false) };
        match read(&folder.join("freezer.state")) {
            Ok(state) => Ok(state.trim() != THAWED),
            Err(Error::File { source, .. }) if is_gone(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a word to the v1 freezer, if this cgroup is in it.
    pub(super) fn ask_v1_freezer(&self, word: &str) -> Result<(), Error> {
        match self.folder("freezer") {
            Some((folder, _)) => tolerate_gone(write(&folder.join("freezer.state"), word)),
            None => Ok(()),
        }
    }

    /// Thaws the v1 freezer, here and below.
    pub(super) fn thaw_v1(&self) -> Result<(), Error> {
        let Some((folder, _)) = self.folder("freezer") else { return Ok(()) };
        for folder in tree(folder)? {
            tolerate_gone(write(&folder.join("freezer.state"), THAWED))?;
        }
        Ok(())
    }

    fn freezer(&self) -> Result<(&Path, Version), Error> {
        let unified = self.unified().filter(|folder| !folder.exists() || folder.join("cgroup.freeze").exists());
        let found = unified.map(|folder| (folder, Version::V2)).or_else(|| self.folder("freezer"));
        found.ok_or_else(|| Error::NoController { controller: "freezer".to_owned() })
    }
}

/// Whether `cgroup.events` has this line; `None` if the cgroup is gone.
pub(super) fn events_say(folder: &Path, line: &str) -> Result<Option<bool>, Error> {
    match read(&folder.join("cgroup.events")) {
        Ok(text) => Ok(Some(text.lines().any(|it| it == line))),
        Err(Error::File { source, .. }) if is_gone(&source) => Ok(None),
        Err(error) => Err(error),
    }
}
