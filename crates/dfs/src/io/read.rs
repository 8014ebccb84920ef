//! Reading a file's data without a lock.
//!
//! A round looks up to [`ROUND`] pointers, copies what they point to and then checks that neither
//! the pointers nor the links that led to them changed. What changed under the copy is read again;
//! after [`ATTEMPTS`] rounds lost to writers the file's lock is taken for one.

use super::cursor::{Cursor, zero_out};
use crate::inode::word;
use crate::map::file::File;
use crate::map::{BLOCK, Spot};
use core::sync::atomic::Ordering;
use engine::BlockPtr;
use sys::{Errno, Result};

/// Blocks per round.
const ROUND: usize = 64;
/// Rounds without the lock.
const ATTEMPTS: usize = 16;
/// Seconds after which `relatime` (`mount(8)`) refreshes an access time in any case, as ns.
const ATIME_AGE_NS: i64 = 24 * 3600 * 1_000_000_000;

/// Reads from `pos` until the buffers are full or the file ends; the number of bytes read.
///
/// `EFAULT` and `EIO` are reported only when nothing was read before them.
pub(crate) fn read_at(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<usize> {
    let mut done = 0usize;
    let mut faulted = false;
    while cursor.left() > 0 {
        match read_round(file, cursor, pos + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(Errno::EFAULT) if !faulted => {
                faulted = true;
                cursor.limit(cursor.reachable(cursor.left(), true));
                if cursor.left() == 0 && done == 0 {
                    return Err(Errno::EFAULT);
                }
            }
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

fn read_round(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<usize> {
    for _ in 0..ATTEMPTS {
        if let Some(read) = attempt(file, cursor, pos)? {
            return Ok(read);
        }
    }
    let _held = file.tx()?;
    attempt(file, cursor, pos)?.ok_or(Errno::EIO)
}

/// Pointers of one round, as read before the copy.
struct Pointers {
    words: [u64; ROUND],
    len: usize,
}

impl Pointers {
    fn load(file: &File<'_>, at: u64, len: usize) -> Result<Pointers> {
        let mut words = [0; ROUND];
        for (index, word) in words.iter_mut().take(len).enumerate() {
            *word = file.pool.load(file.nth(at, index as u64))?;
        }
        Ok(Pointers { words, len })
    }

    fn get(&self, index: usize) -> BlockPtr {
        BlockPtr(self.words.get(index).copied().unwrap_or(0))
    }

    /// Blocks from `index` on that lie one after another, or that all read as zeros.
    fn run(&self, index: usize) -> usize {
        let first = self.get(index);
        let zeros = reads_zero(first);
        let mut len = 1;
        while index + len < self.len {
            let next = self.get(index + len);
            let joins = if zeros {
                reads_zero(next)
            } else {
                !reads_zero(next)
                    && next.rank() == first.rank()
                    && next.block() == first.block() + len as u64
            };
            if !joins {
                break;
            }
            len += 1;
        }
        len
    }

    fn hold(&self, file: &File<'_>, at: u64) -> bool {
        let words = self.words.iter().take(self.len).enumerate();
        let mut same = words.map(|(i, word)| file.pool.load(file.nth(at, i as u64)) == Ok(*word));
        same.all(|same| same)
    }
}

fn reads_zero(pointer: BlockPtr) -> bool {
    pointer.is_hole() || pointer.is_unwritten()
}

/// One round: `None` when the map changed under it.
fn attempt(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<Option<usize>> {
    let size = file.size()?;
    if pos >= size {
        return Ok(Some(0));
    }
    let want = cursor
        .left()
        .min(usize::try_from(size - pos).unwrap_or(usize::MAX));
    let head = (pos % BLOCK) as usize;
    let spot = file.find(pos / BLOCK)?;
    let blocks = (head + want).div_ceil(BLOCK as usize);
    let mut work = *cursor;
    let Some(at) = spot.at else {
        let blocks = blocks.min(usize::try_from(spot.run).unwrap_or(usize::MAX));
        let bytes = want.min(blocks.saturating_mul(BLOCK as usize) - head);
        work.each(bytes, |_, address, part| zero_out(address, part))?;
        return Ok(spot.chain.holds(file.pool).then(|| {
            *cursor = work;
            bytes
        }));
    };
    let blocks = blocks.min(ROUND).min(spot.run as usize);
    let bytes = want.min(blocks * BLOCK as usize - head);
    let pointers = Pointers::load(file, at, blocks)?;
    let copied = copy(file, at, &spot, &pointers, &mut work, head, bytes);
    if !(spot.chain.holds(file.pool) && pointers.hold(file, at)) {
        return match copied {
            Err(Errno::EFAULT) => Err(Errno::EFAULT),
            _ => Ok(None),
        };
    }
    copied?;
    *cursor = work;
    Ok(Some(bytes))
}

fn copy(
    file: &File<'_>,
    at: u64,
    spot: &Spot,
    pointers: &Pointers,
    work: &mut Cursor<'_>,
    head: usize,
    bytes: usize,
) -> Result<()> {
    let (mut index, mut off, mut left) = (0, head, bytes);
    while left > 0 {
        let run = pointers.run(index);
        let len = left.min(run * BLOCK as usize - off);
        let first = pointers.get(index);
        if reads_zero(first) {
            work.each(len, |_, address, part| zero_out(address, part))?;
        } else {
            let mut fast = *work;
            let read = fast.each(len, |done, address, part| {
                fetch(file, first, off + done, address, part)
            });
            match read {
                Ok(()) => *work = fast,
                Err(Errno::EFAULT) => return Err(Errno::EFAULT),
                // A map that changed meanwhile points anywhere: not the media's fault.
                Err(errno) if !spot.chain.holds(file.pool) => return Err(errno),
                Err(_) => copy_from_any(file, file.nth(at, index as u64), work, off, len)?,
            }
        }
        (index, off, left) = (index + run, 0, left - len);
    }
    Ok(())
}

/// Copies bytes of the blocks that start at `pointer` to the program.
fn fetch(file: &File<'_>, pointer: BlockPtr, off: usize, to: *mut u8, len: usize) -> Result<()> {
    // SAFETY: `to` is a piece of a buffer the program gave us to fill.
    unsafe {
        file.pool
            .read_blocks(pointer.rank(), pointer.block(), off, to, len)
    }
}

/// Reads block by block from whichever copy can be read; `EIO` when none can.
#[cold]
fn copy_from_any(
    file: &File<'_>,
    at: u64,
    work: &mut Cursor<'_>,
    off: usize,
    len: usize,
) -> Result<()> {
    let (mut index, mut off, mut left) = (0u64, off, len);
    while left > 0 {
        let part_len = left.min(BLOCK as usize - off);
        let mut outcome = Err(Errno::EIO);
        for copy in 0..file.geo.copies as u64 {
            let pointer = BlockPtr(file.pool.load(file.nth(at, index) + copy * 8)?);
            let mut work_copy = *work;
            outcome = work_copy.each(part_len, |done, address, part| {
                fetch(file, pointer, off + done, address, part)
            });
            match outcome {
                Ok(()) => *work = work_copy,
                Err(Errno::EFAULT) => return Err(Errno::EFAULT),
                Err(_) => continue,
            }
            break;
        }
        outcome?;
        (index, off, left) = (index + 1, 0, left - part_len);
    }
    Ok(())
}

/// Reads the first `buffer.len()` bytes of a block for a partial overwrite; returns the pointer
/// word they came from. Bytes at and beyond `size` read as zeros.
pub(crate) fn read_block(file: &File<'_>, block: u64, size: u64, buffer: &mut [u8]) -> Result<u64> {
    for _ in 0..ATTEMPTS * 64 {
        let spot = file.find(block)?;
        let word = spot.at.map_or(Ok(0), |at| file.pool.load(at))?;
        let valid = size.saturating_sub(block * BLOCK).min(buffer.len() as u64) as usize;
        let (old, rest) = buffer.split_at_mut(valid);
        rest.fill(0);
        let mut read = Ok(());
        if reads_zero(BlockPtr(word)) {
            old.fill(0);
        } else if let (Some(at), false) = (spot.at, old.is_empty()) {
            let iov = [crate::IoVec {
                base: old.as_mut_ptr(),
                len: old.len(),
            }];
            read = copy_from_any(file, at, &mut Cursor::new(&iov)?, 0, valid);
        }
        let same = spot.at.is_none_or(|at| file.pool.load(at) == Ok(word));
        if spot.chain.holds(file.pool) && same {
            return read.map(|()| word);
        }
    }
    Err(Errno::EIO)
}

/// Refreshes the access time as `relatime` does: when it is not younger than the last change, or
/// older than a day. A failure is of no consequence to the reader.
#[inline]
pub(crate) fn touch_atime(file: &File<'_>) {
    let stale = || -> Result<bool> {
        let atime = file.load(word::ATIME)? as i64;
        let changed = (file.load(word::MTIME)? as i64).max(file.load(word::CTIME)? as i64);
        Ok(atime <= changed || file.pool.now_ns().saturating_sub(atime) >= ATIME_AGE_NS)
    };
    if stale() == Ok(true)
        && let Ok(atime) = file.pool.word(file.at(word::ATIME))
    {
        // A plain store: a reader must not wait for the inode's lock, and an access time that is
        // lost with the arena is of no consequence.
        atime.store(file.pool.now_ns() as u64, Ordering::Release);
    }
}
