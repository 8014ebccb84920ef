//! The flushes that a checkpoint needs. The kernel does them by itself (`door::queue`): whoever
//! comes by asks for some and looks what has come back; nobody waits unless the log is full.
//!
//! A round of flushes has a number in the arena, and what of it is done is noted there. What is under
//! way is known to the process alone that has asked, so another asks for the rest only when that one
//! is gone, or takes long: it may not come back. Whoever finds all done ends the round.
//!
//! An error of the device is told once, to whoever has asked. So it is also noted in the arena who has
//! asked for what: others do not take a later flush of data or of the log for a success as long as it is
//! not known what came of that one (`media::flights`), and frames of which it is not known are written
//! anew.

use crate::checkpoint::is_own;
use crate::door::queue::{Event, Queue};
use crate::door::{self, RankFile};
use crate::layout::{PASSED_OVER, header, rank, rank_at};
use crate::media::is_absent;
use crate::pool::{LockId, Pool};
use crate::process;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};
use shm::crash_point;
use sys::{Errno, Result};

/// Flushes under way at a time when there is not much room left in the log. As long as there is, it is
/// one: the kernel does them on the processor where they are asked for, so each competes with who asks.
const FLUSHES_AT_ONCE: u64 = 16;
/// Events taken at a time.
const EVENTS: usize = 32;
/// Bits of `rank::FLUSHED` below the round.
const DONE_BITS: u32 = 8;
/// Which of them say that somebody has begun, or asked the kernel, before the others.
const ASKED_BITS: u32 = 4;
/// Nanoseconds after which the flushes that another process has asked for are not counted on.
const PATIENCE: i64 = 300_000_000;
/// Nanoseconds after which somebody looks whether that process is still there.
const LOOK: i64 = 30_000_000;
/// Looks of 5 ms for the last flushes of a process that ends.
const LAST_LOOKS: u32 = 1000;

/// Nanoseconds after which a process that has done a piece of a checkpoint is not one that soon ends.
const SHORT: i64 = 100_000_000;

/// Words of a process for [`Own`](crate::prove::Own): its queue, the round, how far it has asked, how many are
/// out, the error of one that failed, when it did its first piece (monotonic, ns).
pub(crate) const FLUSH_WORDS: usize = 6;
const QUEUE: usize = 0;
const ROUND: usize = 1;
const NEXT: usize = 2;
const OUT: usize = 3;
const FAILED: usize = 4;
const SINCE: usize = 5;

/// How a step is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pace {
    /// A piece of it, without waiting.
    Piece,
    /// The same, waiting a little if there is nothing to do.
    Patient,
    /// The whole of it, now.
    Whole,
}

/// What is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Round {
    /// All that the checkpoint stands on: data, frames, the log and its copies.
    Base,
    /// The frames that end it.
    Ends,
}

/// One file or directory of a rank.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum What {
    Data,
    Frames,
    Names,
    Log,
}

/// Nobody is told any more what came of a flush of frames, which have to be written anew.
pub(crate) const UNKNOWN: Errno = Errno::ESTALE;

const EACH: [What; 4] = [What::Data, What::Frames, What::Names, What::Log];

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn store(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

impl Pool {
    /// Begins a round.
    pub(crate) fn begin_round(&self) -> Result<()> {
        let round = self.load(header::CHECKPOINT_ROUND)? + 1;
        self.store(header::CHECKPOINT_ASKED, 0)?;
        self.store(header::CHECKPOINT_ROUND, round)
    }

    /// Goes on with a round; true once everything is on its device.
    pub(crate) fn flush_round(&self, round: Round, pace: Pace) -> Result<bool> {
        if pace == Pace::Whole {
            if self.forsake_unknown()? {
                return Err(UNKNOWN);
            }
            for index in 0..self.flush_count() {
                self.flush_now(round, index)?;
            }
            return Ok(true);
        }
        // A process waits at its end for what it has asked for: the short ones leave it to others, as
        // long as these may come by.
        if pace == Pace::Piece && self.may_end_soon() && !self.is_room_short()? {
            return Ok(false);
        }
        let (own, number) = (self.own.flushes(), self.load(header::CHECKPOINT_ROUND)?);
        if load(&own[ROUND]) != number {
            if self.is_asked_for()? {
                if pace == Pace::Patient {
                    std::thread::sleep(core::time::Duration::from_millis(1));
                }
                return Ok(false);
            }
            if self.forsake_unknown()? {
                return Err(UNKNOWN);
            }
            self.store(
                header::CHECKPOINT_ASKED,
                sys::clock::monotonic().max(1) as u64,
            )?;
            let asker = process::slot(self)? + 1;
            self.store(header::CHECKPOINT_ASKER, asker.into())?;
            for word in [NEXT, OUT, FAILED] {
                store(&own[word], 0);
            }
            store(&own[ROUND], number);
        }
        self.take_events(Pace::Piece)?;
        let asked = self.ask(round, pace)?;
        self.take_events(pace)?;
        if !asked || load(&own[OUT]) != 0 {
            return Ok(false);
        }
        // Should it be asked again, then anew.
        store(&own[ROUND], 0);
        match load(&own[FAILED]) {
            0 => Ok(true),
            error => Err(Errno::new(error as i32)),
        }
    }

    /// Notes that this process does pieces of checkpoints.
    pub(crate) fn note_piece(&self) {
        let since = &self.own.flushes()[SINCE];
        if load(since) == 0 {
            store(since, sys::clock::monotonic().max(1) as u64);
        }
    }

    /// Whether this process is new. One that has a queue waits at its end until all processors have
    /// noticed (tens of milliseconds): too long for most commands.
    fn may_end_soon(&self) -> bool {
        let since = load(&self.own.flushes()[SINCE]) as i64;
        (0..SHORT).contains(&(sys::clock::monotonic() - since))
    }

    /// Whether somebody has asked for flushes who will come back.
    fn is_asked_for(&self) -> Result<bool> {
        let asked = match self.load(header::CHECKPOINT_ASKED)? {
            0 => return Ok(false),
            asked => sys::clock::monotonic() - asked as i64,
        };
        if (0..LOOK).contains(&asked) {
            return Ok(true);
        }
        let asker = self.load(header::CHECKPOINT_ASKER)?.checked_sub(1);
        let gone = asker.is_none_or(|slot| process::is_gone(self, slot as u32));
        Ok((LOOK..PATIENCE).contains(&asked) && !gone)
    }

    /// Before the process ends: notes the flushes that it has asked for. The kernel lets no process end
    /// before they are done.
    pub fn await_flushes(&self) -> Result<()> {
        let own = self.own.flushes();
        if load(&own[QUEUE]) == 0 || crate::thread::vfork::child().is_some() {
            return Ok(());
        }
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Checkpoint)?;
        let taken = || {
            // Also of rounds that others have ended since.
            self.take_events(Pace::Piece)?;
            if load(&own[ROUND]) == 0 || load(&own[ROUND]) != self.load(header::CHECKPOINT_ROUND)? {
                return Ok(());
            }
            for _ in 0..LAST_LOOKS {
                if load(&own[OUT]) == 0 {
                    break;
                }
                self.take_events(Pace::Patient)?;
            }
            // Others need not wait for the rest.
            self.store(header::CHECKPOINT_ASKED, 0)
        };
        let taken = taken();
        self.release(block, me, LockId::Checkpoint);
        taken
    }

    /// Whether something was flushed in the round in progress.
    fn is_done(&self, r: u16, what: What) -> Result<bool> {
        let noted = self.load(rank_at(r) + rank::FLUSHED)?;
        let round = self.load(header::CHECKPOINT_ROUND)?;
        Ok(noted >> DONE_BITS == round && noted & 1 << what as u32 != 0)
    }

    /// Notes that something was flushed in the round in progress. `Checkpoint` is locked.
    fn note_done(&self, r: u16, what: What) -> Result<()> {
        self.note_in_round(r, 1 << what as u32)
    }

    fn note_in_round(&self, r: u16, bit: u64) -> Result<()> {
        let place = rank_at(r) + rank::FLUSHED;
        let noted = self.load(place)?;
        let round = self.load(header::CHECKPOINT_ROUND)?;
        let others = match noted >> DONE_BITS == round {
            true => noted,
            false => round << DONE_BITS,
        };
        self.store(place, others | bit)
    }

    /// Notes that somebody is about to ask for a flush of a rank's data in the round in progress.
    pub(crate) fn note_data_begun(&self, r: u16) -> Result<()> {
        self.note_in_round(r, 1 << (ASKED_BITS + What::Data as u32))
    }

    /// Before a process begins to flush in the round in progress: what others have flushed in it, or asked
    /// for, and not noted, may have failed. Copies of the log are given up; true if frames have to be written anew.
    fn forsake_unknown(&self) -> Result<bool> {
        let round = self.load(header::CHECKPOINT_ROUND)?;
        let mut anew = false;
        for r in 0..self.rank_count() {
            let noted = self.load(rank_at(r) + rank::FLUSHED)?;
            let unknown = match noted >> DONE_BITS == round {
                true => noted >> ASKED_BITS & !noted,
                false => 0,
            };
            anew |= unknown & 1 << What::Frames as u32 != 0;
            if unknown & 1 << What::Log as u32 != 0 && r != self.log_rank()? && self.has_copy(r)? {
                self.forsake_copy(r)?;
            }
        }
        Ok(anew)
    }

    fn flush_count(&self) -> u64 {
        u64::from(self.rank_count()) * EACH.len() as u64
    }

    fn flush_at(index: u64) -> (u16, What) {
        let each = EACH.len() as u64;
        ((index / each) as u16, EACH[(index % each) as usize])
    }

    /// The file concerned, if it has to be flushed; for names it says nothing more.
    fn is_wanted(&self, round: Round, r: u16, what: What) -> Result<Option<RankFile>> {
        if self.is_done(r, what)? {
            return Ok(None);
        }
        let frames = self.frame_file(r)?;
        let base = round == Round::Base;
        Ok(match what {
            What::Data => (base && self.is_unflushed(r)?).then_some(RankFile::Data),
            What::Frames => frames.map(|(file, _)| file),
            What::Names => {
                let frames = frames.is_some() && self.is_frame_name_new(r)?;
                let log = self.has_copy(r)? && self.load(rank_at(r) + rank::LOG_COPIED)? == 0;
                (base && (frames || log)).then_some(RankFile::Meta)
            }
            What::Log => {
                let wanted = match r == self.log_rank()? {
                    true => self.load(header::LOG_SYNCED)? < self.load(header::CHECKPOINT_END)?,
                    false => self.has_copy(r)?,
                };
                (base && wanted).then_some(RankFile::Log)
            }
        })
    }

    /// Whether the checkpoint has written to a copy of the log in this rank.
    fn has_copy(&self, r: u16) -> Result<bool> {
        let stored = self.load(rank_at(r) + rank::LOG_STORED)?;
        Ok(stored != 0 && stored != PASSED_OVER)
    }

    fn flush_now(&self, round: Round, index: u64) -> Result<()> {
        let (r, what) = Pool::flush_at(index);
        let Some(file) = self.is_wanted(round, r, what)? else {
            return Ok(());
        };
        let dir = self.rank_dir(r)?;
        let flush = || match what {
            What::Data => self.flush_data(r),
            What::Names => door::flush_names(dir),
            What::Log if r == self.log_rank()? => {
                self.flush_log(self.load(header::CHECKPOINT_END)?)
            }
            What::Frames | What::Log => {
                let opened = door::open(dir, file)?;
                // Should this process be killed after it is told of an error.
                self.note_in_round(r, 1 << (ASKED_BITS + what as u32))?;
                door::flush(&opened, dir, file)
            }
        };
        match flush() {
            // Gone with its rank.
            Err(_) if what == What::Data && self.is_data_gone(r) => {}
            // The others end it.
            Err(error) if round == Round::Ends && is_absent(error) => return Ok(()),
            Err(error) if what == What::Log && r != self.log_rank()? && !is_own(error) => {
                self.forsake_copy(r)?
            }
            other => other?,
        }
        self.note_done(r, what)?;
        if round == Round::Ends {
            crash_point!("checkpoint.ended");
        }
        Ok(())
    }

    /// Whether the end of the checkpoint was flushed to a rank in the round in progress.
    pub(crate) fn is_end_flushed(&self, r: u16) -> Result<bool> {
        self.is_done(r, What::Frames)
    }

    /// Whether it was to any.
    pub(crate) fn is_any_end_flushed(&self) -> Result<bool> {
        let mut any = false;
        for r in 0..self.rank_count() {
            any |= self.is_end_flushed(r)?;
        }
        Ok(any)
    }

    fn is_data_gone(&self, r: u16) -> bool {
        self.rank_dir(r)
            .is_ok_and(|dir| door::open(dir, RankFile::Data).is_err_and(is_absent))
    }

    /// A copy of the log that cannot be flushed is made anew some time.
    fn forsake_copy(&self, r: u16) -> Result<()> {
        self.store(rank_at(r) + rank::LOG_COPIED, 0)?;
        self.store(rank_at(r) + rank::LOG_STORED, PASSED_OVER)
    }

    /// Whether the kernel can be asked for a flush: not if success would say nothing.
    fn can_ask_for(&self, r: u16, what: What) -> Result<bool> {
        match what {
            What::Data => self.is_data_sure(r),
            What::Log if r == self.log_rank()? => self.is_log_sure(),
            _ => Ok(true),
        }
    }

    /// Asks the kernel for some of the flushes; true once it was asked for all.
    fn ask(&self, round: Round, pace: Pace) -> Result<bool> {
        let own = self.own.flushes();
        let most = match self.is_room_short()? {
            true => FLUSHES_AT_ONCE,
            false => 1,
        };
        while load(&own[NEXT]) < self.flush_count() {
            if pace == Pace::Piece && load(&own[OUT]) >= most {
                return Ok(false);
            }
            let index = load(&own[NEXT]);
            let (r, what) = Pool::flush_at(index);
            if let Some(file) = self.is_wanted(round, r, what)? {
                // What came of a flush that somebody has asked for before is looked at first, as long as
                // nobody has to wait for it.
                let patient = pace == Pace::Piece && !self.is_room_short()?;
                if patient && self.is_unknown(r, what)? {
                    return Ok(false);
                }
                let data = load(&own[ROUND]) << 16 | index;
                if self.can_ask_for(r, what)? && self.ask_for(r, what, file, data).is_ok() {
                    store(&own[OUT], load(&own[OUT]) + 1);
                    crash_point!("checkpoint.asked");
                } else {
                    // Or the kernel does not do so, or not for this file; or the file is gone.
                    self.flush_now(round, index)?;
                }
            }
            store(&own[NEXT], index + 1);
        }
        Ok(true)
    }

    /// Whether it is not known what came of an earlier flush of the same.
    fn is_unknown(&self, r: u16, what: What) -> Result<bool> {
        match what {
            What::Data => self.has_anybody_asked(r),
            What::Log if r == self.log_rank()? => self.is_log_asked(),
            _ => Ok(false),
        }
    }

    fn ask_for(&self, r: u16, what: What, file: RankFile, data: u64) -> Result<()> {
        let own = self.own.flushes();
        let queue = match Queue::from_number(load(&own[QUEUE])) {
            Some(queue) => queue,
            None => {
                let queue = Queue::new(self.flush_count() as usize)?;
                store(&own[QUEUE], queue.number());
                queue
            }
        };
        let dir = self.rank_dir(r)?;
        if what == What::Names {
            return door::queue_names(queue, dir, data);
        }
        // The queue goes with the memory, which a vfork child shares.
        let slot = self.asker()?;
        let opened = match what {
            What::Data => self.open_data(r)?,
            _ => door::open(dir, file)?,
        };
        let ours = what == What::Log && r == self.log_rank()?;
        match what {
            What::Data => self.note_asked(slot, r, &opened)?,
            _ if ours => self.note_log_asked(slot)?,
            _ => self.note_in_round(r, 1 << (ASKED_BITS + what as u32))?,
        }
        let queued = door::queue_flush(queue, &opened, dir, file, data);
        match what {
            What::Frames => crash_point!("checkpoint.frames"),
            _ if ours => crash_point!("checkpoint.log"),
            _ => {}
        }
        // One that was not asked for was not told of either.
        match (what, queued) {
            (What::Data, Err(_)) => self.forget_asked(slot, r)?,
            (_, Err(_)) if ours => self.forget_log_asked(slot)?,
            _ => {}
        }
        queued
    }

    /// Slot of the process whose queue this is.
    fn asker(&self) -> Result<u32> {
        match crate::thread::vfork::child() {
            Some(_) => Err(Errno::EAGAIN),
            None => process::slot(self),
        }
    }

    /// Takes what has come back.
    fn take_events(&self, pace: Pace) -> Result<()> {
        const A_LITTLE: i64 = 5_000_000;
        let own = self.own.flushes();
        let Some(queue) = Queue::from_number(load(&own[QUEUE])) else {
            return Ok(());
        };
        let mut wait = if pace == Pace::Patient && load(&own[OUT]) > 0 {
            A_LITTLE
        } else {
            0
        };
        loop {
            let mut room = [const { MaybeUninit::uninit() }; EVENTS];
            let events = queue.events(wait, &mut room)?;
            for event in events {
                self.take_event(event)?;
            }
            if events.len() < EVENTS {
                return Ok(());
            }
            wait = 0;
        }
    }

    /// Looks what has come of what this process has asked for, unless somebody is at a checkpoint.
    pub(crate) fn look_at_asked(&self) -> Result<()> {
        let (block, me) = self.me()?;
        if block.held.load(Ordering::Relaxed) != 0
            || crate::thread::vfork::child().is_some()
            || !self.try_acquire(block, me, LockId::Checkpoint)?
        {
            return Ok(());
        }
        let taken = self.take_events(Pace::Piece);
        self.release(block, me, LockId::Checkpoint);
        taken
    }

    fn take_event(&self, event: &Event) -> Result<()> {
        let own = self.own.flushes();
        let (r, what) = Pool::flush_at(event.data & 0xffff);
        let dir = self.rank_dir(r)?;
        let file = match what {
            What::Data => Some(RankFile::Data),
            What::Log => Some(RankFile::Log),
            What::Frames => self.frame_file(r)?.map(|(file, _)| file),
            What::Names => None,
        };
        let done = door::outcome(event.data, event.result());
        match (file, done) {
            (None, Ok(())) => door::names_flushed(dir, event.data),
            (None, Err(_)) => {}
            (Some(file), Ok(())) => door::flushed(dir, file, event.data),
            (Some(file), Err(_)) if event.result().is_err() => {
                door::flush_failed(dir, file, event.data)
            }
            _ => {}
        }
        // Whoever flushes next has to know, also if others have ended the round.
        let slot = (load(self.own.slot()) as u32).checked_sub(1);
        let ours = what == What::Log && r == self.log_rank()?;
        match done {
            Err(_) if what == What::Data => self.doubt_data(r)?,
            Err(_) if ours => self.doubt_log()?,
            _ => {}
        }
        crash_point!("checkpoint.told");
        match slot {
            Some(slot) if what == What::Data => {
                self.unlock_kept(slot, r);
                self.forget_asked(slot, r)?;
            }
            Some(slot) if ours => self.forget_log_asked(slot)?,
            _ => {}
        }
        if event.data >> 16 != load(&own[ROUND]) {
            return Ok(());
        }
        store(&own[OUT], load(&own[OUT]).saturating_sub(1));
        match done {
            Err(_) if what == What::Log && r != self.log_rank()? => self.forsake_copy(r),
            Err(error) => {
                store(&own[FAILED], error.code() as u64);
                Ok(())
            }
            Ok(()) => self.note_done(r, what),
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::image::{Image, taping};
    use crate::testing::{Failure, Step, TempPool, tape};

    fn wanted(pool: &Pool) -> usize {
        let wants = |index: &u64| {
            let (r, what) = Pool::flush_at(*index);
            let file = pool.is_wanted(Round::Base, r, what).expect("wanted");
            file.is_some()
        };
        (0..pool.flush_count()).filter(wants).count()
    }

    #[test]
    fn what_a_process_has_flushed_before_it_ended_is_left_out_by_others() {
        let temp = TempPool::new(3, 64);
        let pool = temp.pool;
        // Leaves frame files.
        pool.checkpoint().expect("checkpoint");
        for round in 0..2 {
            pool.begin_round().expect("round");
            let all = wanted(pool);
            assert!(all >= 3, "{round}: {all}");
            for flushed in 0..all {
                assert_eq!(wanted(pool), all - flushed, "{round}");
                let done = pool.flush_round(Round::Base, Pace::Piece).expect("asked");
                // The last may be back already.
                assert!(!done || flushed + 1 == all, "{round}: {flushed} of {all}");
                pool.await_flushes().expect("flushed");
                // Another process knows nothing of it.
                pool.own
                    .flushes()
                    .iter()
                    .skip(ROUND)
                    .for_each(|word| store(word, 0));
            }
            assert!(pool.flush_round(Round::Base, Pace::Piece).expect("ended"));
        }
    }

    #[test]
    fn what_another_process_has_asked_for_is_waited_for_while_it_is_there() {
        let temp = TempPool::new(3, 64);
        let pool = temp.pool;
        pool.checkpoint().expect("checkpoint");
        pool.begin_round().expect("round");
        let me = process::slot(pool).expect("slot");
        let now = sys::clock::monotonic() as u64;
        for (slot, since, waits) in [
            (me, now, true),
            (me, now - 2 * LOOK as u64, true),
            (me, now - 2 * PATIENCE as u64, false),
            (me + 1, now - 2 * LOOK as u64, false),
        ] {
            pool.store(header::CHECKPOINT_ASKED, since).expect("store");
            pool.store(header::CHECKPOINT_ASKER, u64::from(slot) + 1)
                .expect("store");
            assert_eq!(pool.is_asked_for(), Ok(waits), "{slot} {since}");
        }
        pool.store(header::CHECKPOINT_ASKED, 0).expect("store");
        assert_eq!(pool.is_asked_for(), Ok(false));
    }

    #[test]
    fn frames_that_may_not_be_on_their_device_are_written_anew_at_any_pace() {
        let temp = Image::new(2);
        let pool = temp.pool;
        for pace in [Pace::Piece, Pace::Whole] {
            pool.begin_round().expect("round");
            let asked = 1 << (ASKED_BITS + What::Frames as u32);
            pool.note_in_round(1, asked).expect("asked");
            assert_eq!(
                pool.flush_round(Round::Base, pace),
                Err(UNKNOWN),
                "{pace:?}"
            );
        }
    }

    #[test]
    fn a_flush_of_frames_that_failed_is_not_tried_again() {
        let _taping = taping();
        let temp = Image::new(2);
        let pool = temp.pool;
        // Leaves frame files.
        pool.checkpoint().expect("checkpoint");
        pool.begin_round().expect("round");
        tape::start(&temp.spec.ranks);
        tape::fail(Some(Failure {
            step: Step::Flush,
            file: RankFile::Meta,
            rank: Some(1),
            after: 0,
            times: 1,
            errno: Errno::EIO,
        }));
        assert_eq!(pool.flush_round(Round::Base, Pace::Whole), Err(Errno::EIO));
        tape::stop();
        // As if this process had been killed before it gave the checkpoint up.
        assert_eq!(pool.flush_round(Round::Base, Pace::Whole), Err(UNKNOWN));
    }
}
