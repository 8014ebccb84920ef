//! Memory mappings of files in the mount.
//!
//! A small private mapping is an ordinary kernel mapping of a snapshot. A shared or large one maps the
//! node-wide cache file of the inode, registered with `dfs` until the last piece of it is unmapped; so
//! the pieces are remembered here, and calls on memory are looked at only while there are any.

use crate::abi::nr;
use crate::dispatch::{Served, Stop};
use crate::kernel;
use crate::report::{Op, count};
use crate::{files, mounts, watch};
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;
use dfs::Ino;
use intercept::Call;
use std::vec::Vec;
use sys::{Errno, Result, futex};

const PROT_WRITE: usize = 2;
const MAP_SHARED: usize = 1;
const MAP_SHARED_VALIDATE: usize = 3;
const MAP_TYPE: usize = 0xf;
const MAP_FIXED: usize = 0x10;
const MAP_ANONYMOUS: usize = 0x20;
const PAGE: usize = 4096;
/// Bytes from which on it is cheaper to watch what is stored than to look for it.
const WATCH_FROM: usize = 1 << 20;

/// A piece of a registered mapping.
#[derive(Clone, Copy)]
struct Region {
    start: usize,
    end: usize,
    ino: Ino,
    /// File offset of `start`.
    offset: u64,
    /// It shows others what is stored through it; otherwise it is the program's own.
    shared: bool,
    /// A shared one's description was open for writing, so the program may make it writable.
    may_write: bool,
    /// The kernel tells what was stored through it ([`watch`]).
    watched: bool,
    /// Pieces of one `mmap` have one number.
    number: u64,
}

/// The list and its lock: private to the process, held briefly, never over a kernel wait of the
/// program's. A fork holds it, so that the child finds the list whole.
struct Regions {
    lock: futex::Lock,
    list: UnsafeCell<Vec<Region>>,
}

// SAFETY: the list is touched only by whoever holds the lock.
unsafe impl Sync for Regions {}

static REGIONS: Regions = Regions {
    lock: futex::Lock::new(),
    list: UnsafeCell::new(Vec::new()),
};
static NUMBER: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);

impl Regions {
    fn with<R>(&self, work: impl FnOnce(&mut Vec<Region>) -> R) -> R {
        self.lock.acquire();
        // SAFETY: the lock is held.
        let done = work(unsafe { &mut *self.list.get() });
        self.lock.release();
        done
    }
}

/// Before fork, in the parent: the list stays as it is until [`after_fork`].
pub(crate) fn before_fork() {
    REGIONS.lock.acquire();
}

/// After fork, on both sides.
pub(crate) fn after_fork() {
    REGIONS.lock.release();
}

impl Region {
    /// The part inside `start..end`, which it overlaps.
    fn part(self, start: usize, end: usize) -> Region {
        let from = start.max(self.start);
        Region {
            start: from,
            end: end.min(self.end),
            offset: self.offset + (from - self.start) as u64,
            ..self
        }
    }

    /// Brings what was stored through it to the pool; what cannot be is noted to be looked for.
    fn sync(&self, fs: &dfs::Dfs) -> Result<()> {
        if !self.shared || !self.may_write {
            return Ok(());
        }
        let bring = |from: usize, to: usize| {
            let offset = self.offset + (from - self.start) as u64;
            fs.map_sync(self.ino, offset, (to - from) as u64, false)
        };
        let mut synced = Err(Errno::ENXIO);
        if self.watched {
            synced = watch::take(self.start, self.end, &mut |from, to| bring(from, to));
        }
        if synced.is_err() {
            synced = bring(self.start, self.end);
        }
        match synced {
            Err(errno) => fs.map_unsure(self.ino).and(Err(errno)),
            Ok(()) => Ok(()),
        }
    }
}

/// What was taken out of the list.
#[derive(Default)]
struct Taken {
    pieces: Vec<Region>,
    /// Numbers and inodes of the mappings they belonged to.
    of: Vec<(u64, Ino)>,
}

impl Taken {
    /// Cuts `start..end` out of the list.
    fn cut(&mut self, list: &mut Vec<Region>, start: usize, end: usize) {
        let mut kept = Vec::with_capacity(list.len() + 1);
        for region in list.drain(..) {
            if region.end <= start || region.start >= end {
                kept.push(region);
                continue;
            }
            self.of.push((region.number, region.ino));
            self.pieces.push(region.part(start, end));
            if region.start < start {
                kept.push(region.part(region.start, start));
            }
            if region.end > end {
                kept.push(region.part(end, region.end));
            }
        }
        *list = kept;
    }

    /// Keeps mappings of which nothing is in the list any more; what is in it changes no more.
    fn close(mut self, list: &[Region]) -> Taken {
        self.of.sort_unstable_by_key(|(number, _)| *number);
        self.of.dedup_by_key(|(number, _)| *number);
        self.of
            .retain(|(number, _)| !list.iter().any(|region| region.number == *number));
        intercept::set_maps_active(!list.is_empty());
        self
    }

    /// Brings home what was stored through the pieces and ends the mappings that are gone for good.
    fn settle(self) {
        let Some(fs) = mounts::attached() else { return };
        for piece in self.pieces.iter().filter(|piece| !piece.watched) {
            // A failure was noted.
            piece.sync(fs).unwrap_or_default();
        }
        for (_, ino) in self.of {
            // A file that is gone has nothing left to bring home.
            if fs.map_end(ino).is_err() {
                core::hint::spin_loop();
            }
        }
    }
}

/// The kernel is about to lose what is in this range, and with it what was stored there.
fn before_loss(start: usize, end: usize) {
    let Some(fs) = mounts::attached() else { return };
    for region in overlapping(start, end) {
        if region.watched {
            // A failure was noted.
            region.part(start, end).sync(fs).unwrap_or_default();
        }
    }
}

/// Makes a call after which the kernel has nothing of ours in this range any more, if it succeeds. The
/// list is kept from others meanwhile: addresses may be theirs as soon as the kernel has given them up.
fn forget(start: usize, end: usize, call: impl FnOnce() -> isize) -> isize {
    let (result, taken) = REGIONS.with(|list| {
        let result = call();
        let mut taken = Taken::default();
        if Errno::from_ret(result).is_ok() {
            taken.cut(list, start, end);
        }
        (result, taken.close(list))
    });
    taken.settle();
    result
}

fn span(address: usize, len: usize) -> (usize, usize) {
    (
        address,
        address.saturating_add(len.div_ceil(PAGE).saturating_mul(PAGE)),
    )
}

/// `mmap(2)`.
pub(crate) fn mmap(c: &mut Call) -> Served {
    let [address, len, prot, flags, fd, offset] = c.args;
    let held = if flags & MAP_ANONYMOUS != 0 {
        None
    } else {
        files::get(fd as i32)?
    };
    let Some(held) = held else {
        if flags & MAP_FIXED == 0 || intercept::in_vfork_child() {
            return Err(Stop::Pass);
        }
        let (start, end) = span(address, len);
        before_loss(start, end);
        let result = forget(start, end, || kernel::raw(c.nr, c.args));
        return Err(Stop::Kernel(result));
    };
    count(Op::Mmap);
    let kind = flags & MAP_TYPE;
    let shared = matches!(kind, MAP_SHARED | MAP_SHARED_VALIDATE);
    let writable = prot & PROT_WRITE != 0;
    let info = held.info()?;
    let source = held
        .fs
        .map_begin(held.ofd, shared, writable, offset as u64, len as u64)?;
    let args = [
        address,
        len,
        prot,
        flags,
        source.fd as usize,
        source.offset as usize,
    ];
    let mapped = if flags & MAP_FIXED != 0 {
        let (start, end) = span(address, len);
        before_loss(start, end);
        forget(start, end, || kernel::raw(c.nr, args))
    } else {
        kernel::raw(c.nr, args)
    };
    let mapped = Errno::from_ret(mapped);
    kernel::close(source.fd);
    match mapped {
        Ok(at) => {
            let (start, end) = span(at, len);
            if source.registered {
                let may_write = !shared || info.flags & crate::abi::O_ACCMODE == crate::abi::O_RDWR;
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let offset = offset as u64;
                let region = Region {
                    start,
                    end,
                    ino: info.ino,
                    offset,
                    shared,
                    may_write,
                    watched: false,
                    number,
                };
                let watch = shared && may_write && end - start >= WATCH_FROM;
                REGIONS.with(|list| {
                    let watched = watch && watch::start(start, end - start);
                    list.push(Region { watched, ..region });
                });
                intercept::set_maps_active(true);
            }
            Ok(at)
        }
        Err(errno) => {
            if source.registered {
                held.fs.map_end(info.ino)?;
            }
            Err(errno.into())
        }
    }
}

/// `munmap(2)`.
pub(crate) fn munmap(c: &mut Call) -> Served {
    if intercept::in_vfork_child() {
        return Err(Stop::Pass);
    }
    let (start, end) = span(c.args[0], c.args[1]);
    before_loss(start, end);
    let result = forget(start, end, || kernel::raw(c.nr, c.args));
    Err(Stop::Kernel(result))
}

/// `mremap(2)`: pieces move or change their length with the mapping.
pub(crate) fn mremap(c: &mut Call) -> Served {
    const MREMAP_FIXED: usize = 2;
    const MREMAP_DONTUNMAP: usize = 4;
    let [old, old_len, new_len, flags, new, _] = c.args;
    let (start, end) = span(old, old_len.max(1));
    let pieces: Vec<Region> = overlapping(start, end)
        .into_iter()
        .map(|region| region.part(start, end))
        .collect();
    let target = (flags & MREMAP_FIXED != 0).then(|| span(new, new_len));
    let hit = target.is_some_and(|(start, end)| !overlapping(start, end).is_empty());
    if (pieces.is_empty() && !hit) || intercept::in_vfork_child() {
        return Err(Stop::Pass);
    }
    before_loss(start, end);
    if let Some((start, end)) = target {
        before_loss(start, end);
    }
    // The last piece grows.
    let last = pieces.iter().copied().max_by_key(|piece| piece.end);
    let grown = last.filter(|piece| piece.end - start < new_len);
    if let Some(piece) = grown {
        let len = new_len - (piece.start - start);
        mounts::fs()?
            .map_fill(piece.ino, piece.offset, len as u64)
            .map_err(|_| Errno::ENOMEM)?;
    }
    let (result, taken) = REGIONS.with(|list| {
        let result = kernel::raw(c.nr, c.args);
        let mut taken = Taken::default();
        if let Ok(at) = Errno::from_ret(result) {
            if let Some((start, end)) = target {
                taken.cut(list, start, end);
            }
            // With an old length of 0 the mapping was doubled, not moved.
            if old_len != 0 && flags & MREMAP_DONTUNMAP == 0 {
                let mut old = Taken::default();
                old.cut(list, start, end);
                let (kept, cut_off) = (start + span(0, new_len).1, end);
                let lost = old.pieces.iter().filter(|piece| piece.end > kept);
                taken
                    .pieces
                    .extend(lost.map(|piece| piece.part(kept, cut_off)));
                taken.of.extend(old.of);
            }
            list.extend(pieces.iter().filter_map(|piece| {
                let (from, to) = (piece.start - start, piece.end - start);
                let grows = grown.is_some_and(|grown| grown.start == piece.start);
                let to = if grows { new_len } else { to.min(new_len) };
                let (from, to) = (at + from, span(at, to).1);
                // The kernel stops watching what moves.
                let watched = piece.watched && at == old && !grows;
                (from < to).then_some(Region {
                    start: from,
                    end: to,
                    watched,
                    ..*piece
                })
            }));
        }
        (result, taken.close(list))
    });
    taken.settle();
    Err(Stop::Kernel(result))
}

fn overlapping(start: usize, end: usize) -> Vec<Region> {
    REGIONS.with(|list| {
        list.iter()
            .copied()
            .filter(|region| region.start < end && region.end > start)
            .collect()
    })
}

/// `msync(2)`: what was stored through the mapping goes to the pool, with `MS_SYNC` to the devices.
pub(crate) fn msync(c: &mut Call) -> Served {
    const MS_SYNC: usize = 4;
    let (start, end) = span(c.args[0], c.args[1]);
    let regions = overlapping(start, end);
    if regions.is_empty() {
        return Err(Stop::Pass);
    }
    Errno::from_ret(kernel::raw(c.nr, c.args))?;
    let fs = mounts::fs()?;
    for region in regions {
        region.part(start, end).sync(fs)?;
        if c.args[2] & MS_SYNC != 0 {
            fs.map_sync(region.ino, 0, 0, true)?;
        }
    }
    Ok(0)
}

/// `madvise(2)`: the kernel's, but for freeing file space behind a mapping.
pub(crate) fn madvise(c: &mut Call) -> Served {
    const MADV_REMOVE: usize = 9;
    let (start, end) = span(c.args[0], c.args[1]);
    if c.args[2] == MADV_REMOVE && overlapping(start, end).iter().any(|region| region.shared) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    Err(Stop::Pass)
}

/// Brings everything stored through mappings home; for the end of the process.
pub(crate) fn write_back_all() {
    let Some(fs) = mounts::attached() else { return };
    let regions = REGIONS.with(|list| list.clone());
    if regions.is_empty() {
        return;
    }
    let mut synced: Result<()> = Ok(());
    for region in regions {
        synced = synced.and(region.sync(fs));
    }
    // Otherwise whoever ends the last mapping of a file looks for what was left.
    synced = synced.and_then(|()| fs.maps_synced());
    debug_assert!(synced.is_ok() || synced == Err(Errno::ESTALE));
}

const _: () = assert!(nr::MMAP == 9);
