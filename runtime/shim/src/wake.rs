//! The closed list of what can wake the shim, and the number by which the kernel tells each.

use crate::entry::Stream;

/// A descriptor that became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// A client wants to be accepted.
    Listener,
    /// A child ended, or somebody sent a signal.
    Signals,
    /// A client, by number, has sent something, has room again or has gone.
    Client(u32),
    /// A container, by number, has written to one of its streams.
    Output(u32, Stream),
    /// The kernel has something to tell about a container's memory.
    Oom(u32),
    /// A copy of a container's output, by its own number, is not read any more.
    Copy(u32),
}

impl Wake {
    /// The number to watch a descriptor under.
    pub(crate) fn token(self) -> u64 {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Client(number) => (2, number),
            Self::Output(number, Stream::Stdout) => (3, number),
            Self::Output(number, Stream::Stderr) => (4, number),
            Self::Oom(number) => (5, number),
            Self::Copy(number) => (6, number),
        };
        kind << 32 | u64::from(number)
    }

    /// What a number stands for.
    pub(crate) fn from_token(token: u64) -> Option<Self> {
        let number = token as u32;
        match token >> 32 {
            0 => Some(Self::Listener),
            1 => Some(Self::Signals),
            2 => Some(Self::Client(number)),
            3 => Some(Self::Output(number, Stream::Stdout)),
            4 => Some(Self::Output(number, Stream::Stderr)),
            5 => Some(Self::Oom(number)),
            6 => Some(Self::Copy(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let wakes = [
            Wake::Listener,
            Wake::Signals,
            Wake::Client(u32::MAX),
            Wake::Output(7, Stream::Stdout),
            Wake::Output(7, Stream::Stderr),
            Wake::Oom(7),
            Wake::Copy(7),
        ];
        for wake in wakes {
            assert_eq!(Wake::from_token(wake.token()), Some(wake));
        }
        assert_eq!(Wake::from_token(99 << 32), None);
    }
}
