//! Output cut into lines, pure: what is whole, what is part of a longer line, what has to wait for its end.

use crate::limits::LOG_LINE_BYTES_MAX;

/// Whether a logged line is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// It ended with a newline.
    Full,
    /// More of the same line follows, or it never ended.
    Partial,
}

/// The end of a stream that has not seen its newline yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Cuts `data`, the next bytes of the stream, and gives each line to `emit` in two parts, one after the other.
    pub(crate) fn feed(&mut self, mut data: &[u8], mut emit: impl FnMut(Tag, &[u8], &[u8])) {
        while !data.is_empty() {
            let room = LOG_LINE_BYTES_MAX - self.pending.len();
            let reach = data.len().min(room + 1);
            match memchr::memchr(b'\n', &data[..reach]) {
                Some(end) => {
                    emit(Tag::Full, &self.pending, &data[..end]);
                    self.forget();
                    data = &data[end + 1..];
                }
                None if data.len() > room => {
                    emit(Tag::Partial, &self.pending, &data[..room]);
                    self.forget();
                    data = &data[room..];
                }
                None => {
                    self.pending.extend_from_slice(data);
                    data = &[];
                }
            }
        }
    }

    /// The stream has ended: what never saw its newline is given to `emit`.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(Tag, &[u8], &[u8])) {
        if !self.pending.is_empty() {
            emit(Tag::Partial, &self.pending, &[]);
            self.forget();
        }
    }

    /// Frees the room of a long line as well: there is one of these per stream, for the life of a pod.
    fn forget(&mut self) {
        if !self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(Tag, Vec<u8>)> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |tag, head, tail| seen.push((tag, [head, tail].concat())));
        }
        lines.finish(|tag, head, tail| seen.push((tag, [head, tail].concat())));
        seen
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let full = |text: &str| (Tag::Full, text.as_bytes().to_vec());
        for chunks in [&[&b"a\nbc\n\nd\n"[..]][..], &[b"a", b"\nb", b"c\n", b"", b"\nd", b"\n"]] {
            assert_eq!(cut(chunks), [full("a"), full("bc"), full(""), full("d")]);
        }
        assert_eq!(cut(&[b"a\nend"]), [full("a"), (Tag::Partial, b"end".to_vec())]);
        assert_eq!(cut(&[]), []);
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_a_longer_one_comes_in_parts() {
        let max = vec![b'x'; LOG_LINE_BYTES_MAX];
        let newline = &b"\n"[..];
        assert_eq!(cut(&[&max, newline]), [(Tag::Full, max.clone())]);
        assert_eq!(cut(&[&max, b"y", newline]), [(Tag::Partial, max.clone()), (Tag::Full, b"y".to_vec())]);
        let long = [&max[..], &max, &max, b"\nz\n"].concat();
        let parts = [(Tag::Partial, max.clone()), (Tag::Partial, max.clone()), (Tag::Full, max.clone())];
        for size in [1, 7, LOG_LINE_BYTES_MAX - 1, LOG_LINE_BYTES_MAX, LOG_LINE_BYTES_MAX + 1, long.len()] {
            let chunks: Vec<_> = long.chunks(size).collect();
            let seen = cut(&chunks);
            assert_eq!(seen[..3], parts, "in chunks of {size}");
            assert_eq!(seen[3..], [(Tag::Full, b"z".to_vec())], "in chunks of {size}");
        }
    }
}
