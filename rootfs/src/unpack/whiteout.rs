//! What an entry's name means in a layer: a thing of its own, or a word about the layers below. Pure.
//!
//! Image layers write both as files: `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` hides all that the layers
//! below have in its folder. Neither touches what the same layer has there, before it or after it in the archive.

/// The name of an entry, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning<'n> {
    /// A file, folder or link.
    Thing,
    /// This name of the layers below is gone.
    Hides(&'n [u8]),
    /// All names of the layers below in this folder are gone.
    Opaque,
    /// A note of the filesystem that the layer was once made with.
    Note,
}

const PREFIX: &[u8] = b".wh.";
const NOTE_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Reads a name; an error for a whiteout of nothing, or of the folder itself or the one above.
pub(crate) fn meaning(name: &[u8]) -> Result<Meaning<'_>, &'static str> {
    if name == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    if name.starts_with(NOTE_PREFIX) {
        return Ok(Meaning::Note);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Meaning::Thing),
        Some(b"" | b"." | b"..") => Err("a whiteout that names nothing"),
        Some(hidden) => Ok(Meaning::Hides(hidden)),
    }
}

/// The parts of a path in an archive: no leading slash, no empty parts, no dots. An error for one that leaves the layer.
pub(crate) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    match parts.contains(&&b".."[..]) {
        true => Err("its path has a '..' in it"),
        false => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_meanings() {
        assert_eq!(meaning(b"file"), Ok(Meaning::Thing));
        assert_eq!(meaning(b".wh"), Ok(Meaning::Thing));
        assert_eq!(meaning(b".wh.file"), Ok(Meaning::Hides(b"file")));
        assert_eq!(meaning(b".wh..file"), Ok(Meaning::Hides(b".file")));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(meaning(b".wh..wh.plnk"), Ok(Meaning::Note));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(meaning(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_made_plain() {
        assert_eq!(parts(b"/./a//b/").unwrap(), [b"a", b"b"]);
        assert!(parts(b"./").unwrap().is_empty());
        assert!(parts(b"a/../b").is_err());
        assert_eq!(parts(b"a/...").unwrap(), [&b"a"[..], b"..."]);
    }
}
