//! What a power failure has left of the log.
//!
//! The log counts up to the first record that is not whole or does not hold the checksum of the one
//! before. Names and attributes are what the records say, without exception. A block pointer counts
//! only if its data is there: a later record says that its rank was flushed, or holds the block's
//! content, or the checksum of what the block holds. Of a copy on a rank that is gone this need not be known if it is of
//! another (`rehome`). Otherwise the words stay as they were, and what they point to is untouched, for it was
//! kept from reuse. The exception is a block that was taken and given back within one window
//! (`sync`): then what it had replaced counts.
//!
//! When the machine has not been off, nothing that was written is lost, and everything counts.

use crate::door::{self, RankFile};
use crate::layout::{BlockPtr, header};
use crate::limits::{BLOCK, TX_WORDS_MAX};
use crate::log::{PAD_MAGIC, RecordKind, kind_and_bytes, record_sum};
use crate::pool::Pool;
use crate::prove::SUM_WORDS;
use crate::rebuild::Base;
use crate::sync::{BLOCK_WORDS, CONTENTS_HEADER, FLUSHED_WORDS, RankSet};
use crate::tx::{ENTRY_DATA, ENTRY_STRIDE_SHIFT, ENTRY_ZERO, RECORD_HEADER, entry_parts};
use core::hash::{BuildHasherDefault, Hasher};
use rustix::fd::OwnedFd;
use std::collections::HashMap;
use sys::{Errno, Result};

/// Words of the log that recovery copies at a time.
const WINDOW_WORDS: u64 = 4 * TX_WORDS_MAX as u64;

/// Claims of checksums collected before the blocks are looked at.
const CLAIMS_MAX: usize = 1 << 20;
/// Blocks read at a time.
const CLAIMED_AT_ONCE: usize = 64;

/// Where a block lies: rank and number, whichever use of it the pointer is of.
pub(crate) type Place = u64;

fn place(pointer: BlockPtr) -> Place {
    pointer.place()
}

/// A map by what the log says of blocks: a million of them, which one multiplication spreads.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // The map uses the lowest bits, the product's best are the highest.
        self.0 ^ self.0 >> 32
    }
}

/// A whole record of the log.
pub(crate) struct Found<'a> {
    pub(crate) kind: u8,
    pub(crate) position: u64,
    pub(crate) words: &'a [u64],
}

/// What a first look through the log has found.
pub(crate) struct Seen {
    /// Where it ends, all before which is whole, and the checksum of its last record.
    pub(crate) end: u64,
    pub(crate) sum: u32,
    /// Positions of records, rising, and the checksums that they hold; the first is where it starts.
    pub(crate) marks: Vec<(u64, u32)>,
    pub(crate) flushes: Flushes,
}

/// What the log says of flushes.
#[derive(Clone, Default)]
pub(crate) struct Flushes {
    /// Position before which published data is on the device, by rank.
    flushed: Vec<u64>,
    /// Positions at which windows began.
    begins: Vec<u64>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn new(base: &Base, ranks: u16) -> Seen {
        Seen {
            end: base.start,
            sum: base.sum,
            marks: vec![(base.start, base.sum)],
            flushes: Flushes {
                // Data published before the end of the checkpoint is there, which began a window.
                flushed: vec![base.end; usize::from(ranks)],
                begins: vec![base.end],
            },
        }
    }

    /// The last mark that is not behind `position`.
    pub(crate) fn mark_at(&self, position: u64) -> (u64, u32) {
        let behind = self.marks.partition_point(|mark| mark.0 <= position);
        let mark = self.marks.get(behind.saturating_sub(1));
        mark.copied().unwrap_or_default()
    }
}

impl Flushes {
    /// Takes in what a record says of flushes, if anything.
    pub(crate) fn add(&mut self, found: &Found<'_>) -> Result<()> {
        let flushed = found.kind == RecordKind::Flushed as u8;
        if !flushed && found.kind != RecordKind::Contents as u8 {
            return Ok(());
        }
        let words = found.words.get(RECORD_HEADER..).ok_or(Errno::EIO)?;
        let begin = *words.first().ok_or(Errno::EIO)?;
        self.begins.push(begin);
        if !flushed {
            return Ok(());
        }
        if words.len() != FLUSHED_WORDS || begin > found.position {
            return Err(Errno::EIO);
        }
        let ranks = RankSet::from_words(&words[1..]);
        for (rank, flushed) in (0..).zip(&mut self.flushed) {
            if ranks.has(rank) {
                *flushed = begin.max(*flushed);
            }
        }
        Ok(())
    }

    /// Position before which all data is there.
    pub(crate) fn certain(&self) -> u64 {
        self.flushed.iter().copied().min().unwrap_or(0)
    }
}

/// What the log proves about data.
#[derive(Default)]
pub(crate) struct Proofs {
    flushes: Flushes,
    /// Where the newest content of a block lies in the log.
    contents: Map<Place, u64>,
    /// Position before which a pointer was published whose block has the right checksum.
    sums: Map<u64, u64>,
    /// The last record that published a block.
    published: Map<Place, u64>,
    /// What pointers have replaced, in the order of the log.
    replaced: Vec<Replaced>,
    /// The last of these that a pointer did: it may be one of several if the block was taken again,
    /// also for another file, for a pointer says nothing of the file.
    before: Map<u64, usize>,
    /// What counts instead of a pointer whose data is lost, published last.
    instead: Map<u64, u64>,
    /// Ranks that are gone, and those of them that nobody has given up.
    gone: RankSet,
    missed: RankSet,
    /// A rank that is missed may have what was dropped, and no other rank has.
    lacking: bool,
}

/// What a pointer has replaced.
struct Replaced {
    word: u64,
    position: u64,
    /// What the same pointer replaced before that.
    earlier: Option<usize>,
}

impl Pool {
    /// Calls `each` for the records from `start` on, the first of which holds `sum`; returns where
    /// the log ends and the checksum of its last record. Before `seen` somebody has found every record
    /// whole: their checksums, which take as long as the rest, are not taken again.
    pub(crate) fn each_record(
        &self,
        start: u64,
        mut sum: u32,
        seen: u64,
        mut each: impl FnMut(Found<'_>) -> Result<()>,
    ) -> Result<(u64, u32)> {
        let ring = self.load(header::LOG_BYTES)?;
        let mut position = start;
        let mut window = Window::default();
        while position - start < ring {
            let to_end = ring - position % ring;
            if let Some(words) = window.record(self, position, to_end, sum, position < seen)? {
                let (kind, bytes) = kind_and_bytes(words[0]);
                each(Found {
                    kind,
                    position,
                    words,
                })?;
                sum = words[2] as u32;
                position += bytes;
                continue;
            }
            let head = if to_end > 8 { 2 } else { 1 };
            let pad = window.words(self, position, to_end, head)?;
            if pad[0] != to_end | PAD_MAGIC << 32 || head == 2 && pad[1] != position {
                if position < seen {
                    // It was there a moment ago.
                    return Err(Errno::EIO);
                }
                break;
            }
            position += to_end;
        }
        Ok((position, sum))
    }

    /// Collects what the log that was looked through proves.
    pub(crate) fn proofs(&self, seen: &Seen) -> Result<Proofs> {
        let mut proofs = Proofs {
            flushes: seen.flushes.clone(),
            ..Proofs::default()
        };
        for r in 0..self.rank_count() {
            if self.is_left_out(r)? {
                proofs.gone.add(r);
            }
        }
        for r in self.ranks_missed()? {
            proofs.missed.add(r);
        }
        proofs.flushes.begins.sort_unstable();
        let from = proofs.flushes.certain();
        let (start, sum) = seen.mark_at(from);
        let mut claims = Vec::new();
        self.each_record(start, sum, seen.end, |found| {
            if found.position < from {
                return Ok(());
            }
            if found.kind == RecordKind::Change as u8 {
                each_block_published(found.words, &mut |copies| {
                    for pointer in copies.iter().map(|word| BlockPtr(*word)) {
                        if holds_data(pointer) {
                            proofs.published.insert(place(pointer), found.position);
                        }
                    }
                    Ok(())
                })
            } else if found.kind == RecordKind::Contents as u8 {
                each_content(&found, |copies, _| {
                    for copy in copies {
                        proofs
                            .contents
                            .insert(place(BlockPtr(*copy)), found.position);
                    }
                    Ok(())
                })
            } else if found.kind == RecordKind::Sums as u8 {
                proofs.add_claims(&found, &mut claims)?;
                if claims.len() >= CLAIMS_MAX {
                    self.check_claims(&mut claims, &mut proofs);
                }
                Ok(())
            } else {
                Ok(())
            }
        })?;
        self.check_claims(&mut claims, &mut proofs);
        Ok(proofs)
    }

    /// Notes the pointers that lead to what was claimed. Block by block as they lie: most that were
    /// published together lie together.
    fn check_claims(&self, claims: &mut Vec<Claim>, proofs: &mut Proofs) {
        claims.sort_unstable_by_key(|claim| place(claim.at));
        let mut content = vec![0u8; CLAIMED_AT_ONCE * BLOCK as usize];
        for of_rank in claims.chunk_by(|one, other| one.at.rank() == other.at.rank()) {
            let rank = of_rank.first().map_or(0, |claim| claim.at.rank());
            let dir = self.rank_dir(rank);
            let Ok(file) = dir.and_then(|dir| door::open(dir, RankFile::Data)) else {
                continue;
            };
            for run in of_rank.chunk_by(|one, other| other.at.block() - one.at.block() <= 1) {
                for part in run.chunks(CLAIMED_AT_ONCE) {
                    proofs.check_part(&file, part, &mut content);
                }
            }
        }
        claims.clear();
    }

    /// Brings the contents that only the log holds to where they belong.
    pub(crate) fn store_contents(&self, seen: &Seen, proofs: &Proofs) -> Result<bool> {
        let Some(first) = proofs.contents.values().min() else {
            return Ok(false);
        };
        let mut stored = vec![false; usize::from(self.rank_count())];
        // Before that what they hold is there.
        let (start, sum) = seen.mark_at(*first);
        self.each_record(start, sum, seen.end, |found| {
            if found.kind != RecordKind::Contents as u8 {
                return Ok(());
            }
            each_content(&found, |copies, content| {
                for copy in copies.iter().map(|word| BlockPtr(*word)) {
                    if proofs.wants_content(copy, found.position)
                        && self.store_content(copy, content)?
                    {
                        *stored.get_mut(usize::from(copy.rank())).ok_or(Errno::EIO)? = true;
                    }
                }
                Ok(())
            })
        })?;
        for (rank, _) in (0..).zip(&stored).filter(|(_, stored)| **stored) {
            self.flush_data(rank)?;
        }
        Ok(stored.contains(&true))
    }

    /// Stores a block; false if its rank is gone.
    fn store_content(&self, at: BlockPtr, content: &[u64]) -> Result<bool> {
        let dir = self.rank_dir(at.rank())?;
        let file = match door::open(dir, RankFile::Data) {
            Err(gone) if crate::media::is_absent(gone) => return Ok(false),
            other => other?,
        };
        let bytes: Vec<u8> = content.iter().flat_map(|word| word.to_ne_bytes()).collect();
        door::write(&file, dir, RankFile::Data, &bytes, at.block() * BLOCK)?;
        self.mark_unflushed(at.rank())?;
        Ok(true)
    }
}

/// The checksum of what a block held when its pointer had been published.
struct Claim {
    at: BlockPtr,
    sum: u64,
    /// Position in the log before which that was.
    before: u64,
}

/// Fills `content` with what a file has at a block, as far as it goes. Not through a mapping: the file
/// may be shorter than it was.
fn read_at(file: &OwnedFd, block: u64, content: &mut [u8]) -> usize {
    let read = || rustix::io::pread(file, &mut *content, block * BLOCK);
    // What cannot be read is not proven.
    rustix::io::retry_on_intr(read).unwrap_or(0)
}

/// A part of the log, copied in one go: copying each record by itself takes most of a recovery.
#[derive(Default)]
struct Window {
    from: u64,
    words: Vec<u64>,
}

impl Window {
    /// `count` words of the log at `position`, `to_end` bytes before the end of the ring.
    fn words(&mut self, pool: &Pool, position: u64, to_end: u64, count: usize) -> Result<&[u64]> {
        let at = position.wrapping_sub(self.from) / 8;
        let known = at.saturating_add(count as u64) <= self.words.len() as u64;
        if position < self.from || !known {
            self.words
                .resize((to_end / 8).min(WINDOW_WORDS) as usize, 0);
            self.from = position;
            if let Err(error) = pool.log_words(position, &mut self.words) {
                self.words.clear();
                return Err(error);
            }
        }
        let at = ((position - self.from) / 8) as usize;
        self.words.get(at..at + count).ok_or(Errno::EIO)
    }

    /// The record at `position` if it is whole, which may be `seen` already, and follows on `sum`.
    fn record(
        &mut self,
        pool: &Pool,
        position: u64,
        to_end: u64,
        sum: u32,
        seen: bool,
    ) -> Result<Option<&[u64]>> {
        if to_end < RECORD_HEADER as u64 * 8 {
            return Ok(None);
        }
        let head = self.words(pool, position, to_end, RECORD_HEADER)?;
        let (_, bytes) = kind_and_bytes(head[0]);
        let len = (bytes / 8) as usize;
        if head[0] >> 32 != u64::from(sum)
            || head[1] != position
            || !(RECORD_HEADER..=TX_WORDS_MAX).contains(&len)
            || !bytes.is_multiple_of(8)
            || bytes > to_end
        {
            return Ok(None);
        }
        let record = self.words(pool, position, to_end, len)?;
        Ok((seen || record_sum(record) == record[2] as u32).then_some(record))
    }
}

/// Calls `each` with the pointers to the copies of every block that a change publishes.
pub(crate) fn each_block_published(
    record: &[u64],
    each: &mut dyn FnMut(&[u64]) -> Result<()>,
) -> Result<()> {
    let mut at = RECORD_HEADER;
    while at < record.len() {
        let (_, count, flags) = entry_parts(record[at]);
        at += 1;
        if flags & ENTRY_ZERO != 0 {
            continue;
        }
        let words = record.get(at..at + count).ok_or(Errno::EIO)?;
        if flags & ENTRY_DATA != 0 {
            for copies in words.chunks(stride(flags)) {
                if copies
                    .first()
                    .is_some_and(|word| holds_data(BlockPtr(*word)))
                {
                    each(copies)?;
                }
            }
        }
        at += count;
    }
    Ok(())
}

/// Calls `each` with the places and the content of every block in a record of contents.
fn each_content(
    found: &Found<'_>,
    mut each: impl FnMut(&[u64], &[u64]) -> Result<()>,
) -> Result<()> {
    let mut left = found.words.get(CONTENTS_HEADER..).ok_or(Errno::EIO)?;
    while let Some((count, rest)) = left.split_first() {
        let count = usize::try_from(*count).map_err(|_| Errno::EIO)?;
        let (copies, rest) = rest.split_at_checked(count).ok_or(Errno::EIO)?;
        let (content, rest) = rest.split_at_checked(BLOCK_WORDS).ok_or(Errno::EIO)?;
        each(copies, content)?;
        left = rest;
    }
    Ok(())
}

/// Whether two sets of words point to the same blocks.
fn same_blocks(one: &[u64], other: &[u64]) -> bool {
    one.iter().zip(other).all(|(one, other)| {
        let (one, other) = (BlockPtr(*one), BlockPtr(*other));
        one.is_hole() == other.is_hole() && place(one) == place(other)
    })
}

/// Whether a word points to a block that was written.
fn holds_data(pointer: BlockPtr) -> bool {
    !pointer.is_hole() && !pointer.is_unwritten()
}

impl Proofs {
    /// Adds what a record of checksums claims, unless it is known to be there anyway.
    fn add_claims(&self, found: &Found<'_>, claims: &mut Vec<Claim>) -> Result<()> {
        let words = found.words.get(RECORD_HEADER..).ok_or(Errno::EIO)?;
        let mut before = found.position;
        for pair in words.chunks_exact(SUM_WORDS) {
            let (at, sum) = (BlockPtr(pair[0]), pair[1]);
            if at.is_hole() {
                before = sum.min(found.position);
            } else if self
                .flushes
                .flushed
                .get(usize::from(at.rank()))
                .is_some_and(|flushed| *flushed < before)
            {
                claims.push(Claim { at, sum, before });
            }
        }
        Ok(())
    }

    /// Notes which claims hold, of blocks of one rank without gaps between them, as many as
    /// `content` has room for.
    fn check_part(&mut self, file: &OwnedFd, part: &[Claim], content: &mut [u8]) {
        let (Some(first), Some(last)) = (part.first(), part.last()) else {
            return;
        };
        let blocks = (last.at.block() - first.at.block() + 1) as usize;
        let content = &mut content[..blocks * BLOCK as usize];
        let read = read_at(file, first.at.block(), content);
        for claim in part {
            let from = (claim.at.block() - first.at.block()) as usize * BLOCK as usize;
            let block = &mut content[from..from + BLOCK as usize];
            // One that is bad must not take the others with it.
            let there =
                from + block.len() <= read || read_at(file, claim.at.block(), block) == block.len();
            if there && u64::from(crc32fast::hash(block)) == claim.sum {
                let known = self.sums.entry(claim.at.0).or_default();
                *known = claim.before.max(*known);
            }
        }
    }

    /// Whether the data of a pointer published at `position` is there.
    fn has_data(&self, pointer: BlockPtr, position: u64) -> bool {
        let flushed = self.flushes.flushed.get(usize::from(pointer.rank()));
        let content = self.contents.get(&place(pointer));
        flushed.is_some_and(|flushed| position < *flushed)
            || content.is_some_and(|content| position < *content)
            || self.sums.get(&pointer.0).is_some_and(|sum| position < *sum)
    }

    /// Whether the content at `position` of the log is what the block should hold: not if the device
    /// has what was stored there since.
    fn wants_content(&self, at: BlockPtr, position: u64) -> bool {
        let flushed = self.flushes.flushed.get(usize::from(at.rank()));
        let published = self.published.get(&place(at));
        let sum = self.sums.get(&at.0);
        flushed.is_some_and(|flushed| *flushed <= position)
            && published.is_none_or(|published| *published < position)
            && sum.is_none_or(|sum| *sum <= position)
    }

    /// The words that a record at `position` leaves, which wants to put `new` where `old` is: the
    /// pointers to the copies of one block.
    pub(crate) fn choose(&mut self, position: u64, old: &[u64], new: &mut [u64]) {
        if position < self.flushes.certain() {
            return;
        }
        let copies = new.iter().map(|word| BlockPtr(*word));
        let is_gone = |copy: &BlockPtr| self.gone.has(copy.rank());
        let there = |copy: &BlockPtr| self.has_data(*copy, position);
        // What a rank that is gone may lack is stored anew from another copy (`rehome`).
        let mut all = copies.clone();
        let other = || {
            let mut others = copies.clone();
            others.any(|copy| holds_data(copy) && !is_gone(&copy) && there(&copy))
        };
        if all.all(|copy| !holds_data(copy) || there(&copy) || is_gone(&copy) && other()) {
            for (old, new) in old.iter().zip(new.iter()) {
                if !BlockPtr(*new).is_hole() && old != new {
                    let earlier = self.before.insert(*new, self.replaced.len());
                    self.replaced.push(Replaced {
                        word: *old,
                        position,
                        earlier,
                    });
                    self.instead.remove(new);
                }
            }
            return;
        }
        let data = new.iter().map(|word| BlockPtr(*word));
        let mut data = data.filter(|copy| holds_data(*copy));
        let only_there = data.clone().all(|copy| is_gone(&copy));
        if only_there
            && old != new
            && data.any(|copy| self.missed.has(copy.rank()) && !there(&copy))
        {
            self.lacking = true;
        }
        // All copies or none: they must stay the same.
        let instead = self.kept(position, old, new);
        for (new, instead) in new.iter_mut().zip(instead) {
            if new != &instead {
                self.instead.insert(*new, instead);
                *new = instead;
            }
        }
    }

    /// The words `old`, replaced at `position` by `new`, or those before them, whose blocks were
    /// kept from reuse: a window began between their being taken and being given back, or they were
    /// not given back.
    fn kept(&self, mut position: u64, old: &[u64], new: &[u64]) -> Vec<u64> {
        let mut words = old.to_vec();
        if same_blocks(old, new) {
            return words;
        }
        loop {
            // The blocks may have been marked written or unwritten since they were taken.
            let (mut first, mut taken) = (words.clone(), position);
            let earlier = loop {
                match self.step_back(&first, taken) {
                    None => return words,
                    Some((before, at)) => {
                        taken = at;
                        if !same_blocks(&before, &first) {
                            break before;
                        }
                        first = before;
                    }
                }
            };
            let begin = self.flushes.begins.partition_point(|begin| *begin <= taken);
            if self
                .flushes
                .begins
                .get(begin)
                .is_some_and(|begin| *begin <= position)
            {
                return words;
            }
            (words, position) = (earlier, taken);
        }
    }

    /// What `words` replaced before `position`, and where; `None` if that is not known: they were
    /// there before everything that is in doubt.
    fn step_back(&self, words: &[u64], position: u64) -> Option<(Vec<u64>, u64)> {
        let last = |word: &u64| {
            let mut at = self.before.get(word).copied();
            loop {
                let replaced = self.replaced.get(at?)?;
                if replaced.position < position {
                    return Some((replaced.word, replaced.position));
                }
                at = replaced.earlier;
            }
        };
        let (_, at) = words.iter().find_map(last)?;
        let before = |word: &u64| last(word).map_or(0, |(before, _)| before);
        Some((words.iter().map(before).collect(), at))
    }

    /// What counts of pointers that move to another place.
    pub(crate) fn moved(&self, words: &mut [u64]) {
        for word in words {
            for _ in 0..self.instead.len() {
                match self.instead.get(word) {
                    Some(instead) => *word = *instead,
                    None => break,
                }
            }
        }
    }

    /// Whether a rank that nobody has given up may have data that was dropped, and no other rank has.
    pub(crate) fn is_lacking(&self) -> bool {
        self.lacking
    }

    /// Whether some data was lost.
    pub(crate) fn found_loss(&self) -> bool {
        !self.instead.is_empty()
    }
}

/// Words that point to the copies of one block, from the flags of an entry.
pub(crate) fn stride(flags: u64) -> usize {
    1 << (flags >> ENTRY_STRIDE_SHIFT & 7)
}

mod rehome;
#[cfg(test)]
mod tests;
