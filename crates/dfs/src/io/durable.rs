//! Making files durable: which blocks of a file were stored since it was last brought to the
//! devices, and bringing them there.
//!
//! Two volatile words of the inode hold a range of blocks each, and a count that every store
//! raises: who has brought the ranges to the devices forgets them only if nothing was stored since.
//! A store is noted under the file's lock, before anybody can see it: who makes it may be killed at
//! any time. Who looks at the words takes the lock, so that whatever is noted then is published.

use crate::inode::{self, word};
use crate::map::file::{COPIES_MAX, File};
use crate::{Dfs, Ofd, mapfile};
use core::sync::atomic::Ordering;
use engine::{BlockPtr, RankSet, crash_point};
use sys::{Errno, Result};

/// Blocks that go to the devices by way of the log: 256 KiB. More are flushed where they lie.
const LOGGED_MAX: u64 = 64;
const WORDS: [u64; 2] = [word::DIRTY, word::DIRTY + 1];

/// A range of blocks: 28 bits first block, 16 bits number, 20 bits count of stores. All ones in the
/// number: to the end of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range(u64);

const LEN_MAX: u64 = 0xffff;
const FIRST_MAX: u64 = 0xfff_ffff;

impl Range {
    fn first(self) -> u64 {
        self.0 >> 36
    }

    fn len(self) -> u64 {
        self.0 >> 20 & LEN_MAX
    }

    /// Block behind the last.
    fn end(self) -> u64 {
        match self.len() {
            LEN_MAX => u64::MAX,
            len => self.first() + len,
        }
    }

    /// Extended to hold `first..end`, one store later.
    fn with(self, first: u64, end: u64) -> Range {
        let (first, end) = match self.len() {
            0 => (first, end),
            _ => (first.min(self.first()), end.max(self.end())),
        };
        let first = first.min(FIRST_MAX);
        let len = if first == FIRST_MAX {
            LEN_MAX
        } else {
            end.saturating_sub(first).min(LEN_MAX)
        };
        Range(first << 36 | len << 20 | (self.0 + 1) & 0xf_ffff)
    }

    /// No blocks, and as many stores.
    fn emptied(self) -> Range {
        Range(self.0 & 0xf_ffff)
    }
}

/// Notes that blocks are about to be stored or published. The file's lock is held.
pub(crate) fn note(file: &File<'_>, first: u64, end: u64) -> Result<()> {
    loop {
        let mut best = (u64::MAX, file.pool.word(file.at(WORDS[0]))?, Range(0));
        for at in WORDS {
            let word = file.pool.word(file.at(at))?;
            let range = Range(word.load(Ordering::Acquire));
            let grown = range.with(first, end).len() - range.len();
            if grown < best.0 {
                best = (grown, word, range);
            }
            if grown == 0 {
                break;
            }
        }
        let (_, word, seen) = best;
        let next = seen.with(first, end).0;
        if word
            .compare_exchange(seen.0, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            return Ok(());
        }
    }
}

/// Brings a file's data to the devices, and all names and attributes.
pub(crate) fn sync(file: &File<'_>) -> Result<()> {
    if file.pool.is_data_left()? {
        // Where that fails, this file may lie on other ranks.
        return file.pool.sync().or_else(|_| sync_whole(file));
    }
    // Inside a transaction it is not known what of the noted is there.
    let Ok(seen) = noted(file) else {
        return file.pool.sync();
    };
    let blocks = seen.iter().map(|range| range.len()).sum::<u64>();
    if blocks == 0 {
        return file.pool.sync_names();
    }
    let logged = if blocks <= LOGGED_MAX {
        log(file, &seen)
    } else {
        Err(Errno::EFBIG)
    };
    match logged {
        Ok(()) => {}
        // Too much, no room in the log, inside a transaction, or the map changed meanwhile.
        Err(_) => flush(file, &seen).or_else(|_| file.pool.sync())?,
    }
    for (range, at) in seen.iter().zip(WORDS) {
        let word = file.pool.word(file.at(at))?;
        // Something was stored since: it stays noted.
        word.compare_exchange(
            range.0,
            range.emptied().0,
            Ordering::AcqRel,
            Ordering::Relaxed,
        )
        .unwrap_or_default();
    }
    Ok(())
}

/// What is to be brought to the devices, all of which is published.
fn noted(file: &File<'_>) -> Result<[Range; 2]> {
    let _held = file.tx()?;
    let mut seen = [Range(0); 2];
    for (range, at) in seen.iter_mut().zip(WORDS) {
        *range = Range(file.load(at)?);
    }
    Ok(seen)
}

/// The same whatever of the file was stored when.
fn sync_whole(file: &File<'_>) -> Result<()> {
    let whole = [Range(LEN_MAX << 20)];
    match file.blocks_end()? {
        0..=LOGGED_MAX => log(file, &whole).or_else(|_| flush(file, &whole)),
        _ => flush(file, &whole),
    }
}

/// Calls `each` with the pointers of every block of the ranges that holds data; unless the file is
/// locked, some again and with others that somebody has taken out of the map meanwhile.
fn each_block(
    file: &File<'_>,
    ranges: &[Range],
    each: &mut dyn FnMut(&[BlockPtr]) -> Result<()>,
) -> Result<()> {
    let beyond = file.blocks_end()?;
    for range in ranges {
        let (mut block, end) = (range.first(), range.end().min(beyond));
        while block < end {
            let spot = file.find(block)?;
            let run = spot.run.min(end - block);
            if let Some(at) = spot.at {
                for index in 0..run {
                    crash_point!("durable.block");
                    let pointers = together(file, file.nth(at, index))?;
                    let pointers = pointers.get(..file.geo.copies).ok_or(Errno::EIO)?;
                    if pointers
                        .first()
                        .is_some_and(|p| !p.is_hole() && !p.is_unwritten())
                    {
                        each(pointers)?;
                    }
                }
            }
            // Otherwise what was read may have been anything.
            if spot.chain.holds(file.pool) {
                block += run;
            }
        }
    }
    Ok(())
}

/// Pointers of all copies of a block, of one state.
fn together(file: &File<'_>, at: u64) -> Result<[BlockPtr; COPIES_MAX as usize]> {
    let mut pointers = file.pointers(at)?;
    loop {
        let before = pointers;
        if file.geo.copies > 1 {
            pointers = file.pointers(at)?;
        }
        if pointers == before {
            return Ok(pointers);
        }
    }
}

/// Puts the blocks into the log, with the file locked while they are copied: not longer than a write
/// of as many blocks locks it.
fn log(file: &File<'_>, ranges: &[Range]) -> Result<()> {
    let mut contents = file.pool.sync_contents(file.lock())?;
    inode::still(file.pool, file.ino, file.base)?;
    each_block(file, ranges, &mut |pointers| contents.add(pointers))?;
    contents.finish()
}

/// Flushes the ranks that the blocks lie on.
fn flush(file: &File<'_>, ranges: &[Range]) -> Result<()> {
    let mut ranks = RankSet::default();
    each_block(file, ranges, &mut |pointers| {
        pointers.iter().for_each(|p| ranks.add(p.rank()));
        Ok(())
    })?;
    file.pool.sync_ranks(ranks)
}

/// Notes what a write is about to store or publish.
pub(crate) fn note_write(file: &File<'_>, start: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    note(
        file,
        start / crate::map::BLOCK,
        (start + len).div_ceil(crate::map::BLOCK),
    )
}

impl Dfs {
    /// Makes what was written through any description of the file durable, and all names and
    /// attributes (`fsync(2)`, `fdatasync(2)`).
    pub fn fsync(&self, ofd: Ofd) -> Result<()> {
        let open = self.description(ofd)?;
        if open.is_path() {
            return Err(Errno::EBADF);
        }
        match open.file() {
            Ok(file) => {
                mapfile::decide(&file).unwrap_or_default();
                mapfile::write_back(&file, 0, u64::MAX)?;
                sync(&file)
            }
            // Directories and the rest have no data of their own.
            Err(Errno::EISDIR | Errno::EINVAL) => self.pool.sync_names(),
            Err(errno) => Err(errno),
        }
    }

    /// Makes everything completed so far durable (`sync(2)`).
    pub fn sync(&self) -> Result<()> {
        self.pool.sync()
    }
}
