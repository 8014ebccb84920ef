//! Data blocks of ranks: bitmaps, growth, and what owners have grabbed or freed.
//!
//! A rank's bitmap changes under its lock; a journal word names the owner's list entry being
//! moved. Setting and clearing the bits of an entry can be repeated while the lock is held, so a
//! dead holder's move is simply undone (a grab) or completed (a free).
//!
//! Beside its bitmap each zone has a second one for the window (`sync`) noted on the page. A block
//! that is used and marked there was taken in this window: given back within it, it is free at
//! once. A block that is not used and marked there was given back after a power-safe state had
//! known it: it stays untouched until a sync of everything that began later has ended.

use crate::layout::{
    RUN_LEN_MAX, Run, descriptor, descriptor_at, header, kind, owner, owner_at, rank, rank_at,
};
use crate::limits::{BLOCK, GROW_BLOCKS, PAGE, RANK_BLOCKS_MAX, ZONE_BLOCKS, at};
use crate::pool::{LockId, Pool};
use crate::thread::ThreadBlock;
use core::sync::atomic::Ordering;
use shm::crash_point;
use sys::{Errno, Result};

/// Blocks a thread takes from a rank at a time when the pool has plenty.
const GRAB_BLOCKS: u64 = 64;

/// Shortest freed run that draws the search for free blocks to itself.
const RECYCLE_BLOCKS: u64 = 16;

/// Longest freed run that stays with the thread that freed it, in blocks.
const SPARE_BLOCKS_MAX: u32 = 16;

/// Pages of a zone: which blocks are used, and which were taken or given back in the window noted
/// in the second one's descriptor.
#[derive(Clone, Copy)]
struct Zone {
    bits: u32,
    window: u32,
}

impl Zone {
    fn bits_at(self, block: u64) -> u64 {
        at::PAGES + u64::from(self.bits) * PAGE + block % ZONE_BLOCKS / 64 * 8
    }

    fn window_at(self, block: u64) -> u64 {
        at::PAGES + u64::from(self.window) * PAGE + block % ZONE_BLOCKS / 64 * 8
    }

    fn noted_at(self) -> u64 {
        descriptor_at(self.window) + descriptor::FREE_SLOTS
    }
}

/// The bits of the word of `block` that stand for blocks before `end`, and their number.
fn bits_of(block: u64, end: u64) -> (u64, u64) {
    let shift = block % 64;
    let count = (64 - shift).min(end - block);
    let mask = if count == 64 {
        u64::MAX
    } else {
        ((1 << count) - 1) << shift
    };
    (mask, count)
}

/// Whether an entry is of an owner's list of freed runs, not of reserved ones.
fn is_freed(entry: u64) -> bool {
    let place = entry.wrapping_sub(at::OWNERS) % shm::OWNER_BYTES;
    (owner::FREED_RUNS..owner::FREED_RUNS + owner::FREED_RUNS_LEN * 8).contains(&place)
}

/// Blocks grabbed by one operation. What is not consumed by a transaction stays with the thread
/// for its next operation.
pub struct Stage<'p> {
    pool: &'p Pool,
    block: &'static ThreadBlock,
    me: u16,
    /// Entries of the owner's list with what they will be once this operation has its blocks.
    entries: [(u64, u64); STAGED_MAX],
    used: usize,
}

/// Ranks and pieces one operation can grab from; split larger ones.
pub const STAGED_MAX: usize = 40;

/// Place in an owner's list for the blocks of a rank that the owner has freed itself.
pub(crate) fn spare_at(owner: u16, rank: u16) -> u64 {
    let place = (u64::from(rank) + owner::RUNS_LEN / 2) % owner::RUNS_LEN;
    owner_at(owner) + owner::RUNS + place * 8
}

impl Pool {
    /// Starts grabbing blocks for one operation of the calling thread.
    pub fn stage(&self) -> Result<Stage<'_>> {
        let (block, me) = self.me()?;
        Ok(Stage {
            pool: self,
            block,
            me,
            entries: [(0, 0); STAGED_MAX],
            used: 0,
        })
    }
}

impl Stage<'_> {
    pub(crate) fn staged(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.entries[..self.used].iter().copied()
    }

    /// The pool it grabs from.
    pub fn pool(&self) -> &Pool {
        self.pool
    }

    /// Grabs up to `blocks` contiguous blocks of `rank`. `ENOSPC` when the pool is full;
    /// `EOVERFLOW` when the operation has grabbed from too many places: publish and go on.
    pub fn grab(&mut self, rank: u16, blocks: u32) -> Result<Run> {
        let blocks = blocks.clamp(1, RUN_LEN_MAX);
        let list = owner_at(self.me) + owner::RUNS;
        let spare = spare_at(self.me, rank);
        let (value, _) = self.current(spare)?;
        if value != 0 && Run::unpack(value).rank == rank && Run::unpack(value).len >= blocks {
            return self.cut(spare, value, blocks);
        }
        // A rank's blocks are kept in the place of its number if that is free.
        let home = list + u64::from(rank) % owner::RUNS_LEN * 8;
        let mut empty = None;
        for at in core::iter::once(home).chain((0..owner::RUNS_LEN).map(|i| list + i * 8)) {
            match self.current(at)? {
                (0, false) => empty = empty.or(Some(at)),
                (0, true) => {}
                (value, _) if Run::unpack(value).rank == rank => {
                    return self.cut(at, value, blocks);
                }
                _ => {}
            }
            if empty == Some(home) {
                break;
            }
        }
        let at = match empty {
            Some(at) => at,
            None => self.evict()?,
        };
        self.pool.refill(self.block, self.me, at, rank, blocks)?;
        let value = self.pool.load(at)?;
        self.cut(at, value, blocks)
    }

    /// What is left in an entry, and whether this operation has taken from it.
    fn current(&self, at: u64) -> Result<(u64, bool)> {
        match self.entries[..self.used]
            .iter()
            .find(|(entry, _)| *entry == at)
        {
            Some((_, value)) => Ok((*value, true)),
            None => Ok((self.pool.load(at)?, false)),
        }
    }

    /// Takes the front of an entry.
    fn cut(&mut self, at: u64, value: u64, blocks: u32) -> Result<Run> {
        let run = Run::unpack(value);
        let len = run.len.min(blocks);
        let rest = Run {
            start: run.start + u64::from(len),
            len: run.len - len,
            ..run
        };
        if run.fresh {
            // Should the operation come to nothing, what it wrote must not pass for zeros.
            let known = Run {
                fresh: false,
                ..Run::unpack(self.pool.load(at)?)
            };
            self.pool.store(at, known.pack())?;
        }
        let value = if rest.len == 0 { 0 } else { rest.pack() };
        match self.entries[..self.used]
            .iter_mut()
            .find(|(entry, _)| *entry == at)
        {
            Some(staged) => staged.1 = value,
            None => {
                *self.entries.get_mut(self.used).ok_or(Errno::EOVERFLOW)? = (at, value);
                self.used += 1;
            }
        }
        Ok(Run { len, ..run })
    }

    /// Gives one entry that this operation does not use back to its rank.
    fn evict(&mut self) -> Result<u64> {
        let list = owner_at(self.me) + owner::RUNS;
        let victim = (0..owner::RUNS_LEN)
            .map(|i| list + i * 8)
            .find(|at| {
                !self.entries[..self.used]
                    .iter()
                    .any(|(entry, _)| entry == at)
            })
            .ok_or(Errno::EOVERFLOW)?;
        self.pool.return_run(self.block, self.me, victim)?;
        Ok(victim)
    }
}

impl Pool {
    /// Blocks of the whole pool that are in use or reserved.
    pub fn used_blocks(&self) -> Result<u64> {
        let mut used = 0u64;
        for r in 0..self.rank_count() {
            used += self.load(rank_at(r) + rank::USED)?;
        }
        Ok(used)
    }

    fn refill(
        &self,
        block: &'static ThreadBlock,
        me: u16,
        at: u64,
        r: u16,
        want: u32,
    ) -> Result<()> {
        let budget = self.load(header::POOL_BLOCKS)?;
        let mut free = budget.saturating_sub(self.used_blocks()?);
        // What dead threads had grabbed is free space, once somebody gives it back.
        if free < u64::from(want) && self.reap()? > 0 {
            free = budget.saturating_sub(self.used_blocks()?);
        }
        if free < u64::from(want) {
            return Err(Errno::ENOSPC);
        }
        let spare = (free / 1024).min(GRAB_BLOCKS);
        let want = u64::from(want).max(spare);
        // Growing takes pages of the arena and thus a transaction, before the lock is taken.
        for _ in 0..64 {
            self.acquire(block, me, LockId::Rank(r))?;
            let found = self.take_run(at, r, want);
            self.release(block, me, LockId::Rank(r));
            match found {
                Err(Errno::ENOSPC) => {}
                other => return other,
            }
            if self.waits_for_sync(r)? && self.grown_blocks()? >= budget {
                self.sync_everything()?;
                continue;
            }
            match self.grow_rank(block, me, r, want) {
                // The device is full, but not of what is in use.
                Err(full) if full.is_full() && self.waits_for_sync(r)? => self.sync_everything()?,
                other => other?,
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Whether a rank has space that a sync makes free.
    fn waits_for_sync(&self, r: u16) -> Result<bool> {
        let waiting = self.load(rank_at(r) + rank::WAITING)?;
        Ok(waiting != 0 && waiting >= self.load(header::WINDOW_SYNCED)?)
    }

    /// Blocks that the files of all ranks have.
    fn grown_blocks(&self) -> Result<u64> {
        let mut grown = 0;
        for r in 0..self.rank_count() {
            grown += self.load(rank_at(r) + rank::BLOCKS)?;
        }
        Ok(grown)
    }

    /// The entry of the zone that holds `block`: pages of its bitmap and of its window.
    fn zone(&self, r: u16, block: u64) -> Result<Zone> {
        if block >= RANK_BLOCKS_MAX {
            return Err(Errno::EIO);
        }
        let zone = block / ZONE_BLOCKS;
        let tables = rank_at(r) + rank::ZONES;
        let table = u64::from(self.load(tables + zone / (PAGE / 8) * 8)? as u32);
        let pages = self.load(at::PAGES + table * PAGE + zone % (PAGE / 8) * 8)?;
        let (bits, window) = (pages as u32, (pages >> 32) as u32);
        if table == 0 || bits == 0 || window == 0 {
            return Err(Errno::EIO);
        }
        Ok(Zone { bits, window })
    }

    /// The bitmap word that covers `block`, which starts at a multiple of 64.
    fn bitmap_at(&self, r: u16, block: u64) -> Result<u64> {
        Ok(self.zone(r, block)?.bits_at(block))
    }

    /// Makes a zone's window bitmap one of the current window. Lock held. What was taken in an
    /// earlier window counts as any other; what was given back goes on waiting if need be.
    fn enter_window(&self, zone: Zone) -> Result<()> {
        let window = self.load(header::WINDOW)?;
        let noted = self.load(zone.noted_at())?;
        if noted == window {
            return Ok(());
        }
        let settled = noted < self.load(header::WINDOW_SYNCED)?;
        for block in (0..ZONE_BLOCKS).step_by(64) {
            let marks = self.word(zone.window_at(block))?;
            let seen = marks.load(Ordering::Relaxed);
            if seen != 0 {
                let used = self.load(zone.bits_at(block))?;
                let kept = if settled { 0 } else { seen & !used };
                marks.store(kept, Ordering::Release);
            }
        }
        self.store(zone.noted_at(), window)
    }

    /// Whether all of a run was taken in the current window.
    pub(crate) fn taken_in_window(&self, run: Run) -> Result<bool> {
        let (mut block, end) = (run.start, run.start + u64::from(run.len));
        let mut window = None;
        while block < end {
            let zone = self.zone(run.rank, block)?;
            let noted = self.load(zone.noted_at())?;
            if *window.get_or_insert(noted) != noted {
                return Ok(false);
            }
            let (mask, count) = bits_of(block, end);
            if self.load(zone.window_at(block))? & mask != mask {
                return Ok(false);
            }
            block += count;
        }
        // Looked at last: had the window ended before, what was read may be of another one.
        Ok(window == Some(self.load(header::WINDOW)?))
    }

    /// Finds up to `want` free blocks and moves them to the list entry `entry`. Lock held.
    fn take_run(&self, entry: u64, r: u16, want: u64) -> Result<()> {
        let base = rank_at(r);
        let blocks = self.load(base + rank::BLOCKS)?.min(RANK_BLOCKS_MAX);
        let mut hint = self.load(base + rank::HINT)?;
        let waiting = self.load(base + rank::WAITING_FROM)?;
        if waiting != 0 && !self.waits_for_sync(r)? {
            hint = hint.min(waiting - 1);
            self.store(base + rank::WAITING_FROM, 0)?;
        }
        let hint = hint.min(blocks) / 64 * 64;
        let (start, len) = match self.search(r, hint, blocks, want)? {
            Some(found) => found,
            None => self.search(r, 0, hint, want)?.ok_or(Errno::ENOSPC)?,
        };
        let fresh_from = self.load(base + rank::FRESH_FROM)?;
        let fresh = start >= fresh_from;
        let len = if fresh {
            len
        } else {
            len.min(fresh_from - start)
        };
        let run = Run {
            rank: r,
            start,
            len: len as u32,
            fresh,
        };
        self.store(base + rank::JOURNAL, entry)?;
        self.store(entry, run.pack())?;
        crash_point!("space.noted");
        self.mark_window(run, true)?;
        self.mark(r, start, len, true)?;
        self.store(base + rank::USED, self.load(base + rank::USED)? + len)?;
        if fresh {
            self.store(base + rank::FRESH_FROM, start + len)?;
        }
        self.store(base + rank::HINT, start + len)?;
        crash_point!("space.taken");
        self.store(base + rank::JOURNAL, 0)
    }

    /// First run of free blocks in `from..to`, at most `want` long.
    fn search(&self, r: u16, from: u64, to: u64, want: u64) -> Result<Option<(u64, u64)>> {
        let mut start = None;
        let mut block = from;
        while block < to {
            let word = self.unavailable(r, block, block == from)?;
            match start {
                None if word == u64::MAX => {}
                None => {
                    let first = block + u64::from((!word).trailing_zeros());
                    if first >= to {
                        return Ok(None);
                    }
                    let run = u64::from((word >> (first - block)).trailing_zeros());
                    let run = run.min(64 - (first - block)).min(to - first);
                    if run >= want || first + run < block + 64 {
                        return Ok(Some((first, run.min(want))));
                    }
                    start = Some(first);
                }
                Some(first) => {
                    let run = block - first + u64::from(word.trailing_zeros()).min(to - block);
                    if word != 0 || run >= want {
                        return Ok(Some((first, run.min(want))));
                    }
                }
            }
            block += 64;
        }
        Ok(start.map(|first| (first, (to - first).min(want))))
    }

    /// The blocks of a bitmap word that cannot be taken. Lock held. What waits no longer is found
    /// out once for a zone, and where a search begins.
    fn unavailable(&self, r: u16, block: u64, begins: bool) -> Result<u64> {
        let zone = self.zone(r, block)?;
        if (begins || block.is_multiple_of(ZONE_BLOCKS))
            && self.load(zone.noted_at())? < self.load(header::WINDOW_SYNCED)?
        {
            self.enter_window(zone)?;
        }
        Ok(self.load(zone.bits_at(block))? | self.load(zone.window_at(block))?)
    }

    /// Marks a run in the window bitmap, or takes the marks away. Lock held.
    fn mark_window(&self, run: Run, set: bool) -> Result<()> {
        let (mut block, end) = (run.start, run.start + u64::from(run.len));
        while block < end {
            let zone = self.zone(run.rank, block)?;
            if set {
                self.enter_window(zone)?;
            }
            let (mask, count) = bits_of(block, end);
            let marks = self.word(zone.window_at(block))?;
            if set {
                marks.fetch_or(mask, Ordering::AcqRel);
            } else {
                marks.fetch_and(!mask, Ordering::AcqRel);
            }
            block += count;
        }
        Ok(())
    }

    /// Sets or clears the bits of a run. Lock held.
    fn mark(&self, r: u16, start: u64, len: u64, set: bool) -> Result<()> {
        let mut block = start;
        let end = start + len;
        while block < end {
            let word = self.word(self.bitmap_at(r, block / 64 * 64)?)?;
            let (mask, count) = bits_of(block, end);
            if set {
                word.fetch_or(mask, Ordering::AcqRel);
            } else {
                word.fetch_and(!mask, Ordering::AcqRel);
            }
            block += count;
        }
        Ok(())
    }

    /// Adds space at the end of a rank's data file.
    fn grow_rank(&self, block: &'static ThreadBlock, me: u16, r: u16, want: u64) -> Result<()> {
        if self.is_data_absent(r)? {
            // Which of its blocks are in use is not known, should it be there by now.
            return Err(Errno::EIO);
        }
        let base = rank_at(r);
        let before = self.load(base + rank::BLOCKS)?;
        let share = self.load(header::POOL_BLOCKS)? / u64::from(self.rank_count().max(1));
        let step = (share / 4)
            .clamp(256, GROW_BLOCKS)
            .max(want)
            .next_multiple_of(64);
        let after = (before + step).min(RANK_BLOCKS_MAX);
        if after <= before {
            return Err(Errno::ENOSPC);
        }
        self.acquire(block, me, LockId::Rank(r))?;
        let least = (before + want.next_multiple_of(64)).min(after);
        let extend = || {
            if self.load(base + rank::BLOCKS)? != before {
                return Ok(before);
            }
            match self.extend_with_room(r, before, after) {
                // The device is almost full.
                Err(full) if full.is_full() && least < after => {
                    self.extend_with_room(r, before, least)?;
                    Ok(least)
                }
                other => other.map(|()| after),
            }
        };
        let extended = extend();
        self.release(block, me, LockId::Rank(r));
        self.add_zones(r, before, extended?)
    }

    pub(crate) fn extend_with_room(&self, r: u16, before: u64, after: u64) -> Result<()> {
        match self.has_room_for(r, (after - before) * BLOCK)? {
            true => self.extend_data(r, before, after),
            false => Err(Errno::ENOSPC),
        }
    }

    /// Gives the blocks `before..after` their bitmap and opens them, a few zones at a time.
    pub(crate) fn add_zones(&self, r: u16, before: u64, after: u64) -> Result<()> {
        let mut from = before;
        while from < after {
            let to = ((from / ZONE_BLOCKS + 4) * ZONE_BLOCKS).min(after);
            if !self.add_some_zones(r, from, to)? {
                return Ok(());
            }
            from = to;
        }
        Ok(())
    }

    fn add_some_zones(&self, r: u16, before: u64, after: u64) -> Result<bool> {
        let base = rank_at(r);
        let target = r * self.spec.targets_per_rank as u16;
        // Under the rank's lock nobody may wait for the pages' lock: its holder may be dead, and
        // putting that right takes the locks of ranks.
        let zones = after.div_ceil(ZONE_BLOCKS) - before / ZONE_BLOCKS;
        self.hoard_pages(2 * zones + 1)?;
        let mut tx = self.tx(&[LockId::Rank(r)])?;
        if tx.load(base + rank::BLOCKS)? != before {
            return Ok(false);
        }
        for zone in before / ZONE_BLOCKS..after.div_ceil(ZONE_BLOCKS) {
            let table_at = base + rank::ZONES + zone / (PAGE / 8) * 8;
            let mut table = tx.load(table_at)?;
            if table == 0 {
                table = u64::from(tx.alloc_page(kind::ZONES, target, 0, true)?.page());
                tx.set_volatile(table_at, table)?;
            }
            let page_at = at::PAGES + table * PAGE + zone % (PAGE / 8) * 8;
            if tx.load(page_at)? == 0 {
                let bits = tx.alloc_page(kind::BITMAP, target, 0, true)?.page();
                let window = tx.alloc_page(kind::BITMAP, target, 0, true)?.page();
                tx.set_volatile(page_at, u64::from(bits) | u64::from(window) << 32)?;
            }
        }
        tx.set_volatile(base + rank::BLOCKS, after)?;
        tx.commit()?;
        Ok(true)
    }

    /// Returns the blocks of one list entry to their rank.
    fn return_run(&self, block: &ThreadBlock, me: u16, entry: u64) -> Result<()> {
        let value = self.load(entry)?;
        if value == 0 {
            return Ok(());
        }
        let run = Run::unpack(value);
        if run.rank >= self.rank_count() {
            return self.store(entry, 0);
        }
        self.acquire(block, me, LockId::Rank(run.rank))?;
        let returned = self.return_locked(entry, run);
        self.release(block, me, LockId::Rank(run.rank));
        returned
    }

    fn return_locked(&self, entry: u64, run: Run) -> Result<()> {
        let base = rank_at(run.rank);
        // What was only reserved, or taken in this window, no power-safe state knows.
        let waits = is_freed(entry) && !self.taken_in_window(run)?;
        self.store(base + rank::JOURNAL, entry)?;
        if waits {
            self.store(base + rank::WAITING, self.load(header::WINDOW)?)?;
        }
        self.mark_window(run, waits)?;
        crash_point!("space.waiting");
        self.mark(run.rank, run.start, u64::from(run.len), false)?;
        let used = self.load(base + rank::USED)?;
        self.store(base + rank::USED, used.saturating_sub(u64::from(run.len)))?;
        // What was used last is used next, from its start: it is still in memory, which fresh space
        // is not.
        if u64::from(run.len) >= RECYCLE_BLOCKS {
            let waiting = self.load(base + rank::WAITING_FROM)?;
            if !waits {
                let hint = self.load(base + rank::HINT)?;
                self.store(base + rank::HINT, hint.min(run.start))?;
            } else if waiting == 0 || run.start < waiting - 1 {
                self.store(base + rank::WAITING_FROM, run.start + 1)?;
            }
        }
        crash_point!("space.cleared");
        self.store(entry, 0)?;
        crash_point!("space.returned");
        self.store(base + rank::JOURNAL, 0)
    }

    /// Undoes or completes the move that a dead holder of a rank's lock had begun.
    pub(crate) fn repair_rank(&self, r: u16) -> Result<()> {
        let base = rank_at(r);
        let entry = self.load(base + rank::JOURNAL)?;
        if entry == 0 {
            return Ok(());
        }
        let value = self.load(entry)?;
        if value != 0 {
            let run = Run::unpack(value);
            if run.rank == r {
                // How far the move had come is not known: it waits in any case.
                self.store(base + rank::WAITING, self.load(header::WINDOW)?)?;
                self.mark_window(run, true)?;
                self.mark(r, run.start, u64::from(run.len), false)?;
            }
            self.store(entry, 0)?;
        }
        self.recount(r)?;
        self.store(base + rank::JOURNAL, 0)
    }

    /// Counts a rank's used blocks anew from its bitmap. Lock held, or nobody else attached.
    pub(crate) fn recount(&self, r: u16) -> Result<()> {
        let base = rank_at(r);
        let blocks = self.load(base + rank::BLOCKS)?.min(RANK_BLOCKS_MAX);
        let mut used = 0;
        for block in (0..blocks).step_by(64) {
            used += u64::from(self.load(self.bitmap_at(r, block)?)?.count_ones());
        }
        self.store(base + rank::USED, used)
    }

    fn drain_run_list(&self, block: &ThreadBlock, me: u16, list: u64, len: u64) -> Result<()> {
        for at in (0..len).map(|i| list + i * 8) {
            self.return_run(block, me, at)?;
        }
        Ok(())
    }

    /// Returns the blocks that `from` freed.
    pub(crate) fn drain_freed_runs(&self, block: &ThreadBlock, me: u16, from: u16) -> Result<()> {
        let list = owner_at(from) + owner::FREED_RUNS;
        for at in (0..owner::FREED_RUNS_LEN).map(|i| list + i * 8) {
            let value = self.load(at)?;
            // Its owner died while it kept the blocks for itself.
            if value != 0 && self.load(spare_at(from, Run::unpack(value).rank))? == value {
                self.store(at, 0)?;
            }
            self.return_run(block, me, at)?;
        }
        Ok(())
    }

    /// Settles the first `count` runs that the calling thread has just freed: a small one that was
    /// taken in this window is the first to be given out again to this thread, for it is still in
    /// the caches; the others go back to their rank.
    pub(crate) fn settle_freed_runs(
        &self,
        block: &ThreadBlock,
        me: u16,
        count: usize,
    ) -> Result<()> {
        let list = owner_at(me) + owner::FREED_RUNS;
        for at in (0..count as u64).map(|i| list + i * 8) {
            let value = self.load(at)?;
            let run = Run::unpack(value);
            let spare = spare_at(me, run.rank);
            if run.len <= SPARE_BLOCKS_MAX
                && self.load(spare)? == 0
                && run.rank < self.rank_count()
                && self.taken_in_window(run)?
            {
                self.store(spare, value)?;
                crash_point!("space.kept");
                self.store(at, 0)?;
            } else {
                self.return_run(block, me, at)?;
            }
        }
        Ok(())
    }

    /// Returns the blocks that `from` had grabbed and not used.
    pub(crate) fn drain_reserved_runs(
        &self,
        block: &ThreadBlock,
        me: u16,
        from: u16,
    ) -> Result<()> {
        let list = owner_at(from) + owner::RUNS;
        self.drain_run_list(block, me, list, owner::RUNS_LEN)
    }

    /// Whether a block is marked used.
    pub(crate) fn is_used(&self, r: u16, block: u64) -> Result<bool> {
        let word = self.load(self.bitmap_at(r, block)?)?;
        Ok(word & 1 << (block % 64) != 0)
    }

    /// Lets what is free of a rank wait for a sync, when the arena is built anew: what was given back
    /// since the last one is not known. Nobody else is attached.
    pub(crate) fn hold_free_blocks(&self, r: u16) -> Result<()> {
        let base = rank_at(r);
        let (window, mut any) = (self.load(header::WINDOW)?, 0);
        for block in (0..self.load(base + rank::BLOCKS)?).step_by(64) {
            let zone = self.zone(r, block)?;
            let free = !self.load(zone.bits_at(block))?;
            self.store(zone.window_at(block), free)?;
            self.store(zone.noted_at(), window)?;
            any |= free;
        }
        if any != 0 {
            self.store(base + rank::WAITING, window)?;
            self.store(base + rank::WAITING_FROM, 1)?;
        }
        Ok(())
    }

    /// Marks blocks used when the arena is built anew. Nobody else is attached.
    pub(crate) fn claim_blocks(&self, r: u16, start: u64, len: u64) -> Result<()> {
        self.mark(r, start, len, true)
    }
}
