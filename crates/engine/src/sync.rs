//! Bringing what is completed to the devices.
//!
//! Data goes first: a sync flushes the data files of ranks, or puts small data into the log, then
//! appends a record that says so and flushes the log. After a power failure a block pointer counts
//! only if its data is known to be there (`recover`). One flush of the log serves everybody who
//! waits for it.
//!
//! A *window* is the time between the beginnings of two syncs. What is taken and given back within
//! one may be taken again at once: no state that a power failure can lead to knows of it. All else
//! that is given back waits until a sync of everything that began later has ended (`space`).

use crate::layout::{BlockPtr, header};
use crate::limits::{BLOCK, RANKS_MAX, REPLICAS_MAX, TX_WORDS_MAX};
use crate::log::RecordKind;
use crate::pool::{LockId, Pool};
use crate::thread::ThreadBlock;
use crate::tx::RECORD_HEADER;
use core::sync::atomic::Ordering;
use shm::crash_point;
use sys::{Errno, Result};

/// Words of a record that says which ranks' data is flushed: position, one bit a rank.
pub(crate) const FLUSHED_WORDS: usize = 1 + RANKS_MAX / 64;
/// Bytes of such a record.
const FLUSHED_BYTES: u64 = ((RECORD_HEADER + FLUSHED_WORDS) * 8) as u64;
/// Words of a record of contents before the first block: the position at which the window began.
pub(crate) const CONTENTS_HEADER: usize = RECORD_HEADER + 1;
/// Words of a block's content.
pub(crate) const BLOCK_WORDS: usize = (BLOCK / 8) as usize;

/// A set of ranks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RankSet([u64; RANKS_MAX / 64]);

impl RankSet {
    /// Adds a rank.
    pub fn add(&mut self, rank: u16) {
        if let Some(word) = self.0.get_mut(usize::from(rank) / 64) {
            *word |= 1 << (rank % 64);
        }
    }

    /// Whether a rank is in the set.
    pub fn has(&self, rank: u16) -> bool {
        self.0
            .get(usize::from(rank) / 64)
            .is_some_and(|word| word & 1 << (rank % 64) != 0)
    }

    pub(crate) fn from_words(words: &[u64]) -> RankSet {
        let mut set = RankSet::default();
        set.0
            .iter_mut()
            .zip(words)
            .for_each(|(to, from)| *to = *from);
        set
    }
}

impl Pool {
    /// Makes everything completed so far durable: data first, then the log.
    pub fn sync(&self) -> Result<()> {
        let tail = self.load(header::LOG_TAIL)?;
        // That data was flushed is not enough: the log has to say so, or a checkpoint that counts.
        if self.load(header::LOG_SYNCED)? >= tail
            && self.load(header::DATA_SYNCED)? >= tail
            && !self.any_unflushed()?
        {
            return Ok(());
        }
        self.make_log_room()?;
        self.sync_everything()
    }

    /// The same whether or not there is anything to do, also with locks held.
    pub(crate) fn sync_everything(&self) -> Result<()> {
        let (window, from) = self.begin_window()?;
        crash_point!("sync.begun");
        for rank in 0..self.rank_count() {
            self.flush_data(rank)?;
        }
        crash_point!("sync.flushed");
        let end = self.append_flushed(from, RankSet([u64::MAX; RANKS_MAX / 64]))?;
        self.flush_log(end)?;
        // Nothing was published between.
        let alone = end == from + FLUSHED_BYTES;
        self.word(header::DATA_SYNCED)?
            .fetch_max(if alone { end } else { from }, Ordering::AcqRel);
        // What was given back before is in nobody's map on the devices any more.
        self.word(header::WINDOW_SYNCED)?
            .fetch_max(window, Ordering::AcqRel);
        self.store(header::LEFT_DATA, 0)
    }

    /// Whether data may not be on the devices that was stored before the arena was built: what of a file
    /// that was is not known any more. [`Pool::sync`] brings it there.
    pub fn is_data_left(&self) -> Result<bool> {
        Ok(self.load(header::LEFT_DATA)? != 0)
    }

    /// Makes the data of some ranks durable, and all names and attributes.
    pub fn sync_ranks(&self, ranks: RankSet) -> Result<()> {
        self.make_log_room()?;
        let (_, from) = self.begin_window()?;
        for rank in (0..self.rank_count()).filter(|rank| ranks.has(*rank)) {
            self.flush_data(rank)?;
        }
        let end = self.append_flushed(from, ranks)?;
        self.flush_log(end)
    }

    /// Makes all names and attributes durable.
    pub fn sync_names(&self) -> Result<()> {
        self.flush_log(self.load(header::LOG_TAIL)?)
    }

    /// Starts making small data durable by way of the log, with the lock held under which it changes:
    /// of two contents of a block the later one in the log counts. `EDEADLK` inside a transaction.
    pub fn sync_contents(&self, lock: LockId) -> Result<Contents<'_>> {
        self.make_log_room()?;
        let (_, from) = self.begin_window()?;
        let (block, me) = self.me()?;
        if block.busy.swap(true, Ordering::Relaxed) {
            return Err(Errno::EDEADLK);
        }
        let mut contents = Contents {
            pool: self,
            block,
            me,
            held: None,
            from,
            len: CONTENTS_HEADER,
        };
        self.acquire(block, me, lock)?;
        contents.held = Some(lock);
        Ok(contents)
    }

    fn any_unflushed(&self) -> Result<bool> {
        for rank in 0..self.rank_count() {
            if self.is_unflushed(rank)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends the window; the number of the new one, and the log position at which it begins.
    pub(crate) fn begin_window(&self) -> Result<(u64, u64)> {
        let (block, me) = self.me()?;
        // Under the log's lock: every record belongs to the window in which it is published.
        self.acquire(block, me, LockId::Log)?;
        let begin = || {
            let window = self.load(header::WINDOW)? + 1;
            self.store(header::WINDOW, window)?;
            Ok((window, self.load(header::LOG_TAIL)?))
        };
        let begun = begin();
        self.release(block, me, LockId::Log);
        begun
    }

    /// Appends a record that no other log has: it holds the time.
    pub(crate) fn branch_off(&self) -> Result<()> {
        let (_, from) = self.begin_window()?;
        self.append_flushed(from, RankSet::default()).map(|_| ())
    }

    /// Appends that data published before `from` is on the devices of `ranks`; where that ends.
    fn append_flushed(&self, from: u64, ranks: RankSet) -> Result<u64> {
        let (block, me) = self.me()?;
        let mut record = [0u64; RECORD_HEADER + FLUSHED_WORDS];
        record[RECORD_HEADER] = from;
        record[RECORD_HEADER + 1..].copy_from_slice(&ranks.0);
        let position = self.append(block, me, RecordKind::Flushed, &mut record)?;
        Ok(position + record.len() as u64 * 8)
    }

    /// Puts a block into the log.
    pub(crate) fn log_content(
        &self,
        block: &ThreadBlock,
        me: u16,
        copies: &[BlockPtr],
    ) -> Result<()> {
        if copies.is_empty() || copies.len() > REPLICAS_MAX {
            return Err(Errno::EINVAL);
        }
        // Nobody waits for this: no window begins, which position 0 says.
        let mut record = [0u64; CONTENTS_HEADER + 1 + REPLICAS_MAX + BLOCK_WORDS];
        record[CONTENTS_HEADER] = copies.len() as u64;
        let from = CONTENTS_HEADER + 1;
        for (word, copy) in record[from..].iter_mut().zip(copies) {
            *word = copy.0;
        }
        let record = &mut record[..from + copies.len() + BLOCK_WORDS];
        self.read_any_copy(copies, &mut record[from + copies.len()..])?;
        self.append(block, me, RecordKind::Contents, record)
            .map(|_| ())
    }

    /// Reads a block from the first place that can be read.
    pub(crate) fn read_any_copy(&self, copies: &[BlockPtr], content: &mut [u64]) -> Result<()> {
        let mut read = Err(Errno::EIO);
        for copy in copies {
            let to = content.as_mut_ptr().cast::<u8>();
            // SAFETY: the destination is ours, and `BLOCK` bytes long.
            read = unsafe { self.read_blocks(copy.rank(), copy.block(), 0, to, BLOCK as usize) };
            if read.is_ok() {
                break;
            }
        }
        read
    }

    /// Waits until the log up to `end` is on its devices: the first to come flushes for all.
    pub(crate) fn flush_log(&self, end: u64) -> Result<()> {
        if self.load(header::LOG_SYNCED)? >= end {
            return Ok(());
        }
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Sync)?;
        let done = self.flush_log_locked(end);
        self.release(block, me, LockId::Sync);
        done
    }

    fn flush_log_locked(&self, end: u64) -> Result<()> {
        if self.load(header::LOG_SYNCED)? >= end {
            return Ok(());
        }
        let tail = self.load(header::LOG_TAIL)?;
        self.settle_rest()?;
        let doubt = self.flush_log_places(tail)?;
        self.log_settled(doubt)?;
        crash_point!("sync.log");
        self.word(header::LOG_SYNCED)?
            .fetch_max(tail, Ordering::AcqRel);
        Ok(())
    }
}

/// Blocks on their way into the log.
pub struct Contents<'p> {
    pool: &'p Pool,
    block: &'static ThreadBlock,
    me: u16,
    /// What keeps the blocks as they are until they are in the log.
    held: Option<LockId>,
    /// Where the window began.
    from: u64,
    len: usize,
}

impl Contents<'_> {
    /// Adds what a block holds now; `copies` point to the places where it lies. `ENOSPC` when the
    /// log is nearly full: the ranks can still be flushed.
    pub fn add(&mut self, copies: &[BlockPtr]) -> Result<()> {
        if copies.is_empty() || copies.len() > REPLICAS_MAX {
            return Err(Errno::EINVAL);
        }
        let words = 1 + copies.len() + BLOCK_WORDS;
        if self.len + words > TX_WORDS_MAX {
            self.append()?;
        }
        let at = self.len;
        // SAFETY: `busy` makes this the only user of the thread's scratch words.
        let scratch = unsafe { &mut *self.block.words.get() };
        scratch[at] = copies.len() as u64;
        for (word, copy) in scratch[at + 1..].iter_mut().zip(copies) {
            *word = copy.0;
        }
        self.pool
            .read_any_copy(copies, &mut scratch[at + 1 + copies.len()..at + words])?;
        self.len += words;
        Ok(())
    }

    fn append(&mut self) -> Result<u64> {
        crash_point!("sync.contents");
        let len = core::mem::replace(&mut self.len, CONTENTS_HEADER);
        // Flushed, the data needs less of the log.
        if !self.pool.leaves_room(len as u64 * 8, true, false)? {
            return Err(Errno::ENOSPC);
        }
        // SAFETY: as in `add`.
        let scratch = unsafe { &mut *self.block.words.get() };
        scratch[RECORD_HEADER] = self.from;
        let record = &mut scratch[..len];
        let position = self
            .pool
            .append(self.block, self.me, RecordKind::Contents, record)?;
        Ok(position + len as u64 * 8)
    }

    /// Waits until all of it is durable, and all names and attributes.
    pub fn finish(mut self) -> Result<()> {
        let end = match self.len {
            CONTENTS_HEADER => self.pool.load(header::LOG_TAIL)?,
            _ => self.append()?,
        };
        // Nobody waits for a device.
        self.unlock();
        self.pool.flush_log(end)
    }

    fn unlock(&mut self) {
        if let Some(lock) = self.held.take() {
            self.pool.release(self.block, self.me, lock);
        }
    }
}

impl Drop for Contents<'_> {
    fn drop(&mut self) {
        self.unlock();
        self.block.busy.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::layout::kind;
    use crate::testing::TempPool;

    fn publish(pool: &Pool) {
        let mut stage = pool.stage().expect("stage");
        let run = stage.grab(0, 1).expect("grab");
        let data = [7u8; BLOCK as usize];
        // SAFETY: the source is a live buffer, the run is this test's.
        unsafe { pool.write_blocks(0, run.start, 0, data.as_ptr(), data.len()) }.expect("write");
        let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
        let page = tx.alloc_page(kind::BLOB, 0, 1, true).expect("page");
        tx.consume(&stage).expect("consume");
        let pointer = BlockPtr::new(0, run.start, 1).0;
        tx.put_blocks(page.offset(), &[pointer], 1).expect("put");
        tx.commit().expect("commit");
    }

    /// Syncs; whether the log says so.
    fn is_noted(pool: &Pool) -> bool {
        let tail = pool.load(header::LOG_TAIL).expect("tail");
        pool.sync().expect("sync");
        assert!(pool.load(header::DATA_SYNCED).expect("synced") >= tail);
        pool.load(header::LOG_TAIL).expect("tail") > tail
    }

    #[test]
    fn data_that_only_a_checkpoint_in_progress_has_flushed_is_synced() {
        let temp = TempPool::new(1, 64);
        publish(temp.pool);
        temp.pool.sync_names().expect("names");
        temp.pool.flush_data(0).expect("data");
        assert!(!temp.pool.any_unflushed().expect("marks"));
        assert!(is_noted(temp.pool));
    }

    #[test]
    fn what_is_synced_is_not_synced_again() {
        let temp = TempPool::new(1, 64);
        for _ in 0..2 {
            publish(temp.pool);
            assert!(is_noted(temp.pool));
            assert!(!is_noted(temp.pool));
        }
    }
}
