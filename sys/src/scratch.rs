//! Room for work that comes and goes: a fixed range of addresses whose pages exist only while something is written to
//! them. Unlike an allocator's buffers it costs nothing while it rests, and nothing to have at hand again.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::{fmt, io, ptr, slice};

/// Bytes that are zero at first and after every [`Scratch::release`].
pub struct Scratch {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its memory alone, as a boxed slice would.
unsafe impl Send for Scratch {}

impl Scratch {
    /// Reserves `len` bytes of address space, more than none.
    pub fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping, at an address that the kernel chooses: nothing else lies there.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Gives the pages back to the kernel; what was written is gone.
    pub fn release(&mut self) {
        // SAFETY: the mapping is ours, and borrowed by nobody, for `self` is borrowed mutably. Refused or not, the bytes
        // stay initialised.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has this length, lives as long as `self`, and the kernel gives zeros for untouched pages.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `self` is borrowed mutably, so this is the only view.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody borrows it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_stays_until_it_is_released() {
        let mut scratch = Scratch::new(1 << 20).unwrap();
        scratch[..3].copy_from_slice(b"abc");
        scratch[(1 << 20) - 1] = 7;
        assert_eq!((&scratch[..4], scratch[(1 << 20) - 1]), (&b"abc\0"[..], 7));
        scratch.release();
        assert!(scratch.iter().all(|byte| *byte == 0));
        assert_eq!(Scratch::new(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
