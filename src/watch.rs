//! Which pages of a shared mapping the program has stored to.
//!
//! The kernel protects the pages of a watched range, lifts that by itself at the first store to each
//! page and remembers it: `userfaultfd(2)` with `UFFD_FEATURE_WP_ASYNC` and the `PAGEMAP_SCAN` ioctl
//! (Linux 6.7). The memory survives that pages are swapped out or dropped. Where this cannot be had,
//! ranges are not watched. A forked child has none of it: asked about what it inherited, the kernel
//! refuses, and the answer is that nothing is known.

use crate::abi::nr;
use crate::kernel::{self, addr, call};
use core::sync::atomic::{AtomicI32, Ordering};
use sys::{Errno, Result, own_fd};

const USERFAULTFD: usize = 323;
const UFFD_USER_MODE_ONLY: u32 = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_API: usize = 0xc018_aa3f;
const UFFDIO_REGISTER: usize = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;
const UFFDIO_WRITEPROTECT: usize = 0xc018_aa06;
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1;
const PAGEMAP_SCAN: usize = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 2;
const PAGE_IS_WRITTEN: u64 = 2;
const MS_ASYNC: usize = 1;

/// Ranges reported by one scan.
const RANGES: usize = 64;

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArg>() == 0x60);

/// The descriptors, and the process they speak of: a child inherits them, but not what they name.
struct Watcher {
    process: AtomicI32,
    faults: AtomicI32,
    pagemap: AtomicI32,
}

static WATCHER: Watcher = Watcher {
    process: AtomicI32::new(0),
    faults: AtomicI32::new(-1),
    pagemap: AtomicI32::new(-1),
};

/// Opens both descriptors unless this process has tried before. The caller holds off other threads.
fn ready() -> bool {
    let process = kernel::getpid();
    if WATCHER.process.load(Ordering::Acquire) != process {
        for old in [&WATCHER.faults, &WATCHER.pagemap] {
            let fd = old.swap(-1, Ordering::AcqRel);
            if fd >= 0 {
                own_fd::close(fd);
            }
        }
        if let (Ok(faults), Ok(pagemap)) = (open_faults(), open_pagemap()) {
            WATCHER.faults.store(faults, Ordering::Release);
            WATCHER.pagemap.store(pagemap, Ordering::Release);
        }
        WATCHER.process.store(process, Ordering::Release);
    }
    WATCHER.pagemap.load(Ordering::Acquire) >= 0
}

fn open_pagemap() -> Result<i32> {
    let fd = kernel::open(c"/proc/self/pagemap", crate::abi::O_CLOEXEC)?;
    own_fd::keep(fd)
}

fn open_faults() -> Result<i32> {
    let flags = crate::abi::O_CLOEXEC | crate::abi::O_NONBLOCK | UFFD_USER_MODE_ONLY;
    let fd = own_fd::keep(call!(USERFAULTFD, flags)? as i32)?;
    let features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED;
    let api = [UFFD_API, features, 0];
    if let Err(errno) = call!(nr::IOCTL, fd, UFFDIO_API, addr(&api)) {
        own_fd::close(fd);
        return Err(errno);
    }
    Ok(fd)
}

/// Starts watching a mapping that nobody has stored to yet; false if that cannot be had. The caller
/// holds off other threads.
pub(crate) fn start(address: usize, len: usize) -> bool {
    if !ready() {
        return false;
    }
    let (start, len) = (address as u64, len as u64);
    let faults = WATCHER.faults.load(Ordering::Acquire);
    let register = [start, len, UFFDIO_REGISTER_MODE_WP, 0];
    let protect = [start, len, UFFDIO_WRITEPROTECT_MODE_WP];
    call!(nr::IOCTL, faults, UFFDIO_REGISTER, addr(&register)).is_ok()
        && call!(nr::IOCTL, faults, UFFDIO_WRITEPROTECT, addr(&protect)).is_ok()
}

/// Reports every range of a watched piece that was stored to since it was last asked for. An error
/// means that not all may have been reported; `ENXIO` that it is not watched.
pub(crate) fn take(
    start: usize,
    end: usize,
    each: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let pagemap = WATCHER.pagemap.load(Ordering::Acquire);
    if pagemap < 0 || WATCHER.process.load(Ordering::Acquire) != kernel::getpid() {
        return Err(Errno::ENXIO);
    }
    // Something may have been unmapped unnoticed, which a scan passes over.
    call!(nr::MSYNC, start, end - start, MS_ASYNC)?;
    let none = PageRegion {
        start: 0,
        end: 0,
        categories: 0,
    };
    let ranges = [none; RANGES];
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
        start: start as u64,
        end: end as u64,
        walk_end: 0,
        vec: addr(&ranges) as u64,
        vec_len: RANGES as u64,
        max_pages: 0,
        category_inverted: 0,
        category_mask: PAGE_IS_WRITTEN,
        category_anyof_mask: 0,
        return_mask: PAGE_IS_WRITTEN,
    };
    let mut outcome = Ok(());
    while arg.start < arg.end {
        let scan = call!(nr::IOCTL, pagemap, PAGEMAP_SCAN, kernel::addr_mut(&mut arg));
        let found = match scan {
            Ok(found) => found,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        for index in 0..found.min(RANGES) {
            // The kernel has written to it behind the compiler's back.
            let range = core::hint::black_box(&ranges).get(index).copied();
            let range = range.unwrap_or(none);
            // What was reported will not be again: go on whatever comes of it.
            outcome = outcome.and(each(range.start as usize, range.end as usize));
        }
        if arg.walk_end <= arg.start {
            return Err(Errno::EIO);
        }
        arg.start = arg.walk_end;
    }
    outcome
}
