//! Lines as a log has them, `<stamp> <stream> <tag> <text>`, laid one after the other into room that all logs share.

use std::io::Write;

use jiff::Timestamp;

use crate::line::Tag;

/// Which of a container's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Descriptor 1, or the container's terminal.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// How long everything before the text is: a stamp with nanoseconds, the stream and the tag, and a space after each.
pub(crate) const HEAD_BYTES: usize = 40;

/// Where in it the tag stands.
const TAG_AT: usize = HEAD_BYTES - 2;

/// What precedes the text of each line that came with one read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head([u8; HEAD_BYTES]);

impl Head {
    /// For lines that were read at this time.
    pub(crate) fn new(at: Timestamp, stream: Stream) -> Self {
        let mut bytes = [b' '; HEAD_BYTES];
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        // It fits: a stamp of the years up to 9999 has 30 characters.
        let _ = write!(&mut bytes[..TAG_AT], "{at:.9} {stream} ");
        Self(bytes)
    }

    fn tagged(mut self, tag: Tag) -> [u8; HEAD_BYTES] {
        self.0[TAG_AT] = match tag {
            Tag::Full => b'F',
            Tag::Partial => b'P',
        };
        self.0
    }
}

/// Whole lines on their way into one file.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> Batch<'a> {
    /// An empty one, with room for this many bytes.
    pub(crate) fn new(room: &'a mut [u8]) -> Self {
        Self { room, len: 0 }
    }

    /// The length of the line that a text becomes.
    pub(crate) fn entry_bytes(text_bytes: usize) -> usize {
        HEAD_BYTES + text_bytes + 1
    }

    /// Whether a line of this length still fits.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.room.len() - self.len >= bytes
    }

    /// Adds a line, whose text comes in two parts. One that does not fit is not added.
    pub(crate) fn push(&mut self, head: Head, tag: Tag, first: &[u8], second: &[u8]) {
        let bytes = Self::entry_bytes(first.len() + second.len());
        let Some(room) = self.room.get_mut(self.len..self.len + bytes) else { return };
        let (start, text) = room.split_at_mut(HEAD_BYTES);
        start.copy_from_slice(&head.tagged(tag));
        text[..first.len()].copy_from_slice(first);
        text[first.len()..first.len() + second.len()].copy_from_slice(second);
        text[first.len() + second.len()] = b'\n';
        self.len += bytes;
    }

    /// What it holds.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }

    /// Forgets what it holds.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_stamp_stream_and_tag() {
        for (stamp, stream, tag, text) in [
            ("2016-10-06T00:17:09.669794202Z", Stream::Stdout, Tag::Full, "2016-10-06T00:17:09.669794202Z stdout F "),
            ("2016-10-06T00:17:09Z", Stream::Stderr, Tag::Partial, "2016-10-06T00:17:09.000000000Z stderr P "),
        ] {
            let head = Head::new(stamp.parse().unwrap(), stream).tagged(tag);
            assert_eq!(str::from_utf8(&head).unwrap(), text);
        }
    }

    #[test]
    fn a_batch_takes_what_fits_and_no_more() {
        let mut room = [0; 2 * HEAD_BYTES];
        let mut batch = Batch::new(&mut room);
        let head = Head::new(Timestamp::UNIX_EPOCH, Stream::Stdout);
        batch.push(head, Tag::Full, b"he", b"llo");
        assert!(batch.has_room(HEAD_BYTES - 6) && !batch.has_room(HEAD_BYTES - 5));
        batch.push(head, Tag::Full, b"", b"");
        assert_eq!(str::from_utf8(batch.bytes()).unwrap(), "1970-01-01T00:00:00.000000000Z stdout F hello\n");
        batch.clear();
        assert!(batch.bytes().is_empty());
    }
}
