//! Writing a file's data.
//!
//! A call is cut into rounds, each complete in itself: a writer that dies leaves a prefix. A round
//! either overwrites blocks in place under the file's lock (classes without redundancy, and blocks
//! that were allocated but never written), or fills new blocks with no lock held ([`staged`]) and
//! publishes them in one transaction; when the file changed meanwhile in what the round relied on,
//! it is done again. Bytes between the old end of a file and what is written beyond it are zeroed
//! first ([`clean_tail`]), so what lies in a block beyond the end never matters.

mod inplace;
mod staged;

use super::cursor::Source;
use crate::inode::{self, word};
use crate::map::file::File;
use crate::map::{BLOCK, SIZE_MAX};
use crate::{mapfile, trunc};
use engine::{BlockPtr, Tx};
pub(crate) use staged::grab_run;
use sys::{Errno, Result};

/// Rounds lost to other writers before the lock is held through the whole round.
const ATTEMPTS_FREE: usize = 6;
/// Rounds lost before the operation gives up: something is badly wrong.
const ATTEMPTS_MAX: usize = 100_000;

/// Where a write goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// At this byte.
    At(u64),
    /// At the end of the file, wherever that is when the write takes effect (`O_APPEND`).
    End,
}

/// What becomes of a block that holds data already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// What its class says: with several copies another takes its place, so that none is half done.
    AsClass,
    /// Another takes its place. The write is a part of trimming.
    Replaced,
    /// It is changed. The write is a part of trimming.
    Changed,
}

/// What a write does besides storing bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    /// Bytes beyond the end are stored but the size stays.
    pub(crate) keep_size: bool,
    /// Set-user-id and set-group-id go, as after a write by an unprivileged process (`write(2)`).
    pub(crate) drop_suid: bool,
    /// What is stored comes out of the file of a shared mapping: it is not copied back there, is
    /// not a new change, and never goes beyond the end. Nothing is stored once that registration of
    /// mappings ([`mapfile::registration`]) has ended.
    pub(crate) write_back: Option<u32>,
    pub(crate) held: Held,
    /// Nothing is stored once the file has another size.
    pub(crate) only_at_size: Option<u64>,
}

impl Rules {
    /// Of an ordinary write.
    pub(crate) const PLAIN: Rules = Rules {
        keep_size: false,
        drop_suid: false,
        write_back: None,
        held: Held::AsClass,
        only_at_size: None,
    };
}

/// One round's task and what earlier tries of it found out.
struct Round<'a, 'p> {
    file: &'a File<'p>,
    source: Source<'a>,
    start: Start,
    left: usize,
    rules: Rules,
    /// An overwrite in place found nothing to overwrite.
    staged: bool,
    /// Size of the file whose last block is known to be zero behind it, and truncations before.
    clean: Option<(u64, u64)>,
}

/// A try's result: `None` when the file changed under it.
type Try<T> = Result<Option<T>>;

/// Writes `len` bytes; the number written and the position behind them.
///
/// An error is reported only when nothing was written before it; otherwise the count so far.
pub(crate) fn write_at(
    file: &File<'_>,
    source: Source<'_>,
    start: Start,
    len: usize,
    rules: Rules,
) -> Result<(usize, u64)> {
    let mut round = Round {
        file,
        source,
        start,
        left: len,
        rules,
        staged: false,
        clean: None,
    };
    let mut done = 0usize;
    let mut end = match start {
        Start::At(pos) => pos,
        Start::End => 0,
    };
    let mut faulted = false;
    while round.left > 0 {
        let run = round.run();
        if run.is_err() {
            // What could not be decided stays in doubt.
            mapfile::decide(file).unwrap_or_default();
        }
        match run {
            Ok((0, at)) => {
                end = at;
                break;
            }
            Ok((written, at)) => {
                done += written;
                end = at;
                round.left -= written;
                round.source.skip(written);
                // Later rounds of an append go on behind the earlier ones when nobody else wrote,
                // and at the new end otherwise.
                if let Start::At(_) = round.start {
                    round.start = Start::At(at);
                }
            }
            Err(Errno::EFAULT) if !faulted => {
                faulted = true;
                if let Source::User(cursor) = &mut round.source {
                    round.left = cursor.reachable(round.left, false);
                    cursor.limit(round.left);
                }
                if round.left == 0 && done == 0 {
                    return Err(Errno::EFAULT);
                }
            }
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok((done, end))
}

impl<'p> Round<'_, 'p> {
    fn run(&mut self) -> Result<(usize, u64)> {
        for attempt in 0..ATTEMPTS_MAX {
            if let Some(done) = self.attempt(attempt >= ATTEMPTS_FREE)? {
                return Ok(done);
            }
        }
        Err(Errno::EIO)
    }

    fn attempt(&mut self, hold: bool) -> Try<(usize, u64)> {
        let held = if hold { Some(self.file.tx()?) } else { None };
        let size = self.file.size()?;
        let (start, len) = self.extent(size)?;
        if len == 0 {
            return Ok(Some((0, start)));
        }
        if !self.ready(size, start, len)? {
            drop(held);
            self.prepare(size, start)?;
            return Ok(None);
        }
        // Most often an overwrite of what is there: looked up once, under the lock.
        let plain = self.changes_data() && start + len as u64 <= size;
        if plain && !hold && !self.staged {
            let done = self.overwrite(self.file.tx()?)?;
            self.staged = done.is_none();
            return Ok(done);
        }
        let spot = self.file.find(start / BLOCK)?;
        let there = match spot.at {
            Some(at) => self.in_place(&self.file.pointers(at)?)?,
            None => false,
        };
        let crosses = start / BLOCK != (start + len as u64 - 1) / BLOCK;
        let tried = if there && !(self.start == Start::End && crosses) {
            let tx = match held {
                Some(tx) => tx,
                None => self.file.tx()?,
            };
            self.overwrite(tx)
        } else {
            self.stage_and_publish(held, size, start, len)
        };
        match tried {
            // The map was read while somebody changed it.
            Err(Errno::EIO) if !hold => Ok(None),
            other => other,
        }
    }

    /// Where the round starts and how long it may be, given the size. `EFBIG` at the limit.
    fn extent(&self, size: u64) -> Result<(u64, usize)> {
        let start = match self.start {
            Start::At(pos) => pos,
            Start::End => size,
        };
        let other_size = self.rules.only_at_size.is_some_and(|only| only != size);
        let limit = match self.rules.write_back {
            Some(known) if mapfile::registration(self.file)? != known => 0,
            Some(_) => size,
            None => SIZE_MAX,
        };
        if other_size || (start >= limit && self.rules.write_back.is_some()) {
            return Ok((start, 0));
        }
        if start >= limit {
            return Err(Errno::EFBIG);
        }
        Ok((
            start,
            usize::try_from(limit - start)
                .unwrap_or(usize::MAX)
                .min(self.left),
        ))
    }

    /// Whether the file may be extended to `start + len`: nothing is left over beyond its end.
    fn ready(&self, size: u64, start: u64, len: usize) -> Result<bool> {
        if start + len as u64 <= size || self.rules.held != Held::AsClass {
            return Ok(true);
        }
        let gap = start > size && !size.is_multiple_of(BLOCK) && !self.rules.keep_size;
        let cuts = trunc::cuts(self.file)?;
        Ok(!trunc::is_trimming(self.file)? && (!gap || self.clean == Some((size, cuts))))
    }

    fn prepare(&mut self, size: u64, start: u64) -> Result<()> {
        trunc::finish_trim(self.file)?;
        if start > size {
            let cuts = trunc::cuts(self.file)?;
            if clean_tail(self.file, size, Held::AsClass)? {
                self.clean = Some((size, cuts));
            }
        }
        Ok(())
    }

    /// Stores the same bytes in the file of a shared mapping, if there is one.
    fn mirror(&self, start: u64, len: usize, size: u64) -> Result<()> {
        if self.rules.write_back.is_some() || !self.file.is_mapped()? {
            return Ok(());
        }
        let len = match self.rules.keep_size {
            true => len.min(usize::try_from(size.saturating_sub(start)).unwrap_or(usize::MAX)),
            false => len,
        };
        mapfile::mirror(self.file, self.source, start, len)
    }

    /// Lists the new size and times, last of all, and commits.
    fn finish(&self, mut tx: Tx<'p>, size: u64, end: u64, new_blocks: u64) -> Result<()> {
        let file = self.file;
        if new_blocks > 0 {
            let blocks = file.load(word::BLOCKS)?.saturating_add(new_blocks);
            tx.set(file.at(word::BLOCKS), blocks)?;
        }
        touch(&mut tx, file, self.rules.drop_suid)?;
        if end > size && !self.rules.keep_size {
            tx.set(file.at(word::SIZE), end)?;
        }
        if self.rules.write_back.is_none() {
            mapfile::agree(file, &mut tx)?;
            bump(file)?;
        }
        tx.commit().map(|_| ())
    }

    /// Whether a write to the block with these copies stores into that very block.
    fn in_place(&self, copies: &[BlockPtr]) -> Result<bool> {
        let first = copies.first().copied().unwrap_or_default();
        let there = !first.is_hole() && (first.is_unwritten() || self.changes_data());
        Ok(there && !self.file.pool.is_copy_absent(copies)?)
    }

    /// Whether blocks that hold data are stored into.
    fn changes_data(&self) -> bool {
        match self.rules.held {
            Held::AsClass => self.file.geo.copies == 1,
            Held::Replaced => false,
            Held::Changed => true,
        }
    }

    /// Notes what the round is about to store or publish.
    fn note(&self, start: u64, len: usize) -> Result<()> {
        if self.rules.write_back.is_none() {
            mapfile::doubt(self.file)?;
        }
        super::durable::note_write(self.file, start, len as u64)
    }
}

/// Counts a change of data, under the file's lock; the number before it.
pub(crate) fn bump(file: &File<'_>) -> Result<u64> {
    let word = file.pool.word(file.at(word::SEQUENCE))?;
    Ok(word.fetch_add(1, core::sync::atomic::Ordering::AcqRel))
}

/// Lists the new times, and the mode without set-id bits where they must go (`write(2)`,
/// `truncate(2)`: set-group-id only when the group may execute).
pub(crate) fn touch(tx: &mut Tx<'_>, file: &File<'_>, drop_suid: bool) -> Result<()> {
    let now = file.pool.now_ns() as u64;
    if file.load(word::MTIME)? != now || file.load(word::CTIME)? != now {
        tx.put(file.at(word::MTIME), &[now, now])?;
    }
    if drop_suid {
        let mode_word = file.load(word::MODE)?;
        let mode = inode::high(mode_word);
        let mut kept = mode & !inode::S_ISUID;
        if mode & 0o010 != 0 {
            kept &= !inode::S_ISGID;
        }
        if kept != mode {
            tx.set(
                file.at(word::MODE),
                inode::pair(kept, inode::low(mode_word)),
            )?;
        }
    }
    Ok(())
}

/// Zeroes what the last block of a file of `size` bytes holds beyond the end; false if the file
/// has another size meanwhile.
pub(crate) fn clean_tail(file: &File<'_>, size: u64, held: Held) -> Result<bool> {
    if size.is_multiple_of(BLOCK) {
        return Ok(true);
    }
    let rules = Rules {
        keep_size: true,
        held,
        only_at_size: Some(size),
        ..Rules::PLAIN
    };
    match zero_block(file, size, beyond(size), rules) {
        Err(full) if full.is_full() && held == Held::AsClass => {
            // Where a truncation ends it mostly is zero.
            match is_zero(file, size, beyond(size))? {
                true => Ok(file.size()? == size),
                false => Err(full),
            }
        }
        other => other,
    }
}

/// Whether these bytes of one block are zero in all copies.
fn is_zero(file: &File<'_>, pos: u64, len: usize) -> Result<bool> {
    // Nobody may give the block back meanwhile.
    let _lock = file.tx()?;
    let Some(at) = file.find(pos / BLOCK)?.at else {
        return Ok(true);
    };
    let mut bytes = [0u8; BLOCK as usize];
    let bytes = bytes.get_mut(..len).ok_or(Errno::EINVAL)?;
    for pointer in file.pointers(at)?.iter().take(file.geo.copies) {
        if pointer.is_hole() || pointer.is_unwritten() {
            continue;
        }
        let (rank, block, off) = (pointer.rank(), pointer.block(), (pos % BLOCK) as usize);
        // SAFETY: the destination is ours, and `len` bytes long.
        unsafe {
            file.pool
                .read_blocks(rank, block, off, bytes.as_mut_ptr(), len)?
        };
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes of the last block beyond the end of a file of `size` bytes, which ends within it. The block
/// that the largest size lies in is one byte short: nothing is ever stored there.
fn beyond(size: u64) -> usize {
    (BLOCK - size % BLOCK).min(SIZE_MAX.saturating_sub(size)) as usize
}

/// Zeroes bytes of one block if it holds data; the size stays.
pub(crate) fn zero_within(file: &File<'_>, pos: u64, len: usize) -> Result<()> {
    let rules = Rules {
        keep_size: true,
        ..Rules::PLAIN
    };
    zero_block(file, pos, len, rules).map(|_| ())
}

fn zero_block(file: &File<'_>, pos: u64, len: usize, rules: Rules) -> Result<bool> {
    let spot = file.find(pos / BLOCK)?;
    let pointer = BlockPtr(spot.at.map_or(Ok(0), |at| file.pool.load(at))?);
    if pointer.is_hole() || pointer.is_unwritten() {
        // What is stored there later is zero around it.
        return Ok(spot.chain.holds(file.pool));
    }
    let (zeroed, _) = write_at(file, Source::Zero, Start::At(pos), len, rules)?;
    Ok(zeroed == len)
}
