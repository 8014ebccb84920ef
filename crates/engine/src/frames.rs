//! Frames: pages as the rank files hold them, appended by checkpoints.

use crate::door::{self, RankFile};
use crate::layout::{
    PASSED_OVER, PageState, VERSION_PACKED, descriptor, descriptor_at, header, kind, rank, rank_at,
};
use crate::limits::{PAGE, PAGE_REPLICAS_MAX, at};
use crate::log::{as_bytes, checksum};
use crate::media::{errno, is_absent};
use crate::pool::Pool;
use core::num::NonZeroU64;
use rustix::fd::OwnedFd;
use rustix::fs::{Advice, OFlags};
use shm::crash_point;
use std::path::Path;
use sys::{Errno, Result};

/// `DAOSFRM1`.
pub(crate) const FRAME_MAGIC: u64 = u64::from_le_bytes(*b"DAOSFRM1");
/// Words of a frame's head: magic, sequence, checksum, page or kind, state, start, end, length.
pub(crate) const FRAME_HEAD: usize = 8;
/// In the page word: this frame ends a checkpoint.
pub(crate) const FRAME_END: u64 = u64::MAX;
/// In the page word: this frame starts a file that needs no earlier frames.
pub(crate) const FRAME_FULL: u64 = u64::MAX - 1;
/// Words of a page.
const PAGE_WORDS: usize = (PAGE / 8) as usize;
/// Words that say which of a page's words follow: bits, from the lowest of the first on.
const MAP_WORDS: usize = PAGE_WORDS / 64;
/// Words of a page's frame at most.
const FRAME_WORDS: usize = FRAME_HEAD + PAGE_WORDS;
/// The same in bytes.
pub(crate) const FRAME_BYTES: u64 = FRAME_WORDS as u64 * 8;
/// Bytes of the frame that ends a checkpoint.
const END_BYTES: u64 = FRAME_HEAD as u64 * 8;
/// A rank's frames are rewritten once they exceed this and four times what is live.
const REWRITE_BYTES: u64 = 32 << 20;
/// Pages copied in one piece, and pages looked at: a fraction of a millisecond's work.
pub(crate) const PAGES_AT_ONCE: u64 = 32;
const LOOKS_AT_ONCE: u64 = 8192;

/// Bytes of a rank's frames that the kernel is told to write out at a time.
const WRITE_OUT: u64 = 512 << 10;
/// Ranks made ready in one piece, and ranks whose frames are written out.
const READY_AT_ONCE: u64 = 4;
const RANKS_AT_ONCE: u64 = 1;

/// Name of a rank's frame file.
pub(crate) const META_FILE: &str = RankFile::Meta.name();
/// The same while it is written anew. It counts in place of the old one as soon as its checkpoint
/// does, renamed or not.
pub(crate) const META_NEW: &str = RankFile::MetaNew.name();

/// Fills in a frame's checksum.
fn seal(frame: &mut [u64]) {
    frame[2] = u64::from(checksum(frame));
}

/// Puts a page's content into a frame without the words that are zero, if that is shorter; returns how
/// many words it takes. Most of a page of inodes is zeros.
fn pack(page: &[u64; PAGE_WORDS], to: &mut [u64; PAGE_WORDS]) -> usize {
    let zeros = page.iter().filter(|word| **word == 0).count();
    if zeros <= MAP_WORDS {
        to.copy_from_slice(page);
        return PAGE_WORDS;
    }
    let mut len = MAP_WORDS;
    for (part, words) in page.chunks(64).enumerate() {
        let mut map = 0u64;
        for (i, word) in words.iter().enumerate() {
            // Overwritten by the next if it is zero.
            to[len] = *word;
            len += usize::from(*word != 0);
            map |= u64::from(*word != 0) << i;
        }
        to[part] = map;
    }
    len
}

/// The content of the page whose frame holds `content`; `None` if that is no page's.
pub(crate) fn unpacked(content: &[u64]) -> Option<[u64; PAGE_WORDS]> {
    if let Ok(page) = content.try_into() {
        return Some(page);
    }
    let (map, words) = content.split_at_checked(MAP_WORDS)?;
    let mut words = words.iter();
    let mut page = [0u64; PAGE_WORDS];
    for (i, slot) in page.iter_mut().enumerate() {
        if map[i / 64] >> (i % 64) & 1 != 0 {
            *slot = *words.next()?;
        }
    }
    words.next().is_none().then_some(page)
}

impl Pool {
    /// Makes the frame files of some ranks ready; true once all are.
    pub(crate) fn ready_ranks(&self) -> Result<bool> {
        let sequence = self.load(header::CHECKPOINT_SEQUENCE)?;
        let frontier = self.load(header::CHECKPOINT_FRONTIER)?;
        let from = self.load(header::CHECKPOINT_RANK)?;
        let to = (from + READY_AT_ONCE).min(self.rank_count().into());
        for r in from as u16..to as u16 {
            self.ready_frames(r, sequence, frontier)?;
        }
        self.store(header::CHECKPOINT_RANK, to)?;
        if to < self.rank_count().into() {
            return Ok(false);
        }
        for r in 0..self.rank_count() {
            if self.frame_file(r)?.is_some() {
                return Ok(true);
            }
        }
        // Nothing would hold what the log must not lose.
        Err(Errno::ENOENT)
    }

    /// Makes a rank's frame file ready for a checkpoint's frames, behind the last whole one, or in
    /// a file written anew if the old one has outgrown what is live or there is no space for it.
    fn ready_frames(&self, r: u16, sequence: u64, frontier: u64) -> Result<()> {
        let base = rank_at(r);
        self.store(base + rank::LOG_STORED, 0)?;
        self.store(base + rank::META_ANEW, 0)?;
        if self.is_left_out(r)? {
            return self.store(base + rank::META_AT, PASSED_OVER);
        }
        let dir = self.rank_dir(r)?;
        let mut fd = match door::create(dir, RankFile::Meta, OFlags::empty()) {
            Err(e) if is_absent(e) => return self.store(base + rank::META_AT, PASSED_OVER),
            other => other?,
        };
        if self.load(base + rank::META_UNNAMED)? != 0 {
            match door::rename(dir, RankFile::MetaNew, RankFile::Meta) {
                Err(e) if !is_absent(e) => return Err(e),
                _ => self.store(base + rank::META_UNNAMED, 0)?,
            }
            fd = door::open(dir, RankFile::Meta)?;
        }
        let size = rustix::fs::fstat(&fd).map_err(errno)?.st_size as u64;
        // Only what counts: the rest of a checkpoint that was cut short would hide what follows it.
        let end = self.load(base + rank::META_END)?.min(size);
        let outgrown = end > REWRITE_BYTES && end > 4 * frontier * FRAME_BYTES;
        if outgrown || self.is_frame_space_short(r, end)? {
            let fd = door::create(dir, RankFile::MetaNew, OFlags::TRUNC)?;
            let mut full = [FRAME_MAGIC, sequence, 0, FRAME_FULL, 0, 0, 0, 0];
            seal(&mut full);
            door::write(&fd, dir, RankFile::MetaNew, as_bytes(&full), 0)?;
            self.store(base + rank::META_ANEW, 1)?;
            self.store(base + rank::META_OUT, 0)?;
            return self.store(base + rank::META_AT, size_of_val(&full) as u64);
        }
        if end < size {
            door::resize(&fd, dir, RankFile::Meta, end)?;
        }
        // The kernel may have let go the page that is gone on in: read by the time it is needed.
        let last = end / PAGE * PAGE;
        let read = rustix::fs::fadvise(&fd, last, NonZeroU64::new(PAGE), Advice::WillNeed);
        read.unwrap_or_default();
        for word in [rank::META_END, rank::META_OUT, rank::META_AT] {
            self.store(base + word, end)?;
        }
        Ok(())
    }

    /// The file that takes a rank's frames in the checkpoint in progress, and where in it the next
    /// one goes; `None` if the rank is gone.
    pub(crate) fn frame_file(&self, r: u16) -> Result<Option<(RankFile, u64)>> {
        let (place, anew) = (rank_at(r) + rank::META_AT, rank_at(r) + rank::META_ANEW);
        let at = self.load(place)?;
        let file = match self.load(anew)? {
            0 => RankFile::Meta,
            _ => RankFile::MetaNew,
        };
        Ok((at != PASSED_OVER).then_some((file, at)))
    }

    /// Whether the frame file of a rank may have a name that is not on the device.
    pub(crate) fn is_frame_name_new(&self, r: u16) -> Result<bool> {
        let (anew, end) = (rank_at(r) + rank::META_ANEW, rank_at(r) + rank::META_END);
        Ok(self.load(anew)? != 0 || self.load(end)? == 0)
    }

    /// Copies pages that have changed since the last checkpoint to the ranks that hold them, from
    /// where it was left; true at the end.
    pub(crate) fn copy_pages(&self) -> Result<bool> {
        let sequence = self.load(header::CHECKPOINT_SEQUENCE)?;
        let frontier = self.load(header::CHECKPOINT_FRONTIER)?;
        let covered = self.load(header::LOG_HEAD)?;
        let mut page = self.load(header::CHECKPOINT_PAGE)?;
        let mut files = Vec::with_capacity(self.rank_count().into());
        for r in 0..self.rank_count() {
            files.push(self.frame_file(r)?);
        }
        let rewriting = (files.iter().flatten()).any(|(file, _)| *file == RankFile::MetaNew);
        let end = frontier.min(page + LOOKS_AT_ONCE);
        let room = PAGES_AT_ONCE as usize;
        // Kept, for a fresh one costs as much as the copying. A child forked meanwhile has its own.
        let mut kept = self.scratch.try_lock();
        let mut own = Vec::new();
        let words = match &mut kept {
            Ok(kept) => &mut **kept,
            Err(_) => &mut own,
        };
        words.resize(2 * room * FRAME_WORDS, 0);
        let (frames, batch) = words.split_at_mut(room * FRAME_WORDS);
        let mut places = Vec::with_capacity(room);
        let mut filled = 0;
        while page < end && places.len() < room {
            let note = self.load(descriptor_at(page as u32) + descriptor::DIRTY)?;
            let changed = note != 0 && note >= covered;
            if changed || rewriting {
                let frame = &mut frames[filled..][..FRAME_WORDS];
                let (first, copies, len) = self.frame_of(page as u32, sequence, frame)?;
                let split = usize::from(first).min(files.len());
                let (before, from) = files.split_at(split);
                // A rank that is gone is replaced by the next: frames are looked for on all of them.
                let ranks = (split..files.len()).chain(0..split);
                let present = ranks.zip(from.iter().chain(before));
                let mut place = [usize::MAX; PAGE_REPLICAS_MAX];
                // Also to those whose files go on: the newest frame may lie in a file that is given up, on
                // a rank that took it in another's place or for another use of the page, and they have an older
                // one or none.
                let takers = present.filter(|(_, file)| file.is_some());
                for (slot, (r, _)) in place.iter_mut().zip(takers.take(copies.into())) {
                    *slot = r;
                }
                places.push((filled..filled + len, place));
                filled += len;
            }
            page += 1;
        }
        for (r, file) in (0u16..).zip(files) {
            let Some((file, at)) = file else { continue };
            let mut len = 0;
            for (frame, place) in &places {
                if place.contains(&r.into()) {
                    batch[len..][..frame.len()].copy_from_slice(&frames[frame.clone()]);
                    len += frame.len();
                }
            }
            if len > 0 {
                let (dir, bytes) = (self.rank_dir(r)?, as_bytes(&batch[..len]));
                let (opened, end) = (door::open(dir, file)?, at + bytes.len() as u64);
                door::write(&opened, dir, file, bytes, at)?;
                self.store(rank_at(r) + rank::META_AT, end)?;
                if end >= self.load(rank_at(r) + rank::META_OUT)? + WRITE_OUT {
                    self.write_rank_out(&opened, r, end)?;
                }
            }
        }
        crash_point!("checkpoint.copying");
        self.store(header::CHECKPOINT_PAGE, page)?;
        Ok(page >= frontier)
    }

    /// Makes the frame of a page; the rank on which its copies start, how many there are, and the
    /// words of the frame.
    fn frame_of(&self, page: u32, sequence: u64, frame: &mut [u64]) -> Result<(u16, u16, usize)> {
        let word = self.load(descriptor_at(page) + descriptor::STATE)?;
        let mut state = PageState::unpack(word);
        if state.replicas == 0 && word != 0 {
            // Volatile now and maybe on disk once: what is on disk must not come back.
            state = PageState {
                kind: kind::FREE,
                replicas: PAGE_REPLICAS_MAX as u8,
                ..state
            };
        }
        let mut words = [0u64; PAGE_WORDS];
        self.words(at::PAGES + u64::from(page) * PAGE, &mut words)?;
        let (head, content) = frame.split_at_mut(FRAME_HEAD);
        let content: &mut [u64; PAGE_WORDS] = content.try_into().map_err(|_| Errno::EIO)?;
        let len = match self.load(header::FORMAT)? {
            VERSION_PACKED.. => pack(&words, content),
            _ => {
                *content = words;
                PAGE_WORDS
            }
        };
        let (page, length) = (page.into(), len as u64);
        head.copy_from_slice(&[FRAME_MAGIC, sequence, 0, page, state.pack(), 0, 0, length]);
        seal(&mut frame[..FRAME_HEAD + len]);
        let first = self.first_rank(state);
        Ok((first, state.replicas.into(), FRAME_HEAD + len))
    }

    /// The rank on which the copies of a page start.
    fn first_rank(&self, state: PageState) -> u16 {
        state.target / (self.spec.targets_per_rank as u16).max(1) % self.rank_count()
    }

    /// Makes a checkpoint that has all pages of which the rank `gone`, which is gone, has copies: others
    /// take them.
    pub(crate) fn write_elsewhere(&self, gone: u16) -> Result<()> {
        let ranks = self.rank_count();
        self.touch_pages(|state| {
            (gone + ranks - self.first_rank(state)) % ranks < state.replicas.into()
        })?;
        self.checkpoint()
    }

    /// Has the next checkpoint copy pages whether or not they have changed.
    pub(crate) fn touch_pages(&self, which: impl Fn(PageState) -> bool) -> Result<()> {
        let now = self.load(header::LOG_TAIL)?.max(1);
        for page in 1..self.load(header::FRONTIER)? as u32 {
            if which(self.page_state(page)?) {
                self.store(descriptor_at(page) + descriptor::DIRTY, now)?;
            }
        }
        Ok(())
    }

    /// Tells the kernel to write out what it was not yet told of a rank's frames, up to `end`. It
    /// keeps whoever tells it of too much at once waiting for the device.
    fn write_rank_out(&self, file: &OwnedFd, r: u16, end: u64) -> Result<()> {
        let from = self.load(rank_at(r) + rank::META_OUT)?;
        if end > from {
            self.write_out(file, from, end - from)?;
        }
        self.store(rank_at(r) + rank::META_OUT, end)
    }

    /// The same for the rest of a few ranks; true once all are done.
    pub(crate) fn write_frames_out(&self) -> Result<bool> {
        let from = self.load(header::CHECKPOINT_RANK)?;
        let to = (from + RANKS_AT_ONCE).min(self.rank_count().into());
        for r in from as u16..to as u16 {
            // Where it cannot be opened, the flush will tell.
            if let Some((file, at)) = self.frame_file(r)?
                && let Ok(opened) = door::open(self.rank_dir(r)?, file)
            {
                self.write_rank_out(&opened, r, at)?;
                // Whether there is space for the end has to be known while the checkpoint can be given up.
                // Zeros are no frame. Not every file system knows how to do this.
                let room = door::allocate(&opened, self.rank_dir(r)?, file, at, END_BYTES);
                if let Err(full) = room
                    && full.is_full()
                {
                    return Err(full);
                }
            }
        }
        self.store(header::CHECKPOINT_RANK, to)?;
        Ok(to >= self.rank_count().into())
    }

    /// Writes the frames that end the checkpoint. May be done again. A rank that is gone by now does
    /// without, as long as there is another.
    pub(crate) fn put_ends(&self) -> Result<()> {
        let mut end = [
            FRAME_MAGIC,
            self.load(header::CHECKPOINT_SEQUENCE)?,
            0,
            FRAME_END,
            self.load(header::CHECKPOINT_SUM)? | self.load(header::CHECKPOINT_FRONTIER)? << 32,
            self.load(header::CHECKPOINT_START)?,
            self.load(header::CHECKPOINT_END)?,
            0,
        ];
        seal(&mut end);
        let mut gone = None;
        let mut put = 0;
        for r in 0..self.rank_count() {
            let Some((file, at)) = self.frame_file(r)? else {
                continue;
            };
            let dir: &Path = self.rank_dir(r)?;
            match door::open(dir, file) {
                Err(error) if is_absent(error) => gone = Some(error),
                opened => {
                    door::write(&opened?, dir, file, as_bytes(&end), at)?;
                    put += 1;
                }
            }
        }
        match (put, gone) {
            (0, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes where the next checkpoint goes on, and gives files that were written anew their name.
    /// May be done again.
    pub(crate) fn adopt_frames(&self) -> Result<()> {
        for r in 0..self.rank_count() {
            let Some((file, at)) = self.frame_file(r)? else {
                continue;
            };
            if file == RankFile::MetaNew {
                match door::rename(self.rank_dir(r)?, file, RankFile::Meta) {
                    // It has it, or the rank is gone and gets it when it is back.
                    Err(e) if is_absent(e) => self.store(rank_at(r) + rank::META_UNNAMED, 1)?,
                    other => other?,
                }
            }
            let end = match self.is_end_flushed(r)? {
                true => at + END_BYTES,
                false => at,
            };
            self.store(rank_at(r) + rank::META_END, end)?;
            self.store(rank_at(r) + rank::META_ANEW, 0)?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "testing"))]
mod anew {
    use super::*;
    use crate::layout::PageLink;
    use crate::pool::LockId;
    use crate::testing::image::Image;

    /// The page `wanted`, free now, in another use.
    fn used_again(temp: &Image, wanted: PageLink, target: u16, replicas: u8) -> PageLink {
        let mut found = (0..1000).map(|_| temp.page(target, replicas));
        let again = found.find(|page| page.page() == wanted.page());
        again.expect("the page is free")
    }

    fn free(pool: &Pool, page: PageLink, target: u16) {
        let mut tx = pool.tx(&[LockId::Target(target)]).expect("tx");
        tx.free_page(page).expect("free");
        tx.commit().expect("commit");
        // The page is nobody's once the thread has left.
        pool.leave().expect("leave");
    }

    #[test]
    fn what_a_rank_held_for_another_that_was_away_goes_back_to_it() {
        let temp = Image::new(3);
        let page = temp.page(4, 1);
        temp.put(page, 4, 1);
        temp.pool.checkpoint().expect("checkpoint");
        temp.take_away(1);
        temp.put(page, 4, 2);
        temp.pool.checkpoint().expect("without the rank");
        temp.bring_back(1);
        temp.outgrow(2);
        temp.pool.checkpoint().expect("anew");
        temp.with_copy(|pool| assert_eq!(pool.load(page.offset()), Ok(2)));
    }

    #[test]
    fn a_page_that_is_volatile_now_does_not_come_back_as_it_was_long_ago() {
        let temp = Image::new(7);
        let pool = temp.pool;
        // On rank 5, then on rank 6, then volatile, for which ranks 0 to 4 would stand.
        let first = temp.page(20, 1);
        pool.checkpoint().expect("checkpoint");
        free(pool, first, 20);
        let second = used_again(&temp, first, 24, 1);
        pool.checkpoint().expect("checkpoint");
        free(pool, second, 24);
        pool.checkpoint().expect("free");
        let third = used_again(&temp, second, 0, 0);
        temp.outgrow(6);
        pool.checkpoint().expect("anew");
        temp.with_copy(|pool| {
            let state = pool.page_state(third.page()).expect("state");
            assert_eq!(state.kind, kind::FREE, "{state:?}");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_comes_back_out_of_its_frame(
            ones in proptest::collection::vec((0..PAGE_WORDS, any::<u64>()), 0..2 * PAGE_WORDS)
        ) {
            let mut page = [0; PAGE_WORDS];
            for (at, word) in ones {
                page[at] = word;
            }
            let mut content = [7; PAGE_WORDS];
            let len = pack(&page, &mut content);
            prop_assert_eq!(unpacked(&content[..len]), Some(page));
        }

        #[test]
        fn what_is_no_page_is_refused(content in proptest::collection::vec(any::<u64>(), 0..40)) {
            let ones: u32 = content.iter().take(MAP_WORDS).map(|word| word.count_ones()).sum();
            let fits = content.len() == MAP_WORDS + ones as usize;
            prop_assert_eq!(unpacked(&content).is_some(), fits && content.len() >= MAP_WORDS);
        }
    }

    #[test]
    fn full_pages_and_empty_ones() {
        let mut content = [7; PAGE_WORDS];
        for (zeros, len) in [(0, 512), (8, 512), (9, 511), (512, 8)] {
            let mut page = [5; PAGE_WORDS];
            page[..zeros].fill(0);
            assert_eq!(pack(&page, &mut content), len);
            assert_eq!(unpacked(&content[..len]), Some(page));
        }
    }
}
