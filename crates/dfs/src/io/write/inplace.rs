//! Storing into blocks that are there already, under the file's lock.

use super::{Round, Start, Try};
use crate::io::cursor::Source;
use crate::map::file::COPIES_MAX;
use crate::map::{BLOCK, Spot};
use engine::{BlockPtr, Run, Tx, crash_point};
use sys::{Errno, Result};

/// Blocks stored in one transaction: bounds how long the lock is held.
const BLOCKS_MAX: usize = 256;

/// What the part of a round that is stored in place covers.
pub(super) struct InPlace {
    /// Byte in the first block.
    pub(super) head: usize,
    pub(super) bytes: usize,
    pub(super) blocks: usize,
    /// Offset of the first block's pointers.
    pub(super) at: u64,
}

impl<'p> Round<'_, 'p> {
    /// Stores as many blocks from the start on as may be stored in place.
    pub(super) fn overwrite(&mut self, mut tx: Tx<'p>) -> Try<(usize, u64)> {
        let size = self.file.size()?;
        let (start, len) = self.extent(size)?;
        if !self.ready(size, start, len)? {
            return Ok(None);
        }
        let head = (start % BLOCK) as usize;
        let spot = self.file.find(start / BLOCK)?;
        let wanted = (head + len)
            .div_ceil(BLOCK as usize)
            .min(BLOCKS_MAX)
            .min(spot.run as usize);
        let Some(extent) = self.in_place_extent(&spot, head, len, wanted)? else {
            return Ok(None);
        };
        if self.start == Start::End && extent.bytes < len {
            // The end has moved to where the rest needs new blocks: all of it or nothing.
            return Ok(None);
        }
        self.note(start, extent.bytes)?;
        for copy in 0..self.file.geo.copies {
            let mut source = self.source;
            self.store_copy(&extent, copy, &mut source)?;
        }
        crash_point!("write.stored");
        self.mark_written(&mut tx, &extent)?;
        self.mirror(start, extent.bytes, size)?;
        let end = start + extent.bytes as u64;
        self.finish(tx, size, end, 0)?;
        Ok(Some((extent.bytes, end)))
    }

    fn in_place_extent(
        &self,
        spot: &Spot,
        head: usize,
        len: usize,
        wanted: usize,
    ) -> Result<Option<InPlace>> {
        let Some(at) = spot.at else { return Ok(None) };
        let mut blocks = 0;
        while blocks < wanted {
            let copies = self.file.pointers(self.file.nth(at, blocks as u64))?;
            if !self.in_place(&copies)? {
                break;
            }
            blocks += 1;
        }
        let bytes = len.min((blocks * BLOCK as usize).saturating_sub(head));
        Ok((blocks > 0).then_some(InPlace {
            head,
            bytes,
            blocks,
            at,
        }))
    }

    fn pointer(&self, at: u64, index: usize, copy: usize) -> Result<BlockPtr> {
        let word = self
            .file
            .pool
            .load(self.file.nth(at, index as u64) + copy as u64 * 8)?;
        Ok(BlockPtr(word))
    }

    /// Stores one copy, run by run.
    pub(super) fn store_copy(
        &self,
        extent: &InPlace,
        copy: usize,
        source: &mut Source<'_>,
    ) -> Result<()> {
        let (mut index, mut off, mut left) = (0, extent.head, extent.bytes);
        while left > 0 {
            let first = self.pointer(extent.at, index, copy)?;
            let mut blocks = 1;
            while index + blocks < extent.blocks {
                let next = self.pointer(extent.at, index + blocks, copy)?;
                let joins = next.rank() == first.rank()
                    && next.block() == first.block() + blocks as u64
                    && next.is_unwritten() == first.is_unwritten();
                if !joins {
                    break;
                }
                blocks += 1;
            }
            let len = left.min(blocks * BLOCK as usize - off);
            let used = (off + len).div_ceil(BLOCK as usize);
            let run = Run {
                rank: first.rank(),
                start: first.block(),
                len: used as u32,
                fresh: first.is_unwritten(),
            };
            self.store_run(run, off, len, source)?;
            (index, off, left) = (index + blocks, 0, left - len);
        }
        Ok(())
    }

    fn store_run(&self, run: Run, off: usize, len: usize, source: &mut Source<'_>) -> Result<()> {
        let pool = self.file.pool;
        if run.fresh {
            let end = run.len as usize * BLOCK as usize;
            if off > 0 {
                pool.zero_blocks(run.rank, run.start, 0, off)?;
            }
            if off + len < end {
                pool.zero_blocks(run.rank, run.start, off + len, end - off - len)?;
            }
        }
        source.put_run(pool, run, off, len)
    }

    /// Lists the pointers of blocks that hold data from now on.
    fn mark_written(&self, tx: &mut Tx<'p>, extent: &InPlace) -> Result<()> {
        for index in 0..extent.blocks {
            let pointer = self.pointer(extent.at, index, 0)?;
            if !pointer.is_unwritten() {
                self.file.pool.note_overwritten(pointer);
                continue;
            }
            if tx.room() < 64 {
                return Err(Errno::EOVERFLOW);
            }
            let at = self.file.nth(extent.at, index as u64);
            let mut words = [0u64; COPIES_MAX as usize];
            for (copy, word) in words.iter_mut().enumerate().take(self.file.geo.copies) {
                *word = self.pointer(extent.at, index, copy)?.written().0;
            }
            let stride = self.file.geo.stride();
            tx.put_blocks(at, words.get(..stride).ok_or(Errno::EIO)?, stride)?;
        }
        Ok(())
    }
}
