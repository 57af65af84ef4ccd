//! Memory shared with the kernel or with another process.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A writable, shared mapping of bytes near the beginning of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    /// Bytes of the mapping before those that were asked for.
    skip: usize,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and may be used and unmapped by any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes after the first `skip`; not none.
    pub(crate) fn new(file: impl AsFd, skip: usize, length: usize) -> io::Result<Mapping> {
        let whole = skip.checked_add(length).ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
        let start =
            unsafe { mmap(ptr::null_mut(), whole, protection, MapFlags::SHARED, file.as_fd(), 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, skip, length })
    }

    /// The bytes that were asked for.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the range lies in what `new` mapped for reading and writing until drop; any byte
        // value is a valid u8; `&mut self` keeps other slices of this process away. Hardware and the
        // X11 server only read it. The kernel's text console may draw its cursor into a frame buffer
        // at any time: that cannot be kept out from here, and nothing is decided by what is read back.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(self.skip), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped, and no slice of it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.skip + self.length) };
        if let Err(error) = unmapped {
            tracing::warn!("cannot unmap display memory: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_skipped_stays_as_it_is() {
        let path = std::env::temp_dir().join(format!("display-mapping-{}", std::process::id()));
        let mut file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .expect("a scratch file");
        file.write_all(&[1, 2, 3, 4, 5, 6]).expect("written");
        let mut mapping = Mapping::new(&file, 2, 3).expect("mapped");
        assert_eq!(mapping.bytes(), [3, 4, 5]);
        mapping.bytes().fill(0);
        drop(mapping);
        assert_eq!(std::fs::read(&path).expect("there"), [1, 2, 0, 0, 0, 6]);
        std::fs::remove_file(&path).expect("ours");
    }
}
