//! The only door to the bytes of rank files: mapped windows, guarded copies, growth, flushes.

use crate::door::{self, RankFile};
use crate::layout::{rank, rank_at};
use crate::limits::{BLOCK, RANK_BLOCKS_MAX, RANKS_MAX};
use crate::pool::Pool;
use core::sync::atomic::{AtomicUsize, Ordering};
use rustix::fd::{FromRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::path::{Path, PathBuf};
use sys::set_once::SetOnce;
use sys::{Errno, Result, uaccess};

/// Bytes of a mapped window of a rank's data file.
const WINDOW: u64 = 1 << 30;
const WINDOWS: usize = (RANK_BLOCKS_MAX * BLOCK / WINDOW) as usize;
/// From this size on, blocks are written by `pwrite`, which takes no page fault per page.
const PWRITE_FROM: usize = 64 << 10;

/// From this size on, copies to rank files go past the caches: the destination is cold.
const PAST_CACHES_FROM: usize = 32 << 10;

/// Name of a rank's data file.
pub(crate) const DATA_FILE: &str = RankFile::Data.name();

/// Addresses of the windows this process has mapped; filled on first touch, never cleared.
pub(crate) struct Media {
    windows: *const AtomicUsize,
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

impl Media {
    pub(crate) fn new() -> Result<Media> {
        let bytes = RANKS_MAX * WINDOWS * size_of::<AtomicUsize>();
        // SAFETY: a fresh private mapping; untouched pages cost nothing.
        let table = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        Ok(Media {
            windows: table.map_err(errno)?.cast::<AtomicUsize>(),
            kept: SetOnce::new(),
        })
    }

    fn window(&self, rank: u16, window: u64) -> Option<&AtomicUsize> {
        let (rank, window) = (usize::from(rank), window as usize);
        if rank >= RANKS_MAX || window >= WINDOWS {
            return None;
        }
        // SAFETY: inside the table; zeroed memory is a valid atomic.
        Some(unsafe { &*self.windows.add(rank * WINDOWS + window) })
    }
}

impl Pool {
    /// Directory of a rank.
    pub(crate) fn rank_dir(&self, rank: u16) -> Result<&Path> {
        let dir = self.spec.ranks.get(usize::from(rank));
        dir.map(PathBuf::as_path).ok_or(Errno::EIO)
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

    fn open_data(&self, rank: u16) -> Result<OwnedFd> {
        if let Some(Some(file)) = self
            .media
            .kept
            .get()
            .and_then(|kept| kept.0.get(usize::from(rank)))
        {
            return Pool::again(file);
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(self.data_path(rank)?, flags, Mode::empty()).map_err(errno) {
            // Not a name that the program asked for.
            Err(gone) if is_absent(gone) => Err(Errno::EIO),
            other => other,
        }
    }

    /// Address of `block` of a rank and how many bytes follow it in the same window. To be touched
    /// through guarded copies only: the file may have been truncated behind our back.
    pub fn map_block(&self, rank: u16, block: u64) -> Result<(*mut u8, u64)> {
        let byte = block.checked_mul(BLOCK).ok_or(Errno::EIO)?;
        let slot = self.media.window(rank, byte / WINDOW).ok_or(Errno::EIO)?;
        let mut base = slot.load(Ordering::Acquire);
        if base == 0 {
            base = self.map_window(rank, byte / WINDOW, slot)?;
        }
        Ok((
            (base + (byte % WINDOW) as usize) as *mut u8,
            WINDOW - byte % WINDOW,
        ))
    }

    #[cold]
    fn map_window(&self, rank: u16, window: u64, slot: &AtomicUsize) -> Result<usize> {
        let file = self.open_data(rank)?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                WINDOW as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                window * WINDOW,
            )
        };
        let base = base.map_err(errno)?;
        match slot.compare_exchange(0, base as usize, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(base as usize),
            Err(other) => {
                // SAFETY: nobody has seen the mapping that lost the race.
                unsafe { rustix::mm::munmap(base, WINDOW as usize) }.map_err(errno)?;
                Ok(other)
            }
        }
    }

    /// Calls `each` with the address and length of every mapped piece of `len` bytes at byte
    /// `off` of `block`.
    fn pieces(
        &self,
        rank: u16,
        block: u64,
        off: usize,
        len: usize,
        mut each: impl FnMut(*mut u8, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            let at = off + done;
            let (base, room) = self.map_block(rank, block + (at as u64) / BLOCK)?;
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
        self.pieces(rank, block, off, len, |media, done, count| {
            let (to, from) = (dst as usize + done, media as usize);
            // SAFETY: the destination is the caller's word; faults are caught.
            unsafe { uaccess::copy(to, from, count) }.map_err(|_| blame(media, count))
        })
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
        let dir = self.rank_dir(rank)?;
        if len >= PWRITE_FROM {
            let file = self.open_data(rank)?;
            let mut done = 0;
            while done < len {
                door::storing(dir, RankFile::Data)?;
                // SAFETY: the kernel checks the source and answers EFAULT.
                let wrote = unsafe {
                    sys::syscall!(
                        SYS_PWRITE64,
                        rustix::fd::AsRawFd::as_raw_fd(&file),
                        src.wrapping_add(done),
                        len - done,
                        block * BLOCK + (off + done) as u64
                    )
                }?;
                if wrote == 0 {
                    return Err(Errno::EIO);
                }
                done += wrote;
            }
            door::stored(dir, RankFile::Data, block * BLOCK + off as u64, len as u64);
            return self.mark_unflushed(rank);
        }
        door::storing(dir, RankFile::Data)?;
        self.pieces(rank, block, off, len, |media, done, count| {
            let (to, from) = (media as usize, src as usize + done);
            let copied = if count >= PAST_CACHES_FROM {
                // SAFETY: the run is the caller's and no reference covers it; faults are caught.
                unsafe { uaccess::copy_nt(to, from, count) }
            } else {
                // SAFETY: as above.
                unsafe { uaccess::copy(to, from, count) }
            };
            copied.map_err(|_| blame(media, count))
        })?;
        door::stored(dir, RankFile::Data, block * BLOCK + off as u64, len as u64);
        self.mark_unflushed(rank)
    }

    /// Zeroes `len` bytes at byte `off` of `block`.
    pub fn zero_blocks(&self, rank: u16, block: u64, off: usize, len: usize) -> Result<()> {
        self.pieces(rank, block, off, len, |media, _, count| {
            // SAFETY: the blocks are the caller's and no reference covers them.
            unsafe { uaccess::zero(media as usize, count) }.map_err(|_| Errno::EIO)
        })?;
        let at = block * BLOCK + off as u64;
        door::stored(self.rank_dir(rank)?, RankFile::Data, at, len as u64);
        self.mark_unflushed(rank)
    }

    /// Extends a rank's data file to `blocks` blocks, with space.
    pub(crate) fn extend_data(&self, rank: u16, from: u64, to: u64) -> Result<()> {
        let file = self.open_data(rank)?;
        let (off, len) = (from * BLOCK, (to - from) * BLOCK);
        match door::allocate(&file, self.rank_dir(rank)?, RankFile::Data, off, len) {
            // As full as it can be: over the user's quota, over what a file can hold.
            Err(Errno::EFBIG | Errno::EDQUOT) => Err(Errno::ENOSPC),
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
        let flushed = self
            .open_data(r)
            .and_then(|file| door::flush(&file, self.rank_dir(r)?, RankFile::Data));
        if flushed.is_err() {
            unflushed.store(1, Ordering::SeqCst);
        }
        // A process that dies here leaves the count up: later flushes are then never skipped.
        flushing.fetch_sub(1, Ordering::SeqCst);
        flushed
    }
}

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
