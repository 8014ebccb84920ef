//! The only door to the bytes of rank files: mapped windows, guarded copies, growth, flushes.
//!
//! A window is mapped twice, for reading and for storing, because of what a store into a page of a
//! disk file costs: where nothing is mapped, one fault makes a whole large folio writable (about
//! 100 ns for each of its pages); where a read has mapped the page, each page takes a fault of its
//! own (5 to 10 us). Writing back protects the pages one by one again, so a store that took long
//! has its surroundings unmapped ([`Media::refresh`]).

use crate::door::{self, RankFile};
use crate::layout::{rank, rank_at};
use crate::limits::{BLOCK, RANK_BLOCKS_MAX, RANKS_MAX};
use crate::pool::Pool;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use rustix::fd::{FromRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::path::{Path, PathBuf};
use sys::set_once::SetOnce;
use sys::{Errno, Result, clock, file_limit, uaccess};

/// Bytes of a mapped window of a rank's data file.
const WINDOW: u64 = 1 << 30;
const WINDOWS: usize = (RANK_BLOCKS_MAX * BLOCK / WINDOW) as usize;
/// From this size on, blocks are written by `pwrite`, which takes no page fault per page.
const PWRITE_FROM: usize = 64 << 10;

/// From this size on, copies to rank files go past the caches: the destination is cold.
const PAST_CACHES_FROM: usize = 32 << 10;

/// What a copy to a rank file may take before a fault per page is suspected, in ticks, besides one
/// tick per byte.
const SLOW_TICKS: u64 = 8000;
/// Bytes unmapped around a slow store: the largest folio.
const AROUND: usize = 2 << 20;
/// Slow stores after which the surroundings are unmapped: what that costs by itself is paid back.
const SLOW_MAX: u32 = 8;
/// Surroundings whose slow stores are counted; those far apart may share a place.
const COUNTED: usize = 1 << 14;

/// Name of a rank's data file.
pub(crate) const DATA_FILE: &str = RankFile::Data.name();

/// What a window is mapped for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Store,
}

/// Addresses of the windows this process has mapped; filled on first touch, never cleared.
pub(crate) struct Media {
    /// Windows for reading, then those for storing.
    windows: *const AtomicUsize,
    /// Slow stores to the surroundings of an address.
    slow: *const AtomicU32,
    /// Descriptors of the ranks' data files and of the arena, once the process has kept them.
    kept: SetOnce<(Vec<Option<OwnedFd>>, Option<OwnedFd>)>,
}

// SAFETY: the table is made of atomics and lives as long as the process.
unsafe impl Send for Media {}
// SAFETY: as above.
unsafe impl Sync for Media {}

pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::new(error.raw_os_error())
}

/// Whether an error means that a rank's directory or file is not there.
pub(crate) fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR)
}

/// What a program is told: a rank's directory or file is not a name that it has asked for.
fn not_asked_for(error: Errno) -> Errno {
    if is_absent(error) { Errno::EIO } else { error }
}

impl Media {
    pub(crate) fn new() -> Result<Media> {
        let table_bytes = 2 * RANKS_MAX * WINDOWS * size_of::<AtomicUsize>();
        let bytes = table_bytes + COUNTED * size_of::<AtomicU32>();
        // SAFETY: a fresh private mapping; untouched pages cost nothing.
        let table = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let table = table.map_err(errno)?;
        Ok(Media {
            windows: table.cast::<AtomicUsize>(),
            // SAFETY: inside the mapping.
            slow: unsafe { table.add(table_bytes) }.cast::<AtomicU32>(),
            kept: SetOnce::new(),
        })
    }

    /// The descriptor of a rank's data file, if the process has kept it.
    fn kept_data(&self, rank: u16) -> Option<&OwnedFd> {
        self.kept.get()?.0.get(usize::from(rank))?.as_ref()
    }

    fn window(&self, rank: u16, window: u64, access: Access) -> Option<&AtomicUsize> {
        let (rank, window) = (usize::from(rank), window as usize);
        if rank >= RANKS_MAX || window >= WINDOWS {
            return None;
        }
        let table = if access == Access::Store {
            RANKS_MAX * WINDOWS
        } else {
            0
        };
        // SAFETY: inside the table; zeroed memory is a valid atomic.
        Some(unsafe { &*self.windows.add(table + rank * WINDOWS + window) })
    }

    /// After a store at `address`, in a window for storing, that took long: one of many so far means
    /// a fault per page, and what lies around is unmapped, so that the next store maps a whole folio.
    #[cold]
    fn refresh(&self, address: usize) {
        let around = address / AROUND;
        // SAFETY: inside the mapping; zeroed memory is a valid atomic.
        let slow = unsafe { &*self.slow.add(around % COUNTED) };
        if slow.fetch_add(1, Ordering::Relaxed) < SLOW_MAX {
            return;
        }
        slow.store(0, Ordering::Relaxed);
        let start = (around * AROUND) as *mut core::ffi::c_void;
        // SAFETY: windows begin and end at multiples of `AROUND`; what is unmapped here comes back
        // with the next access, and what was stored is the file's.
        let unmapped = unsafe { rustix::mm::madvise(start, AROUND, Advice::LinuxDontNeed) };
        debug_assert!(unmapped.is_ok());
    }
}

impl Pool {
    /// Directory of a rank. `ENOENT` if the rank is excluded: it is as good as gone.
    pub(crate) fn rank_dir(&self, rank: u16) -> Result<&Path> {
        if self.spec.excluded.contains(&rank) {
            return Err(Errno::ENOENT);
        }
        let dir = self.spec.ranks.get(usize::from(rank));
        dir.map(PathBuf::as_path).ok_or(Errno::EIO)
    }

    /// The same for a program's data. `EIO` if the rank is excluded.
    fn data_dir(&self, rank: u16) -> Result<&Path> {
        self.rank_dir(rank).map_err(not_asked_for)
    }

    pub(crate) fn data_path(&self, rank: u16) -> Result<PathBuf> {
        Ok(self.rank_dir(rank)?.join(DATA_FILE))
    }

    /// Opens everything the pool needs later, for a process that is about to lose the right to.
    pub fn retain_files(&self) -> Result<()> {
        let keep = |file: Result<OwnedFd>| {
            let kept = sys::own_fd::keep(file.ok()?.into_raw_fd()).ok()?;
            // SAFETY: the descriptor was just given to us.
            Some(unsafe { OwnedFd::from_raw_fd(kept) })
        };
        let kept = self.media.kept.init(|| {
            let data = (0..self.rank_count())
                .map(|rank| keep(self.open_data(rank)))
                .collect();
            Some((data, keep(self.open_arena())))
        });
        kept.map(drop).ok_or(Errno::EIO)
    }

    fn again(file: &OwnedFd) -> Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(file, 0).map_err(errno)
    }

    pub(crate) fn open_arena(&self) -> Result<OwnedFd> {
        if let Some(file) = self.media.kept.get().and_then(|kept| kept.1.as_ref()) {
            return Pool::again(file);
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(&self.arena_path, flags, Mode::empty()).map_err(errno)
    }

    pub(crate) fn open_data(&self, rank: u16) -> Result<OwnedFd> {
        if let Some(file) = self.media.kept_data(rank) {
            return Pool::again(file);
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = self.data_path(rank).map_err(not_asked_for)?;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        opened.map_err(|error| not_asked_for(errno(error)))
    }

    /// Address of `block` of a rank and how many bytes follow it in the same window. To be touched
    /// through guarded copies only: the file may have been truncated behind our back.
    fn map_block(&self, rank: u16, block: u64, access: Access) -> Result<(*mut u8, u64)> {
        let byte = block.checked_mul(BLOCK).ok_or(Errno::EIO)?;
        let slot = self.media.window(rank, byte / WINDOW, access);
        let slot = slot.ok_or(Errno::EIO)?;
        let mut base = slot.load(Ordering::Acquire);
        if base == 0 {
            base = self.map_window(rank, byte / WINDOW, access, slot)?;
        }
        Ok((
            (base + (byte % WINDOW) as usize) as *mut u8,
            WINDOW - byte % WINDOW,
        ))
    }

    #[cold]
    fn map_window(
        &self,
        rank: u16,
        window: u64,
        access: Access,
        slot: &AtomicUsize,
    ) -> Result<usize> {
        let file = match self.open_data(rank) {
            // No descriptor is left: what is mapped for storing can be read.
            Err(_) if access == Access::Read && self.stores_at(rank, window) != 0 => {
                return Ok(self.stores_at(rank, window));
            }
            other => other?,
        };
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Store => ProtFlags::READ | ProtFlags::WRITE,
        };
        let base = map_aligned(&file, window * WINDOW, protection)?;
        match slot.compare_exchange(0, base as usize, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(base as usize),
            Err(other) => {
                // SAFETY: nobody has seen the mapping that lost the race.
                unsafe { rustix::mm::munmap(base, WINDOW as usize) }.map_err(errno)?;
                Ok(other)
            }
        }
    }

    /// Address of a window mapped for storing, or 0.
    fn stores_at(&self, rank: u16, window: u64) -> usize {
        let slot = self.media.window(rank, window, Access::Store);
        slot.map_or(0, |slot| slot.load(Ordering::Acquire))
    }

    /// Calls `each` with the address and length of every mapped piece of `len` bytes at byte
    /// `off` of `block`.
    fn pieces(
        &self,
        rank: u16,
        block: u64,
        off: usize,
        len: usize,
        access: Access,
        mut each: impl FnMut(*mut u8, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            let at = off + done;
            let (base, room) = self.map_block(rank, block + (at as u64) / BLOCK, access)?;
            let inside = at % BLOCK as usize;
            let count = (room as usize - inside).min(len - done);
            // SAFETY: still inside the window.
            each(unsafe { base.add(inside) }, done, count)?;
            done += count;
        }
        Ok(())
    }

    /// Copies `len` bytes at byte `off` of `block` to `dst`. `EFAULT` when `dst` is not writable
    /// memory, `EIO` when the rank file cannot be read.
    ///
    /// # Safety
    /// `dst` must not overlap memory that Rust code relies on, other than as a destination.
    pub unsafe fn read_blocks(
        &self,
        rank: u16,
        block: u64,
        off: usize,
        dst: *mut u8,
        len: usize,
    ) -> Result<()> {
        let copied = self.pieces(rank, block, off, len, Access::Read, |media, done, count| {
            let (to, from) = (dst as usize + done, media as usize);
            // SAFETY: the destination is the caller's word; faults are caught.
            unsafe { uaccess::copy(to, from, count) }.map_err(|_| blame(media, count))
        });
        match copied {
            // SAFETY: passed on.
            Err(Errno::ENOMEM) => unsafe {
                self.read_unmapped(rank, block * BLOCK + off as u64, dst, len)
            },
            other => other,
        }
    }

    /// Copies `len` bytes from `src` to byte `off` of a run of blocks that nobody reads yet, or
    /// that is overwritten in place. `EFAULT` when `src` is not readable, `EIO` or `ENOSPC` when
    /// the rank file cannot be written.
    ///
    /// # Safety
    /// `src` may be any address; the run must belong to the caller.
    pub unsafe fn write_blocks(
        &self,
        rank: u16,
        block: u64,
        off: usize,
        src: *const u8,
        len: usize,
    ) -> Result<()> {
        let dir = self.data_dir(rank)?;
        door::storing(dir, RankFile::Data)?;
        let pos = block * BLOCK + off as u64;
        // `pwrite` is subject to the program's limit on file sizes, a store is not. Where the file
        // cannot be opened (no descriptor is left), the mapping may still do.
        if len >= PWRITE_FROM
            && file_limit::get().is_none()
            && let Ok(file) = self.open_data(rank)
        {
            // SAFETY: passed on.
            unsafe { pwrite_all(&file, src, len, pos) }?;
            door::stored(dir, RankFile::Data, pos, len as u64);
            return self.mark_unflushed(rank);
        }
        let copied = self.pieces(
            rank,
            block,
            off,
            len,
            Access::Store,
            |media, done, count| {
                let (to, from) = (media as usize, src as usize + done);
                self.timed(to, count, || {
                    if count >= PAST_CACHES_FROM {
                        // SAFETY: the run is the caller's and no reference covers it; faults are caught.
                        unsafe { uaccess::copy_nt(to, from, count) }
                    } else {
                        // SAFETY: as above.
                        unsafe { uaccess::copy(to, from, count) }
                    }
                })
                .map_err(|_| blame(media, count))
            },
        );
        match copied {
            // SAFETY: passed on.
            Err(Errno::ENOMEM) => unsafe { self.write_unmapped(rank, pos, src, len) },
            other => other,
        }?;
        door::stored(dir, RankFile::Data, pos, len as u64);
        self.mark_unflushed(rank)
    }

    /// Stores `len` bytes at `address` and looks how long that took.
    #[inline]
    fn timed<R>(&self, address: usize, len: usize, store: impl FnOnce() -> R) -> R {
        let start = clock::ticks();
        let stored = store();
        if clock::ticks().wrapping_sub(start) > SLOW_TICKS + len as u64 {
            self.media.refresh(address);
        }
        stored
    }

    /// Zeroes `len` bytes at byte `off` of `block`.
    pub fn zero_blocks(&self, rank: u16, block: u64, off: usize, len: usize) -> Result<()> {
        let zeroed = self.pieces(rank, block, off, len, Access::Store, |media, _, count| {
            let to = media as usize;
            // SAFETY: the blocks are the caller's and no reference covers them.
            let zeroed = self.timed(to, count, || unsafe { uaccess::zero(to, count) });
            zeroed.map_err(|_| Errno::EIO)
        });
        let at = block * BLOCK + off as u64;
        match zeroed {
            Err(Errno::ENOMEM) => self.zero_unmapped(rank, at, len),
            other => other,
        }?;
        door::stored(self.data_dir(rank)?, RankFile::Data, at, len as u64);
        self.mark_unflushed(rank)
    }

    /// Extends a rank's data file from `from` blocks to `to`, with space. Nobody uses what lies behind
    /// `from`.
    pub(crate) fn extend_data(&self, rank: u16, from: u64, to: u64) -> Result<()> {
        let (file, dir) = (self.open_data(rank)?, self.rank_dir(rank)?);
        let (off, len) = (from * BLOCK, (to - from) * BLOCK);
        let extended = door::allocate(&file, dir, RankFile::Data, off, len);
        if extended.is_err() {
            // What there was of space was taken, and others may need it.
            door::resize(&file, dir, RankFile::Data, off).unwrap_or_default();
        }
        match extended {
            // As full as a file can be.
            Err(Errno::EFBIG) => Err(Errno::ENOSPC),
            other => other,
        }
    }

    /// Notes that a rank's data file differs from its device.
    pub(crate) fn mark_unflushed(&self, rank: u16) -> Result<()> {
        self.store(rank_at(rank) + rank::UNFLUSHED, 1)
    }

    /// Whether something was written to a rank's data file since it was last flushed.
    pub(crate) fn is_unflushed(&self, r: u16) -> Result<bool> {
        let unflushed = self.word(rank_at(r) + rank::UNFLUSHED)?;
        let flushing = self.word(rank_at(r) + rank::FLUSHING)?;
        Ok(unflushed.load(Ordering::SeqCst) != 0 || flushing.load(Ordering::SeqCst) != 0)
    }

    /// Flushes a rank's data file to its device, unless nothing was written since the last time.
    pub(crate) fn flush_data(&self, r: u16) -> Result<()> {
        let unflushed = self.word(rank_at(r) + rank::UNFLUSHED)?;
        let flushing = self.word(rank_at(r) + rank::FLUSHING)?;
        // ORDERING: all sequentially consistent: who finds the mark cleared sees the one who
        // cleared it still flushing, and flushes too.
        if unflushed.load(Ordering::SeqCst) == 0 && flushing.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        flushing.fetch_add(1, Ordering::SeqCst);
        unflushed.store(0, Ordering::SeqCst);
        let flushed = self.flush_surely(r);
        if flushed.is_err() {
            unflushed.store(1, Ordering::SeqCst);
        }
        // A process that dies here leaves the count up: later flushes are then never skipped.
        flushing.fetch_sub(1, Ordering::SeqCst);
        flushed
    }
}

/// Maps a window of a file at a multiple of [`AROUND`], so that whole large folios can be mapped.
fn map_aligned(
    file: &OwnedFd,
    offset: u64,
    protection: ProtFlags,
) -> Result<*mut core::ffi::c_void> {
    let len = WINDOW as usize;
    // SAFETY: a fresh mapping that nobody knows of: its middle is mapped over, its ends are unmapped.
    unsafe {
        let room = rustix::mm::mmap_anonymous(
            core::ptr::null_mut(),
            len + AROUND,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        );
        let room = room.map_err(errno)?;
        let head = (room as usize).next_multiple_of(AROUND) - room as usize;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let base = rustix::mm::mmap(room.add(head), len, protection, flags, file, offset);
        let base = base.map_err(errno);
        let unmap = |from: usize, to: usize| match to - from {
            0 => Ok(()),
            bytes => rustix::mm::munmap(room.add(from), bytes).map_err(errno),
        };
        unmap(0, if base.is_ok() { head } else { head + len })?;
        unmap(head + len, len + AROUND)?;
        base
    }
}

/// Writes to a rank's data file through the kernel.
///
/// # Safety
/// The range must be the caller's; `src` may be any address.
unsafe fn pwrite_all(file: &OwnedFd, src: *const u8, len: usize, pos: u64) -> Result<()> {
    let mut done = 0;
    while done < len {
        let fd = rustix::fd::AsRawFd::as_raw_fd(file);
        let from = src.wrapping_add(done);
        // SAFETY: the kernel checks the source and answers EFAULT.
        let wrote =
            unsafe { sys::syscall!(SYS_PWRITE64, fd, from, len - done, pos + done as u64) }?;
        if wrote == 0 {
            return Err(Errno::EIO);
        }
        done += wrote;
    }
    Ok(())
}

const SYS_PREAD64: usize = if cfg!(target_arch = "x86_64") { 17 } else { 67 };
const SYS_PWRITE64: usize = if cfg!(target_arch = "x86_64") { 18 } else { 68 };

/// Which side of a failed copy is at fault: `EIO` if the rank file cannot be read, `EFAULT` if the
/// program's memory is bad.
#[cold]
fn blame(media: *mut u8, len: usize) -> Errno {
    let mut byte = [0u8; 1];
    let mut at = media as usize;
    let end = at + len;
    while at < end {
        if uaccess::copy_in(&mut byte, at).is_err() {
            return Errno::EIO;
        }
        at = (at / BLOCK as usize + 1) * BLOCK as usize;
    }
    Errno::EFAULT
}

mod doubt;
mod flights;
mod unmapped;

#[cfg(test)]
mod tests;
