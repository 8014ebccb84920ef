//! What the builder of an arena leaves to do about the log, piece by piece.
//!
//! How far the copies of the log on other ranks hold the same is not known to a new arena, and if the
//! machine was not off, neither is whether a flush has failed before: what is in memory then has to
//! become dirty once more (`media::doubt`). Both take longer than all the rest of recovery and are of
//! no use before the first sync. So whoever changes something does a piece now and then, and whoever
//! flushes the log does what is left.

use crate::checkpoint::is_own;
use crate::door::{self, RankFile};
use crate::layout::{header, rank, rank_at};
use crate::log::LOG_FILE_HEADER;
use crate::media::{errno, is_absent};
use crate::pool::{LockId, Pool};
use rustix::fd::OwnedFd;
use shm::crash_point;
use sys::Result;

/// Bytes of the log looked after at a time.
const PIECE: u64 = 256 << 10;
/// Bytes compared at a time.
const COMPARED: usize = 64 << 10;

impl Pool {
    /// Notes what is to be done of the log from `start` to `end`: copies on the ranks `copies` may hold
    /// the same, and what lies behind `doubted`, if anything, may not be on its device. The arena
    /// is its builder's alone.
    pub(crate) fn leave_to_settle(
        &self,
        copies: &[u16],
        start: u64,
        end: u64,
        doubted: Option<u64>,
    ) -> Result<()> {
        for copy in copies {
            for word in [rank::LOG_COPIED, rank::LOG_MADE, rank::LOG_FILLED] {
                self.store(rank_at(*copy) + word, start)?;
            }
            self.store(rank_at(*copy) + rank::LOG_LEFT, 1)?;
        }
        self.store(
            header::LEFT_DOUBT,
            doubted.map_or(end, |from| from.min(end)),
        )?;
        self.store(header::LEFT_AT, start)?;
        self.store(header::LEFT_END, end)
    }

    /// Whether nothing of it is left.
    pub(crate) fn is_settled(&self) -> Result<bool> {
        Ok(self.load(header::LEFT_AT)? >= self.load(header::LEFT_END)?)
    }

    /// Pieces that are left.
    pub(crate) fn pieces_to_settle(&self) -> Result<u64> {
        let left = self
            .load(header::LEFT_END)?
            .saturating_sub(self.load(header::LEFT_AT)?);
        Ok(left.div_ceil(PIECE))
    }

    /// Does a piece, unless somebody is flushing the log; true once nothing is left.
    pub(crate) fn settle_piece(&self) -> Result<bool> {
        if self.is_settled()? {
            return Ok(true);
        }
        let (block, me) = self.me()?;
        if self.try_acquire(block, me, LockId::Sync)? {
            let done = self.settle_once();
            self.release(block, me, LockId::Sync);
            done?;
        }
        self.is_settled()
    }

    /// Does all that is left. `Sync` is locked.
    pub(crate) fn settle_rest(&self) -> Result<()> {
        while !self.is_settled()? {
            self.settle_once()?;
        }
        Ok(())
    }

    /// `Sync` is locked.
    fn settle_once(&self) -> Result<()> {
        let (at, end) = (self.load(header::LEFT_AT)?, self.load(header::LEFT_END)?);
        let ring = self.load(header::LOG_BYTES)?;
        let len = (end - at).min(ring - at % ring).min(PIECE);
        let home = self.log_rank()?;
        let log = door::open(self.rank_dir(home)?, RankFile::Log);
        if let Some(error) = log.as_ref().err().filter(|error| is_own(**error)) {
            return Err(*error);
        }
        for other in (0..self.rank_count()).filter(|other| *other != home) {
            let word = |at| rank_at(other) + at;
            if self.load(word(rank::LOG_LEFT))? == 0 {
                continue;
            }
            let same = match &log {
                Ok(log) if self.load(word(rank::LOG_COPIED))? == at => {
                    self.is_same(log, other, LOG_FILE_HEADER + at % ring, len)?
                }
                _ => false,
            };
            if same {
                self.store(word(rank::LOG_COPIED), at + len)?;
                crash_point!("settle.compared");
            } else {
                self.store(word(rank::LOG_LEFT), 0)?;
            }
        }
        let doubted = self.load(header::LEFT_DOUBT)?.max(at);
        if doubted < at + len {
            match &log {
                Ok(log) => self.store_again(log, doubted, at + len)?,
                Err(gone) if is_absent(*gone) => {}
                Err(error) => return Err(*error),
            }
        }
        crash_point!("settle.stored");
        self.store(header::LEFT_AT, at + len)
    }

    /// Whether another rank's log holds the same as this one in `len` bytes from `off`.
    fn is_same(&self, log: &OwnedFd, other: u16, off: u64, len: u64) -> Result<bool> {
        let copy = match door::open(self.rank_dir(other)?, RankFile::Log) {
            Err(error) if is_own(error) => return Err(error),
            Err(_) => return Ok(false),
            Ok(copy) => copy,
        };
        let mut both = [vec![0u8; COMPARED], vec![0u8; COMPARED]];
        Ok((0..len).step_by(COMPARED).all(|done| {
            let len = (len - done).min(COMPARED as u64) as usize;
            let [ours, theirs] = &mut both;
            let (ours, theirs) = (&mut ours[..len], &mut theirs[..len]);
            read(log, ours, off + done) && read(&copy, theirs, off + done) && ours == theirs
        }))
    }
}

/// Whether a file has as many bytes at `off` as there is room for.
fn read(file: &OwnedFd, room: &mut [u8], off: u64) -> bool {
    let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *room, off));
    read.map_err(errno) == Ok(room.len())
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::layout::kind;
    use crate::testing::{self, TempPool};
    use std::os::unix::fs::FileExt;

    fn append(pool: &Pool, count: u64) {
        for i in 0..count {
            let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
            let page = tx.alloc_page(kind::BLOB, 0, 1, true).expect("page");
            tx.put(page.offset(), &[i; 500]).expect("put");
            tx.commit().expect("commit");
        }
    }

    #[test]
    fn a_new_arena_finds_out_piece_by_piece_what_copies_hold() {
        let dir = std::env::temp_dir().join(format!(
            "{}{}",
            testing::NAME,
            uuid::Uuid::new_v4().simple()
        ));
        let ranks = ["rank00", "rank01", "rank02"].map(|rank| dir.join(rank));
        for rank in &ranks {
            std::fs::create_dir_all(rank).expect("rank");
        }
        // A process has only a few pools that are attached.
        let spec = TempPool::spec_of_ranks(&ranks, 64);
        Pool::format(&spec).expect("format");
        let before = testing::open_image(&dir, &spec).expect("made");
        before.store(header::LOG_PLACES, 3).expect("places");
        append(before, 200);
        before.sync().expect("sync");
        let synced = before.load(header::LOG_SYNCED).expect("synced");
        append(before, 200);
        before.leave().expect("leave");
        let tail = before.load(header::LOG_TAIL).expect("tail");
        let damaged = PIECE + 5000;
        let copy = std::fs::File::options()
            .write(true)
            .open(ranks[2].join("log"))
            .expect("copy");
        copy.write_all_at(&[0xa5; 8], LOG_FILE_HEADER + damaged)
            .expect("damage");

        let pool = testing::open_image(&dir, &spec).expect("recovered");
        let copied = |rank| pool.load(rank_at(rank) + rank::LOG_COPIED).expect("copied");
        assert_eq!(pool.load(header::LEFT_END), Ok(tail));
        assert!(!pool.is_log_sure().expect("sure"));
        let pieces = pool.pieces_to_settle().expect("pieces");
        assert!(pieces > 3, "{pieces}");
        // Whoever flushes the log does not wait for this.
        let (block, me) = pool.me().expect("me");
        pool.acquire(block, me, LockId::Sync).expect("lock");
        assert_eq!(pool.settle_piece(), Ok(false));
        assert_eq!(pool.pieces_to_settle(), Ok(pieces));
        pool.release(block, me, LockId::Sync);
        for left in (0..pieces).rev() {
            assert_eq!(pool.settle_piece(), Ok(left == 0));
        }
        let shared = synced / PIECE * PIECE;
        assert_eq!([copied(1), copied(2)], [shared, PIECE]);
        assert!(pool.is_log_sure().expect("sure"));

        pool.store(header::LOG_PLACES, 3).expect("places");
        pool.sync().expect("sync");
        let tail = pool.load(header::LOG_TAIL).expect("tail");
        assert_eq!([copied(1), copied(2)], [tail; 2]);
        let log = |rank: usize| {
            let mut log = std::fs::read(ranks[rank].join("log")).expect("log");
            log.truncate((LOG_FILE_HEADER + tail) as usize);
            log
        };
        assert!(log(0) == log(1) && log(0) == log(2));
        pool.leave().expect("leave");
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
