//! A file mapped into every process at its own address, read and written by checked offset.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, ProtFlags};
use sys::{Errno, Result};

/// A shared mapping. It is never unmapped: other threads may be reading.
pub struct Segment {
    base: *mut u8,
    /// Bytes of address space taken by the mapping.
    span: u64,
    /// Bytes from the start that are known to be backed; grows, never shrinks.
    backed: AtomicU64,
}

// SAFETY: the mapping is shared memory accessed only through atomics or guarded copies.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps `span` bytes of `file` from offset 0, of which `backed` exist already.
    ///
    /// Address space beyond the end of the file is reserved so that growth needs no remapping.
    pub fn map(file: BorrowedFd<'_>, span: u64, backed: u64) -> Result<Segment> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlays nothing.
        let base = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                span as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                file,
                0,
            )
        };
        let base = base.map_err(|e| Errno::new(e.raw_os_error()))?.cast::<u8>();
        Ok(Segment {
            base,
            span,
            backed: AtomicU64::new(backed.min(span)),
        })
    }

    /// The same mapping once more.
    pub fn again(&self) -> Segment {
        Segment {
            base: self.base,
            span: self.span,
            backed: AtomicU64::new(self.backed()),
        }
    }

    /// Bytes that may be touched.
    #[inline]
    pub fn backed(&self) -> u64 {
        self.backed.load(Ordering::Relaxed)
    }

    /// Records that the file has grown to `bytes`.
    pub fn set_backed(&self, bytes: u64) {
        self.backed
            .fetch_max(bytes.min(self.span), Ordering::Relaxed);
    }

    /// Address space of the mapping in bytes.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// The word at `off`; `None` when misaligned or not backed.
    #[inline]
    pub fn word(&self, off: u64) -> Option<&AtomicU64> {
        if off & 7 == 0 && off < self.backed() {
            // SAFETY: aligned, inside the mapping and backed by the file; atomics tolerate any
            // concurrent access and any bit pattern.
            Some(unsafe { &*self.base.add(off as usize).cast::<AtomicU64>() })
        } else {
            None
        }
    }

    /// The 32-bit word at `off`; `None` when misaligned or not backed.
    #[inline]
    pub fn word32(&self, off: u64) -> Option<&AtomicU32> {
        if off & 3 == 0 && off < self.backed() {
            // SAFETY: as for `word`.
            Some(unsafe { &*self.base.add(off as usize).cast::<AtomicU32>() })
        } else {
            None
        }
    }

    /// Address of `len` bytes at `off`; `None` when any of them is not backed.
    #[inline]
    pub fn bytes(&self, off: u64, len: u64) -> Option<*mut u8> {
        let end = off.checked_add(len)?;
        // SAFETY: the offset lies inside the mapping.
        (end <= self.backed()).then(|| unsafe { self.base.add(off as usize) })
    }
}
