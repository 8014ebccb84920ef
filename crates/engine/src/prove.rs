//! Checksums of published data in the log: what a process leaves behind without a sync.
//!
//! The kernel writes data and log back by itself, within about half a minute; but after a power
//! failure a pointer counts only if its data is known to be there. So a process that ends puts the
//! checksums of blocks that no sync has covered into the log, and flushes nothing.

use crate::layout::{BlockPtr, header};
use crate::limits::{REPLICAS_MAX, TX_WORDS_MAX};
use crate::log::{PAD_MAGIC, RecordKind, as_bytes, kind_and_bytes};
use crate::pool::Pool;
use crate::recover::each_block_published;
use crate::sync::BLOCK_WORDS;
use crate::tx::RECORD_HEADER;
use core::sync::atomic::Ordering;
use sys::{Errno, Result};

/// Blocks whose checksums are taken at most (4 GiB): an end must not take longer than a second.
const BLOCKS_MAX: usize = 1 << 20;
/// Words of the record for one copy of a block: pointer, checksum.
pub(crate) const SUM_WORDS: usize = 2;

impl Pool {
    /// Puts the checksums of what was published and not synced into the log.
    pub fn prove(&self) -> Result<()> {
        let tail = self.load(header::LOG_TAIL)?;
        let known = [header::PROVEN, header::DATA_SYNCED, header::LOG_HEAD];
        let mut from = 0;
        for at in known {
            from = from.max(self.load(at)?);
        }
        if from >= tail {
            return Ok(());
        }
        let mut words = Vec::new();
        let mut left = BLOCKS_MAX;
        self.each_recent_change(from, tail, &mut |record| {
            each_block_published(record, &mut |copies| {
                left = left.checked_sub(1).ok_or(Errno::EFBIG)?;
                self.add_sum(copies, &mut words)
            })
        })?;
        for part in words.chunks((TX_WORDS_MAX - RECORD_HEADER) / SUM_WORDS * SUM_WORDS) {
            self.make_log_room()?;
            let (block, me) = self.me()?;
            let mut record = vec![0; RECORD_HEADER];
            record.extend_from_slice(part);
            self.append(block, me, RecordKind::Sums, &mut record)?;
        }
        self.word(header::PROVEN)?.fetch_max(tail, Ordering::AcqRel);
        Ok(())
    }

    /// Lists the copies of a block with the checksum of what it holds now.
    fn add_sum(&self, copies: &[u64], words: &mut Vec<u64>) -> Result<()> {
        let mut places = [BlockPtr::HOLE; REPLICAS_MAX];
        let places = places.get_mut(..copies.len()).ok_or(Errno::EIO)?;
        for (place, copy) in places.iter_mut().zip(copies) {
            *place = BlockPtr(*copy);
        }
        // What cannot be read is not proven.
        let places = places.iter().filter(|place| !place.is_hole());
        let mut content = [0u64; BLOCK_WORDS];
        for place in places.clone() {
            if self.read_any_copy(&[*place], &mut content).is_ok() {
                let sum = u64::from(crc32fast::hash(as_bytes(&content)));
                places.for_each(|place| words.extend([place.0, sum]));
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` for the changes published from `from` to `tail`, as far as the ring still has
    /// them.
    fn each_recent_change(
        &self,
        from: u64,
        tail: u64,
        each: &mut dyn FnMut(&[u64]) -> Result<()>,
    ) -> Result<()> {
        let ring = self.load(header::LOG_BYTES)?;
        let mut record = vec![0u64; TX_WORDS_MAX];
        let mut position = from;
        while position < tail {
            let to_end = ring - position % ring;
            self.log_words(position, &mut record[..1])?;
            let (kind, bytes) = kind_and_bytes(record[0]);
            let len = (bytes / 8) as usize;
            let whole = (RECORD_HEADER..=TX_WORDS_MAX).contains(&len) && bytes <= to_end;
            if whole {
                self.log_words(position, &mut record[..len])?;
            }
            if whole && record[1] == position {
                if kind == RecordKind::Change as u8 {
                    each(&record[..len])?;
                }
                position += bytes;
            } else if record[0] == to_end | PAD_MAGIC << 32 {
                position += to_end;
            } else {
                // The ring has come by: a checkpoint has covered it.
                return Ok(());
            }
        }
        Ok(())
    }
}
