//! Filling new blocks with no lock held and publishing them in one transaction.

use super::{Round, Try, in_place};
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
}

impl Extent {
    fn new(start: u64, len: usize) -> Extent {
        let end = (start + len as u64).div_ceil(BLOCK);
        Extent {
            start,
            len,
            first: start / BLOCK,
            end,
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
        let blocks_max = (WORDS_MAX / file.geo.stride()) as u64;
        let end = self.fillable(start / BLOCK, Extent::new(start, len).end, blocks_max)?;
        let extent = Extent::new(start, len).cut(end);
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
        self.publish(tx, &stage, &plan, &extent, size, seen)
    }

    /// The block up to which, from `first` on, new blocks are what a write needs, and the old ones
    /// can be freed by one transaction.
    fn fillable(&self, first: u64, end: u64, max: u64) -> Result<u64> {
        let file = self.file;
        let end = end.min(first.saturating_add(max));
        let mut freed = Freed::new();
        let mut block = first;
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
                let first_copy = old.first().copied().unwrap_or_default();
                if in_place(file, first_copy) || !freed.add(old) {
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
            if let Some(block) = block.filter(|block| extent.is_partial(*block)) {
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
                        .write_blocks(run.rank, at, 0, bytes, buffer.len(), run.fresh)
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
        let Some(new_blocks) = self.point(&mut tx, plan, extent)? else {
            return Ok(None);
        };
        tx.consume(stage)?;
        self.mirror(start, extent.len, size)?;
        let end = start + extent.len as u64;
        self.finish(tx, size, end, new_blocks)?;
        Ok(Some((extent.len, end)))
    }

    /// Lists the pointers to the new blocks and frees the old ones; the number of blocks that
    /// were holes.
    fn point(&self, tx: &mut Tx<'p>, plan: &Plan, extent: &Extent) -> Try<u64> {
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
                if in_place(file, first) || !freed.add(old) {
                    return Ok(None);
                }
                new_blocks += u64::from(first.is_hole());
            }
            put_leaf(&mut change, file, plan, &leaf, block, run, version)?;
            block += run;
        }
        freed.flush(tx)?;
        Ok(Some(new_blocks))
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

/// Lists the pointers of `run` blocks from `block` on, the first of `leaf`.
fn put_leaf(
    change: &mut Change<'_, '_>,
    file: &File<'_>,
    plan: &Plan,
    leaf: &Leaf,
    block: u64,
    run: u64,
    version: u32,
) -> Result<()> {
    let stride = file.geo.stride();
    let at_once = (PUT_WORDS / stride) as u64;
    let mut done = 0;
    while done < run {
        let count = at_once.min(run - done);
        let mut words = [0u64; PUT_WORDS];
        let from = block + done;
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
        change.put(leaf, done, words)?;
        done += count;
    }
    Ok(())
}

/// Grabs blocks for every copy, chunk by chunk. `ENOSPC` when not even one block has all copies.
fn grab<'p>(file: &File<'p>, stage: &mut Stage<'p>, extent: &Extent) -> Result<Plan> {
    let mut plan = Plan {
        pieces: [None; RUNS_MAX],
        len: 0,
        end: extent.first,
    };
    while plan.end < extent.end {
        let chunk = plan.end / file.chunk_blocks;
        let to = ((chunk + 1) * file.chunk_blocks).min(extent.end);
        match grab_chunk(file, stage, &mut plan, chunk, to) {
            Ok(()) => plan.end = to,
            Err(Errno::ENOSPC | Errno::EOVERFLOW) if plan.end > extent.first => {
                let end = plan.end;
                return regrab(file, stage, extent, end);
            }
            Err(Errno::ENOSPC | Errno::EOVERFLOW) if to - plan.end > 1 => {
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
        let chunk = plan.end / file.chunk_blocks;
        let to = plan.end + 1;
        match grab_chunk(file, stage, &mut plan, chunk, to) {
            Ok(()) => plan.end = to,
            Err(Errno::ENOSPC | Errno::EOVERFLOW) if plan.end > extent.first => {
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

/// Grabs again exactly what is known to be there.
#[cold]
fn regrab<'p>(file: &File<'p>, stage: &mut Stage<'p>, extent: &Extent, end: u64) -> Result<Plan> {
    *stage = file.pool.stage()?;
    let mut plan = Plan {
        pieces: [None; RUNS_MAX],
        len: 0,
        end: extent.first,
    };
    while plan.end < end {
        let (chunk, to) = (plan.end / file.chunk_blocks, plan.end + 1);
        grab_chunk(file, stage, &mut plan, chunk, to)?;
        plan.end = to;
    }
    Ok(plan)
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
            let run = grab_run(file, stage, ranks.as_slice(), copy, (to - block) as u32)?;
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

/// Grabs from the rank of a copy, or, when that is full, from one that holds no other copy.
fn grab_run(
    file: &File<'_>,
    stage: &mut Stage<'_>,
    ranks: &[u16],
    copy: usize,
    blocks: u32,
) -> Result<Run> {
    let home = *ranks.get(copy).ok_or(Errno::EIO)?;
    match stage.grab(home, blocks) {
        Err(Errno::ENOSPC) => {}
        other => return other,
    }
    let count = file.pool.rank_count();
    for step in 1..count {
        let rank = (home + step) % count;
        // The stand-ins of two copies must differ too: each copy looks only at its own share.
        let base = ranks.first().copied().unwrap_or(0);
        let share = usize::from((rank + count - base) % count) % ranks.len().max(1);
        if ranks.contains(&rank) || share != copy {
            continue;
        }
        match stage.grab(rank, blocks) {
            Err(Errno::ENOSPC) => {}
            other => return other,
        }
    }
    Err(Errno::ENOSPC)
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
