//! Memory shared with the kernel or with another process.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A writable, shared mapping of the first bytes of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and may be used and unmapped by any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes, which must not be 0.
    pub(crate) fn new(file: impl AsFd, length: usize) -> io::Result<Mapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
        let start = unsafe {
            mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file.as_fd(), 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, length })
    }

    /// The mapped bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the range is mapped for reading and writing until drop; any byte value is a
        // valid u8; `&mut self` keeps other slices of this process away. Hardware and the X11
        // server only read it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped, and no slice of it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        if let Err(error) = unmapped {
            tracing::warn!("cannot unmap display memory: {error}");
        }
    }
}
