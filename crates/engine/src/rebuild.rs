//! Building an arena from what the ranks hold: the last whole checkpoint, then the log over it,
//! then everything that is derived: free lists, bitmaps, the chain of containers.
//!
//! Reads only; nothing on the ranks is changed, so several processes may do it at once.

use crate::checkpoint::{FRAME_END, FRAME_FULL, FRAME_HEAD, FRAME_MAGIC, META_FILE, META_NEW};
use crate::layout::{
    BlockPtr, CLASSES, PageLink, PageState, Rec, descriptor, descriptor_at, header, kind,
    partial_at, partial_shift, rank, rank_at, tag_kind,
};
use crate::limits::{BLOCK, GRANULE, GROW_PAGES, PAGE, RANK_BLOCKS_MAX, TX_WORDS_MAX, at};
use crate::log::{PAD_MAGIC, checksum};
use crate::media::{errno, is_absent};
use crate::pool::Pool;
use crate::tx::{ENTRY_DURABLE, ENTRY_ZERO, RECORD_HEADER, RECORD_MAGIC, entry_parts};
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::path::Path;
use sys::{Errno, Result};

/// Bytes of a frame file read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Words of an inode record that do not outlive the arena.
const INODE_VOLATILE: core::ops::Range<u64> = 24..32;

impl Pool {
    /// Fills an empty arena from the rank files.
    pub(crate) fn rebuild(&self) -> Result<()> {
        let start = self.load_checkpoint()?;
        self.replay(start)?;
        self.derive()
    }

    /// Loads the newest frames of whole checkpoints; returns where the log goes on from. Ranks
    /// whose directory is gone have none.
    fn load_checkpoint(&self) -> Result<u64> {
        let mut whole = HashSet::new();
        let (mut last, mut start, mut highest) = (0, 0, 0);
        for dir in &self.spec.ranks {
            for name in [META_FILE, META_NEW] {
                for_each_frame(&dir.join(name), |frame| {
                    highest = highest.max(frame[1]);
                    if frame[3] == FRAME_END {
                        whole.insert(frame[1]);
                        if frame[1] > last {
                            (last, start) = (frame[1], frame[5]);
                        }
                    }
                    Ok(())
                })?;
            }
        }
        let mut newest: Vec<u64> = Vec::new();
        for (r, dir) in (0..).zip(&self.spec.ranks) {
            let mut anew = false;
            for_each_frame(&dir.join(META_NEW), |frame| {
                anew |= frame[3] == FRAME_FULL && whole.contains(&frame[1]);
                Ok(())
            })?;
            let name = if anew { META_NEW } else { META_FILE };
            let end = for_each_frame(&dir.join(name), |frame| {
                if !whole.contains(&frame[1]) || frame[3] >= FRAME_FULL {
                    return Ok(());
                }
                self.load_newest(&mut newest, frame)
            })?;
            self.store(rank_at(r) + rank::META_END, end)?;
            self.store(rank_at(r) + rank::META_UNNAMED, u64::from(anew))?;
        }
        self.store(header::CHECKPOINT_SEQUENCE, highest)?;
        Ok(start)
    }

    /// Loads a page's frame unless a newer one was loaded before.
    fn load_newest(&self, newest: &mut Vec<u64>, frame: &[u64]) -> Result<()> {
        let page = frame[3];
        if page == 0 || page >= at::PAGES_MAX || frame[7] != PAGE / 8 {
            return Err(Errno::EIO);
        }
        let index = page as usize;
        if newest.len() <= index {
            newest.resize(index + 1, 0);
        }
        if frame[1] > newest[index] {
            newest[index] = frame[1];
            self.load_frame(page, frame)?;
        }
        Ok(())
    }

    fn load_frame(&self, page: u64, frame: &[u64]) -> Result<()> {
        self.reach(page)?;
        self.store(descriptor_at(page as u32) + descriptor::STATE, frame[4])?;
        let content = frame.get(FRAME_HEAD..).ok_or(Errno::EIO)?;
        for (i, word) in content.iter().enumerate() {
            self.store(at::PAGES + page * PAGE + i as u64 * 8, *word)?;
        }
        Ok(())
    }

    /// Backs the arena up to and including `page`.
    fn reach(&self, page: u64) -> Result<()> {
        if page >= at::PAGES_MAX {
            return Err(Errno::EIO);
        }
        let frontier = self.load(header::FRONTIER)?;
        if page >= frontier {
            self.grow((page + 1).next_multiple_of(GROW_PAGES))?;
            self.store(header::FRONTIER, page + 1)?;
        }
        Ok(())
    }

    /// Applies what the log holds from `start`; a torn tail is cut.
    fn replay(&self, start: u64) -> Result<()> {
        let ring = self.load(header::LOG_BYTES)?;
        let mut position = start;
        let mut record = vec![0u64; TX_WORDS_MAX];
        while position - start < ring {
            let mut head = [0u64; RECORD_HEADER];
            let to_end = ring - position % ring;
            if to_end < head.len() as u64 * 8 {
                self.log_words(position, &mut head[..(to_end / 8).min(2) as usize])?;
            } else {
                self.log_words(position, &mut head)?;
            }
            let bytes = head[0] & 0xffff_ffff;
            if head[0] >> 32 == PAD_MAGIC && bytes == to_end && (to_end < 16 || head[1] == position)
            {
                position += to_end;
                continue;
            }
            let words = (bytes / 8) as usize;
            if head[0] >> 32 != RECORD_MAGIC
                || head[1] != position
                || !(RECORD_HEADER..=TX_WORDS_MAX).contains(&words)
                || bytes > to_end
            {
                break;
            }
            let record = &mut record[..words];
            self.log_words(position, record)?;
            if u64::from(checksum(record)) != head[2] & 0xffff_ffff {
                break;
            }
            self.replay_record(record)?;
            position += bytes;
        }
        self.store(header::LOG_HEAD, start)?;
        self.store(header::LOG_TAIL, position)?;
        self.store(header::LOG_SYNCED, start)
    }

    fn replay_record(&self, record: &[u64]) -> Result<()> {
        let mut i = RECORD_HEADER;
        while i < record.len() {
            let (off, count, flags) = entry_parts(record[i]);
            let zero = flags & ENTRY_ZERO != 0;
            i += 1;
            if flags & ENTRY_DURABLE != 0 {
                let last = off + (count as u64).saturating_sub(1) * 8;
                let page = if last >= at::PAGES {
                    (last - at::PAGES) / PAGE
                } else if off >= at::DESCRIPTORS {
                    (last - at::DESCRIPTORS) / at::DESCRIPTOR_BYTES
                } else {
                    0
                };
                self.reach(page)?;
                // A page changed after the checkpoint has to be in the next one.
                if page != 0 {
                    self.store(descriptor_at(page as u32) + descriptor::DIRTY, 1)?;
                }
                for w in 0..count {
                    let value = if zero {
                        0
                    } else {
                        *record.get(i + w).ok_or(Errno::EIO)?
                    };
                    self.store(off + w as u64 * 8, value)?;
                }
            }
            if !zero {
                i += count;
            }
        }
        Ok(())
    }

    /// Everything that follows from the records.
    fn derive(&self) -> Result<()> {
        // Chained anew below.
        self.store(header::CONTAINERS, 0)?;
        let frontier = self.load(header::FRONTIER)? as u32;
        let present = self.data_blocks()?;
        let complete = present.iter().all(Option::is_some);
        for page in 1..frontier {
            self.derive_page(page, complete)?;
        }
        let mut needed = vec![0u64; usize::from(self.rank_count())];
        for page in 1..frontier {
            self.for_each_block(page, &mut |r, block| {
                let blocks = needed.get_mut(usize::from(r)).ok_or(Errno::EIO)?;
                *blocks = (*blocks).max(block + 1);
                if block < RANK_BLOCKS_MAX {
                    Ok(())
                } else {
                    Err(Errno::EIO)
                }
            })?;
        }
        for ((r, needed), present) in (0..).zip(needed).zip(present) {
            self.store(rank_at(r) + rank::WAS_ABSENT, u64::from(present.is_none()))?;
            let there = present.unwrap_or(0);
            // Blocks that files have and the rank has not cannot be read, and must not be given
            // to another file should the rank's file grow again.
            let blocks = there.max(needed.next_multiple_of(64));
            self.add_zones(r, 0, blocks)?;
            self.claim_blocks(r, there, blocks - there)?;
        }
        for page in 1..frontier {
            self.for_each_block(page, &mut |r, block| self.claim_blocks(r, block, 1))?;
        }
        for r in 0..self.rank_count() {
            self.recount(r)?;
            self.store(rank_at(r) + rank::HINT, 0)?;
            // What was in use before may hold anything: only what is added is known to be zeros.
            let blocks = self.load(rank_at(r) + rank::BLOCKS)?;
            self.store(rank_at(r) + rank::FRESH_FROM, blocks)?;
        }
        Ok(())
    }

    /// Blocks of each rank's data file; `None` for a rank whose directory is gone.
    fn data_blocks(&self) -> Result<Vec<Option<u64>>> {
        let mut found = Vec::new();
        for r in 0..self.rank_count() {
            found.push(match rustix::fs::stat(self.data_path(r)?).map_err(errno) {
                Ok(stat) => Some((stat.st_size as u64 / BLOCK / 64 * 64).min(RANK_BLOCKS_MAX)),
                Err(gone) if is_absent(gone) => None,
                Err(other) => return Err(other),
            });
        }
        Ok(found)
    }

    /// Puts a page where it belongs; `complete` if no rank is gone.
    fn derive_page(&self, page: u32, complete: bool) -> Result<()> {
        let base = descriptor_at(page);
        let word = self.load(base + descriptor::STATE)?;
        let state = PageState::unpack(word);
        let content = PageLink::new(page, 0, 0).offset();
        match state.kind {
            // Perhaps lost with the rank: links to it must not find another's.
            kind::FREE if word == 0 && !complete => Ok(()),
            kind::FREE => {
                self.store(base + descriptor::NEXT, self.load(header::FREE_HEAD)?)?;
                self.store(header::FREE_HEAD, u64::from(page))
            }
            kind::SLOTS => self.derive_slots(page, state, content),
            kind::CONTAINER => self.adopt_container(PageLink::new(page, state.version, 0)),
            _ => Ok(()),
        }
    }

    fn derive_slots(&self, page: u32, state: PageState, content: u64) -> Result<()> {
        let class = usize::from(state.class);
        let bytes = *CLASSES.get(class).ok_or(Errno::EIO)?;
        if u64::from(state.target) >= self.target_count() {
            return Err(Errno::EIO);
        }
        let mut free = 0u64;
        for slot in 0..PAGE / bytes {
            let record = content + slot * bytes;
            match tag_kind(self.load(record)?) {
                kind::FREE => free |= 1 << slot,
                kind::INODE if bytes == 256 => {
                    for word in INODE_VOLATILE {
                        self.store(record + word * 8, 0)?;
                    }
                }
                _ => {}
            }
        }
        let base = descriptor_at(page);
        self.store(base + descriptor::FREE_SLOTS, free)?;
        if free != 0 {
            let at = partial_at(state.target, class, state.replicas);
            let shift = partial_shift(class, state.replicas);
            let heads = self.load(at)?;
            self.store(base + descriptor::NEXT, heads >> shift & 0xffff_ffff)?;
            self.store(
                at,
                heads & !(0xffff_ffff << shift) | u64::from(page) << shift,
            )?;
        }
        Ok(())
    }

    /// Calls `each` with the rank and number of every block that a page's maps point to.
    fn for_each_block(
        &self,
        page: u32,
        each: &mut impl FnMut(u16, u64) -> Result<()>,
    ) -> Result<()> {
        let state = self.page_state(page)?;
        let content = PageLink::new(page, 0, 0).offset();
        let mut pointers = |from: u64, count: u64| {
            for i in 0..count {
                let pointer = BlockPtr(self.load(from + i * 8)?);
                if !pointer.is_hole() {
                    each(pointer.rank(), pointer.block())?;
                }
            }
            Ok(())
        };
        match state.kind {
            kind::MAP_LEAF => pointers(content, PAGE / 8),
            kind::SLOTS if CLASSES.get(usize::from(state.class)) == Some(&256) => {
                for slot in 0..PAGE / 256 {
                    let record = content + slot * 256;
                    if tag_kind(self.load(record)?) == kind::MAP_SMALL {
                        pointers(record + 8, 31)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

const _: () = assert!(Rec(64).0 as u64 * GRANULE == PAGE);

/// Calls `each` for the frames of a file, a piece of the file at a time; returns the bytes that
/// hold whole frames, 0 if there is no file.
fn for_each_frame(path: &Path, mut each: impl FnMut(&[u64]) -> Result<()>) -> Result<u64> {
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(e) if is_absent(errno(e)) => return Ok(0),
        other => other.map_err(errno)?,
    };
    let mut bytes = vec![0u8; PIECE_BYTES];
    let mut at = 0;
    loop {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pread(&file, &mut bytes[done..], at + done as u64).map_err(errno)? {
                0 => break,
                read => done += read,
            }
        }
        let words = bytes[..done].as_chunks::<8>().0.iter();
        let words: Vec<u64> = words.map(|word| u64::from_le_bytes(*word)).collect();
        let mut frames = Frames(&words);
        for frame in &mut frames {
            each(frame)?;
        }
        let taken = (words.len() - frames.0.len()) as u64 * 8;
        if taken == 0 {
            return Ok(at);
        }
        at += taken;
    }
}

/// The frames of a file up to the first that is not whole.
struct Frames<'a>(&'a [u64]);

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u64];

    fn next(&mut self) -> Option<&'a [u64]> {
        let head = self.0.get(..FRAME_HEAD)?;
        let content = head[7];
        if head[0] != FRAME_MAGIC || content > PAGE / 8 {
            return None;
        }
        let frame = self.0.get(..FRAME_HEAD + content as usize)?;
        if u64::from(checksum(frame)) != head[2] {
            return None;
        }
        self.0 = &self.0[frame.len()..];
        Some(frame)
    }
}
