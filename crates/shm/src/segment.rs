//! A file mapped into every process at its own address, read and written by checked offset.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags};
use sys::{Errno, Result};

/// Bytes of a huge page.
pub const HUGE_PAGE: u64 = 2 << 20;

/// A shared mapping. It is never unmapped: other threads may be reading.
pub struct Segment {
    base: *mut u8,
    /// Bytes the mapping may grow to.
    span: u64,
    /// Bytes of address space taken now; changed under `resizing`.
    mapped: AtomicU64,
    /// Bytes from the start that are known to be backed; grows, never shrinks.
    backed: AtomicU64,
    /// Process that is changing `mapped`, or 0. A child forked meanwhile does not wait for it.
    resizing: AtomicU32,
}

// SAFETY: the mapping is shared memory accessed only through atomics or guarded copies.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

/// Where mappings without reserved space lie, each with room for its span: no kernel of this
/// processor places anything there by itself.
const LONELY: usize = 0x2000_0000_0000;
const LONELY_STEP: usize = 0x100_0000_0000;
const LONELY_TRIES: usize = 16;
/// Looks at a mapping that another thread is resizing; then the caller gets `ENOMEM`, because that
/// thread may be waiting below a signal handler.
const RESIZING_TRIES: u32 = 1000;

impl Segment {
    /// Maps `span` bytes of `file` from offset 0, of which `backed` exist already.
    ///
    /// Address space beyond the end of the file is reserved so that growth needs no remapping;
    /// where the process is not allowed that much (`RLIMIT_AS`), only what exists is mapped. The
    /// start is aligned so that huge pages of the file can be mapped as such.
    pub fn map(file: BorrowedFd<'_>, span: u64, backed: u64) -> Result<Segment> {
        let backed = backed.min(span);
        let (base, mapped) = match map_aligned(file, span) {
            Err(Errno::ENOMEM) => (map_alone(file, backed)?, backed),
            base => (base?, span),
        };
        Ok(Segment {
            base,
            span,
            mapped: AtomicU64::new(mapped),
            backed: AtomicU64::new(backed),
            resizing: AtomicU32::new(0),
        })
    }

    /// Takes the mapping away.
    ///
    /// # Safety
    /// Nobody has an address in it any more.
    pub unsafe fn unmap(self) -> Result<()> {
        let mapped = self.mapped.load(Ordering::Relaxed) as usize;
        // SAFETY: a mapping of ours, which nobody uses.
        unsafe { rustix::mm::munmap(self.base.cast(), mapped) }
            .map_err(|e| Errno::new(e.raw_os_error()))
    }

    /// Bytes that may be touched.
    #[inline]
    pub fn backed(&self) -> u64 {
        self.backed.load(Ordering::Relaxed)
    }

    /// Records that the file has grown to `bytes`.
    pub fn set_backed(&self, bytes: u64) -> Result<()> {
        let bytes = bytes.min(self.span);
        if bytes <= self.backed() {
            return Ok(());
        }
        self.resize(|mapped| {
            if bytes > mapped {
                // SAFETY: a mapping of ours is lengthened where it lies; the kernel refuses if
                // something else is behind it.
                unsafe {
                    rustix::mm::mremap(
                        self.base.cast(),
                        mapped as usize,
                        bytes as usize,
                        MremapFlags::empty(),
                    )
                }
                .map_err(|e| Errno::new(e.raw_os_error()))?;
                self.mapped.store(bytes, Ordering::Relaxed);
            }
            self.backed.fetch_max(bytes, Ordering::Relaxed);
            Ok(())
        })
    }

    /// Has the kernel map `len` bytes from `off` for this process at once, which takes a tenth of the
    /// time that a fault for each page does. Where it cannot (before Linux 5.14), nothing else changes.
    pub fn populate(&self, off: u64, len: u64) {
        if off.saturating_add(len) > self.backed() {
            return;
        }
        // SAFETY: advice on a part of the own mapping; the content stays as it is.
        let advised = unsafe {
            let address = self.base.add(off as usize) as usize;
            sys::syscall!(sys::raw::MADVISE, address, len, sys::raw::POPULATE_WRITE)
        };
        // Nothing depends on it.
        advised.unwrap_or_default();
    }

    /// Whether the kernel has all pages of `len` bytes from `off`, a page boundary, in memory, mapped
    /// or not (`mincore(2)`). False for more than 256 KiB.
    pub fn is_resident(&self, off: u64, len: u64) -> bool {
        let mut pages = [0u8; 64];
        let count = len.div_ceil(4096) as usize;
        if off.saturating_add(len) > self.backed() || count > pages.len() {
            return false;
        }
        // SAFETY: a part of the own mapping; the vector has a byte for each of its pages.
        let known = unsafe {
            let address = self.base.add(off as usize) as usize;
            sys::syscall!(sys::raw::MINCORE, address, len, pages.as_mut_ptr() as usize)
        };
        known.is_ok() && pages[..count].iter().all(|page| page & 1 != 0)
    }

    /// Has the kernel unmap `len` bytes from `off` for this process: what was stored stays in the file, and the next
    /// access maps it again.
    pub fn let_go(&self, off: u64, len: u64) {
        if off.saturating_add(len) > self.backed() {
            return;
        }
        // SAFETY: a part of the own mapping, which is a shared one of a file: the content stays.
        let gone = unsafe {
            let address = self.base.add(off as usize);
            rustix::mm::madvise(
                address.cast(),
                len as usize,
                rustix::mm::Advice::LinuxDontNeed,
            )
        };
        // Nothing depends on it.
        gone.unwrap_or_default();
    }

    /// Asks the kernel to put the huge pages of the file that lie wholly in `len` bytes from `off`
    /// together, for every process that maps them. They are then mapped in one fault each instead
    /// of 512. One of which nothing but its beginning is there yet is made in a tenth of the time that
    /// 512 pages take; what holds nothing at all is left alone. Whether it does (Linux 6.1, memory
    /// permitting) changes nothing else; says so.
    pub fn gather(&self, off: u64, len: u64) -> bool {
        /// `MADV_COLLAPSE` (`madvise(2)`).
        const COLLAPSE: usize = 25;
        let mapped = self.mapped.load(Ordering::Relaxed);
        let end = off.saturating_add(len).min(mapped) / HUGE_PAGE * HUGE_PAGE;
        let start = off.next_multiple_of(HUGE_PAGE);
        if start >= end {
            return false;
        }
        // SAFETY: advice on a part of the own mapping; the content stays as it is.
        let advised = unsafe {
            let address = self.base.add(start as usize) as usize;
            sys::syscall!(sys::raw::MADVISE, address, end - start, COLLAPSE)
        };
        advised.is_ok()
    }

    /// Gives reserved address space back, because the process is now allowed less of it.
    pub fn shrink(&self) -> Result<()> {
        self.resize(|mapped| {
            let keep = self.backed();
            if keep < mapped {
                // SAFETY: nothing beyond `backed` is touched, and it does not grow meanwhile.
                unsafe {
                    let rest = self.base.add(keep as usize);
                    rustix::mm::munmap(rest.cast(), (mapped - keep) as usize)
                }
                .map_err(|e| Errno::new(e.raw_os_error()))?;
                self.mapped.store(keep, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    /// Runs `change` with the bytes mapped, one thread at a time.
    fn resize(&self, change: impl FnOnce(u64) -> Result<()>) -> Result<()> {
        let me = rustix::process::getpid().as_raw_nonzero().get() as u32;
        for _ in 0..RESIZING_TRIES {
            let holder = self.resizing.load(Ordering::Relaxed);
            if holder != me
                && self
                    .resizing
                    .compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                let done = change(self.mapped.load(Ordering::Relaxed));
                self.resizing.store(0, Ordering::Release);
                return done;
            }
            rustix::thread::sched_yield();
        }
        Err(Errno::ENOMEM)
    }

    /// Bytes the mapping may grow to.
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

/// Maps `len` bytes at a multiple of [`HUGE_PAGE`]: where the kernel does not choose one itself, the
/// last one before the room it has found, as it looks for room downwards.
fn map_aligned(file: BorrowedFd<'_>, len: u64) -> Result<*mut u8> {
    let base = map_at(file, core::ptr::null_mut(), len)?;
    let beyond = base.addr() % HUGE_PAGE as usize;
    if beyond == 0 || len < HUGE_PAGE {
        return Ok(base);
    }
    // SAFETY: the mapping was made just now and nobody knows of it.
    unsafe { rustix::mm::munmap(base.cast(), len as usize) }
        .map_err(|e| Errno::new(e.raw_os_error()))?;
    match map_at(file, base.wrapping_sub(beyond), len) {
        // Something is there, or has come to be.
        Err(Errno::EEXIST) => map_at(file, core::ptr::null_mut(), len),
        other => other,
    }
}

fn map_at(file: BorrowedFd<'_>, at: *mut u8, len: u64) -> Result<*mut u8> {
    let place = if at.is_null() {
        MapFlags::empty()
    } else {
        MapFlags::FIXED_NOREPLACE
    };
    // SAFETY: a fresh mapping that overlays nothing: the kernel chooses the address or refuses one
    // that is taken.
    unsafe {
        rustix::mm::mmap(
            at.cast(),
            len as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::NORESERVE | place,
            file,
            0,
        )
    }
    .map(<*mut _>::cast)
    .map_err(|e| Errno::new(e.raw_os_error()))
}

/// Maps `len` bytes where there is room behind them.
fn map_alone(file: BorrowedFd<'_>, len: u64) -> Result<*mut u8> {
    let mut result = Err(Errno::ENOMEM);
    for i in 0..LONELY_TRIES {
        let at = core::ptr::without_provenance_mut(LONELY + i * LONELY_STEP);
        result = map_at(file, at, len);
        if result != Err(Errno::EEXIST) {
            break;
        }
    }
    result
}
