//! Copies of a stream, for those who are attached to a container. Nobody waits for them: who does not keep up misses
//! something.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::write;

/// All copies of one stream.
#[derive(Debug, Default)]
pub(crate) struct Copies(Vec<Copy>);

#[derive(Debug)]
struct Copy {
    number: u32,
    fd: OwnedFd,
    /// Whether it has missed something, and waits for the end of a line to go on.
    behind: bool,
    /// Whether what it has seen ends within a line.
    within_line: bool,
}

impl Copies {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// One more copy, under a number that no other has.
    pub(crate) fn begin(&mut self, number: u32, fd: OwnedFd) -> nix::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        self.0.push(Copy { number, fd, behind: false, within_line: false });
        Ok(())
    }

    /// Ends the copy with this number, if it is here.
    pub(crate) fn end(&mut self, number: u32) -> Option<OwnedFd> {
        let index = self.0.iter().position(|copy| copy.number == number)?;
        Some(self.0.swap_remove(index).fd)
    }

    /// Where they go.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|copy| copy.fd.as_fd())
    }

    /// Gives everybody the next bytes of the stream. Who has gone is found out by a hang-up.
    pub(crate) fn write(&mut self, data: &[u8]) {
        for copy in &mut self.0 {
            copy.write(data);
        }
    }
}

impl Copy {
    fn write(&mut self, mut data: &[u8]) {
        if self.behind {
            let Some(end) = memchr::memchr(b'\n', data) else { return };
            // A line that was cut off gets its end.
            data = if self.within_line { &data[end..] } else { &data[end + 1..] };
            self.behind = false;
        }
        while !data.is_empty() {
            match write(&self.fd, data) {
                Ok(count) => {
                    let (seen, rest) = data.split_at(count);
                    self.within_line = seen.last().is_some_and(|byte| *byte != b'\n');
                    data = rest;
                }
                Err(Errno::EINTR) => {}
                Err(_) => {
                    self.behind = true;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, pipe};

    #[test]
    fn who_is_slow_misses_whole_lines_and_delays_nobody() {
        let ((mut quick, quick_end), (mut slow, slow_end)) = (pipe().unwrap(), pipe().unwrap());
        let mut copies = Copies::default();
        copies.begin(1, quick_end.into()).unwrap();
        copies.begin(2, slow_end.into()).unwrap();
        let line = |number: usize| format!("line {number} {}\n", "x".repeat(1000));
        let mut seen = String::new();
        for number in 0..1000 {
            copies.write(line(number).as_bytes());
            let mut buffer = [0; 2000];
            let count = quick.read(&mut buffer).unwrap();
            seen.push_str(str::from_utf8(&buffer[..count]).unwrap());
        }
        assert_eq!(seen, (0..1000).map(line).collect::<String>());
        let mut buffer = [0; 1 << 20];
        let mut seen = String::new();
        let count = slow.read(&mut buffer).unwrap();
        seen.push_str(str::from_utf8(&buffer[..count]).unwrap());
        copies.write(line(1000).as_bytes());
        copies.write(line(1001).as_bytes());
        copies.end(2).unwrap();
        slow.read_to_string(&mut seen).unwrap();
        let lines: Vec<&str> = seen.lines().collect();
        assert!(lines.len() < 100 && seen.ends_with(&line(1001)), "{}", lines.len());
        let numbers: Vec<usize> = lines.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        assert!(
            numbers.is_sorted() && lines.iter().zip(numbers).all(|(text, number)| format!("{text}\n") == line(number))
        );
    }
}
