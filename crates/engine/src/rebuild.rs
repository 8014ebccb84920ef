//! Building an arena from what the ranks hold: the last whole checkpoint, then what is left of the
//! log over it (`recover`), then everything that is derived: free lists, bitmaps, the chain of
//! containers. Whoever does it has the right to it alone, and can be killed at any time: what it
//! stores in files is what the log says anyway.

use crate::door::{self, RankFile};
use crate::frames::{
    FRAME_END, FRAME_FULL, FRAME_HEAD, FRAME_MAGIC, META_FILE, META_NEW, unpacked,
};
use crate::layout::{
    BlockPtr, CLASSES, PageLink, PageState, Rec, descriptor, descriptor_at, header, kind,
    partial_at, partial_shift, rank, rank_at, tag_kind,
};
use crate::limits::{
    BLOCK, GRANULE, PAGE, PAGE_REPLICAS_MAX, RANK_BLOCKS_MAX, ZONE_BLOCKS, ZONE_TABLES, at,
};
use crate::log::{RecordKind, as_bytes, checksum};
use crate::media::{DATA_FILE, errno, is_absent};
use crate::pool::Pool;
use crate::recover::{Found, Proofs, Seen, stride};
use crate::tx::{ENTRY_DATA, ENTRY_DURABLE, ENTRY_MOVED, ENTRY_ZERO, RECORD_HEADER, entry_parts};
use daos_types::ObjectClass;
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::path::Path;
use sys::{Errno, Result};

/// Bytes of a frame file read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// What the last whole checkpoint says of the log: where it goes on from, as far as which it was
/// flushed with all data, and the checksum that the record at the start holds.
#[derive(Default)]
pub(crate) struct Base {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) sum: u32,
    /// Below which number all pages were; 0 = not known.
    frontier: u64,
    /// Pages that the frames account for.
    pages: u64,
}

/// The checkpoints that the ranks hold.
#[derive(Default)]
pub(crate) struct Checkpoint {
    pub(crate) base: Base,
    /// Numbers of those that count, and the highest number of all.
    whole: HashSet<u64>,
    highest: u64,
    /// The end frame of the last that counts.
    end: Option<[u64; FRAME_HEAD]>,
    /// No rank is gone.
    complete: bool,
}

/// Where no log ever gets: positions must not run over.
const POSITION_MAX: u64 = 1 << 62;
/// Pages that no file accounts for: of open files, locks, hash tables.
const PAGES_UNSEEN: u64 = 1 << 17;
/// Pages that an arena of which a frame has come down may have had besides.
const PAGES_PER_FRAME: u64 = 64;
/// Bytes of the log that account for a page: a sixteenth of what making one takes.
const LOG_BYTES_PER_PAGE: u64 = 4;

/// Checkpoints that a rank may have begun of which the others know nothing; far more than there can be.
const UNKNOWN_CHECKPOINTS: u64 = 1 << 20;

/// Words of an inode record that do not outlive the arena.
const INODE_VOLATILE: core::ops::Range<u64> = 22..32;

/// Blocks that a rank's file must have for the maps that point there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Needed {
    pub(crate) all: u64,
    pub(crate) written: u64,
}

impl Needed {
    fn add(&mut self, pointer: BlockPtr) -> Result<()> {
        let end = pointer.block() + 1;
        if end > RANK_BLOCKS_MAX {
            return Err(Errno::EIO);
        }
        self.all = self.all.max(end);
        if !pointer.is_unwritten() {
            self.written = self.written.max(end);
        }
        Ok(())
    }
}

/// What came of building an arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rebuilt {
    /// All is as the ranks have it.
    AsFound,
    /// Some data was not there, or had to be brought where it belongs.
    Changed,
    /// Ranks are gone that may have what no other has.
    Lacking,
}

/// Whether nothing of a rank is there. What was not mounted may be an empty directory.
pub(crate) fn is_rank_gone(dir: &Path) -> bool {
    let is_gone = |file: &str| {
        let found = rustix::fs::stat(dir.join(file));
        matches!(found, Err(e) if is_absent(errno(e)))
    };
    [DATA_FILE, META_FILE, META_NEW].into_iter().all(is_gone)
}

impl Pool {
    /// Fills an empty arena from the rank files: the checkpoints `found`, and the log that was looked
    /// through. After a power failure (`trusted` false) data counts only if it is known to be there.
    /// Files are changed only if nothing is lacking.
    pub(crate) fn rebuild(
        &self,
        found: &Checkpoint,
        seen: &Seen,
        trusted: bool,
    ) -> Result<Rebuilt> {
        self.load_checkpoint(found, trusted)?;
        let base = &found.base;
        let mut replay = Replay {
            pool: self,
            base,
            proofs: None,
            certain: seen.flushes.certain(),
            unproven: None,
        };
        if !trusted {
            replay.proofs = Some(self.proofs(seen)?);
        }
        replay.run(seen.end)?;
        let (proofs, unproven) = (replay.proofs, replay.unproven);
        self.derive_pages(found.complete)?;
        if self.may_lack_pages()? || proofs.as_ref().is_some_and(Proofs::is_lacking) {
            return Ok(Rebuilt::Lacking);
        }
        let mut changed = false;
        if let Some(proofs) = &proofs {
            changed = self.store_contents(seen, proofs)? | proofs.found_loss();
        } else if let Some(first) = unproven {
            // Whose it was is gone.
            self.store(header::LEFT_UNPROVEN, first + 1)?;
        }
        let mut present = self.data_blocks()?;
        match self.rehome(seen, &mut present, trusted)? {
            Rebuilt::Lacking => return Ok(Rebuilt::Lacking),
            rehomed => changed |= rehomed == Rebuilt::Changed,
        }
        self.derive_space(&present, base.end < seen.end)?;
        self.doubt_flushes()?;
        self.store(header::LOG_HEAD, base.start)?;
        self.store(header::CHECKPOINT_AFTER, 0)?;
        Ok(if changed {
            Rebuilt::Changed
        } else {
            Rebuilt::AsFound
        })
    }

    /// Looks for the last checkpoint that counts. Ranks whose directory is gone have none.
    pub(crate) fn find_checkpoint(&self) -> Result<Checkpoint> {
        let mut found = Checkpoint::default();
        let (mut last, mut frames, mut complete) = (0, 0, true);
        for (r, dir) in (0..).zip(&self.spec.ranks) {
            // Noted once: it may come back at any time.
            let gone = self.spec.excluded.contains(&r) || is_rank_gone(dir);
            self.store(rank_at(r) + rank::LEFT_OUT, u64::from(gone))?;
            complete &= !gone;
            if gone {
                continue;
            }
            for name in [META_FILE, META_NEW] {
                for_each_frame(&dir.join(name), |frame| {
                    frames += 1;
                    found.highest = found.highest.max(frame[1]);
                    if frame[3] == FRAME_END {
                        found.whole.insert(frame[1]);
                        if frame[1] > last {
                            last = frame[1];
                            found.end = frame.try_into().ok();
                            found.base = Base {
                                start: frame[5],
                                end: frame[6],
                                sum: frame[4] as u32,
                                frontier: frame[4] >> 32,
                                pages: 0,
                            };
                        }
                    }
                    Ok(())
                })?;
            }
        }
        found.complete = complete;
        found.base.pages = self.pages_accounted(frames, complete)?;
        Ok(found)
    }

    /// Whether nothing of a rank was there when the arena was built.
    pub(crate) fn is_left_out(&self, r: u16) -> Result<bool> {
        Ok(self.load(rank_at(r) + rank::LEFT_OUT)? != 0)
    }

    /// Whether one of a block's copies lies on a rank that had no data file then: nobody can store there.
    #[inline]
    pub fn is_copy_absent(&self, copies: &[BlockPtr]) -> Result<bool> {
        if self.load(header::ABSENT)? == 0 {
            return Ok(false);
        }
        for copy in copies.iter().filter(|copy| !copy.is_hole()) {
            if self.is_data_absent(copy.rank())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a rank had no data file then.
    pub(crate) fn is_data_absent(&self, r: u16) -> Result<bool> {
        Ok(self.load(rank_at(r) + rank::WAS_ABSENT)? != 0)
    }

    /// Below which number the pages of a pool are that has `frames`: a frame of a page far beyond is
    /// nothing that was ever written, and must not take all shared memory. What was on a rank that
    /// is gone (`complete` false) is not known.
    fn pages_accounted(&self, frames: u64, complete: bool) -> Result<u64> {
        if !complete {
            return Ok(at::PAGES_MAX);
        }
        let zones = self.load(header::POOL_BLOCKS)? / ZONE_BLOCKS
            + u64::from(self.rank_count()) * (ZONE_TABLES + 1);
        Ok(PAGES_UNSEEN + 2 * zones + PAGES_PER_FRAME * frames)
    }

    /// Loads the newest frames of whole checkpoints. If the machine was not off (`trusted`), they may not
    /// be on their devices yet: the log before them is not used again before they are.
    fn load_checkpoint(&self, found: &Checkpoint, trusted: bool) -> Result<()> {
        let (start, end) = (found.base.start, found.base.end);
        let span = end.checked_sub(start).ok_or(Errno::EIO)?;
        if span > self.load(header::LOG_BYTES)? || end > POSITION_MAX {
            return Err(Errno::EIO);
        }
        let whole = &found.whole;
        let mut newest: Vec<u64> = Vec::new();
        for (r, dir) in (0..).zip(&self.spec.ranks) {
            if self.is_left_out(r)? {
                continue;
            }
            let mut anew = false;
            for_each_frame(&dir.join(META_NEW), |frame| {
                anew |= frame[3] == FRAME_FULL && whole.contains(&frame[1]);
                Ok(())
            })?;
            let file = if anew {
                RankFile::MetaNew
            } else {
                RankFile::Meta
            };
            let mut ended = found.end.is_none();
            let end = for_each_frame(&dir.join(file.name()), |frame| {
                ended |= found.end.is_some_and(|end| end == frame);
                if !whole.contains(&frame[1]) || frame[3] >= FRAME_FULL {
                    return Ok(());
                }
                self.load_newest(&mut newest, frame, found.base.pages)
            })?;
            // A rank that cannot take it is as it was.
            let end = match found.end {
                Some(frame) if !ended => end_checkpoint(dir, file, end, &frame).unwrap_or(end),
                _ => end,
            };
            if trusted {
                // One that fails has lost them only if the power fails too.
                flush_frames(dir, file).unwrap_or_default();
            }
            self.store(rank_at(r) + rank::META_END, end)?;
            self.store(rank_at(r) + rank::META_UNNAMED, u64::from(anew))?;
        }
        if !found.complete {
            // Pages that a rank holds which is gone may be the last there were.
            let last = found.base.frontier.min(at::PAGES_MAX).saturating_sub(1);
            self.reach(last, at::PAGES_MAX)?;
        }
        let mut highest = found.highest;
        if !found.complete {
            // A rank that is gone may have frames of checkpoints of which nobody else knows, also of another recovery
            // without a rank. The later recovery counts, which the clock alone tells.
            let now = u64::try_from(self.now_ns()).unwrap_or(0);
            highest = match now > highest {
                true => now,
                // It was set back.
                false => highest.saturating_add(UNKNOWN_CHECKPOINTS),
            };
        }
        self.store(header::CHECKPOINT_SEQUENCE, highest)
    }

    /// Loads a page's frame unless a newer one was loaded before.
    fn load_newest(&self, newest: &mut Vec<u64>, frame: &[u64], pages: u64) -> Result<()> {
        let page = frame[3];
        if page == 0 || page >= pages.min(at::PAGES_MAX) {
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
        let content = frame.get(FRAME_HEAD..).ok_or(Errno::EIO)?;
        let content = unpacked(content).ok_or(Errno::EIO)?;
        self.reach(page, at::PAGES_MAX)?;
        self.store(descriptor_at(page as u32) + descriptor::STATE, frame[4])?;
        self.store_words(at::PAGES + page * PAGE, &content)
    }

    /// Backs the arena up to and including `page`, if that is among those that are accounted for.
    fn reach(&self, page: u64, pages: u64) -> Result<()> {
        if page >= pages.min(at::PAGES_MAX) {
            return Err(Errno::EIO);
        }
        let frontier = self.load(header::FRONTIER)?;
        if page >= frontier {
            self.grow_building(page + 1)?;
            self.store(header::FRONTIER, page + 1)?;
        }
        Ok(())
    }

    /// Backs the page that a replayed entry is in: changed after the checkpoint, it has to be in
    /// the next one.
    fn touch_replayed(&self, position: u64, off: u64, count: usize, pages: u64) -> Result<()> {
        let last = off + (count as u64).saturating_sub(1) * 8;
        let page = if last >= at::PAGES {
            (last - at::PAGES) / PAGE
        } else if off >= at::DESCRIPTORS {
            (last - at::DESCRIPTORS) / at::DESCRIPTOR_BYTES
        } else if (off, count) == (header::CONTAINERS, 1) {
            return Ok(());
        } else {
            // Everything else there belongs to the arena, not to the pool.
            return Err(Errno::EIO);
        };
        self.reach(page, pages)?;
        self.store(
            descriptor_at(page as u32) + descriptor::DIRTY,
            position.max(1),
        )
    }

    /// Lists of pages and of containers, which follow from the pages; `complete` if no rank is gone.
    fn derive_pages(&self, complete: bool) -> Result<()> {
        // Chained anew below.
        self.store(header::CONTAINERS, 0)?;
        let frontier = self.load(header::FRONTIER)? as u32;
        (1..frontier).try_for_each(|page| self.derive_page(page, complete))
    }

    /// What the maps need of each rank.
    pub(crate) fn needed(&self) -> Result<Vec<Needed>> {
        let mut needed = vec![Needed::default(); usize::from(self.rank_count())];
        for page in 1..self.load(header::FRONTIER)? as u32 {
            self.for_each_block(page, &mut |pointer| {
                let rank = needed.get_mut(usize::from(pointer.rank()));
                rank.ok_or(Errno::EIO)?.add(pointer)
            })?;
        }
        Ok(needed)
    }

    /// Space, which follows from the maps. What is free may belong to a state that a power
    /// failure leads to, if not all of the log is on its device (`unsynced`).
    fn derive_space(&self, present: &[Option<u64>], unsynced: bool) -> Result<()> {
        let frontier = self.load(header::FRONTIER)? as u32;
        for ((r, needed), present) in (0..).zip(self.needed()?).zip(present) {
            let mut there = present.unwrap_or(0);
            let blocks = (there / 64 * 64).max(needed.all.next_multiple_of(64));
            if present.is_some() && there < blocks && needed.written <= there {
                // The growth of the file was lost with the power; nothing is missing that was written.
                there = self
                    .extend_data(r, there, blocks)
                    .map_or(there, |()| blocks);
            }
            // Blocks that files have and the rank has not cannot be read, and must not be given
            // to another file should the rank's file grow again.
            self.add_zones(r, 0, blocks)?;
            self.claim_blocks(r, there, blocks.saturating_sub(there))?;
        }
        for page in 1..frontier {
            self.for_each_block(page, &mut |pointer| {
                self.claim_blocks(pointer.rank(), pointer.block(), 1)
            })?;
        }
        for r in 0..self.rank_count() {
            self.recount(r)?;
            if unsynced {
                self.hold_free_blocks(r)?;
            }
            self.store(rank_at(r) + rank::HINT, 0)?;
            // What was in use before may hold anything: only what is added is known to be zeros.
            let blocks = self.load(rank_at(r) + rank::BLOCKS)?;
            self.store(rank_at(r) + rank::FRESH_FROM, blocks)?;
        }
        Ok(())
    }

    /// Ranks that are gone and were not excluded.
    pub(crate) fn ranks_missed(&self) -> Result<Vec<u16>> {
        let mut missed = Vec::new();
        for r in 0..self.rank_count() {
            if self.is_left_out(r)? && !self.spec.excluded.contains(&r) {
                missed.push(r);
            }
        }
        Ok(missed)
    }

    /// Whether there may be pages all copies of which lie on ranks that are gone, at least one of which
    /// nobody has given up.
    fn may_lack_pages(&self) -> Result<bool> {
        let missed = self.ranks_missed()?.len();
        if missed == 0 {
            return Ok(false);
        }
        let gone = (missed + self.spec.excluded.len()) as u32;
        let frontier = self.load(header::FRONTIER)? as u32;
        for page in 1..frontier {
            let state = self.page_state(page)?;
            let few = state.kind != kind::FREE && (1..=gone).contains(&state.replicas.into());
            let base = descriptor_at(page);
            // The log knows it and no frame.
            let unknown = self.load(base + descriptor::STATE)? == 0
                && self.load(base + descriptor::DIRTY)? != 0;
            if few || unknown {
                return Ok(true);
            }
        }
        // What is in a container has as many copies as its class says.
        let containers = self.containers().map_err(|error| error.errno())?;
        let classes = containers.iter().map(|info| info.dir_class);
        let tolerance = classes
            .map(|class| ObjectClass::from_id(class).map_or(0, ObjectClass::fault_tolerance));
        Ok(tolerance.min().is_some_and(|least| least < gone))
    }

    /// Blocks of each rank's data file; `None` for a rank that has none, which is noted.
    fn data_blocks(&self) -> Result<Vec<Option<u64>>> {
        let mut found = Vec::new();
        for r in 0..self.rank_count() {
            if self.is_left_out(r)? {
                found.push(None);
                continue;
            }
            found.push(match rustix::fs::stat(self.data_path(r)?).map_err(errno) {
                Ok(stat) => {
                    let size = stat.st_size as u64;
                    if !size.is_multiple_of(BLOCK) {
                        // Somebody has cut it. The rest of its last page would be read as zeros.
                        let (file, dir) = (self.open_data(r)?, self.rank_dir(r)?);
                        door::resize(&file, dir, RankFile::Data, size / BLOCK * BLOCK)?;
                    }
                    Some((size / BLOCK).min(RANK_BLOCKS_MAX))
                }
                Err(gone) if is_absent(gone) => None,
                Err(other) => return Err(other),
            });
        }
        for (r, found) in (0..).zip(&found) {
            self.store(rank_at(r) + rank::WAS_ABSENT, u64::from(found.is_none()))?;
        }
        let absent = found.iter().filter(|found| found.is_none()).count();
        self.store(header::ABSENT, absent as u64)?;
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
        if u64::from(state.target) >= self.target_count()
            || usize::from(state.replicas) > PAGE_REPLICAS_MAX
        {
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

    /// Calls `each` with every pointer to a block in a page's maps.
    pub(crate) fn for_each_block(
        &self,
        page: u32,
        each: &mut impl FnMut(BlockPtr) -> Result<()>,
    ) -> Result<()> {
        self.for_each_pointer(page, &mut |_, pointer| each(pointer))
    }

    /// The same with the place of each pointer.
    pub(crate) fn for_each_pointer(
        &self,
        page: u32,
        each: &mut impl FnMut(u64, BlockPtr) -> Result<()>,
    ) -> Result<()> {
        let state = self.page_state(page)?;
        let content = PageLink::new(page, 0, 0).offset();
        let mut pointers = |from: u64, count: u64| {
            for i in 0..count {
                let pointer = BlockPtr(self.load(from + i * 8)?);
                if !pointer.is_hole() {
                    each(from + i * 8, pointer)?;
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

/// Applying the log to what the checkpoint has left.
struct Replay<'a> {
    pool: &'a Pool,
    base: &'a Base,
    /// After a power failure.
    proofs: Option<Proofs>,
    /// Position before which all data is on the devices.
    certain: u64,
    /// Where the first data was published of which that is not known.
    unproven: Option<u64>,
}

impl Replay<'_> {
    /// Applies what the log holds, which is whole up to `end`; a torn tail is cut.
    fn run(&mut self, end: u64) -> Result<()> {
        let (pool, base) = (self.pool, self.base);
        let (end, sum) = pool.each_record(base.start, base.sum, end, |found| {
            match found.kind == RecordKind::Change as u8 {
                true => self.record(&found),
                false => Ok(()),
            }
        })?;
        if end < base.end {
            // The checkpoint was finished only after the log had been flushed as far as that.
            return Err(Errno::EIO);
        }
        // What follows must not find the log full: a checkpoint would say that the data is there.
        pool.store(header::LOG_HEAD, end)?;
        pool.store(header::LOG_SYNCED, base.end)?;
        pool.store(header::DATA_SYNCED, base.end)?;
        pool.set_log_end(end, sum)
    }

    fn record(&mut self, found: &Found<'_>) -> Result<()> {
        let record = found.words;
        let log = found.position - self.base.start + record.len() as u64 * 8;
        let pages = self.base.pages + log / LOG_BYTES_PER_PAGE;
        let mut i = RECORD_HEADER;
        while i < record.len() {
            let (off, count, flags) = entry_parts(record[i]);
            i += 1;
            let listed = if flags & ENTRY_ZERO != 0 { 0 } else { count };
            let words = record.get(i..i + listed).ok_or(Errno::EIO)?;
            i += listed;
            if flags & ENTRY_DURABLE == 0 {
                continue;
            }
            self.pool
                .touch_replayed(found.position, off, count, pages)?;
            if flags & ENTRY_ZERO != 0 {
                for w in 0..count as u64 {
                    self.pool.store(off + w * 8, 0)?;
                }
            } else if flags & (ENTRY_DATA | ENTRY_MOVED) != 0 {
                self.pointers(found.position, off, flags, words)?;
            } else {
                self.pool.store_words(off, words)?;
            }
        }
        Ok(())
    }

    /// Stores pointers to blocks, as far as they count.
    fn pointers(&mut self, position: u64, off: u64, flags: u64, words: &[u64]) -> Result<()> {
        let Some(proofs) = &mut self.proofs else {
            if position >= self.certain && flags & ENTRY_DATA != 0 {
                self.unproven.get_or_insert(position);
            }
            return self.pool.store_words(off, words);
        };
        let mut words = words.to_vec();
        if flags & ENTRY_MOVED != 0 {
            proofs.moved(&mut words);
        } else {
            let stride = stride(flags);
            let mut old = vec![0u64; words.len()];
            self.pool.words(off, &mut old)?;
            for (old, new) in old.chunks(stride).zip(words.chunks_mut(stride)) {
                proofs.choose(position, old, new);
            }
        }
        self.pool.store_words(off, &words)
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

/// Brings a rank's frames to its device, and the names of its files, of which a checkpoint may have made
/// some that it had not flushed yet.
fn flush_frames(dir: &Path, file: RankFile) -> Result<()> {
    match door::open(dir, file) {
        Err(gone) if is_absent(gone) => {}
        other => door::flush(&other?, dir, file)?,
    }
    door::flush_names(dir)
}

/// Writes the end frame of the last checkpoint to a rank that it had not reached, behind `at`: what
/// is built on the checkpoint must not depend on the few ranks that have its end. Returns where the
/// frames end now.
fn end_checkpoint(dir: &Path, file: RankFile, at: u64, frame: &[u64; FRAME_HEAD]) -> Result<u64> {
    let fd = door::open(dir, file)?;
    if rustix::fs::fstat(&fd).map_err(errno)?.st_size as u64 > at {
        // Half a frame, behind which nothing counts.
        door::resize(&fd, dir, file, at)?;
    }
    let bytes = as_bytes(frame);
    door::write(&fd, dir, file, bytes, at)?;
    door::flush(&fd, dir, file)?;
    Ok(at + bytes.len() as u64)
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

#[cfg(all(test, feature = "testing"))]
mod tests;
