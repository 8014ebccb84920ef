//! Checkpoints: pages changed since the last one, appended as frames to the rank files that hold
//! them, so that the log before them can be reused.
//!
//! A checkpoint is made in pieces of less than a millisecond by whoever changes something while it
//! is in progress; where it stands is in the arena, so anybody goes on where another was killed. Every
//! step can be done again.
//!
//! A frame is copied while writers go on. That is sound because every record from the
//! checkpoint's start is replayed over it, and because the checkpoint counts only once its end
//! frame is written, after the log up to the last copy, all data and all frames are on the devices:
//! of a pointer in a frame it is not known any more what it had replaced.

use crate::door::{self, RankFile};
use crate::flushes::{Pace, Round, UNKNOWN};
use crate::layout::{RECORD_LOCAL, header, owner, owner_at};
use crate::limits::at;
use crate::log::{BEHIND, LOG_FILE_HEADER};
use crate::pool::{LockId, Pool};
use core::sync::atomic::Ordering;
use core::time::Duration;
use rustix::fd::OwnedFd;
use shm::{Recover, crash_point};
use sys::{Errno, Result};

/// Log that is left to fill while a checkpoint is made: half a second of what a process can do.
const AHEAD: u64 = 128 << 20;
/// Bytes of the log that the kernel is told to write out at a time.
const WRITE_OUT: u64 = 2 << 20;
/// Nanoseconds that telling it takes at most when nothing is the matter, and for which it is not told
/// after it has taken longer.
const LONG: i64 = 3_000_000;
const UNTOLD: i64 = 10_000_000_000;
/// Eighths of the room at its start by which the frames are copied, by which the copies of the log have what they
/// need, and from which on writers pause now and then for the devices.
const COPIED_BY: u64 = 2;
const MIRRORED_BY: u64 = 3;
const PAUSED_FROM: u64 = 5;
/// Nanoseconds of a pause, and the part of the room left that is used between two: many short ones
/// instead of a long one when the log is full.
const PAUSE: i64 = 2_000_000;
const BETWEEN_PAUSES: u64 = 256;
/// Rounds of waiting for a record to be applied, when nothing else can be done.
const ROUNDS: u32 = 1_000_000;

/// What a checkpoint in progress does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Phase {
    /// There is none.
    Idle = 0,
    /// Files are made ready for frames.
    Readying = 1,
    /// Records before its start may not be applied.
    Applying = 2,
    /// Frames are copied.
    Copying = 3,
    /// The kernel is told to write them out.
    Writing = 4,
    /// The copies of the log get what is needed with the frames.
    Mirroring = 5,
    /// All that is brought to the devices.
    Flushing = 6,
    /// The frames that end it are written. From here on it may count, and is ended whatever fails.
    Sealing = 7,
    /// They are brought to the devices.
    Ending = 8,
    /// It counts.
    Finishing = 9,
}

impl Phase {
    fn from_word(word: u64) -> Result<Phase> {
        const ALL: [Phase; 10] = [
            Phase::Idle,
            Phase::Readying,
            Phase::Applying,
            Phase::Copying,
            Phase::Writing,
            Phase::Mirroring,
            Phase::Flushing,
            Phase::Sealing,
            Phase::Ending,
            Phase::Finishing,
        ];
        ALL.get(word as usize).copied().ok_or(Errno::EIO)
    }
}

/// Nanoseconds from `now` until a time noted in the arena; `None` when it has passed, or is further
/// off than the `most` anybody notes.
fn left_until(noted: u64, now: i64, most: i64) -> Option<u64> {
    let left = (noted as i64).saturating_sub(now);
    (1..=most).contains(&left).then_some(left as u64)
}

/// Whether an error is this process's own: others may get further.
pub(crate) fn is_own(error: Errno) -> bool {
    matches!(
        error,
        Errno::EACCES | Errno::EPERM | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM
    )
}

/// Log in use with which a checkpoint begins, of `ring` bytes.
fn begin_at(ring: u64) -> u64 {
    (ring / 4).max(full_at(ring).saturating_sub(AHEAD))
}

/// Log in use with which writers wait for it.
fn full_at(ring: u64) -> u64 {
    ring / 8 * 7
}

impl Pool {
    /// Before a transaction takes its locks, once the log has reached the position noted in the
    /// arena: does a piece of a checkpoint, or begins one. When the log is nearly full, waits.
    #[cold]
    pub(crate) fn checkpoint_when_needed(&self) -> Result<()> {
        let (block, me) = self.me()?;
        // A signal handler's, perhaps in the middle of this.
        if block.busy.load(Ordering::Relaxed) || block.held.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let (used, ring) = self.log_fill()?;
        if used >= full_at(ring) {
            self.acquire(block, me, LockId::Checkpoint)?;
            let done = self.make_way();
            self.release(block, me, LockId::Checkpoint);
            return done;
        }
        if self.load(header::LOG_TAIL)? < self.own.away().load(Ordering::Relaxed)
            || self.paused()?
        {
            return Ok(());
        }
        if self.try_acquire(block, me, LockId::Checkpoint)? {
            let done = self.piece(ring);
            self.release(block, me, LockId::Checkpoint);
            // Nobody's operation fails because of it as long as there is room.
            return done.and_then(|()| self.pause()).or(Ok(()));
        }
        Ok(())
    }

    /// Waits out the pause that somebody else has begun; false if there is none.
    fn paused(&self) -> Result<bool> {
        let until = self.load(header::CHECKPOINT_PAUSE)?;
        let left = left_until(until, sys::clock::monotonic(), PAUSE);
        if let Some(left) = left {
            std::thread::sleep(Duration::from_nanos(left));
        }
        Ok(left.is_some())
    }

    /// Begins a pause for everybody, and waits it out, if the room gets short that is left until the
    /// devices are done.
    fn pause(&self) -> Result<()> {
        if !self.awaits_devices()? || self.load(header::LOG_TAIL)? < self.course(PAUSED_FROM)? {
            return Ok(());
        }
        let until = sys::clock::monotonic() + PAUSE;
        self.store(header::CHECKPOINT_PAUSE, until as u64)?;
        self.store(header::CHECKPOINT_AFTER, 0)?;
        std::thread::sleep(Duration::from_nanos(PAUSE as u64));
        // Should this process be killed before, the next to come does so.
        self.look_later()
    }

    fn awaits_devices(&self) -> Result<bool> {
        Ok(matches!(self.phase()?, Phase::Flushing | Phase::Ending))
    }

    /// Where in the log the checkpoint in progress should have used so many eighths of its room.
    fn course(&self, eighths: u64) -> Result<u64> {
        let start = self.load(header::CHECKPOINT_START)?;
        let full = self.load(header::LOG_HEAD)? + full_at(self.load(header::LOG_BYTES)?);
        Ok(start + full.saturating_sub(start) / 8 * eighths)
    }

    /// Whether more than half of the room in the log that a checkpoint begins with is used.
    pub(crate) fn is_room_short(&self) -> Result<bool> {
        let (used, ring) = self.log_fill()?;
        Ok(used > begin_at(ring).midpoint(full_at(ring)))
    }

    /// Whether a record of `bytes` may go into a log that could not be emptied: seven eighths are for
    /// what takes space, a half of the rest for what does not, all of it for what only gives some back.
    pub(crate) fn leaves_room(&self, bytes: u64, takes: bool, gives: bool) -> Result<bool> {
        let (used, ring) = self.log_fill()?;
        let most = match (takes, gives) {
            (true, _) => full_at(ring),
            (false, false) => ring / 16 * 15,
            (false, true) => ring,
        };
        Ok(used + bytes <= most)
    }

    /// Writes a checkpoint now.
    pub fn checkpoint(&self) -> Result<()> {
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Checkpoint)?;
        let done = self.whole();
        self.release(block, me, LockId::Checkpoint);
        done
    }

    fn whole(&self) -> Result<()> {
        // What was begun before does not cover everything up to now.
        self.drive(Pace::Whole)?;
        self.begin()?;
        self.drive(Pace::Whole)
    }

    /// Goes on until no checkpoint is in progress.
    fn drive(&self, pace: Pace) -> Result<()> {
        let mut rounds = 0;
        while self.phase()? != Phase::Idle {
            if self.phase()? == Phase::Applying {
                rounds += 1;
                if rounds > ROUNDS {
                    // Somebody was stopped in the middle of applying: it has to wait for later.
                    return Err(self.give_up(Errno::EBUSY));
                }
                rustix::thread::sched_yield();
            }
            self.advance(pace).map_err(|error| self.give_up(error))?;
        }
        self.look_later()
    }

    /// Goes on, waiting, until the log has room.
    fn make_way(&self) -> Result<()> {
        self.note_piece();
        // One in progress may have begun long ago.
        self.drive(Pace::Patient)?;
        let (used, ring) = self.log_fill()?;
        if used >= full_at(ring) {
            self.begin()?;
            self.drive(Pace::Patient)?;
        }
        Ok(())
    }

    fn piece(&self, ring: u64) -> Result<()> {
        self.note_piece();
        if self.phase()? == Phase::Idle {
            let settled = self.settle_piece().map_err(|error| self.give_up(error))?;
            if !settled {
                return self.look_later();
            }
        }
        self.write_log_out()?;
        if self.phase()? == Phase::Idle && self.log_fill()?.0 >= begin_at(ring) {
            self.begin().map_err(|error| self.give_up(error))?;
        }
        self.advance(Pace::Piece)
            .map_err(|error| self.give_up(error))?;
        self.look_later()
    }

    /// Notes how far the log may go before somebody should look again.
    fn look_later(&self) -> Result<()> {
        let (tail, ring) = (self.load(header::LOG_TAIL)?, self.load(header::LOG_BYTES)?);
        let head = self.load(header::LOG_HEAD)?;
        let full = head + full_at(ring);
        let room = full.saturating_sub(tail);
        // Such that a part of the room is used when so many pieces are done; at least that much of what
        // is left.
        let paced = |by: u64, pieces: u64| {
            let step = by.saturating_sub(tail).max(room / 8) / pieces.max(1);
            tail + step.min(ring >> 12)
        };
        let later = match self.phase()? {
            Phase::Idle if !self.is_settled()? => paced(tail + room / 4, self.pieces_to_settle()?),
            Phase::Idle => head + begin_at(ring),
            Phase::Copying => {
                let frontier = self.load(header::CHECKPOINT_FRONTIER)?;
                let left = frontier.saturating_sub(self.load(header::CHECKPOINT_PAGE)?);
                paced(self.course(COPIED_BY)?, left / crate::frames::PAGES_AT_ONCE)
            }
            Phase::Mirroring => paced(self.course(MIRRORED_BY)?, self.mirror_pieces()?),
            Phase::Flushing | Phase::Ending if tail >= self.course(PAUSED_FROM)? => {
                tail + room / BETWEEN_PAUSES
            }
            _ => tail + (ring >> 11),
        };
        let written = self.load(header::LOG_WRITTEN)? + WRITE_OUT + BEHIND;
        self.store(header::CHECKPOINT_AFTER, later.min(full).min(written))
    }

    /// Tells the kernel now and then to write the log out, so that the flush of a checkpoint has
    /// little left to do: the kernel would do it on the processor that asks, for many milliseconds.
    fn write_log_out(&self) -> Result<()> {
        let (tail, ring) = (self.load(header::LOG_TAIL)?, self.load(header::LOG_BYTES)?);
        let known = self
            .load(header::LOG_SYNCED)?
            .max(tail.saturating_sub(ring));
        let from = self.load(header::LOG_WRITTEN)?.max(known);
        // Who appends has let go of the last of it by then.
        if tail >= from + WRITE_OUT + BEHIND {
            let off = from % ring;
            let len = WRITE_OUT.min(ring - off);
            // Where it cannot be opened, others tell.
            if let Ok(file) = door::open(self.rank_dir(self.log_rank()?)?, RankFile::Log) {
                self.write_out(&file, LOG_FILE_HEADER + off, len)?;
            }
            return self.store(header::LOG_WRITTEN, from + len);
        }
        self.store(header::LOG_WRITTEN, from)
    }

    /// Tells the kernel to write out `len` bytes of a rank's file from `off`. It does so for whoever tells
    /// it: once that has taken long, because space had to be looked for or the device had too much to do,
    /// it is not told for a while. Then the flushes have more to do.
    pub(crate) fn write_out(&self, file: &OwnedFd, off: u64, len: u64) -> Result<()> {
        let before = sys::clock::monotonic();
        if left_until(self.load(header::WRITE_OUT_AFTER)?, before, UNTOLD).is_some() {
            return Ok(());
        }
        door::begin_flush_of(file, off, len);
        let after = sys::clock::monotonic();
        match after - before > LONG {
            true => self.store(header::WRITE_OUT_AFTER, (after + UNTOLD) as u64),
            false => Ok(()),
        }
    }

    /// After an error: tried again when more of the log is used; by others, if it is this process's
    /// own. A checkpoint of which an end may be on some rank is not given up: the next would
    /// overwrite its frames, rank by rank, while it still counts.
    fn give_up(&self, error: Errno) -> Errno {
        let given_up = || {
            let ring = self.load(header::LOG_BYTES)?;
            let later = self.load(header::LOG_TAIL)? + ring / 16;
            if is_own(error) {
                self.own.away().store(later, Ordering::Relaxed);
                return Ok(());
            }
            self.set_phase(match self.phase()? {
                // What a device has not taken is written once more: the kernel forgets it.
                Phase::Sealing | Phase::Ending => Phase::Sealing,
                Phase::Finishing => Phase::Finishing,
                _ => Phase::Idle,
            })?;
            // A full log does not grow any more: then everybody looks.
            let full = self.load(header::LOG_HEAD)? + full_at(ring);
            self.store(header::CHECKPOINT_AFTER, later.min(full))
        };
        given_up().err().unwrap_or(error)
    }

    fn phase(&self) -> Result<Phase> {
        Phase::from_word(self.load(header::CHECKPOINT_PHASE)?)
    }

    fn set_phase(&self, phase: Phase) -> Result<()> {
        self.store(header::CHECKPOINT_PHASE, phase as u64)
    }

    fn begin(&self) -> Result<()> {
        let (start, sum) = self.log_end()?;
        // The number is used up whatever happens: the end frame of one checkpoint must not stand
        // for the frames of another.
        let sequence = self.load(header::CHECKPOINT_SEQUENCE)? + 1;
        self.store(header::CHECKPOINT_SEQUENCE, sequence)?;
        let frontier = self.load(header::FRONTIER)?.min(at::PAGES_MAX);
        self.store(header::CHECKPOINT_RANK, 0)?;
        self.store(header::CHECKPOINT_START, start)?;
        self.store(header::CHECKPOINT_SUM, sum.into())?;
        self.store(header::CHECKPOINT_FRONTIER, frontier)?;
        self.store(header::CHECKPOINT_PAGE, 1)?;
        crash_point!("checkpoint.begun");
        self.set_phase(Phase::Readying)
    }

    /// Does a piece of what is to be done.
    fn advance(&self, pace: Pace) -> Result<()> {
        match self.phase()? {
            Phase::Idle => Ok(()),
            Phase::Readying => match self.ready_ranks()? {
                true => self.set_phase(Phase::Applying),
                false => Ok(()),
            },
            Phase::Applying => match self.is_applied(self.load(header::CHECKPOINT_START)?)? {
                true => self.set_phase(Phase::Copying),
                false => Ok(()),
            },
            Phase::Copying => match self.copy_pages()? {
                true => self.end_copying(),
                false => Ok(()),
            },
            Phase::Writing => match self.write_frames_out()? {
                true => self.set_phase(Phase::Mirroring),
                false => Ok(()),
            },
            Phase::Mirroring => self.mirror(),
            Phase::Flushing => match self.flush_round(Round::Base, pace) {
                Ok(true) => self.begin_ending(),
                Ok(false) => Ok(()),
                Err(UNKNOWN) => {
                    self.set_phase(Phase::Idle)?;
                    crash_point!("checkpoint.unknown");
                    self.begin()
                }
                Err(error) => Err(error),
            },
            Phase::Sealing => self.seal(),
            Phase::Ending => match self.flush_round(Round::Ends, pace) {
                Ok(true) if self.is_any_end_flushed()? => self.set_phase(Phase::Finishing),
                Ok(true) => Err(Errno::EIO),
                Ok(false) => Ok(()),
                Err(UNKNOWN) => self.set_phase(Phase::Sealing),
                Err(error) => Err(error),
            },
            Phase::Finishing => self.finish(),
        }
    }

    /// Whether every record before `start` has been applied; dead owners are recovered.
    fn is_applied(&self, start: u64) -> Result<bool> {
        for owner in self.owners()? {
            let base = owner_at(owner);
            let len = self.load(base + owner::RECORD_LEN)?;
            if len == 0 || len & RECORD_LOCAL != 0 {
                continue;
            }
            if self.load(base + owner::RECORD_AT)? >= start {
                continue;
            }
            if self.is_dead(owner) {
                self.recover(owner)?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    fn end_copying(&self) -> Result<()> {
        crash_point!("checkpoint.written");
        let (window, end) = self.begin_window()?;
        self.store(header::CHECKPOINT_WINDOW, window)?;
        self.store(header::CHECKPOINT_END, end)?;
        self.store(header::CHECKPOINT_RANK, 0)?;
        self.set_phase(Phase::Writing)
    }

    /// A copy of the log needs no more than what is replayed over the frames.
    fn mirror(&self) -> Result<()> {
        let start = self.load(header::CHECKPOINT_START)?;
        let end = self.load(header::CHECKPOINT_END)?;
        if self.mirror_piece(start, end)? {
            crash_point!("checkpoint.mirrored");
            self.begin_round()?;
            self.set_phase(Phase::Flushing)?;
        }
        Ok(())
    }

    fn begin_ending(&self) -> Result<()> {
        crash_point!("checkpoint.flushed");
        self.adopt_copies(self.load(header::CHECKPOINT_END)?)?;
        self.set_phase(Phase::Sealing)
    }

    fn seal(&self) -> Result<()> {
        self.put_ends()?;
        crash_point!("checkpoint.ending");
        self.begin_round()?;
        self.set_phase(Phase::Ending)
    }

    fn finish(&self) -> Result<()> {
        self.adopt_frames()?;
        crash_point!("checkpoint.finished");
        let end = self.load(header::CHECKPOINT_END)?;
        for (word, value) in [
            (header::LOG_SYNCED, end),
            (header::DATA_SYNCED, end),
            // What was given back before is in nobody's map on the devices any more.
            (header::WINDOW_SYNCED, self.load(header::CHECKPOINT_WINDOW)?),
        ] {
            self.word(word)?.fetch_max(value, Ordering::AcqRel);
        }
        self.store(header::LEFT_DATA, 0)?;
        self.store(header::CHECKPOINT_TIME, self.now_ns() as u64)?;
        self.store(header::LOG_HEAD, self.load(header::CHECKPOINT_START)?)?;
        self.set_phase(Phase::Idle)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::layout::{PageLink, rank, rank_at};
    use crate::testing::image::{Image, taping};
    use crate::testing::{Failure, Step, TempPool, tape};

    const RING: u64 = 1 << 20;

    /// One after the other in one pool: a process has only a few.
    #[test]
    fn the_log_goes_round_without_long_waits() {
        let temp = TempPool::with_log(&std::env::temp_dir(), 2, 64, RING);
        crate::log::tests::a_store_makes_little_dirty(temp.pool);
        crate::mirror::tests::whole_pages_are_copied(temp.pool);
        crate::log::tests::only_what_is_free_is_renewed(temp.pool);
        pieces_leave_most_of_the_room(temp.pool);
        writers_pause_for_devices_and_nothing_else(temp.pool);
    }

    fn recovers(temp: &Image, page: PageLink, value: u64, what: &str) {
        temp.with_copy(|pool| assert_eq!(pool.load(page.offset()), Ok(value), "{what}"));
    }

    /// A pool with a page that holds 2 and, in its last checkpoint, 1; the next writes it on, or anew.
    fn changed_since_a_checkpoint(ranks: usize, anew: bool) -> (Image, PageLink) {
        let temp = Image::new(ranks);
        let page = temp.page(0, 1);
        temp.put(page, 0, 1);
        temp.pool.checkpoint().expect("checkpoint");
        temp.put(page, 0, 2);
        if anew {
            temp.outgrow(0);
        }
        (temp, page)
    }

    /// A checkpoint whose end is on some ranks when one fails: the next must not undo it while it counts.
    #[test]
    fn what_may_count_is_ended() {
        let _taping = taping();
        for anew in [false, true] {
            for (step, after) in [(Step::Write, 0), (Step::Flush, 1)] {
                let what = format!("{anew} {step:?}");
                let (temp, page) = changed_since_a_checkpoint(8, anew);
                let pool = temp.pool;
                tape::start(&temp.spec.ranks);
                // Only the end frame is written to that rank; it has no pages.
                tape::fail(Some(Failure {
                    step,
                    file: RankFile::Meta,
                    rank: Some(6),
                    after,
                    times: 1,
                    errno: Errno::EIO,
                }));
                assert_eq!(pool.checkpoint(), Err(Errno::EIO), "{what}");
                recovers(&temp, page, 2, &what);
                // The next begins, and is cut short by a failure of the power.
                if pool.phase() == Ok(Phase::Idle) {
                    pool.begin().expect("begun");
                }
                for _ in 0..4 {
                    pool.advance(Pace::Whole).expect("piece");
                    recovers(&temp, page, 2, &what);
                }
                pool.drive(Pace::Whole).expect("ended");
                temp.put(page, 0, 3);
                pool.checkpoint().expect("checkpoint");
                tape::stop();
                recovers(&temp, page, 3, &what);
            }
        }
    }

    #[test]
    fn a_copy_of_the_log_that_a_sync_could_not_flush_is_given_up() {
        let _taping = taping();
        let temp = Image::new(2);
        let pool = temp.pool;
        let page = temp.page(0, 1);
        pool.store(header::LOG_PLACES, 2).expect("places");
        temp.put(page, 0, 1);
        pool.sync_names().expect("sync");
        temp.put(page, 0, 2);
        pool.begin().expect("begun");
        while pool.phase() != Ok(Phase::Flushing) {
            pool.advance(Pace::Whole).expect("piece");
        }
        temp.put(page, 0, 3);
        tape::start(&temp.spec.ranks);
        tape::fail(Some(Failure {
            step: Step::Flush,
            file: RankFile::Log,
            rank: Some(1),
            after: 0,
            times: 1,
            errno: Errno::EIO,
        }));
        pool.sync_names().expect("sync");
        tape::stop();
        // The kernel has told of what the checkpoint had written there.
        pool.drive(Pace::Whole).expect("ended");
        assert_eq!(pool.load(rank_at(1) + rank::LOG_COPIED), Ok(0));
    }

    #[test]
    fn a_checkpoint_needs_a_rank() {
        let temp = Image::new(2);
        let page = temp.page(0, 1);
        temp.put(page, 0, 1);
        let head = temp.pool.load(header::LOG_HEAD);
        (0..2).for_each(|rank| temp.take_away(rank));
        assert!(temp.pool.checkpoint().is_err());
        assert_eq!(temp.pool.load(header::LOG_HEAD), head);
        (0..2).for_each(|rank| temp.bring_back(rank));
        temp.pool.checkpoint().expect("checkpoint");
        recovers(&temp, page, 1, "after");
    }

    #[test]
    fn ranks_that_go_away_while_a_checkpoint_ends_lose_nothing() {
        for anew in [false, true] {
            let (temp, page) = changed_since_a_checkpoint(3, anew);
            let pool = temp.pool;
            pool.begin().expect("begun");
            while pool.phase() != Ok(Phase::Sealing) {
                pool.advance(Pace::Whole).expect("piece");
            }
            (0..3).for_each(|rank| temp.take_away(rank));
            assert_eq!(pool.drive(Pace::Whole), Err(Errno::ENOENT));
            assert_eq!(pool.phase(), Ok(Phase::Sealing));
            temp.bring_back(1);
            pool.drive(Pace::Whole).expect("ended");
            [0, 2].into_iter().for_each(|rank| temp.bring_back(rank));
            recovers(&temp, page, 2, "after");
            temp.put(page, 0, 3);
            pool.checkpoint().expect("checkpoint");
            recovers(&temp, page, 3, "later");
        }
    }

    #[test]
    fn a_time_that_nobody_can_have_noted_is_none() {
        assert_eq!(left_until(1_000, 400, 1_000), Some(600));
        assert_eq!(left_until(1_000, 0, 1_000), Some(1_000));
        for (noted, now) in [
            (0, 400),
            (400, 400),
            (1_401, 400),
            (u64::MAX, 400),
            (1 << 63, i64::MAX),
        ] {
            assert_eq!(left_until(noted, now, 1_000), None, "{noted} {now}");
        }
    }

    fn writers_pause_for_devices_and_nothing_else(pool: &Pool) {
        let word = |at| pool.load(at).expect("word");
        // All of its room is used, as if it had begun with the log.
        pool.store(header::CHECKPOINT_START, 0).expect("start");
        let tail = word(header::LOG_TAIL);
        assert!(tail >= pool.course(PAUSED_FROM).expect("course"));
        for phase in [Phase::Idle, Phase::Copying, Phase::Mirroring] {
            pool.set_phase(phase).expect("phase");
            pool.store(header::CHECKPOINT_PAUSE, 0).expect("none");
            pool.pause().expect("pause");
            assert_eq!(word(header::CHECKPOINT_PAUSE), 0, "{phase:?}");
        }
        for phase in [Phase::Flushing, Phase::Ending] {
            pool.set_phase(phase).expect("phase");
            let before = sys::clock::monotonic();
            pool.pause().expect("pause");
            let until = word(header::CHECKPOINT_PAUSE) as i64;
            assert!(until >= before + PAUSE, "{phase:?}");
            assert!(sys::clock::monotonic() >= until, "{phase:?}");
            let room = word(header::LOG_HEAD) + full_at(RING) - tail;
            let after = word(header::CHECKPOINT_AFTER);
            assert_eq!(after, tail + room / BETWEEN_PAUSES, "{phase:?}");
        }
    }

    /// Many pieces are spread over the part of the room that they may use.
    fn pieces_leave_most_of_the_room(pool: &Pool) {
        const PIECES: u64 = 4096;
        pool.checkpoint().expect("checkpoint");
        let word = |at| pool.load(at).expect("word");
        let tail = word(header::LOG_TAIL);
        for (at, value) in [
            (header::LOG_PLACES, 2),
            (header::CHECKPOINT_START, tail),
            (header::CHECKPOINT_PAGE, 1),
            (
                header::CHECKPOINT_FRONTIER,
                1 + PIECES * crate::frames::PAGES_AT_ONCE,
            ),
            (
                header::CHECKPOINT_END,
                tail + PIECES * crate::mirror::MIRROR_PIECE,
            ),
            (rank_at(1) + rank::LOG_STORED, 0),
        ] {
            pool.store(at, value).expect("store");
        }
        let room = word(header::LOG_HEAD) + full_at(RING) - tail;
        for (phase, eighths) in [(Phase::Copying, 2), (Phase::Mirroring, 3)] {
            pool.set_phase(phase).expect("phase");
            pool.look_later().expect("looked");
            let used = (word(header::CHECKPOINT_AFTER) - tail) * PIECES;
            let most = room / 8 * eighths;
            // Rounded down, a word a piece.
            assert!(
                used <= most && used + 8 * PIECES > most,
                "{phase:?}: {used} of {most}"
            );
        }
        pool.set_phase(Phase::Idle).expect("phase");
    }
}
