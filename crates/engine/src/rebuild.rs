//! Building an arena from what the ranks hold: the last whole checkpoint, then the log over it,
//! then everything that is derived: free lists, bitmaps, the chain of containers.
//!
//! Reads only; nothing on the ranks is changed, so several processes may do it at once.

use crate::checkpoint::{FRAME_END, FRAME_FULL, FRAME_HEAD, FRAME_MAGIC, META_FILE};
use crate::layout::{
    BlockPtr, CLASSES, PageLink, PageState, Rec, descriptor, descriptor_at, header, kind,
    partial_at, partial_shift, rank, rank_at, tag_kind,
};
use crate::limits::{BLOCK, GRANULE, GROW_PAGES, PAGE, TX_WORDS_MAX, at};
use crate::log::{PAD_MAGIC, checksum};
use crate::media::errno;
use crate::pool::Pool;
use crate::tx::{ENTRY_DURABLE, ENTRY_ZERO, RECORD_HEADER, RECORD_MAGIC, entry_parts};
use rustix::fs::{Mode, OFlags};
use sys::{Errno, Result};

/// Words of an inode record that do not outlive the arena.
const INODE_VOLATILE: core::ops::Range<u64> = 24..32;

impl Pool {
    /// Fills an empty arena from the rank files.
    pub(crate) fn rebuild(&self) -> Result<()> {
        let start = self.load_checkpoint()?;
        self.replay(start)?;
        self.derive()
    }

    /// Loads the newest frames of whole checkpoints; returns where the log goes on from.
    fn load_checkpoint(&self) -> Result<u64> {
        let mut files = Vec::new();
        let (mut last, mut start) = (0, 0);
        for dir in &self.spec.ranks {
            let frames = read_words(&dir.join(META_FILE))?;
            for frame in Frames(&frames) {
                if frame[3] == FRAME_END && frame[1] > last {
                    (last, start) = (frame[1], frame[5]);
                }
            }
            files.push(frames);
        }
        let mut newest: Vec<u64> = Vec::new();
        for frames in &files {
            for frame in Frames(frames) {
                let page = frame[3];
                if frame[1] > last || page == FRAME_END || page == FRAME_FULL {
                    continue;
                }
                if page == 0 || page >= at::PAGES_MAX || frame[7] != PAGE / 8 {
                    return Err(Errno::EIO);
                }
                let page = page as usize;
                if newest.len() <= page {
                    newest.resize(page + 1, 0);
                }
                if frame[1] > newest[page] {
                    newest[page] = frame[1];
                    self.load_frame(page as u64, frame)?;
                }
            }
        }
        self.store(header::CHECKPOINT_SEQUENCE, last)?;
        Ok(start)
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
        for page in 1..frontier {
            self.derive_page(page)?;
        }
        for r in 0..self.rank_count() {
            let stat = rustix::fs::stat(self.data_path(r)?).map_err(errno)?;
            let blocks = stat.st_size as u64 / BLOCK / 64 * 64;
            self.add_zones(r, 0, blocks)?;
        }
        for page in 1..frontier {
            self.claim_page(page)?;
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

    fn derive_page(&self, page: u32) -> Result<()> {
        let base = descriptor_at(page);
        let state = PageState::unpack(self.load(base + descriptor::STATE)?);
        let content = PageLink::new(page, 0, 0).offset();
        match state.kind {
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

    /// Marks the blocks that a page's maps point to.
    fn claim_page(&self, page: u32) -> Result<()> {
        let state = self.page_state(page)?;
        let content = PageLink::new(page, 0, 0).offset();
        match state.kind {
            kind::MAP_LEAF => self.claim_words(content, PAGE / 8),
            kind::SLOTS if CLASSES.get(usize::from(state.class)) == Some(&256) => {
                for slot in 0..PAGE / 256 {
                    let record = content + slot * 256;
                    if tag_kind(self.load(record)?) == kind::MAP_SMALL {
                        self.claim_words(record + 8, 31)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn claim_words(&self, from: u64, count: u64) -> Result<()> {
        for i in 0..count {
            let pointer = BlockPtr(self.load(from + i * 8)?);
            if !pointer.is_hole() {
                let (r, block) = (pointer.rank(), pointer.block());
                if r >= self.rank_count() || block >= self.load(rank_at(r) + rank::BLOCKS)? {
                    return Err(Errno::EIO);
                }
                self.claim_blocks(r, block, 1)?;
            }
        }
        Ok(())
    }
}

const _: () = assert!(Rec(64).0 as u64 * GRANULE == PAGE);

fn read_words(path: &std::path::Path) -> Result<Vec<u64>> {
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        other => other.map_err(errno)?,
    };
    let size = rustix::fs::fstat(&file).map_err(errno)?.st_size as usize;
    let mut bytes = vec![0u8; size / 8 * 8];
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(&file, &mut bytes[done..], done as u64).map_err(errno)? {
            0 => break,
            read => done += read,
        }
    }
    bytes.truncate(done / 8 * 8);
    let words = bytes.as_chunks::<8>().0;
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
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
