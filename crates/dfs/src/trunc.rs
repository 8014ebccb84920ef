//! Changing where a file ends and where it has space: truncate, fallocate, data and holes.
//!
//! Shrinking publishes the new size first, together with a note (word [`TRIM`]) of the block from
//! which space is still to be freed; who extends the file later, or frees it, finishes that first.
//! Before the first block is freed, what the last one holds beyond the end is zeroed, and the block
//! put into the log: should the file grow again and the power fail, the old bytes must not come
//! back, whatever of the new ones is lost.

use crate::inode::{Guard, word};
use crate::io::write::{Held, bump, clean_tail, grab_run, touch, zero_within};
use crate::map::change::Change;
use crate::map::file::{COPIES_MAX, File};
use crate::map::free::free_range;
use crate::map::{BLOCK, SIZE_MAX};
use crate::{Cred, Dfs, Ino, Ofd, mapfile, perm};
use engine::{BlockPtr, Run, Tx, crash_point, place};
use sys::{Errno, Result};

/// Durable inode word of a file: in the low bits first block + 1 still to be freed after a
/// truncation, 0 = none; above them a count of truncations. (Directories keep their entry counts
/// there.)
const TRIM: u64 = word::COUNTS;
const TRIM_NOTE: u64 = (1 << 52) - 1;

/// `FALLOC_FL_KEEP_SIZE` (`fallocate(2)`).
pub const FALLOC_KEEP_SIZE: u32 = 1;
/// `FALLOC_FL_PUNCH_HOLE`.
pub const FALLOC_PUNCH_HOLE: u32 = 2;
/// `FALLOC_FL_ZERO_RANGE`.
pub const FALLOC_ZERO_RANGE: u32 = 16;

/// Blocks given space in one transaction.
const ALLOCATE_MAX: u64 = 1024;

/// Whether blocks beyond the end are still to be freed.
pub(crate) fn is_trimming(file: &File<'_>) -> Result<bool> {
    Ok(file.load(TRIM)? & TRIM_NOTE != 0)
}

/// Number of truncations, modulo 4096.
pub(crate) fn cuts(file: &File<'_>) -> Result<u64> {
    Ok(file.load(TRIM)? >> 52)
}

/// Frees what an earlier truncation left beyond the end.
pub(crate) fn finish_trim(file: &File<'_>) -> Result<()> {
    while is_trimming(file)? {
        let size = file.size()?;
        let begins = |file: &File<'_>| -> Result<bool> {
            Ok(file.load(TRIM)? & TRIM_NOTE == size.div_ceil(BLOCK) + 1 && file.size()? == size)
        };
        let zeroed = begins(file)? && zero_tail(file, size)?;
        let mut tx = file.tx()?;
        if begins(file)?
            && let Some(pointers) = tail(file, size)?
        {
            if !zeroed {
                continue;
            }
            tx.log_content(pointers.get(..file.geo.copies).ok_or(Errno::EIO)?)?;
        }
        trim_step(&mut tx, file)?;
        tx.commit()?;
    }
    Ok(())
}

/// Pointers of the block that the end lies within, if it holds data.
fn tail(file: &File<'_>, size: u64) -> Result<Option<[BlockPtr; COPIES_MAX as usize]>> {
    let spot = file.find(size / BLOCK)?;
    let Some(at) = spot.at.filter(|_| !size.is_multiple_of(BLOCK)) else {
        return Ok(None);
    };
    let pointers = file.pointers(at)?;
    let first = pointers.first().copied().unwrap_or_default();
    Ok((!first.is_hole() && !first.is_unwritten()).then_some(pointers))
}

/// Zeroes what lies beyond the end in the last block: not in place, for after a power failure the
/// file may be as long as it was. False if the file has changed.
fn zero_tail(file: &File<'_>, size: u64) -> Result<bool> {
    if tail(file, size)?.is_none() {
        return Ok(true);
    }
    match clean_tail(file, size, Held::Replaced) {
        Err(full) if full.is_full() => {
            // Then in place, once the file is as short after a power failure too. Copies that differ
            // should this process be killed differ in what nobody reads, until it is done again.
            file.pool.sync()?;
            clean_tail(file, size, Held::Changed)
        }
        other => other,
    }
}

/// Frees a transaction's worth of blocks from the trim note on.
fn trim_step(tx: &mut Tx<'_>, file: &File<'_>) -> Result<()> {
    let word = tx.load(file.at(TRIM))?;
    let Some(first) = (word & TRIM_NOTE).checked_sub(1) else {
        return Ok(());
    };
    let next = free_range(tx, file, first, u64::MAX)?;
    tx.set(
        file.at(TRIM),
        word & !TRIM_NOTE | next.map_or(0, |block| block + 1),
    )
}

/// Sets the size of a file (`truncate(2)`). `EFBIG` beyond 8 EiB - 1.
pub(crate) fn set_size(file: &File<'_>, len: u64, drop_suid: bool) -> Result<()> {
    if len > SIZE_MAX {
        return Err(Errno::EFBIG);
    }
    loop {
        let size = file.size()?;
        if len > size {
            finish_trim(file)?;
            if !clean_tail(file, size, Held::AsClass)? {
                continue;
            }
        }
        let mut tx = file.tx()?;
        if file.size()? != size || (len > size && is_trimming(file)?) {
            continue;
        }
        touch(&mut tx, file, drop_suid)?;
        if len != size {
            tx.set(file.at(word::SIZE), len)?;
            mapfile::grow(file, len)?;
        }
        if len < size || (len == size && file.load(word::DATA)? != 0) {
            let first = len.div_ceil(BLOCK);
            let word = file.load(TRIM)?;
            let note = match word & TRIM_NOTE {
                0 => first + 1,
                older => older.min(first + 1),
            };
            tx.set(file.at(TRIM), ((word >> 52) + 1) << 52 | note)?;
            if tail(file, len)?.is_none() {
                trim_step(&mut tx, file)?;
            }
        }
        bump(file)?;
        commit_size(file, tx)?;
        return finish_trim(file);
    }
}

/// Publishes a new size; mappings lose what is cut off once that cannot fail any more.
fn commit_size(file: &File<'_>, tx: Tx<'_>) -> Result<()> {
    let committed = tx.commit();
    let settled = mapfile::settle_size(file);
    committed.and(settled)
}

/// Gives blocks `first..end` space where they have none, all of them or none; they read as zeros.
fn allocate(file: &File<'_>, first: u64, end: u64) -> Result<()> {
    // At least that many are missing, wherever the file has the others.
    let missing = (end - first).saturating_sub(file.load(word::BLOCKS)?);
    let (_, free) = file.pool.space()?;
    if missing.saturating_mul(file.geo.copies as u64) > free {
        return Err(Errno::ENOSPC);
    }
    let mut given = Vec::new();
    let outcome = allocate_holes(file, first, end, &mut given);
    if outcome.is_err() {
        for (first, end) in given {
            // Should that fail too, the file merely keeps the space.
            take_back(file, first, end).ok();
        }
    }
    outcome
}

/// Makes the blocks of `first..end` that were never written holes again.
fn take_back(file: &File<'_>, first: u64, end: u64) -> Result<()> {
    let mut block = first;
    while block < end {
        let mut tx = file.tx()?;
        let spot = file.find(block)?;
        let Some(at) = spot.at else {
            block = block.saturating_add(spot.run);
            continue;
        };
        let is_unwritten = |index: u64| -> Result<bool> {
            Ok(BlockPtr(file.pool.load(file.nth(at, index))?).is_unwritten())
        };
        let takes = is_unwritten(0)?;
        let run = spot.run.min(end - block);
        let mut count = 1;
        while count < run && is_unwritten(count)? == takes {
            count += 1;
        }
        if !takes {
            block += count;
            continue;
        }
        let to = block + count;
        block = free_range(&mut tx, file, block, to)?.unwrap_or(to);
        bump(file)?;
        tx.commit()?;
    }
    Ok(())
}

/// Gives space to holes; notes in `given` which blocks have got it.
fn allocate_holes(
    file: &File<'_>,
    first: u64,
    end: u64,
    given: &mut Vec<(u64, u64)>,
) -> Result<()> {
    let mut block = first;
    let mut lost = 0;
    while block < end {
        let spot = file.find(block)?;
        let pointer = BlockPtr(spot.at.map_or(Ok(0), |at| file.pool.load(at))?);
        if !pointer.is_hole() {
            block += 1;
            continue;
        }
        let chunk_end = (block / file.chunk_blocks + 1) * file.chunk_blocks;
        // What lies behind the run that was looked at may have space.
        let mut to = end
            .min(chunk_end)
            .min(block + ALLOCATE_MAX / file.geo.stride() as u64)
            .min(block.saturating_add(spot.run));
        if let Some(at) = spot.at {
            let is_hole = |index: u64| -> Result<bool> {
                Ok(BlockPtr(file.pool.load(file.nth(at, index))?).is_hole())
            };
            let mut holes = 1;
            while block + holes < to && is_hole(holes)? {
                holes += 1;
            }
            to = block + holes;
        }
        given.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        match allocate_run(file, block, to)? {
            Some(next) => {
                match given.last_mut() {
                    Some((_, last)) if *last == block => *last = next,
                    _ => given.push((block, next)),
                }
                block = next;
            }
            None if lost < 10_000 => lost += 1,
            None => return Err(Errno::EIO),
        }
    }
    Ok(())
}

/// Gives space to blocks of one chunk that were holes just now; the block after the last that got
/// it, `None` if somebody else was faster.
fn allocate_run(file: &File<'_>, first: u64, end: u64) -> Result<Option<u64>> {
    let pool = file.pool;
    let ranks = place::ranks(
        pool.rank_count(),
        file.class,
        file.object(),
        first / file.chunk_blocks,
    );
    let mut stage = pool.stage()?;
    let mut runs = [None; crate::map::file::COPIES_MAX as usize];
    let mut end = end;
    let ranks = ranks.as_slice().get(..file.geo.copies).ok_or(Errno::EIO)?;
    for copy in 0..ranks.len() {
        let stands_in = |rank| runs.iter().flatten().any(|run: &Run| run.rank == rank);
        let run = grab_run(&mut stage, ranks, copy, (end - first) as u32, &stands_in)?;
        end = end.min(first + u64::from(run.len));
        runs[copy] = Some(run);
    }
    // Every copy must have grabbed exactly what is used: what is staged is consumed as a whole.
    if runs
        .iter()
        .flatten()
        .any(|run| first + u64::from(run.len) > end)
    {
        stage = pool.stage()?;
        for run in runs.iter_mut().flatten() {
            *run = stage.grab(run.rank, (end - first) as u32)?;
            if first + u64::from(run.len) != end {
                return Ok(None);
            }
        }
    }
    let mut tx = file.tx()?;
    if is_trimming(file)? {
        drop(tx);
        finish_trim(file)?;
        return Ok(None);
    }
    let version = bump(file)? as u32;
    let mut change = Change::new(&mut tx, file)?;
    let mut block = first;
    while block < end {
        let leaf = change.leaf(block, end)?;
        let count = leaf.run.min(end - block);
        for index in 0..count {
            if !change.pointer(&leaf, index, 0)?.is_hole() {
                return Ok(None);
            }
            let mut words = [0u64; 16];
            for (copy, run) in runs.iter().enumerate().take(file.geo.copies) {
                let run = run.ok_or(Errno::EIO)?;
                let at = run.start + (block + index - first);
                *words.get_mut(copy).ok_or(Errno::EIO)? =
                    BlockPtr::new(run.rank, at, version).unwritten().0;
            }
            let words = words.get(..file.geo.stride()).ok_or(Errno::EIO)?;
            change.put(&leaf, index, words)?;
        }
        block += count;
    }
    tx.consume(&stage)?;
    let blocks = file.load(word::BLOCKS)? + (end - first);
    tx.set(file.at(word::BLOCKS), blocks)?;
    tx.commit()?;
    Ok(Some(end))
}

/// Marks written blocks of `first..end` as never written.
fn mark_unwritten(file: &File<'_>, first: u64, end: u64) -> Result<()> {
    let mut block = first;
    while block < end {
        let spot = file.find(block)?;
        let Some(_) = spot.at else {
            block = block.saturating_add(spot.run);
            continue;
        };
        let mut tx = file.tx()?;
        let spot = file.find(block)?;
        let Some(at) = spot.at else { continue };
        let count = spot
            .run
            .min(end - block)
            .min(256 / file.geo.stride() as u64);
        for index in 0..count {
            let at = file.nth(at, index);
            let pointers = file.pointers(at)?;
            if pointers
                .first()
                .is_none_or(|p| p.is_hole() || p.is_unwritten())
            {
                continue;
            }
            let mut words = [0u64; COPIES_MAX as usize];
            for (word, pointer) in words.iter_mut().zip(&pointers).take(file.geo.copies) {
                *word = pointer.unwritten().0;
            }
            let stride = file.geo.stride();
            tx.put_blocks(at, words.get(..stride).ok_or(Errno::EIO)?, stride)?;
        }
        mapfile::doubt(file)?;
        mapfile::punch(file, block * BLOCK, (block + count) * BLOCK)?;
        mapfile::agree(file, &mut tx)?;
        bump(file)?;
        tx.commit()?;
        block += count;
    }
    Ok(())
}

/// Whole blocks inside a byte range, and the bytes of the blocks at its edges.
fn split(off: u64, end: u64) -> (u64, u64, [(u64, usize); 2]) {
    let (first, last) = (off.div_ceil(BLOCK), end / BLOCK);
    if first > last {
        // Inside one block.
        return (0, 0, [(off, (end - off) as usize), (end, 0)]);
    }
    let head = (first * BLOCK - off) as usize;
    let tail = (end - last * BLOCK) as usize;
    (first, last, [(off, head), (last * BLOCK, tail)])
}

fn zero_edges(file: &File<'_>, edges: [(u64, usize); 2]) -> Result<()> {
    for (pos, len) in edges {
        if len > 0 {
            zero_within(file, pos, len)?;
        }
    }
    Ok(())
}

fn punch(file: &File<'_>, off: u64, end: u64) -> Result<()> {
    let (first, last, edges) = split(off, end);
    zero_edges(file, edges)?;
    free_blocks(file, first, last)
}

fn zero_range(file: &File<'_>, off: u64, end: u64) -> Result<()> {
    let (first, last, edges) = split(off, end);
    zero_edges(file, edges)?;
    if file.geo.copies > 1 {
        // Nothing is ever stored into a block that held data: what is there counts again should
        // this be lost in a power failure.
        free_blocks(file, first, last)
    } else {
        mark_unwritten(file, first, last)
    }
}

/// Makes whole blocks holes.
fn free_blocks(file: &File<'_>, first: u64, last: u64) -> Result<()> {
    let mut next = Some(first);
    while let Some(block) = next.filter(|block| *block < last) {
        let mut tx = file.tx()?;
        next = free_range(&mut tx, file, block, last)?;
        mapfile::doubt(file)?;
        mapfile::punch(file, block * BLOCK, next.unwrap_or(last).min(last) * BLOCK)?;
        mapfile::agree(file, &mut tx)?;
        bump(file)?;
        tx.commit()?;
    }
    Ok(())
}

fn extend(file: &File<'_>, end: u64, drop_suid: bool) -> Result<()> {
    while file.size()? < end {
        let size = file.size()?;
        finish_trim(file)?;
        if !clean_tail(file, size, Held::AsClass)? {
            continue;
        }
        let mut tx = file.tx()?;
        if file.size()? != size || is_trimming(file)? {
            continue;
        }
        touch(&mut tx, file, drop_suid)?;
        tx.set(file.at(word::SIZE), end)?;
        mapfile::grow(file, end)?;
        bump(file)?;
        commit_size(file, tx)?;
    }
    Ok(())
}

fn touch_now(file: &File<'_>, drop_suid: bool) -> Result<()> {
    let mut tx = file.tx()?;
    touch(&mut tx, file, drop_suid)?;
    tx.commit().map(|_| ())
}

impl Dfs {
    /// Sets the length of a file by name (`truncate(2)`): needs write permission; `ETXTBSY` while
    /// a program runs from it.
    pub fn truncate(&self, cred: &Cred<'_>, ino: Ino, len: u64) -> Result<()> {
        let file = File::open(self.pool, ino)?;
        perm::check(cred, &Guard::of(self.pool, ino)?, perm::WRITE)?;
        self.check_not_run(ino)?;
        set_size(&file, len, !cred.privileged)
    }

    /// Sets the length of an open file (`ftruncate(2)`): `EINVAL` unless open for writing.
    pub fn ftruncate(&self, ofd: Ofd, len: u64) -> Result<()> {
        let open = self.description(ofd)?;
        if !open.writable() {
            return Err(Errno::EINVAL);
        }
        let file = open.file().map_err(|_| Errno::EINVAL)?;
        set_size(&file, len, open.drops_suid(self))
    }

    /// Gives or takes space (`fallocate(2)`): mode 0, `KEEP_SIZE`, `PUNCH_HOLE | KEEP_SIZE`,
    /// `ZERO_RANGE`, `ZERO_RANGE | KEEP_SIZE`; `EOPNOTSUPP` for the others.
    pub fn fallocate(&self, ofd: Ofd, mode: u32, off: i64, len: i64) -> Result<()> {
        let open = self.description(ofd)?;
        if off < 0 || len <= 0 {
            return Err(Errno::EINVAL);
        }
        let keep = mode & FALLOC_KEEP_SIZE != 0;
        match mode & !FALLOC_KEEP_SIZE {
            0 | FALLOC_ZERO_RANGE => {}
            FALLOC_PUNCH_HOLE if keep => {}
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !open.writable() {
            return Err(Errno::EBADF);
        }
        let file = match open.file() {
            Err(Errno::EISDIR) => return Err(Errno::EISDIR),
            Err(_) => return Err(Errno::ENODEV),
            Ok(file) => file,
        };
        let off = off as u64;
        let end = off
            .checked_add(len as u64)
            .filter(|end| *end <= SIZE_MAX)
            .ok_or(Errno::EFBIG)?;
        finish_trim(&file)?;
        if mode & !FALLOC_KEEP_SIZE != 0 {
            mapfile::forget(&file, off, end)?;
        }
        let changed = match mode & !FALLOC_KEEP_SIZE {
            FALLOC_PUNCH_HOLE => punch(&file, off, end),
            FALLOC_ZERO_RANGE => zero_range(&file, off, end),
            _ => Ok(()),
        };
        if changed.is_err() {
            // What could not be decided stays in doubt.
            mapfile::decide(&file).unwrap_or_default();
        }
        changed?;
        if mode & FALLOC_PUNCH_HOLE == 0 {
            self.give(&file, off / BLOCK, end.div_ceil(BLOCK))?;
        }
        if mode & FALLOC_PUNCH_HOLE == 0 && !keep {
            extend(&file, end, open.drops_suid(self))?;
        }
        touch_now(&file, open.drops_suid(self))
    }

    /// [`allocate`], counting what the dead hold as free.
    fn give(&self, file: &File<'_>, first: u64, end: u64) -> Result<()> {
        let let_go = || -> Result<bool> {
            let files = self.reap(usize::MAX)?;
            Ok(self.pool.reap()? + files > 0)
        };
        match allocate(file, first, end) {
            Err(full) if full.is_full() && let_go().unwrap_or(false) => allocate(file, first, end),
            other => other,
        }
    }
}

/// Position of the next data (`hole` false) or hole (true) at or after `pos` (`lseek(2)`,
/// `SEEK_DATA`, `SEEK_HOLE`): `ENXIO` at or beyond the end. Space never written counts as a hole;
/// the end of the file is one.
pub(crate) fn seek_data(file: &File<'_>, pos: u64, hole: bool) -> Result<u64> {
    let size = file.size()?;
    if pos >= size {
        return Err(Errno::ENXIO);
    }
    let mut block = pos / BLOCK;
    while block * BLOCK < size {
        let spot = file.find(block)?;
        crash_point!("seek.found");
        let pointer = BlockPtr(spot.at.map_or(Ok(0), |at| file.pool.load(at))?);
        if !spot.chain.holds(file.pool) {
            continue;
        }
        let is_hole = pointer.is_hole() || pointer.is_unwritten();
        if is_hole == hole {
            return Ok((block * BLOCK).max(pos));
        }
        let step = if spot.at.is_none() { spot.run } else { 1 };
        block = block.saturating_add(step).min(size.div_ceil(BLOCK));
    }
    if hole { Ok(size) } else { Err(Errno::ENXIO) }
}
