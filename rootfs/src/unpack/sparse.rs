//! Sparse files: which pieces of a file its archive holds. GNU's old headers, and its PAX formats 0.0, 0.1 and 1.0.

use std::io::Read;

use super::pax::decimal;
use super::tar::{Archive, BLOCK, Block, damaged, number, until_nul};
use crate::error::UnpackError;
use crate::limits::{LAYER_BYTES_MAX, SPARSE_PIECES_MAX};

/// The pieces of a file in rising order without overlap, and its whole size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// Offset and length.
    pub(crate) list: Vec<(u64, u64)>,
    pub(crate) size: u64,
}

impl Pieces {
    fn new(list: Vec<(u64, u64)>, size: u64) -> Result<Self, UnpackError> {
        if size > LAYER_BYTES_MAX {
            return Err(UnpackError::Limit { what: "bytes in a file", max: LAYER_BYTES_MAX });
        }
        let mut end = 0u64;
        for (offset, length) in &list {
            if *offset < end {
                return Err(damaged("a sparse map whose pieces overlap"));
            }
            end = offset.checked_add(*length).ok_or(damaged("a sparse map beyond all files"))?;
        }
        if end > size {
            return Err(damaged("a sparse map beyond its file's end"));
        }
        Ok(Self { list, size })
    }

    /// How many bytes the archive holds of it.
    pub(crate) fn stored(&self) -> u64 {
        self.list.iter().map(|(_, length)| length).sum()
    }
}

/// What PAX records say of a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PaxMap {
    /// The file's true name: the entry's own is made up for other programs.
    pub(crate) name: Option<Vec<u8>>,
    major: Option<u64>,
    size: Option<u64>,
    list: Vec<(u64, u64)>,
    /// Format 0.0 gives an offset and then, in another record, its length.
    offset: Option<u64>,
}

impl PaxMap {
    /// Takes a record that is about sparseness.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<bool, UnpackError> {
        match key {
            b"GNU.sparse.name" => self.name = Some(until_nul(value).to_vec()),
            b"GNU.sparse.major" => self.major = Some(decimal(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.size = Some(decimal(value)?),
            b"GNU.sparse.map" => self.list = pairs(value.split(|byte| *byte == b','))?,
            b"GNU.sparse.offset" => self.offset = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take().ok_or(damaged("a sparse length without an offset"))?;
                self.list.push((offset, decimal(value)?));
            }
            b"GNU.sparse.minor" | b"GNU.sparse.numblocks" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether there was any such record.
    pub(crate) fn is_used(&self) -> bool {
        self.size.is_some() || self.major.is_some() || !self.list.is_empty()
    }
}

/// The pieces that PAX records tell; in format 1.0 the map itself is the first part of the entry's data.
pub(crate) fn from_pax<R: Read>(map: PaxMap, archive: &mut Archive<R>) -> Result<Pieces, UnpackError> {
    let size = map.size.ok_or(damaged("a sparse file without a size"))?;
    match map.major {
        None | Some(0) => Pieces::new(map.list, size),
        Some(1) => Pieces::new(leading_map(archive)?, size),
        Some(_) => Err(damaged("a sparse format of the future")),
    }
}

/// Decimal numbers, one a line: how many pieces, then each piece's offset and length; zeros fill the last block.
fn leading_map<R: Read>(archive: &mut Archive<R>) -> Result<Vec<(u64, u64)>, UnpackError> {
    let mut text = Vec::new();
    let mut lines_wanted = 1;
    loop {
        let mut block = [0; BLOCK];
        archive.read_exact(&mut block).map_err(|source| UnpackError::Read { source })?;
        text.extend_from_slice(&block);
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        if let (1, Some(first)) = (lines_wanted, text.split(|byte| *byte == b'\n').next().filter(|_| lines > 0)) {
            let count = usize::try_from(decimal(first)?).unwrap_or(usize::MAX);
            if count > SPARSE_PIECES_MAX {
                return Err(too_many());
            }
            lines_wanted += 2 * count;
        }
        if lines >= lines_wanted && lines > 0 {
            return pairs(text.split(|byte| *byte == b'\n').skip(1).take(lines_wanted - 1));
        }
        if text.len() > SPARSE_PIECES_MAX * 42 {
            return Err(too_many());
        }
    }
}

/// The pieces that a GNU header and the blocks after it tell.
pub(crate) fn from_gnu<R: Read>(header: &Block, archive: &mut Archive<R>) -> Result<Pieces, UnpackError> {
    let size = u64::try_from(number(header.get(483..495).unwrap_or_default())?);
    let size = size.map_err(|_| damaged("a negative size"))?;
    let mut list = Vec::new();
    take_slots(header.get(386..482).unwrap_or_default(), &mut list)?;
    let mut more = header.get(482).is_some_and(|byte| *byte != 0);
    while more {
        let block = archive.extra_block()?;
        take_slots(block.get(..504).unwrap_or_default(), &mut list)?;
        more = block.get(504).is_some_and(|byte| *byte != 0);
    }
    Pieces::new(list, size)
}

fn take_slots(slots: &[u8], list: &mut Vec<(u64, u64)>) -> Result<(), UnpackError> {
    for slot in slots.chunks_exact(24) {
        let (offset, length) = slot.split_at(12);
        if offset.first() == Some(&0) {
            break;
        }
        let both = u64::try_from(number(offset)?)
            .and_then(|offset| Ok((offset, u64::try_from(number(length).unwrap_or(-1))?)));
        list.push(both.map_err(|_| damaged("a sparse map with negative numbers"))?);
        if list.len() > SPARSE_PIECES_MAX {
            return Err(too_many());
        }
    }
    Ok(())
}

fn pairs<'n>(mut numbers: impl Iterator<Item = &'n [u8]>) -> Result<Vec<(u64, u64)>, UnpackError> {
    let mut list = Vec::new();
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or(damaged("a sparse map with an odd number of numbers"))?;
        list.push((decimal(offset)?, decimal(length)?));
        if list.len() > SPARSE_PIECES_MAX {
            return Err(too_many());
        }
    }
    Ok(list)
}

fn too_many() -> UnpackError {
    UnpackError::Limit { what: "pieces in a sparse file", max: SPARSE_PIECES_MAX as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_rise_and_stay_in_the_file() {
        assert_eq!(Pieces::new(vec![(0, 5), (10, 5)], 20).unwrap().stored(), 10);
        for (list, size) in
            [(vec![(5, 5), (0, 5)], 20), (vec![(0, 21)], 20), (vec![(1, u64::MAX)], 20), (vec![], u64::MAX)]
        {
            assert!(Pieces::new(list, size).is_err());
        }
    }

    #[test]
    fn a_map_in_records_or_before_the_data_is_read() {
        let mut map = PaxMap::default();
        assert!(map.take(b"GNU.sparse.map", b"0,1,4,2").unwrap() && map.take(b"GNU.sparse.size", b"9").unwrap());
        let pieces = from_pax(map, &mut Archive::new(&b""[..])).unwrap();
        assert_eq!(pieces, Pieces { list: vec![(0, 1), (4, 2)], size: 9 });
        assert!(!PaxMap::default().take(b"path", b"a").unwrap());
        assert!(PaxMap::default().take(b"GNU.sparse.numbytes", b"1").is_err());
    }
}
