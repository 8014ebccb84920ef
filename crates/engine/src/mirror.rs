//! Copies of the log on further ranks, as many as may be lost: a sync brings them up to date.
//!
//! A copy holds what was synced; only the log itself is written by everybody all the time. Opening
//! a pool goes by the log, of whatever rank, that goes on furthest.

use crate::checkpoint::is_own;
use crate::containers::ContainerInfo;
use crate::door::{self, RankFile};
use crate::layout::{PASSED_OVER, header, rank, rank_at};
use crate::limits::PAGE;
use crate::log::LOG_FILE_HEADER;
use crate::media::{errno, is_absent};
use crate::pool::{LockId, Pool};
use crate::rebuild::Base;
use crate::recover::Seen;
use core::sync::atomic::Ordering;
use daos_types::ObjectClass;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use shm::Segment;
use std::path::Path;
use sys::{Errno, Result, uaccess};

/// Most places of the log.
const PLACES_MAX: u64 = 8;
/// Bytes made ready in a copy ahead of what is written.
const AHEAD: u64 = 4 << 20;
/// Bytes of the log between records whose positions are kept while it is looked through.
const MARKED: u64 = 64 << 10;
/// Bytes copied at a time for a checkpoint.
pub(crate) const MIRROR_PIECE: u64 = 256 << 10;
/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;

/// Whether what is written out to `copy` is safe once `log` is flushed: both lie on one device, and
/// their file system overwrites where the data lies.
fn share_flush(log: &OwnedFd, copy: &OwnedFd) -> bool {
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    let device = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| stat.st_dev);
    let in_place = |file: &OwnedFd| {
        rustix::fs::fstatfs(file).is_ok_and(|stat| matches!(stat.f_type as u64, EXT4 | XFS))
    };
    matches!((device(log), device(copy)), (Ok(one), Ok(other)) if one == other)
        && in_place(log)
        && in_place(copy)
}

impl Pool {
    /// The rank whose log everybody writes.
    pub(crate) fn log_rank(&self) -> Result<u16> {
        let rank = self.load(header::LOG_RANK)?;
        if rank < u64::from(self.rank_count()) {
            Ok(rank as u16)
        } else {
            Err(Errno::EIO)
        }
    }

    /// The other ranks that may take copies of the log, in that order.
    pub(crate) fn ranks_for_copies(&self) -> Result<impl Iterator<Item = u16> + use<>> {
        let (home, ranks) = (self.log_rank()?, self.rank_count());
        let mut found = Vec::new();
        for other in (1..ranks).map(|step| (home + step) % ranks) {
            if !self.is_left_out(other)? {
                found.push(other);
            }
        }
        Ok(found.into_iter())
    }

    /// Makes the log lie on as many ranks as a container's classes demand.
    pub(crate) fn protect_log(&self, info: &ContainerInfo) -> Result<()> {
        let tolerance = [info.file_class, info.dir_class]
            .into_iter()
            .filter_map(ObjectClass::from_id)
            .map(ObjectClass::fault_tolerance)
            .max();
        let places = u64::from(tolerance.unwrap_or(0) + 1).min(PLACES_MAX);
        self.word(header::LOG_PLACES)?
            .fetch_max(places, Ordering::AcqRel);
        Ok(())
    }

    /// Brings the log up to `tail` to the devices, in all its places; returns what
    /// [`Pool::log_settled`] takes. `Sync` is locked.
    pub(crate) fn flush_log_places(&self, tail: u64) -> Result<u64> {
        let home = self.log_rank()?;
        let dir = self.rank_dir(home)?;
        let log = match door::open(dir, RankFile::Log) {
            Err(gone) if is_absent(gone) => None,
            other => Some(other?),
        };
        let doubt = self.settle_log_doubt(log.as_ref(), tail)?;
        let copies = self.load(header::LOG_PLACES)?.max(1) - 1;
        let mut stored = Vec::new();
        for other in self.ranks_for_copies()? {
            if stored.len() as u64 >= copies {
                break;
            }
            // A rank that cannot take a copy is passed over.
            if let Ok((file, filled)) = self.store_copy(other, tail) {
                stored.push((other, file, filled));
            }
        }
        // All at once: a sync takes as long as one write to the device, not as many as there are places.
        let copies = stored.iter().map(|(_, file, _)| file);
        copies.chain(&log).for_each(door::begin_flush);
        let mut safe = 0;
        for (other, file, filled) in stored {
            let copied = self.word(rank_at(other) + rank::LOG_COPIED)?;
            let dir = self.rank_dir(other)?;
            let flushed = match &log {
                Some(log) if filled.is_none() && share_flush(log, &file) => {
                    door::write_out(&file, dir, RankFile::Log)
                }
                _ => door::flush(&file, dir, RankFile::Log),
            };
            match flushed {
                Ok(()) => {
                    safe += 1;
                    if let Some(filled) = filled {
                        self.store(rank_at(other) + rank::LOG_FILLED, filled)?;
                    }
                    copied.store(tail, Ordering::Release);
                }
                // Made anew next time. Of what a checkpoint has written there nobody else is told.
                Err(_) => {
                    copied.store(0, Ordering::Release);
                    let stored = self.word(rank_at(other) + rank::LOG_STORED)?;
                    if stored.load(Ordering::Acquire) != 0 {
                        stored.store(PASSED_OVER, Ordering::Release);
                    }
                }
            }
        }
        // Last: this also brings to rest what was only written out.
        match log {
            Some(log) => door::flush(&log, dir, RankFile::Log),
            None if safe == 0 => Err(Errno::EIO),
            None => Ok(()),
        }
        .map(|()| doubt)
    }

    /// Writes some of what the copies lack of the log from `from`, or from where they were last safe,
    /// to `end`; true once there is no more. A rank that cannot take a copy is passed over.
    pub(crate) fn mirror_piece(&self, from: u64, end: u64) -> Result<bool> {
        let mut copies = self.load(header::LOG_PLACES)?.max(1) - 1;
        for other in self.ranks_for_copies()? {
            let stored = self.load(rank_at(other) + rank::LOG_STORED)?;
            if copies == 0 {
                break;
            }
            if stored == PASSED_OVER {
                continue;
            }
            if stored < end {
                self.store_piece(other, from, end)?;
                return Ok(false);
            }
            copies -= 1;
        }
        Ok(true)
    }

    /// Pieces that [`Pool::mirror_piece`] has still to write for the checkpoint in progress, about.
    pub(crate) fn mirror_pieces(&self) -> Result<u64> {
        let start = self.load(header::CHECKPOINT_START)?;
        let end = self.load(header::CHECKPOINT_END)?;
        let mut copies = self.load(header::LOG_PLACES)?.max(1) - 1;
        let mut bytes = 0;
        for other in self.ranks_for_copies()? {
            let stored = self.load(rank_at(other) + rank::LOG_STORED)?;
            if copies > 0 && stored != PASSED_OVER {
                bytes += end.saturating_sub(stored.max(start));
                copies -= 1;
            }
        }
        Ok(bytes / MIRROR_PIECE)
    }

    /// Writes a piece for the checkpoint in progress, and notes where the next one begins.
    fn store_piece(&self, other: u16, from: u64, end: u64) -> Result<()> {
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Sync)?;
        let stored = match self.store_piece_locked(other, from, end) {
            // Others can do it.
            Err(error) if is_own(error) => Err(error),
            next => self.store(
                rank_at(other) + rank::LOG_STORED,
                next.unwrap_or(PASSED_OVER),
            ),
        };
        self.release(block, me, LockId::Sync);
        stored
    }

    /// Does so; returns where the next one begins.
    fn store_piece_locked(&self, other: u16, from: u64, end: u64) -> Result<u64> {
        self.settle_rest()?;
        let word = |at| self.load(rank_at(other) + at);
        let ring = self.load(header::LOG_BYTES)?;
        let mut at = word(rank::LOG_STORED)?;
        let file = match at {
            // Its name is flushed with the rest.
            0 => self.open_copy(other)?.0,
            _ => door::open(self.rank_dir(other)?, RankFile::Log)?,
        };
        if at == 0 {
            at = word(rank::LOG_COPIED)?;
            if at < from {
                // What it lacks before that is never needed: nor has it been written.
                at = from;
                self.store(rank_at(other) + rank::LOG_MADE, from)?;
            }
        }
        if at < end {
            let off = at % ring;
            let len = (end - at).min(ring - off).min(MIRROR_PIECE);
            self.copy(&file, other, LOG_FILE_HEADER + off, len)?;
            self.write_out(&file, LOG_FILE_HEADER + off, len)?;
            at += len;
        }
        // 0 stands for none.
        Ok(at.max(1))
    }

    /// After the copies that hold the log up to `end` were flushed. May be done again.
    pub(crate) fn adopt_copies(&self, end: u64) -> Result<()> {
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Sync)?;
        let adopt = || {
            for other in 0..self.rank_count() {
                let stored = self.load(rank_at(other) + rank::LOG_STORED)?;
                // One that was made anew meanwhile holds less.
                if stored >= end && stored != PASSED_OVER {
                    self.word(rank_at(other) + rank::LOG_COPIED)?
                        .fetch_max(end, Ordering::AcqRel);
                }
            }
            Ok(())
        };
        let adopted = adopt();
        self.release(block, me, LockId::Sync);
        adopted
    }

    /// Opens a rank's copy of the log, made if there is none that can be gone on with: then its name
    /// may not be on the device.
    fn open_copy(&self, other: u16) -> Result<(OwnedFd, bool)> {
        let dir = self.rank_dir(other)?;
        let head = self.load(header::LOG_HEAD)?;
        let file = door::create(dir, RankFile::Log, OFlags::empty())?;
        let copied = self.load(rank_at(other) + rank::LOG_COPIED)?;
        if copied < head.max(1) {
            let ring = self.load(header::LOG_BYTES)?;
            // What a checkpoint has written to it counts only if it is still there.
            let stored = self.word(rank_at(other) + rank::LOG_STORED)?;
            let size = rustix::fs::fstat(&file).map_err(errno)?.st_size as u64;
            if size < LOG_FILE_HEADER + ring && stored.load(Ordering::Acquire) != 0 {
                stored.store(PASSED_OVER, Ordering::Release);
            }
            door::resize(&file, dir, RankFile::Log, LOG_FILE_HEADER + ring)?;
            self.copy(&file, other, 0, LOG_FILE_HEADER)?;
            self.store(rank_at(other) + rank::LOG_MADE, head)?;
            self.store(rank_at(other) + rank::LOG_FILLED, head)?;
        }
        Ok((file, copied < head.max(1)))
    }

    /// Writes what a rank's copy lacks up to `tail`; unless all of it lies where something was written and
    /// flushed before, also returns up to where that is so once it is flushed.
    fn store_copy(&self, other: u16, tail: u64) -> Result<(OwnedFd, Option<u64>)> {
        let ring = self.load(header::LOG_BYTES)?;
        let (file, made) = self.open_copy(other)?;
        if made {
            door::flush_names(self.rank_dir(other)?)?;
        }
        let copied = self.load(rank_at(other) + rank::LOG_COPIED)?;
        let mut from = copied.max(self.load(header::LOG_HEAD)?);
        while from < tail {
            let off = from % ring;
            let len = (tail - from).min(ring - off).min(PIECE);
            self.copy(&file, other, LOG_FILE_HEADER + off, len)?;
            if from + len < tail {
                // There is much of it: the device need not wait for the last piece.
                door::begin_flush_of(&file, LOG_FILE_HEADER + off, len);
            }
            from += len;
        }
        let before = self.load(rank_at(other) + rank::LOG_FILLED)?;
        let made = self.load(rank_at(other) + rank::LOG_MADE)?;
        let filled = match tail <= before || before >= made + ring {
            true => None,
            false => Some(self.fill_ahead(&file, other, tail)?),
        };
        Ok((file, filled))
    }

    /// Writes zeros where a copy goes on, so that what is written there later changes nothing but
    /// bytes; returns where that ends.
    fn fill_ahead(&self, file: &OwnedFd, other: u16, tail: u64) -> Result<u64> {
        let ring = self.load(header::LOG_BYTES)?;
        let room = (self.load(header::LOG_HEAD)? + ring).saturating_sub(tail);
        let end = tail.max((tail + room.min(AHEAD)) / PAGE * PAGE);
        let zeros = vec![0u8; PIECE as usize];
        let mut from = tail;
        while from < end {
            let off = from % ring;
            let len = (end - from).min(ring - off).min(PIECE);
            let zeros = &zeros[..len as usize];
            let dir = self.rank_dir(other)?;
            door::write(file, dir, RankFile::Log, zeros, LOG_FILE_HEADER + off)?;
            from += len;
        }
        Ok(end)
    }

    /// Copies bytes of the log file to another rank, with the rest of the pages that they begin and end
    /// in: to store a part of a page that it has let go, the kernel would have to read it first.
    fn copy(&self, file: &OwnedFd, other: u16, off: u64, len: u64) -> Result<()> {
        let dir = self.rank_dir(other)?;
        let end = off + len;
        let (whole, whole_end) = (off.next_multiple_of(PAGE), end / PAGE * PAGE);
        if off < whole {
            self.copy_page(file, dir, off / PAGE * PAGE)?;
        }
        if whole < whole_end {
            let from = self.log.bytes(whole, whole_end - whole);
            let from = from.ok_or(Errno::EIO)?;
            // SAFETY: mapped for good; of the ring only published records are copied, which nobody
            // changes while they are not covered by a checkpoint.
            let bytes = unsafe { core::slice::from_raw_parts(from, (whole_end - whole) as usize) };
            door::write(file, dir, RankFile::Log, bytes, whole)?;
        }
        if whole_end < end && whole_end >= whole {
            self.copy_page(file, dir, whole_end)?;
        }
        Ok(())
    }

    /// Copies a page that others may be appending to: what it holds beyond the end of the log counts
    /// there no more than here.
    fn copy_page(&self, file: &OwnedFd, dir: &Path, off: u64) -> Result<()> {
        let mut page = [0u8; PAGE as usize];
        let from = self.log.bytes(off, PAGE).ok_or(Errno::EIO)?;
        uaccess::copy_in(&mut page, from as usize).map_err(|_| Errno::EIO)?;
        door::write(file, dir, RankFile::Log, &page, off)
    }

    /// Goes by the log that goes on furthest from `base`, in an arena that nobody has seen: that of
    /// rank `first`, which is mapped, or one of the others. Returns what was found in that log, and the
    /// ranks whose logs may hold the same.
    pub(crate) fn choose_log(
        &mut self,
        base: &Base,
        first: u16,
        others: Vec<(u16, Segment)>,
    ) -> Result<(Seen, Vec<u16>)> {
        self.store(header::FORMAT, self.log_word_at(1))?;
        self.store(header::LOG_BYTES, self.log_word_at(4))?;
        self.store(header::LOG_RANK, u64::from(first))?;
        let mut seen = self.look_through(base)?;
        let mut copies = Vec::new();
        for (rank, log) in others {
            let before = core::mem::replace(&mut self.log, log);
            self.store(header::LOG_BYTES, self.log_word_at(4))?;
            // Each record holds the checksum of the one before it: what goes on where the best so far
            // ends is the same before.
            let (end, _) = self.each_record(seen.end, seen.sum, 0, |_| Ok(()))?;
            if end > seen.end {
                let found = self.look_through(base)?;
                if found.end > seen.end {
                    copies.push(self.log_rank()?);
                    seen = found;
                    self.store(header::LOG_RANK, u64::from(rank))?;
                    continue;
                }
            }
            self.log = before;
            copies.push(rank);
        }
        self.store(header::LOG_BYTES, self.log_word_at(4))?;
        Ok((seen, copies))
    }

    /// Looks through the log from `base` on.
    fn look_through(&self, base: &Base) -> Result<Seen> {
        let mut seen = Seen::new(base, self.rank_count());
        let mut next = base.start.saturating_add(MARKED);
        (seen.end, seen.sum) = self.each_record(base.start, base.sum, 0, |found| {
            if found.position >= next {
                next = found.position + MARKED;
                seen.marks
                    .push((found.position, (found.words[0] >> 32) as u32));
            }
            seen.flushes.add(&found)
        })?;
        Ok(seen)
    }

    /// A word of the log file's first page.
    fn log_word_at(&self, index: u64) -> u64 {
        let word = self.log.word(index * 8);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }
}

#[cfg(all(test, feature = "testing"))]
pub(crate) mod tests {
    use super::*;
    use crate::layout::kind;
    use crate::testing::image::Image;

    /// In a new pool.
    pub(crate) fn whole_pages_are_copied(pool: &Pool) {
        for i in 0..200 {
            let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
            let page = tx.alloc_page(kind::BLOB, 0, 1, true).expect("page");
            tx.put(page.offset(), &[i; 100]).expect("put");
            tx.commit().expect("commit");
        }
        let dir = pool.rank_dir(1).expect("rank");
        let (file, _) = pool.open_copy(1).expect("copy");
        let ours = std::fs::read(pool.rank_dir(0).expect("rank").join("log")).expect("log");
        for (from, end) in [
            (4096, 8192),
            (8200, 8300),
            (12_200, 12_400),
            (20_000, 40_000),
            (45_056, 50_000),
            (50_000, 53_248),
        ] {
            pool.copy(&file, 1, from, end - from).expect("copied");
            let theirs = std::fs::read(dir.join("log")).expect("log");
            let pages = (from / PAGE * PAGE) as usize..end.next_multiple_of(PAGE) as usize;
            assert!(theirs[pages.clone()] == ours[pages], "{from} {end}");
        }
        let theirs = std::fs::read(dir.join("log")).expect("log");
        assert!(theirs[57_344..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_was_not_flushed_of_a_copy_is_flushed_with_its_space() {
        let temp = Image::new(2);
        let page = temp.page(0, 1);
        temp.put(page, 0, 1);
        let pool = temp.pool;
        let tail = || pool.load(header::LOG_TAIL).expect("tail");
        pool.store(header::LOG_PLACES, 2).expect("places");
        pool.sync_names().expect("sync");
        // As if nothing had been made ready ahead.
        let filled = rank_at(1) + rank::LOG_FILLED;
        pool.store(filled, tail()).expect("filled");
        temp.put(page, 0, 2);
        // Whoever writes it is killed before it is flushed.
        for _ in 0..2 {
            let (_, filled) = pool.store_copy(1, tail()).expect("copy");
            assert!(filled.is_some());
        }
        pool.sync_names().expect("sync");
        temp.put(page, 0, 3);
        let (_, filled) = pool.store_copy(1, tail()).expect("copy");
        assert_eq!(filled, None);
    }
}
