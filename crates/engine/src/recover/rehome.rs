//! Blocks of ranks that are gone of which the log has the content: they get another place.
//!
//! What a sync has put into the log need not have reached the rank's device. Once the log has gone on
//! nobody would know it any more, and should the rank come back, its block would be taken for
//! what it was to hold.
//!
//! As all that recovery decides this is in no record, but in the checkpoint that ends it: if the rank is back
//! before that, all is decided anew, and perhaps otherwise. What is stored until then goes behind the ends
//! of data files, for another log may know what the blocks before them hold.

use super::{Place, Proofs, Seen, each_content, holds_data, place};
use crate::layout::{BlockPtr, Run, descriptor, descriptor_at, header};
use crate::limits::{PAGE, at};
use crate::log::{RecordKind, as_bytes};
use crate::pool::Pool;
use crate::space::Stage;
use std::collections::BTreeMap;
use sys::{Errno, Result};

/// Pointers to blocks that are gone, and where each is, by what the log has of the block: the position and
/// the place.
type Strays = BTreeMap<(u64, Place), (u64, BlockPtr)>;

impl Pool {
    /// Gives blocks of ranks that are gone a place on others if the log has what they hold; returns whether
    /// there were any. `ENOSPC` if there is no room, unless the rank was excluded. The arena is its
    /// builder's alone, and a checkpoint has to follow.
    pub(crate) fn rehome_contents(&self, seen: &Seen, proofs: &Proofs) -> Result<bool> {
        let strays = self.strays(proofs)?;
        let Some(((first, _), _)) = strays.first_key_value() else {
            return Ok(false);
        };
        let (from, sum) = seen.mark_at(*first);
        self.each_record(from, sum, seen.end, |found| {
            if found.kind != RecordKind::Contents as u8 {
                return Ok(());
            }
            each_content(&found, |copies, content| {
                for copy in copies {
                    let stray = strays.get(&(found.position, place(BlockPtr(*copy))));
                    if let Some((off, pointer)) = stray {
                        self.rehome(*off, *pointer, copies, content)?;
                    }
                }
                Ok(())
            })
        })?;
        Ok(true)
    }

    fn strays(&self, proofs: &Proofs) -> Result<Strays> {
        let mut strays = Strays::new();
        if proofs.contents.is_empty() {
            return Ok(strays);
        }
        for page in 1..self.load(header::FRONTIER)? as u32 {
            self.for_each_pointer(page, &mut |off, pointer| {
                let Some(position) = proofs.contents.get(&place(pointer)) else {
                    return Ok(());
                };
                if holds_data(pointer)
                    && self.is_data_absent(pointer.rank())?
                    && proofs.wants_content(pointer, *position)
                {
                    strays.insert((*position, place(pointer)), (off, pointer));
                }
                Ok(())
            })?;
        }
        Ok(strays)
    }

    /// Stores a block anew and has its pointer at `off` lead there. Where it was stays in use until the arena
    /// is built again: nobody can write there.
    fn rehome(&self, off: u64, pointer: BlockPtr, copies: &[u64], content: &[u64]) -> Result<()> {
        let mut stage = self.stage()?;
        let Some(run) = self.grab_home(&mut stage, pointer, copies)? else {
            let given_up = self.spec.excluded.contains(&pointer.rank());
            return given_up.then_some(()).ok_or(Errno::ENOSPC);
        };
        let bytes = as_bytes(content);
        // SAFETY: a live buffer; the run was grabbed just now.
        unsafe { self.write_blocks(run.rank, run.start, 0, bytes.as_ptr(), bytes.len()) }?;
        for (at, left) in stage.staged() {
            self.store(at, left)?;
        }
        let now = self.load(header::LOG_TAIL)?;
        let moved = BlockPtr::new(run.rank, run.start, (now / 8) as u32);
        self.store(off, moved.0)?;
        let page = ((off - at::PAGES) / PAGE) as u32;
        self.store(descriptor_at(page) + descriptor::DIRTY, now.max(1))
    }

    /// A block for a copy, on a rank that has none of the others if there is one.
    fn grab_home(
        &self,
        stage: &mut Stage<'_>,
        pointer: BlockPtr,
        copies: &[u64],
    ) -> Result<Option<Run>> {
        let ranks = self.rank_count();
        let others = (1..ranks).map(|step| (pointer.rank() + step) % ranks);
        let holds_copy = |r: &u16| copies.iter().any(|copy| BlockPtr(*copy).rank() == *r);
        let (last, first): (Vec<u16>, Vec<u16>) = others.partition(holds_copy);
        for r in first.into_iter().chain(last) {
            if self.is_data_absent(r)? {
                continue;
            }
            match stage.grab(r, 1) {
                Err(full) if full.is_full() => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
    }
}
