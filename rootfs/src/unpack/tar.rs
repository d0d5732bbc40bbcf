//! Tar as a stream of entries: ustar, GNU and PAX, read by our own rules because the archive is a stranger's.
//!
//! Each limit holds before anything is allocated; a size is read once and means the same for the data and for the place
//! of the next header, so that no two readers can see different entries in one archive. Global PAX headers are skipped,
//! as other container engines do.

use std::io::{self, Read};

use nix::sys::stat::SFlag;

use super::pax::{self, Extended};
use super::sparse::{self, Pieces};
use crate::error::UnpackError;
use crate::limits::{EXTENDED_HEADER_BYTES_MAX, PATH_BYTES_MAX};

pub(crate) const BLOCK: usize = 512;

/// One header.
pub(crate) type Block = [u8; BLOCK];

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    SymbolicLink,
    Folder,
    Fifo,
    /// A character or block device, and its number.
    Device(SFlag, u64),
}

/// One entry, its extensions applied.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    /// Where a link points.
    pub(crate) target: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of data in the archive.
    pub(crate) stored: u64,
    /// Where the data belongs, if the file has holes.
    pub(crate) pieces: Option<Pieces>,
}

/// Reads entries, and each entry's data by [`Read`] until the next is asked for.
pub(crate) struct Archive<R> {
    inner: R,
    /// Data of the current entry not read yet.
    left: u64,
    /// Bytes that fill its last block.
    padding: u64,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the archive's end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut long = Long::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else {
                return match long.is_empty() {
                    true => Ok(None),
                    false => Err(damaged("it ends after an extended header")),
                };
            };
            let header = Header(&block);
            match header.kind() {
                b'g' => self.set_data(header.size()?)?,
                b'x' => set_once(&mut long.extended, pax::parse(&self.extended(&header)?)?)?,
                b'L' => set_once(&mut long.path, self.long_name(&header)?)?,
                b'K' => set_once(&mut long.target, self.long_name(&header)?)?,
                _ => return self.entry(&header, long).map(Some),
            }
        }
    }

    /// The reader, standing at the entry's data, and how far it is to the next header: for a caller that passes over data
    /// without reading it.
    pub(crate) fn pass_over(&mut self) -> (&mut R, u64) {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        (&mut self.inner, rest)
    }

    /// The reader, from wherever it stands now.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn entry(&mut self, header: &Header<'_>, long: Long) -> Result<Entry, UnpackError> {
        let extended = long.extended.unwrap_or_default();
        let path = extended.path.or(long.path).unwrap_or_else(|| header.path());
        let (kind, has_data) = kind_of(header, &path)?;
        let size = extended.size.map_or_else(|| header.size(), Ok)?;
        self.set_data(if has_data { size } else { 0 })?;
        let old_sparse = header.kind() == b'S';
        let pieces = match extended.sparse {
            Some(_) if old_sparse || kind != Kind::File => return Err(damaged("a sparse map on what has none")),
            Some(map) => Some(sparse::from_pax(map, self)?),
            None if old_sparse => Some(sparse::from_gnu(header.0, self)?),
            None => None,
        };
        if let Some(pieces) = &pieces
            && pieces.stored() != self.left
        {
            return Err(damaged("a sparse map that does not fit its data"));
        }
        Ok(Entry {
            kind,
            path,
            target: extended.target.or(long.target).unwrap_or_else(|| header.target()),
            mode: u32::try_from(header.number(100, 8)? & 0o7777).unwrap_or_default(),
            uid: id(extended.uid.map_or_else(|| header.number(108, 8), Ok)?)?,
            gid: id(extended.gid.map_or_else(|| header.number(116, 8), Ok)?)?,
            modified: extended.modified.map_or_else(|| header.number(136, 12).map(|seconds| (seconds, 0)), Ok)?,
            attributes: extended.attributes,
            stored: self.left,
            pieces,
        })
    }

    /// The next header; `None` for the zeros that end an archive, and for its sudden but clean end.
    fn header(&mut self) -> Result<Option<Block>, UnpackError> {
        let mut block = [0; BLOCK];
        match read_full(&mut self.inner, &mut block)? {
            0 => return Ok(None),
            BLOCK if block == [0; BLOCK] => return Ok(None),
            BLOCK => {}
            _ => return Err(damaged("it ends inside a header")),
        }
        Header(&block).check_sum()?;
        Ok(Some(block))
    }

    /// One more block of the current entry's header, which is not part of its data.
    pub(crate) fn extra_block(&mut self) -> Result<Block, UnpackError> {
        let mut block = [0; BLOCK];
        match read_full(&mut self.inner, &mut block)? {
            BLOCK => Ok(block),
            _ => Err(damaged("it ends inside a header")),
        }
    }

    fn set_data(&mut self, size: u64) -> Result<(), UnpackError> {
        let block = BLOCK as u64;
        self.padding = (block - size % block) % block;
        self.left = size;
        size.checked_add(self.padding).map(drop).ok_or(damaged("an impossible size"))
    }

    fn extended(&mut self, header: &Header<'_>) -> Result<Vec<u8>, UnpackError> {
        let size = header.size()?;
        if size > EXTENDED_HEADER_BYTES_MAX {
            return Err(UnpackError::Limit { what: "bytes in an extended header", max: EXTENDED_HEADER_BYTES_MAX });
        }
        self.set_data(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(|source| UnpackError::Read { source })?;
        match self.left {
            0 => Ok(bytes),
            _ => Err(damaged("it ends inside an extended header")),
        }
    }

    fn long_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, UnpackError> {
        let bytes = self.extended(header)?;
        Ok(until_nul(&bytes).to_vec())
    }

    fn skip_rest(&mut self) -> Result<(), UnpackError> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink());
        (self.left, self.padding) = (0, 0);
        match skipped {
            Ok(count) if count == rest => Ok(()),
            Ok(_) => Err(damaged("it ends inside an entry")),
            Err(source) => Err(UnpackError::Read { source }),
        }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Headers that belong to the next entry.
#[derive(Default)]
struct Long {
    extended: Option<Extended>,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Long {
    fn is_empty(&self) -> bool {
        self.extended.is_none() && self.path.is_none() && self.target.is_none()
    }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), UnpackError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(damaged("two extended headers of one kind before one entry")),
    }
}

/// A kind, and whether data follows.
fn kind_of(header: &Header<'_>, path: &[u8]) -> Result<(Kind, bool), UnpackError> {
    match header.kind() {
        // The oldest archives mark a folder by a slash alone.
        0 if path.ends_with(b"/") => Ok((Kind::Folder, false)),
        0 | b'0' | b'7' | b'S' => Ok((Kind::File, true)),
        b'1' => Ok((Kind::HardLink, false)),
        b'2' => Ok((Kind::SymbolicLink, false)),
        b'3' => Ok((Kind::Device(SFlag::S_IFCHR, header.device()), false)),
        b'4' => Ok((Kind::Device(SFlag::S_IFBLK, header.device()), false)),
        b'5' => Ok((Kind::Folder, false)),
        b'6' => Ok((Kind::Fifo, false)),
        _ => Err(UnpackError::Entry { path: printable(path), why: "its type is unknown" }),
    }
}

fn id(number: i64) -> Result<u32, UnpackError> {
    u32::try_from(number).map_err(|_| damaged("an owner that is no 32-bit number"))
}

/// One header's fields, by their place.
struct Header<'b>(&'b Block);

impl Header<'_> {
    fn field(&self, start: usize, length: usize) -> &[u8] {
        self.0.get(start..start + length).unwrap_or_default()
    }

    fn kind(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    fn size(&self) -> Result<u64, UnpackError> {
        u64::try_from(self.number(124, 12)?).map_err(|_| damaged("a negative size"))
    }

    fn number(&self, start: usize, length: usize) -> Result<i64, UnpackError> {
        number(self.field(start, length))
    }

    /// The number of a device; 0:0, which is none, if it is no number at all.
    fn device(&self) -> u64 {
        let part = |start| self.number(start, 8).ok().and_then(|number| u64::try_from(number).ok());
        part(329).zip(part(337)).map_or(0, |(major, minor)| nix::sys::stat::makedev(major, minor))
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let prefix = until_nul(self.field(345, 155));
        // GNU archives have times where POSIX has the prefix; their magic differs.
        if self.field(257, 6) != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn target(&self) -> Vec<u8> {
        until_nul(self.field(157, 100)).to_vec()
    }

    /// The sum of all bytes with the sum itself as spaces; some old writers took bytes for signed numbers.
    fn check_sum(&self) -> Result<(), UnpackError> {
        let bytes = || self.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        let sum = self.number(148, 8)?;
        if sum == unsigned || sum == signed { Ok(()) } else { Err(damaged("a header's checksum is wrong")) }
    }
}

/// A number: octal digits between spaces and NULs, or, with the first bit set, a big-endian binary one.
pub(crate) fn number(field: &[u8]) -> Result<i64, UnpackError> {
    let wrong = damaged("a field that is no number");
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            // The second bit is the sign.
            let start = if first & 0x40 != 0 { -1 } else { 0 };
            let first = if start < 0 { i64::from(first | 0x80) - 256 } else { i64::from(first & 0x3f) };
            let mut digits = field.iter().skip(1).map(|byte| i64::from(*byte));
            digits.try_fold(first, |sum, digit| sum.checked_mul(256)?.checked_add(digit)).ok_or(wrong)
        }
        _ => {
            let is_blank = |byte: &u8| *byte == b' ' || *byte == 0;
            let digits = field.iter().skip_while(|byte| is_blank(byte)).take_while(|byte| !is_blank(byte));
            digits
                .map(|byte| matches!(byte, b'0'..=b'7').then(|| i64::from(byte - b'0')))
                .try_fold(0i64, |sum, digit| sum.checked_mul(8)?.checked_add(digit?))
                .ok_or(wrong)
        }
    }
}

pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(crate) fn damaged(why: &'static str) -> UnpackError {
    UnpackError::Damaged { why }
}

/// A path for a message: cut to what can be read.
pub(crate) fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path.get(..PATH_BYTES_MAX.min(path.len())).unwrap_or_default()).into_owned()
}

/// Reads until the buffer is full or the stream ends.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, UnpackError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(UnpackError::Read { source }),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(bytes: &[u8]) -> Result<Vec<Entry>, UnpackError> {
        let mut archive = Archive::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn header(kind: u8, path: &str, size: u64) -> Vec<u8> {
        let mut header = ::tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_mode(0o644);
        header.set_size(size);
        header.set_entry_type(::tar::EntryType::new(kind));
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn data(bytes: &[u8]) -> Vec<u8> {
        let mut block = bytes.to_vec();
        block.resize(bytes.len().next_multiple_of(BLOCK), 0);
        block
    }

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"    644 ").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\x20\0\0").unwrap(), 0x200000);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe").unwrap(), -2);
        for bad in [&b"9"[..], b"x", b"-1", b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pax_size_counts_for_the_data_and_for_the_next_header() {
        let record = b"12 size=512\n";
        let inner = header(b'0', "hidden", 0);
        let archive = [header(b'x', "p", record.len() as u64), data(record), header(b'0', "file", 0), inner];
        let entries = walk(&archive.concat()).unwrap();
        assert_eq!(
            entries.iter().map(|entry| (&entry.path[..], entry.stored)).collect::<Vec<_>>(),
            [(&b"file"[..], 512)]
        );
    }

    #[test]
    fn a_truncated_archive_is_an_error_wherever_it_ends() {
        let archive = [header(b'L', "l", 9), data(b"long/name"), header(b'0', "file", 3), data(b"abc")].concat();
        assert_eq!(walk(&archive).unwrap()[0].path, b"long/name");
        for end in 1..archive.len() {
            assert!(walk(&archive[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn an_extended_header_has_a_limit_before_it_is_read() {
        let archive = header(b'x', "p", EXTENDED_HEADER_BYTES_MAX + 1);
        assert!(matches!(walk(&archive), Err(UnpackError::Limit { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = walk(&bytes);
        }

        #[test]
        fn any_header_with_a_right_sum_is_read_or_refused(
            kind in proptest::sample::select(&b"\x000123456789xgLKSDV"[..]),
            noise in proptest::collection::vec((0usize..512, any::<u8>()), 0..24),
            body in proptest::collection::vec(any::<u8>(), 0..1600),
        ) {
            let mut block = header(kind, "a", body.len() as u64);
            for (at, byte) in noise {
                block[at] = byte;
            }
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let _ = walk(&[block, data(&body), header(b'0', "after", 0)].concat());
        }
    }
}
