//! Blocks on ranks that are gone that may not have reached their devices: they get another place.
//!
//! What was stored since the rank was last flushed may be lost with it, or come back as it was before.
//! Once the log has gone on nobody would know which blocks that are, and should the rank come
//! back, they would be taken for what they were to hold. The other copies have that, or the log.
//!
//! As all that recovery decides this is in no record, but in the checkpoint that ends it: if the rank is back
//! before that, all is decided anew, and perhaps otherwise. What is stored until then goes behind the ends
//! of data files, for another log may know what the blocks before them hold.

use super::{Map, Place, Seen, each_block_published, each_content, holds_data, place};
use crate::layout::{BlockPtr, descriptor, descriptor_at, header};
use crate::limits::{PAGE, RANK_BLOCKS_MAX, at};
use crate::log::{RecordKind, as_bytes};
use crate::pool::Pool;
use crate::rebuild::Rebuilt;
use crate::sync::BLOCK_WORDS;
use std::collections::BTreeMap;
use sys::{Errno, Result};

/// What the log says of a block that may be lost.
struct Doubtful {
    /// Pointers to all its copies.
    copies: Box<[BlockPtr]>,
    /// Where the log has the content, if nothing was stored there since.
    content: Option<u64>,
}

/// Blocks by which a data file grows.
const STEP: u64 = 1024;

/// A data file to which blocks are added: the next that no map leads to, and where the file ends.
struct End {
    next: u64,
    end: u64,
}

/// A pointer that leads to such a block, and where it is.
#[derive(Clone, Copy)]
struct Stray {
    off: u64,
    pointer: BlockPtr,
}

/// Pointers to blocks whose content is in the log, by its position and the place.
type InLog = BTreeMap<(u64, Place), Stray>;

impl Pool {
    /// Gives blocks on ranks that are gone a place on others. `present` are the blocks that data files have,
    /// `None` of ranks that are gone. Something is lacking if there is no room, or, where every pointer
    /// counts (`trusted`), if nobody else has a block, unless the rank was excluded. The arena is its
    /// builder's alone, free space is not known yet, and a checkpoint has to follow a change.
    pub(crate) fn rehome(
        &self,
        seen: &Seen,
        present: &mut [Option<u64>],
        trusted: bool,
    ) -> Result<Rebuilt> {
        let doubtful = self.doubtful(seen)?;
        if doubtful.is_empty() {
            return Ok(Rebuilt::AsFound);
        }
        let (mut of_others, mut in_log) = (Vec::new(), InLog::new());
        let mut lacking = false;
        for page in 1..self.load(header::FRONTIER)? as u32 {
            self.for_each_pointer(page, &mut |off, pointer| {
                let Some(block) = doubtful
                    .get(&place(pointer))
                    .filter(|_| holds_data(pointer))
                else {
                    return Ok(());
                };
                let stray = Stray { off, pointer };
                if self.read_other_copy(stray, block, &mut [0; BLOCK_WORDS])? {
                    of_others.push(stray);
                } else if let Some(position) = block.content {
                    in_log.insert((position, place(pointer)), stray);
                } else {
                    lacking |= trusted && !self.spec.excluded.contains(&pointer.rank());
                }
                Ok(())
            })?;
        }
        if lacking {
            return Ok(Rebuilt::Lacking);
        }
        if of_others.is_empty() && in_log.is_empty() {
            return Ok(Rebuilt::AsFound);
        }
        let mut ends = Vec::new();
        for (needed, end) in self.needed()?.iter().zip(present.iter()) {
            // Where blocks are missing that were written, growth would pass for what they held.
            let whole = end.filter(|end| needed.written <= *end);
            ends.push(whole.map(|end| End {
                next: end.max(needed.all),
                end,
            }));
        }
        let rehomed = self
            .rehome_copies(&of_others, &doubtful, &mut ends)
            .and_then(|()| self.rehome_contents(seen, &in_log, &doubtful, &mut ends));
        for (present, end) in present.iter_mut().zip(ends) {
            *present = end.map(|end| end.end).or(*present);
        }
        match rehomed {
            Err(full) if full.is_full() => Ok(Rebuilt::Lacking),
            other => other.map(|()| Rebuilt::Changed),
        }
    }

    /// Blocks of which another copy is there.
    fn rehome_copies(
        &self,
        strays: &[Stray],
        doubtful: &Map<Place, Doubtful>,
        ends: &mut [Option<End>],
    ) -> Result<()> {
        let mut content = [0; BLOCK_WORDS];
        for stray in strays {
            let block = doubtful.get(&place(stray.pointer)).ok_or(Errno::EIO)?;
            if !self.read_other_copy(*stray, block, &mut content)? {
                // It was there a moment ago.
                return Err(Errno::EIO);
            }
            self.rehome_block(ends, *stray, block, &content)?;
        }
        Ok(())
    }

    /// Blocks of which the log has the content.
    fn rehome_contents(
        &self,
        seen: &Seen,
        strays: &InLog,
        doubtful: &Map<Place, Doubtful>,
        ends: &mut [Option<End>],
    ) -> Result<()> {
        let Some(((first, _), _)) = strays.first_key_value() else {
            return Ok(());
        };
        let (from, sum) = seen.mark_at(*first);
        self.each_record(from, sum, seen.end, |found| {
            if found.kind != RecordKind::Contents as u8 {
                return Ok(());
            }
            each_content(&found, |copies, content| {
                for at in copies.iter().map(|copy| place(BlockPtr(*copy))) {
                    let stray = strays.get(&(found.position, at));
                    if let (Some(stray), Some(block)) = (stray, doubtful.get(&at)) {
                        self.rehome_block(ends, *stray, block, content)?;
                    }
                }
                Ok(())
            })
        })?;
        Ok(())
    }

    /// Blocks on ranks that are gone that were stored since these were flushed.
    fn doubtful(&self, seen: &Seen) -> Result<Map<Place, Doubtful>> {
        let mut absent = vec![false; usize::from(self.rank_count())];
        for (r, absent) in (0..).zip(&mut absent) {
            *absent = self.is_data_absent(r)?;
        }
        let mut doubtful: Map<Place, Doubtful> = Map::default();
        if !absent.contains(&true) {
            return Ok(doubtful);
        }
        let flushed = &seen.flushes.flushed;
        let is_doubtful = |pointer: BlockPtr, position: u64| {
            let rank = usize::from(pointer.rank());
            absent.get(rank) == Some(&true) && flushed.get(rank).is_some_and(|at| *at <= position)
        };
        let (from, sum) = seen.mark_at(seen.flushes.certain());
        self.each_record(from, sum, seen.end, |found| {
            let position = found.position;
            let mut note = |words: &[u64], content: Option<u64>| {
                let pointers = words.iter().map(|word| BlockPtr(*word));
                let copies: Box<[BlockPtr]> = pointers.filter(|copy| !copy.is_hole()).collect();
                for copy in copies.iter().filter(|copy| is_doubtful(**copy, position)) {
                    let copies = copies.clone();
                    doubtful.insert(place(*copy), Doubtful { copies, content });
                }
                Ok(())
            };
            if found.kind == RecordKind::Change as u8 {
                each_block_published(found.words, &mut |copies| note(copies, None))
            } else if found.kind == RecordKind::Contents as u8 {
                each_content(&found, |copies, _| note(copies, Some(position)))
            } else {
                Ok(())
            }
        })?;
        Ok(doubtful)
    }

    /// Reads what a copy of a block has that is not gone; false if none can be read.
    fn read_other_copy(
        &self,
        stray: Stray,
        block: &Doubtful,
        content: &mut [u64; BLOCK_WORDS],
    ) -> Result<bool> {
        let mut others = Vec::new();
        for copy in &block.copies {
            if place(*copy) != place(stray.pointer) && !self.is_data_absent(copy.rank())? {
                others.push(*copy);
            }
        }
        Ok(self.read_any_copy(&others, content).is_ok())
    }

    /// Stores a block anew and has its pointer lead there.
    fn rehome_block(
        &self,
        ends: &mut [Option<End>],
        stray: Stray,
        block: &Doubtful,
        content: &[u64],
    ) -> Result<()> {
        let Stray { off, pointer } = stray;
        let Some((rank, to)) = self.grow_elsewhere(ends, pointer, &block.copies)? else {
            let given_up = self.spec.excluded.contains(&pointer.rank());
            return given_up.then_some(()).ok_or(Errno::ENOSPC);
        };
        let bytes = as_bytes(content);
        // SAFETY: a live buffer; nobody has the block.
        unsafe { self.write_blocks(rank, to, 0, bytes.as_ptr(), bytes.len()) }?;
        let now = self.load(header::LOG_TAIL)?;
        self.store(off, BlockPtr::new(rank, to, (now / 8) as u32).0)?;
        let page = ((off - at::PAGES) / PAGE) as u32;
        self.store(descriptor_at(page) + descriptor::DIRTY, now.max(1))
    }

    /// A block behind the end of a data file, of a rank that has none of the other copies if there is
    /// one.
    fn grow_elsewhere(
        &self,
        ends: &mut [Option<End>],
        pointer: BlockPtr,
        copies: &[BlockPtr],
    ) -> Result<Option<(u16, u64)>> {
        let ranks = self.rank_count();
        let others = (1..ranks).map(|step| (pointer.rank() + step) % ranks);
        let holds_copy = |r: &u16| copies.iter().any(|copy| copy.rank() == *r);
        let (last, first): (Vec<u16>, Vec<u16>) = others.partition(holds_copy);
        for r in first.into_iter().chain(last) {
            let Some(Some(behind)) = ends.get_mut(usize::from(r)) else {
                continue;
            };
            if behind.next >= behind.end {
                let end = (behind.next + STEP).min(RANK_BLOCKS_MAX);
                match self.extend_with_room(r, behind.end, end) {
                    Err(full) if full.is_full() => continue,
                    other => other?,
                }
                behind.end = end;
            }
            if behind.next < behind.end {
                behind.next += 1;
                return Ok(Some((r, behind.next - 1)));
            }
        }
        Ok(None)
    }
}
