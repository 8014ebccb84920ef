//! Flushes that others have begun and not told the outcome of.
//!
//! Of a write that failed the kernel tells each description that was open before, and those opened
//! later until the first has been told. So whoever flushes has to know what came of every flush that
//! was begun before it opened its file: the error may have been taken by somebody who was stopped, or
//! killed, before the arena had it. A thread that flushes has a word in its owner slot, and a process
//! that has asked the kernel (`flushes`) a bit in its own; both go only after the outcome is noted.

use crate::layout::{owner, owner_at, process_at, rank, rank_at};
use crate::pool::Pool;
use crate::process;
use core::sync::atomic::Ordering;
use rustix::fd::{AsRawFd, OwnedFd};
use shm::Recover;
use sys::Result;
use sys::ofd_lock::{self, Command};

/// Nanoseconds for which a flush of another thread is waited for; it may be stopped.
const FLUSH_WAIT: i64 = if cfg!(test) {
    2_000_000_000
} else {
    5_000_000_000
};
/// The same for a process to look what has come of what it has asked for.
const ASKED_WAIT: i64 = 300_000_000;
/// Low bits of an owner's word: the rank.
const RANK_BITS: u64 = 0x7fff;
/// In an owner's word: somebody has waited for this flush in vain, and others need not.
const STUCK: u64 = 1 << 15;

/// A lock on the byte of a data file that stands for a process, far behind every block.
fn lock(file: &OwnedFd, command: Command, kind: i16, slot: u32) -> Result<i16> {
    let start = 1 << 62 | i64::from(slot);
    ofd_lock::lock(file.as_raw_fd(), command, kind, start, 1).map(|lock| lock.kind)
}

/// The calling thread's flush of a rank's data.
pub(crate) struct Flight {
    word: u64,
    /// The word before: 0, unless this is a signal handler's flush.
    before: u64,
}

/// Who is about to learn what has come of flushes of a rank's data.
pub(crate) struct Others {
    /// Owner slots, and their words.
    threads: Vec<(u16, u64)>,
    processes: Vec<u32>,
}

fn word_of(owner: u16) -> u64 {
    owner_at(owner) + owner::FLUSHING
}

fn bit_of(slot: u32, r: u16) -> (u64, u64) {
    let word = process_at(slot) + process::ASKED + u64::from(r) / 64 * 8;
    (word, 1 << (r % 64))
}

impl Pool {
    /// Notes that the calling thread flushes a rank's data, before it opens the file.
    pub(super) fn begin_flight(&self, r: u16) -> Result<Flight> {
        let (_, me) = self.me()?;
        let word = word_of(me);
        let before = self.load(word)?;
        if before & RANK_BITS == u64::from(r) + 1 {
            // Interrupted by a signal, and perhaps told already.
            self.doubt_data(r)?;
        }
        // The time tells one from the next.
        let number = (sys::clock::monotonic() as u64) << 16;
        self.store(word, number | (u64::from(r) + 1))?;
        Ok(Flight { word, before })
    }

    /// What the kernel told of it is noted.
    pub(super) fn end_flight(&self, flight: &Flight) -> Result<()> {
        self.store(flight.word, flight.before)
    }

    /// Whatever the dead `owner` was flushing: what came of it is not known.
    pub(crate) fn doubt_flight(&self, owner: u16) -> Result<()> {
        let word = word_of(owner);
        let seen = self.load(word)?;
        if let Some(r) = (seen & RANK_BITS).checked_sub(1) {
            if r < u64::from(self.rank_count()) {
                self.doubt_data(r as u16)?;
            }
            self.store(word, 0)?;
        }
        Ok(())
    }

    /// The flushes of a rank's data whose outcome may be known to others alone, besides the calling
    /// thread's.
    pub(super) fn others_flushing(&self, r: u16) -> Result<Others> {
        let (_, me) = self.me()?;
        let mut threads = Vec::new();
        for owner in self.owners()?.filter(|owner| *owner != me) {
            let seen = self.word(word_of(owner))?.load(Ordering::SeqCst);
            if seen & RANK_BITS == u64::from(r) + 1 {
                threads.push((owner, seen));
            }
        }
        let mut processes = Vec::new();
        for slot in 0..process::used(self)? {
            if self.has_asked(slot, r)? {
                processes.push(slot);
            }
        }
        Ok(Others { threads, processes })
    }

    /// Waits until what came of `others`' flushes of a rank's data is noted. What is not told in time, or
    /// cannot be told any more, is found out: `EIO` if the device does not hold what memory does.
    pub(super) fn await_others(&self, others: &Others, r: u16, file: &OwnedFd) -> Result<()> {
        let start = sys::clock::monotonic();
        let wait = |most: i64| {
            let waits = (0..most).contains(&(sys::clock::monotonic() - start));
            if waits {
                std::thread::sleep(core::time::Duration::from_micros(200));
            }
            waits
        };
        let mut unknown = false;
        let mut dead = Vec::new();
        for (owner, seen) in &others.threads {
            let word = self.word(word_of(*owner))?;
            loop {
                let now = word.load(Ordering::SeqCst);
                if now & !STUCK != *seen & !STUCK {
                    break;
                }
                let ended = self.is_dead(*owner);
                if ended || now & STUCK != 0 || !wait(FLUSH_WAIT) {
                    unknown = true;
                    match ended {
                        true => dead.push((word, now)),
                        // If it has changed, it was told.
                        false => word
                            .compare_exchange(now, now | STUCK, Ordering::SeqCst, Ordering::Relaxed)
                            .map(drop)
                            .unwrap_or_default(),
                    }
                    break;
                }
            }
        }
        // Who holds a lock may be who keeps a process from looking.
        let (block, _) = self.me()?;
        let patience = match block.held.load(Ordering::Relaxed) {
            0 => ASKED_WAIT,
            _ => 0,
        };
        let mut ended = Vec::new();
        let asked = self.load(rank_at(r) + rank::FLUSHED)?;
        for slot in &others.processes {
            while self.has_asked(*slot, r)? && !process::is_gone(self, *slot) && wait(patience) {
                if process::known_slot(self) == Some(*slot) {
                    self.look_at_asked()?;
                }
            }
            if self.has_asked(*slot, r)? {
                unknown = true;
                if !self.is_under_way(file, *slot) {
                    ended.push(*slot);
                }
            }
        }
        if !unknown {
            return Ok(());
        }
        self.compare_with_device(r, file)?;
        // Nobody else has to find out.
        for (word, seen) in dead {
            word.compare_exchange(seen, 0, Ordering::SeqCst, Ordering::SeqCst)
                .unwrap_or_default();
        }
        for slot in ended {
            self.forget_found_out(slot, r, asked)?;
        }
        Ok(())
    }

    /// What came of a flush that the process in `slot` has asked for was found out. Nothing is forgotten if
    /// somebody may have asked since the rank's word of flushes was `seen`: that may be for another.
    fn forget_found_out(&self, slot: u32, r: u16, seen: u64) -> Result<()> {
        match self.load(rank_at(r) + rank::FLUSHED)? == seen {
            true => self.forget_asked(slot, r),
            false => Ok(()),
        }
    }

    /// Whether a process has asked for a flush of a rank's data and does not know what came of it.
    fn has_asked(&self, slot: u32, r: u16) -> Result<bool> {
        let (word, bit) = bit_of(slot, r);
        Ok(self.word(word)?.load(Ordering::SeqCst) & bit != 0)
    }

    /// Whether any process has.
    pub(crate) fn has_anybody_asked(&self, r: u16) -> Result<bool> {
        for slot in 0..process::used(self)? {
            if self.has_asked(slot, r)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes that the process in `slot` is about to ask the kernel to flush a rank's data. As long as
    /// the kernel is at it, it keeps the description, and with it the lock.
    pub(crate) fn note_asked(&self, slot: u32, r: u16, file: &OwnedFd) -> Result<()> {
        lock(file, Command::Set, ofd_lock::READ, slot)?;
        self.note_data_begun(r)?;
        let (word, bit) = bit_of(slot, r);
        self.word(word)?.fetch_or(bit, Ordering::SeqCst);
        Ok(())
    }

    /// Lets go of the lock of [`Pool::note_asked`] if the description is one that the process keeps.
    pub(crate) fn unlock_kept(&self, slot: u32, r: u16) {
        if let Some(file) = self.media.kept_data(r) {
            // Otherwise others find out again and again, no more.
            lock(file, Command::Set, ofd_lock::UNLOCK, slot).unwrap_or_default();
        }
    }

    /// What came of it is noted.
    pub(crate) fn forget_asked(&self, slot: u32, r: u16) -> Result<()> {
        let (word, bit) = bit_of(slot, r);
        self.word(word)?.fetch_and(!bit, Ordering::SeqCst);
        Ok(())
    }

    /// Whether the kernel may still be at what the process in `slot` has asked for.
    fn is_under_way(&self, file: &OwnedFd, slot: u32) -> bool {
        lock(file, Command::Get, ofd_lock::WRITE, slot) != Ok(ofd_lock::UNLOCK)
    }

    /// The same for the log as [`Pool::note_asked`].
    pub(crate) fn note_log_asked(&self, slot: u32) -> Result<()> {
        let word = process_at(slot) + process::ASKED_LOG;
        self.word(word)?.store(1, Ordering::SeqCst);
        Ok(())
    }

    /// The same for the log as [`Pool::forget_asked`].
    pub(crate) fn forget_log_asked(&self, slot: u32) -> Result<()> {
        let word = process_at(slot) + process::ASKED_LOG;
        self.word(word)?.store(0, Ordering::SeqCst);
        Ok(())
    }

    /// Whether a process has asked for a flush of the log and does not know what came of it.
    pub(crate) fn is_log_asked(&self) -> Result<bool> {
        for slot in 0..process::used(self)? {
            let word = self.word(process_at(slot) + process::ASKED_LOG)?;
            if word.load(Ordering::SeqCst) != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the process in `slot` has asked for: nobody is told any more what came of it.
    pub(crate) fn doubt_asked(&self, slot: u32) -> Result<()> {
        for r in 0..self.rank_count() {
            if self.has_asked(slot, r)? {
                self.doubt_data(r)?;
                self.forget_asked(slot, r)?;
            }
        }
        if self.load(process_at(slot) + process::ASKED_LOG)? != 0 {
            self.doubt_log()?;
            self.forget_log_asked(slot)?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::image::Image;

    #[test]
    fn a_thread_that_is_stopped_in_a_flush_is_waited_for_once() {
        let temp = Image::new(1);
        let pool = temp.pool;
        let file = pool.open_data(0).expect("data");
        let (begun, ended) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        let waited = || {
            let others = pool.others_flushing(0)?;
            let before = sys::clock::monotonic();
            pool.await_others(&others, 0, &file)?;
            Ok((others.threads.len(), sys::clock::monotonic() - before))
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flight = pool.begin_flight(0).expect("begun");
                begun.wait();
                ended.wait();
                pool.end_flight(&flight).expect("ended");
                pool.leave().expect("leave");
            });
            begun.wait();
            let waits: [Result<_>; 2] = [waited(), waited()];
            ended.wait();
            let [(1, first), (1, second)] = waits.map(|waited| waited.expect("waited")) else {
                panic!("not one");
            };
            assert!(first >= FLUSH_WAIT && second < FLUSH_WAIT);
        });
        assert!(pool.others_flushing(0).expect("others").threads.is_empty());
    }

    #[test]
    fn what_a_process_asks_for_while_others_find_out_what_came_of_the_last_is_not_forgotten() {
        let temp = Image::new(1);
        let pool = temp.pool;
        let slot = process::slot(pool).expect("slot");
        let file = pool.open_data(0).expect("data");
        pool.note_asked(slot, 0, &file).expect("asked");
        let seen = pool.load(rank_at(0) + rank::FLUSHED).expect("word");
        pool.forget_asked(slot, 0).expect("looked");
        pool.begin_round().expect("round");
        pool.note_asked(slot, 0, &file).expect("asked again");
        pool.forget_found_out(slot, 0, seen).expect("found out");
        assert_eq!(pool.has_asked(slot, 0), Ok(true));
        let seen = pool.load(rank_at(0) + rank::FLUSHED).expect("word");
        pool.forget_found_out(slot, 0, seen).expect("found out");
        assert_eq!(pool.has_asked(slot, 0), Ok(false));
    }
}
