//! Filling new blocks with no lock held and publishing them in one transaction.

use super::inplace::InPlace;
use super::{Round, Start, Try};
use crate::inode::word;
use crate::io::read::read_block;
use crate::map::change::{Change, Freed, Leaf};
use crate::map::file::{COPIES_MAX, File};
use crate::map::{BLOCK, Spot};
use engine::{BlockPtr, Run, Stage, Tx, place};
use sys::{Errno, Result};

/// Pointer words of one round: leaves room for map pages in the transaction.
const WORDS_MAX: usize = 2048;
/// Runs of one round: what one operation can grab.
const RUNS_MAX: usize = 40;
/// Words put at a time.
const PUT_WORDS: usize = 64;

/// New blocks of one copy, for consecutive blocks of the round.
#[derive(Clone, Copy)]
struct Piece {
    /// First block of the file.
    block: u64,
    copy: usize,
    run: Run,
}

/// Everything grabbed for one round.
struct Plan {
    pieces: [Option<Piece>; RUNS_MAX],
    len: usize,
    /// Block behind the last that has all its copies.
    end: u64,
}

/// The part of a round that is staged.
#[derive(Clone, Copy)]
struct Extent {
    start: u64,
    len: usize,
    first: u64,
    end: u64,
    kept: Kept,
}

impl Extent {
    fn new(start: u64, len: usize) -> Extent {
        let end = (start + len as u64).div_ceil(BLOCK);
        Extent {
            start,
            len,
            first: start / BLOCK,
            end,
            kept: Kept::default(),
        }
    }

    /// Cut at the start of block `end`.
    fn cut(self, end: u64) -> Extent {
        if end >= self.end {
            return self;
        }
        let len = (end * BLOCK).saturating_sub(self.start) as usize;
        Extent { len, end, ..self }
    }

    /// Bytes of `block` that are written, as offsets in it.
    fn within(&self, block: u64) -> (usize, usize) {
        let base = block * BLOCK;
        let from = self.start.saturating_sub(base).min(BLOCK);
        let to = (self.start + self.len as u64)
            .saturating_sub(base)
            .min(BLOCK);
        (from as usize, to as usize)
    }

    fn is_partial(&self, block: u64) -> bool {
        self.within(block) != (0, BLOCK as usize)
    }
}

/// Ranges of blocks of a round that are stored in place when it is published.
const KEPT_MAX: usize = 4;

/// Blocks of an append that are there already: what one call appends is published at once, so
/// they are stored in place by the transaction that publishes the new ones.
#[derive(Clone, Copy, Default)]
struct Kept {
    ranges: [(u64, u64); KEPT_MAX],
    len: usize,
}

impl Kept {
    fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().take(self.len).copied()
    }

    fn contains(&self, block: u64) -> bool {
        self.ranges().any(|(from, to)| from <= block && block < to)
    }

    /// Where the range that holds `block`, or else the room before the next one, ends.
    fn border(&self, block: u64) -> u64 {
        let ends = self.ranges().flat_map(|(from, to)| [from, to]);
        ends.filter(|end| *end > block).min().unwrap_or(u64::MAX)
    }

    /// Adds a block behind those added before; false if there are too many ranges.
    fn add(&mut self, block: u64) -> bool {
        if let Some(last) = self.len.checked_sub(1).and_then(|i| self.ranges.get_mut(i))
            && last.1 == block
        {
            last.1 += 1;
            return true;
        }
        match self.ranges.get_mut(self.len) {
            Some(slot) => {
                *slot = (block, block + 1);
                self.len += 1;
                true
            }
            None => false,
        }
    }
}

/// What a partly overwritten block held when its new version was made.
#[derive(Clone, Copy)]
struct Seen {
    block: u64,
    word: u64,
}

impl<'p> Round<'_, 'p> {
    pub(super) fn stage_and_publish(
        &mut self,
        held: Option<Tx<'p>>,
        size: u64,
        start: u64,
        len: usize,
    ) -> Try<(usize, u64)> {
        let file = self.file;
        let sequence = file.load(word::SEQUENCE)?;
        let blocks_max = (WORDS_MAX / file.geo.stride()) as u64;
        let mut extent = Extent::new(start, len);
        let end = self.fillable(&mut extent, blocks_max)?;
        let extent = extent.cut(end);
        if extent.len == 0 {
            return Ok(None);
        }
        let mut stage = file.pool.stage()?;
        let (plan, held) = match (grab(file, &mut stage, &extent), held) {
            // Growing a rank takes a transaction of its own: done before the lock is held again.
            (Err(Errno::EDEADLK), Some(held)) => {
                drop((stage, held));
                stage = file.pool.stage()?;
                let plan = grab(file, &mut stage, &extent)?;
                (plan, Some(file.tx()?))
            }
            (plan, held) => (plan?, held),
        };
        let extent = extent.cut(plan.end);
        let seen = self.fill(&plan, &extent, size)?;
        let tx = match held {
            Some(tx) => tx,
            None => file.tx()?,
        };
        if self.rules.write_back.is_some() && file.load(word::SEQUENCE)? != sequence {
            // What was copied may be older than what was written to the file meanwhile.
            return Ok(None);
        }
        self.publish(tx, &stage, &plan, &extent, size, seen)
    }

    /// The block up to which, from `first` on, new blocks are what a write needs, and the old ones
    /// can be freed by one transaction.
    fn fillable(&self, extent: &mut Extent, max: u64) -> Result<u64> {
        let file = self.file;
        let end = extent.end.min(extent.first.saturating_add(max));
        let mut freed = Freed::new();
        let mut block = extent.first;
        while block < end {
            let spot: Spot = file.find(block)?;
            let run = spot.run.min(end - block);
            let Some(at) = spot.at else {
                block += run;
                continue;
            };
            for index in 0..run {
                let old = file.pointers(file.nth(at, index))?;
                let old = old.get(..file.geo.copies).ok_or(Errno::EIO)?;
                let fits = match self.in_place(old)? {
                    true => self.start == Start::End && extent.kept.add(block + index),
                    false => freed.add(old),
                };
                if !fits {
                    return Ok(block + index);
                }
            }
            block += run;
        }
        Ok(end)
    }

    /// Stores the data of every copy; returns what the partly overwritten blocks held.
    fn fill(&self, plan: &Plan, extent: &Extent, size: u64) -> Result<[Option<Seen>; 2]> {
        for piece in plan.pieces.iter().take(plan.len).flatten() {
            self.fill_whole(piece, extent)?;
        }
        let mut seen = [None; 2];
        let last = extent.end - 1;
        let edges = [Some(extent.first), (last != extent.first).then_some(last)];
        for (slot, block) in seen.iter_mut().zip(edges) {
            let staged = |block: &u64| extent.is_partial(*block) && !extent.kept.contains(*block);
            if let Some(block) = block.filter(staged) {
                *slot = Some(self.fill_edge(plan, extent, block, size)?);
            }
        }
        Ok(seen)
    }

    /// Stores the blocks of a piece that are overwritten wholly.
    fn fill_whole(&self, piece: &Piece, extent: &Extent) -> Result<()> {
        let mut from = piece.block;
        let mut to = piece.block + u64::from(piece.run.len);
        if extent.is_partial(from) {
            from += 1;
        }
        if to > from && extent.is_partial(to - 1) {
            to -= 1;
        }
        if from >= to {
            return Ok(());
        }
        let mut source = self.source;
        source.skip((from * BLOCK - extent.start) as usize);
        let off = (from - piece.block) * BLOCK;
        source.put_run(
            self.file.pool,
            piece.run,
            off as usize,
            ((to - from) * BLOCK) as usize,
        )
    }

    /// Stores a block that is overwritten in part: the rest is what it held before.
    fn fill_edge(&self, plan: &Plan, extent: &Extent, block: u64, size: u64) -> Result<Seen> {
        let mut buffer = [0u8; BLOCK as usize];
        let word = read_block(self.file, block, size, &mut buffer)?;
        let (from, to) = extent.within(block);
        let mut source = self.source;
        source.skip((block * BLOCK + from as u64 - extent.start) as usize);
        source.put_buffer(buffer.get_mut(from..to).ok_or(Errno::EIO)?)?;
        for piece in plan.pieces.iter().take(plan.len).flatten() {
            let index = block.wrapping_sub(piece.block);
            if index < u64::from(piece.run.len) {
                let (at, run) = (piece.run.start + index, piece.run);
                // SAFETY: the source is a local buffer, the block is ours until published.
                unsafe {
                    let bytes = buffer.as_ptr();
                    self.file
                        .pool
                        .write_blocks(run.rank, at, 0, bytes, buffer.len())
                }?;
            }
        }
        Ok(Seen { block, word })
    }

    /// Makes the new blocks the file's, if what the round relied on still holds.
    fn publish(
        &mut self,
        mut tx: Tx<'p>,
        stage: &Stage<'_>,
        plan: &Plan,
        extent: &Extent,
        size_seen: u64,
        seen: [Option<Seen>; 2],
    ) -> Try<(usize, u64)> {
        let file = self.file;
        let size = file.size()?;
        let (start, room) = self.extent(size)?;
        let fits = start == extent.start && room >= extent.len;
        if !fits || !self.ready(size, start, extent.len)? {
            return Ok(None);
        }
        for seen in seen.into_iter().flatten() {
            let spot = file.find(seen.block)?;
            let now = spot.at.map_or(Ok(0), |at| file.pool.load(at))?;
            let end_moved = size != size_seen && size.min(size_seen) < (seen.block + 1) * BLOCK;
            if now != seen.word || end_moved {
                return Ok(None);
            }
        }
        let Some((new_blocks, mut freed)) = self.point(&mut tx, plan, extent)? else {
            return Ok(None);
        };
        // First what is taken, then what is given back: it may come to lie in the same place.
        tx.consume(stage)?;
        freed.flush(&mut tx)?;
        self.note(start, extent.len)?;
        for (from, to) in extent.kept.ranges() {
            self.store_kept(extent, from, to.min(extent.end))?;
        }
        self.mirror(start, extent.len, size)?;
        let end = start + extent.len as u64;
        self.finish(tx, size, end, new_blocks)?;
        Ok(Some((extent.len, end)))
    }

    /// Stores the bytes that belong into blocks that are there already.
    fn store_kept(&self, extent: &Extent, from: u64, to: u64) -> Result<()> {
        let mut block = from;
        while block < to {
            let spot = self.file.find(block)?;
            let at = spot.at.ok_or(Errno::EIO)?;
            let blocks = spot.run.min(to - block);
            let (head, _) = extent.within(block);
            let (_, tail) = extent.within(block + blocks - 1);
            let part = InPlace {
                head,
                bytes: (blocks - 1) as usize * BLOCK as usize + tail - head,
                blocks: blocks as usize,
                at,
            };
            for copy in 0..self.file.geo.copies {
                let mut source = self.source;
                source.skip((block * BLOCK + head as u64 - extent.start) as usize);
                self.store_copy(&part, copy, &mut source)?;
            }
            block += blocks;
        }
        Ok(())
    }

    /// Lists the pointers to the new blocks; the number of blocks that were holes, and the old
    /// blocks to be freed.
    fn point(&self, tx: &mut Tx<'p>, plan: &Plan, extent: &Extent) -> Try<(u64, Freed)> {
        let file = self.file;
        let version = super::bump(file)? as u32;
        let mut freed = Freed::new();
        let mut new_blocks = 0;
        let mut change = Change::new(tx, file)?;
        let mut block = extent.first;
        while block < extent.end {
            let leaf = change.leaf(block, extent.end)?;
            let run = leaf.run.min(extent.end - block);
            for index in 0..run {
                let old = pointers(&change, file, &leaf, index)?;
                let old = old.get(..file.geo.copies).ok_or(Errno::EIO)?;
                let first = old.first().copied().unwrap_or_default();
                if extent.kept.contains(block + index) {
                    if !self.in_place(old)? {
                        return Ok(None);
                    }
                    if first.is_unwritten() {
                        let mut words = [0u64; COPIES_MAX as usize];
                        words
                            .iter_mut()
                            .zip(old)
                            .for_each(|(word, old)| *word = old.written().0);
                        let words = words.get(..file.geo.stride()).ok_or(Errno::EIO)?;
                        change.put(&leaf, index, words)?;
                    }
                    continue;
                }
                if self.in_place(old)? || !freed.add(old) {
                    return Ok(None);
                }
                new_blocks += u64::from(first.is_hole());
            }
            let (mut from, end) = (block, block + run);
            while from < end {
                let to = extent.kept.border(from).min(end);
                if !extent.kept.contains(from) {
                    put_leaf(&mut change, file, plan, &leaf, block, (from, to), version)?;
                }
                from = to;
            }
            block += run;
        }
        Ok(Some((new_blocks, freed)))
    }
}

/// Pointers of all copies of a block in a leaf being changed.
pub(super) fn pointers(
    change: &Change<'_, '_>,
    file: &File<'_>,
    leaf: &Leaf,
    index: u64,
) -> Result<[BlockPtr; COPIES_MAX as usize]> {
    let mut out = [BlockPtr::HOLE; COPIES_MAX as usize];
    for (copy, slot) in out.iter_mut().enumerate().take(file.geo.copies) {
        *slot = change.pointer(leaf, index, copy)?;
    }
    Ok(out)
}

/// Lists the pointers of the blocks `from..to` of `leaf`, which starts with `block`.
fn put_leaf(
    change: &mut Change<'_, '_>,
    file: &File<'_>,
    plan: &Plan,
    leaf: &Leaf,
    block: u64,
    (first, end): (u64, u64),
    version: u32,
) -> Result<()> {
    let stride = file.geo.stride();
    let at_once = (PUT_WORDS / stride) as u64;
    let mut from = first;
    while from < end {
        let count = at_once.min(end - from);
        let mut words = [0u64; PUT_WORDS];
        for piece in plan.pieces.iter().take(plan.len).flatten() {
            let first = from.max(piece.block);
            let last = (from + count).min(piece.block + u64::from(piece.run.len));
            for b in first..last {
                let pointer =
                    BlockPtr::new(piece.run.rank, piece.run.start + (b - piece.block), version);
                let slot = (b - from) as usize * stride + piece.copy;
                *words.get_mut(slot).ok_or(Errno::EIO)? = pointer.0;
            }
        }
        let words = words.get(..count as usize * stride).ok_or(Errno::EIO)?;
        change.put(leaf, from - block, words)?;
        from += count;
    }
    Ok(())
}

/// Whether it takes less: there is no space, or it lies in too many places.
fn does_not_fit(errno: Errno) -> bool {
    errno.is_full() || errno == Errno::EOVERFLOW
}

/// Grabs blocks for every copy, chunk by chunk. `ENOSPC` when not even one block has all copies.
fn grab<'p>(file: &File<'p>, stage: &mut Stage<'p>, extent: &Extent) -> Result<Plan> {
    let mut plan = Plan {
        pieces: [None; RUNS_MAX],
        len: 0,
        end: extent.first,
    };
    while plan.end < extent.end {
        let border = extent.kept.border(plan.end);
        if extent.kept.contains(plan.end) {
            plan.end = border.min(extent.end);
            continue;
        }
        let chunk = plan.end / file.chunk_blocks;
        let to = ((chunk + 1) * file.chunk_blocks)
            .min(extent.end)
            .min(border);
        match grab_chunk(file, stage, &mut plan, chunk, to) {
            Ok(()) => plan.end = to,
            Err(errno) if does_not_fit(errno) && plan.end > extent.first => {
                let end = plan.end;
                return regrab(file, stage, extent, end);
            }
            Err(errno) if does_not_fit(errno) && to - plan.end > 1 => {
                return grab_less(file, stage, extent);
            }
            Err(Errno::EOVERFLOW) => return Err(Errno::ENOSPC),
            Err(errno) => return Err(errno),
        }
    }
    Ok(plan)
}

/// The pool is almost full, or its space in small pieces: block by block as far as it goes.
#[cold]
fn grab_less<'p>(file: &File<'p>, stage: &mut Stage<'p>, extent: &Extent) -> Result<Plan> {
    *stage = file.pool.stage()?;
    let mut plan = Plan {
        pieces: [None; RUNS_MAX],
        len: 0,
        end: extent.first,
    };
    while plan.end < extent.end {
        if extent.kept.contains(plan.end) {
            plan.end += 1;
            continue;
        }
        let chunk = plan.end / file.chunk_blocks;
        let to = plan.end + 1;
        match grab_chunk(file, stage, &mut plan, chunk, to) {
            Ok(()) => plan.end = to,
            Err(errno) if does_not_fit(errno) && plan.end > extent.first => {
                // What was grabbed for the block that is not complete must not be consumed.
                let end = plan.end;
                return regrab(file, stage, extent, end);
            }
            Err(Errno::EOVERFLOW) => return Err(Errno::ENOSPC),
            Err(errno) => return Err(errno),
        }
    }
    Ok(plan)
}

/// Grabs again what was there a moment ago, up to `end`; less if others have taken from it since, so
/// that it comes in more pieces or is not there any more.
#[cold]
fn regrab<'p>(
    file: &File<'p>,
    stage: &mut Stage<'p>,
    extent: &Extent,
    mut end: u64,
) -> Result<Plan> {
    'again: loop {
        *stage = file.pool.stage()?;
        let mut plan = Plan {
            pieces: [None; RUNS_MAX],
            len: 0,
            end: extent.first,
        };
        while plan.end < end {
            let (chunk, to) = (plan.end / file.chunk_blocks, plan.end + 1);
            if !extent.kept.contains(plan.end) {
                match grab_chunk(file, stage, &mut plan, chunk, to) {
                    Ok(()) => {}
                    Err(errno) if does_not_fit(errno) && plan.end > extent.first => {
                        end = plan.end;
                        continue 'again;
                    }
                    Err(Errno::EOVERFLOW) => return Err(Errno::ENOSPC),
                    Err(errno) => return Err(errno),
                }
            }
            plan.end = to;
        }
        return Ok(plan);
    }
}

/// Grabs all copies of the blocks from the plan's end to `to`, which lie in one chunk.
fn grab_chunk(
    file: &File<'_>,
    stage: &mut Stage<'_>,
    plan: &mut Plan,
    chunk: u64,
    to: u64,
) -> Result<()> {
    let ranks = place::ranks(file.pool.rank_count(), file.class, file.object(), chunk);
    for copy in 0..file.geo.copies {
        let mut block = plan.end;
        while block < to {
            let stands_in = |rank: u16| {
                let mut pieces = plan.pieces.iter().take(plan.len).flatten();
                pieces.any(|piece| {
                    let end = piece.block + u64::from(piece.run.len);
                    piece.run.rank == rank && piece.copy != copy && end > plan.end
                })
            };
            let blocks = (to - block) as u32;
            let run = grab_run(stage, ranks.as_slice(), copy, blocks, &stands_in)?;
            let piece = Piece { block, copy, run };
            if !plan.join(&piece) {
                *plan.pieces.get_mut(plan.len).ok_or(Errno::EOVERFLOW)? = Some(piece);
                plan.len += 1;
            }
            block += u64::from(run.len);
        }
    }
    Ok(())
}

/// Grabs from the rank of a copy, or, when that is full or gone, from one that holds no other copy:
/// none of `ranks`, and none that `stands_in` for another of them.
pub(crate) fn grab_run(
    stage: &mut Stage<'_>,
    ranks: &[u16],
    copy: usize,
    blocks: u32,
    stands_in: &dyn Fn(u16) -> bool,
) -> Result<Run> {
    let home = *ranks.get(copy).ok_or(Errno::EIO)?;
    let is_of_no_use = |error: Errno| error.is_full() || error == Errno::EIO;
    let why = match stage.grab(home, blocks) {
        Err(why) if is_of_no_use(why) => why,
        other => return other,
    };
    let count = stage.pool().rank_count();
    for rank in (1..count).map(|step| (home + step) % count) {
        if ranks.contains(&rank) || stands_in(rank) {
            continue;
        }
        match stage.grab(rank, blocks) {
            Err(other) if is_of_no_use(other) => {}
            other => return other,
        }
    }
    Err(why)
}

impl Plan {
    /// Adds a piece to the one it continues, if there is one.
    fn join(&mut self, piece: &Piece) -> bool {
        let known = self
            .pieces
            .iter_mut()
            .take(self.len)
            .flatten()
            .find(|known| {
                known.copy == piece.copy
                    && known.run.rank == piece.run.rank
                    && known.run.fresh == piece.run.fresh
                    && known.block + u64::from(known.run.len) == piece.block
                    && known.run.start + u64::from(known.run.len) == piece.run.start
            });
        match known {
            Some(known) => {
                known.run.len += piece.run.len;
                true
            }
            None => false,
        }
    }
}
