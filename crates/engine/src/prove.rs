//! Checksums of published data in the log: what is left without a sync.
//!
//! The kernel writes data and log back by itself, within about half a minute; but after a power
//! failure a pointer counts only if its data is known to be there. So a process puts the checksums
//! of blocks that it has stored, and that no sync has covered, into the log, and flushes nothing:
//! some seconds after it stored them, piece by piece, when it next changes something, and the rest
//! when it ends. For one that was killed, whoever finds it dead does so; for one that lives and does
//! nothing, whoever changes something or attaches meanwhile.

use crate::flushes::FLUSH_WORDS;
use crate::layout::{BlockPtr, header, process_at};
use crate::limits::{REPLICAS_MAX, TX_WORDS_MAX};
use crate::log::{PAD_MAGIC, RecordKind, as_bytes, kind_and_bytes, process_of};
use crate::pool::{LockId, Pool};
use crate::process;
use crate::recover::{Map, Place, each_block_published};
use crate::sync::BLOCK_WORDS;
use crate::tx::RECORD_HEADER;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use shm::crash_point;
use sys::{Errno, Result};

/// Words of the record for one copy of a block: pointer, checksum.
pub(crate) const SUM_WORDS: usize = 2;
/// Limits of one piece of work: blocks whose checksums are taken, bytes of the log looked through.
#[derive(Clone, Copy)]
struct Most {
    blocks: usize,
    log: u64,
}

/// Blocks whose checksums are taken at most when a process ends (4 GiB).
const BLOCKS_MAX: usize = 1 << 20;
/// When a process ends, again and again.
const AT_END: Most = Most {
    blocks: 1 << 14,
    log: u64::MAX,
};
/// On behalf of a process that was killed.
const OF_DEAD: Most = AT_END;
/// In passing: a fraction of a millisecond's work.
const IN_PASSING: Most = Most {
    blocks: 256,
    log: 512 << 10,
};
/// Nanoseconds between two looks at what others have stored, and the age at which it is looked at.
const AFTER: u64 = 10_000_000_000;

/// How often something is done: so many times in a row, and once more each time this has passed.
struct Pace {
    /// Where in the process's own words the time is at which it would all be used up.
    word: usize,
    in_a_row: u64,
    /// Nanoseconds.
    every: u64,
}

/// Proofs in passing, after data was published.
const PUBLISHED: Pace = Pace {
    word: Own::PUBLISHED,
    in_a_row: 32,
    every: 20_000_000,
};
/// Proofs when a file is closed: each has work of its own and that of its data,
/// which the process's end has otherwise.
const CLOSED: Pace = Pace {
    word: Own::CLOSED,
    in_a_row: 32,
    every: 1_000_000,
};

/// Whether a time that somebody has noted is still to come. One that nobody can have noted was before the
/// clock was set back.
#[inline]
fn is_ahead(time: u64, now: u64) -> bool {
    time.wrapping_sub(now) <= AFTER
}

/// In the word that says from where on a process's data may not be proven: it is being proven, and
/// nothing was published since that was begun.
const PROVING: u64 = 1 << 63;

/// Whose data is proven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Of the process in a slot.
    Process(u32),
    /// Of all whose data was there when the arena was built.
    Left,
}

/// Words of a process's own that a forked child does not inherit: process slot + 1; when something
/// is due whatever is stored (0 = nothing is); whether it is; number of pointers noted; flushes asked for
/// (`flushes`); the log position before which it leaves checkpoints to others, how it has it mapped,
/// where it ended when this process last appended; its id and the inode of its PID namespace, 0 = not
/// known; the paces of its proofs; the last pointers.
pub(crate) struct Own(&'static [AtomicU64; Own::WORDS]);

impl Own {
    pub(crate) const WORDS: usize = 512;
    const SLOT: usize = 0;
    const DUE_AT: usize = 1;
    const DUE: usize = 2;
    const NOTED: usize = 3;
    const FLUSHES: usize = 4;
    const AWAY: usize = Own::FLUSHES + FLUSH_WORDS;
    const STRIDE: usize = Own::AWAY + 1;
    const SEEN: usize = Own::STRIDE + 2;
    const NAMESPACE: usize = Own::SEEN + 1;
    const PUBLISHED: usize = Own::NAMESPACE + 1;
    const CLOSED: usize = Own::PUBLISHED + 1;
    const POINTERS: usize = Own::CLOSED + 1;

    /// `words` are zero.
    pub(crate) fn new(words: &'static [AtomicU64; Own::WORDS]) -> Own {
        Own(words)
    }

    /// The process slot + 1.
    #[inline]
    pub(crate) fn slot(&self) -> &AtomicU64 {
        &self.0[Own::SLOT]
    }

    #[inline]
    fn is_due(&self) -> bool {
        self.0[Own::DUE].load(Ordering::Relaxed) != 0
    }

    /// Looks at the time, when something was published: data, or only names.
    #[inline]
    fn tick(&self, data: bool, now: u64) {
        let at = self.0[Own::DUE_AT].load(Ordering::Relaxed);
        if !is_ahead(at, now) {
            self.come_due(at, now);
        }
        if data && self.keeps(&PUBLISHED, now) {
            self.0[Own::DUE].store(1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn come_due(&self, at: u64, now: u64) {
        match at {
            0 => self.0[Own::DUE_AT].store(now + AFTER, Ordering::Relaxed),
            _ => self.0[Own::DUE].store(1, Ordering::Relaxed),
        }
    }

    /// Whether doing it now keeps a pace.
    #[inline]
    fn keeps(&self, pace: &Pace, now: u64) -> bool {
        let used_up = self.0[pace.word].load(Ordering::Relaxed);
        now.saturating_add(pace.in_a_row * pace.every) > used_up || !is_ahead(used_up, now)
    }

    /// It is being done.
    fn pace(&self, pace: &Pace, now: u64) {
        let used_up = self.0[pace.word].load(Ordering::Relaxed);
        let from = if is_ahead(used_up, now) { used_up } else { now };
        self.0[pace.word].store(from.saturating_add(pace.every), Ordering::Relaxed);
    }

    /// Words of `flushes`.
    pub(crate) fn flushes(&self) -> &[AtomicU64; FLUSH_WORDS] {
        let words = self.0[Own::FLUSHES..].first_chunk();
        words.unwrap_or_else(|| unreachable!("fewer words than there are"))
    }

    /// Bytes this process has appended since it last changed what it has mapped of the log, and the log
    /// position then.
    #[inline]
    pub(crate) fn stride(&self) -> (&AtomicU64, &AtomicU64) {
        (&self.0[Own::STRIDE], &self.0[Own::STRIDE + 1])
    }

    /// Where the log ended when this process last appended to it. Unlike the end itself, it is not in
    /// another processor's cache.
    #[inline]
    pub(crate) fn seen(&self) -> &AtomicU64 {
        &self.0[Own::SEEN]
    }

    /// `process id:32 | inode of its PID namespace:32`.
    pub(crate) fn namespace(&self) -> &AtomicU64 {
        &self.0[Own::NAMESPACE]
    }

    /// Log position before which this process leaves checkpoints to others.
    pub(crate) fn away(&self) -> &AtomicU64 {
        &self.0[Own::AWAY]
    }

    fn pointers(&self) -> &[AtomicU64] {
        &self.0[Own::POINTERS..]
    }
}

/// Notes that what was published at log position `first` - 1 may not be proven, in a word that was `seen`.
#[cold]
fn note_unproven(word: &AtomicU64, mut seen: u64, first: u64) {
    loop {
        let new = match seen {
            0 => first,
            _ if seen & PROVING != 0 => seen & !PROVING,
            // Another thread's is as early.
            _ => return,
        };
        match word.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

impl Pool {
    /// Before a transaction takes its locks, and after a call that has stored something: if it is time,
    /// some of what was stored is proven.
    #[inline]
    pub fn prove_when_due(&self) {
        if self.own.is_due() {
            self.prove_some();
        }
    }

    /// After a file was closed: what this process has stored is proven. A failure is of no consequence: it
    /// counts as unsynced.
    #[inline]
    pub fn prove_closed(&self) {
        let Some(slot) = process::known_slot(self) else {
            return;
        };
        let overwritten = self.own.0[Own::NOTED].load(Ordering::Relaxed) != 0;
        if overwritten || process::is_unproven(self, slot).unwrap_or(false) {
            self.prove_at_pace(slot);
        }
    }

    #[cold]
    fn prove_at_pace(&self, slot: u32) {
        let now = self.now_ns() as u64;
        if self.own.keeps(&CLOSED, now) {
            self.own.pace(&CLOSED, now);
            let proven = self.prove_overwritten();
            proven
                .and_then(|()| self.prove_all_of(slot, || ()))
                .unwrap_or_default();
        }
    }

    /// After a change was published at `position`, with pointers to `data` or without.
    #[inline]
    pub(crate) fn note_published(&self, position: u64, data: bool, now: u64) -> Result<()> {
        if data {
            let word = self.word(process_at(process::slot(self)?) + process::UNPROVEN)?;
            // ORDERING: the log's end has moved before this looks: on x86-64 for the swap that released
            // its lock.
            if cfg!(not(target_arch = "x86_64")) {
                fence(Ordering::SeqCst);
            }
            let seen = word.load(Ordering::Relaxed);
            if seen == 0 || seen & PROVING != 0 {
                note_unproven(word, seen, position + 1);
            }
        }
        self.own.tick(data, now);
        Ok(())
    }

    /// Notes that a block was stored where it lies. Only the last some hundred are remembered.
    #[inline]
    pub fn note_overwritten(&self, at: BlockPtr) {
        let pointers = self.own.pointers();
        let count = self.own.0[Own::NOTED].load(Ordering::Relaxed);
        let place = |count: u64| &pointers[count as usize % pointers.len()];
        if count == 0 || place(count - 1).load(Ordering::Relaxed) != at.0 {
            place(count).store(at.0, Ordering::Relaxed);
            self.own.0[Own::NOTED].store(count + 1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn prove_some(&self) {
        let now = self.now_ns() as u64;
        let due = &self.own.0[Own::DUE];
        due.store(0, Ordering::Relaxed);
        self.own.pace(&PUBLISHED, now);
        let own = self
            .prove_overwritten()
            .and_then(|()| self.prove_of(Whose::Process(process::slot(self)?), IN_PASSING));
        let at = &self.own.0[Own::DUE_AT];
        let seen = at.load(Ordering::Relaxed);
        let again = match own {
            Ok(true) if is_ahead(seen, now) => return,
            Ok(true) if self.prove_others() == Ok(true) => now + AFTER,
            _ => now + PUBLISHED.every,
        };
        at.store(again, Ordering::Relaxed);
    }

    /// Does some of it for a process that has not done it for its part in time; true if there is none.
    pub fn prove_others(&self) -> Result<bool> {
        if !self.prove_of(Whose::Left, IN_PASSING)? {
            return Ok(false);
        }
        let (own, now) = (process::known_slot(self), self.now_ns() as u64);
        for slot in (0..process::used(self)?).filter(|slot| Some(*slot) != own) {
            let first = self.load(process_at(slot) + process::UNPROVEN)? & !PROVING;
            // Free or not: a process that is gone may have left some.
            if first == 0 || !self.is_due_at(first - 1, now)? {
                continue;
            }
            // One at a time: whoever does it has something else to do.
            self.prove_of(Whose::Process(slot), IN_PASSING)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether the record at a position was published long enough ago, or is not there any more.
    fn is_due_at(&self, position: u64, now: u64) -> Result<bool> {
        let ring = self.load(header::LOG_BYTES)?.max(1);
        let mut head = [0; RECORD_HEADER];
        if ring - position % ring < size_of_val(&head) as u64 {
            return Ok(true);
        }
        self.log_words(position, &mut head)?;
        // Also one that was published before the clock was set back.
        Ok(head[1] != position || now.abs_diff(head[3]) > AFTER)
    }

    /// Puts the checksums of what this process has stored, and nobody has synced, into the log.
    pub fn prove(&self) -> Result<()> {
        self.prove_overwritten()?;
        if let Some(slot) = process::known_slot(self) {
            self.prove_all_of(slot, || {
                std::thread::sleep(core::time::Duration::from_millis(1));
            })?;
        }
        self.prove_of(Whose::Left, OF_DEAD).map(|_| ())
    }

    /// Does so for this process, whose slot it is; `wait` is called when another thread is at a piece of it.
    fn prove_all_of(&self, slot: u32, wait: impl Fn()) -> Result<()> {
        for _ in 0..BLOCKS_MAX / AT_END.blocks {
            let done = self.prove_of(Whose::Process(slot), AT_END)?;
            if done && !process::is_unproven(self, slot)? {
                break;
            }
            if done {
                wait();
            }
        }
        Ok(())
    }

    /// The same of a process that is dead, within reason.
    pub(crate) fn prove_of_dead(&self, slot: u32) -> Result<()> {
        self.prove_of(Whose::Process(slot), OF_DEAD).map(|_| ())
    }

    /// Puts the checksums of the blocks that were stored where they lie into the log: if they were
    /// published after the last sync, those that stand there are wrong now.
    pub fn prove_overwritten(&self) -> Result<()> {
        let count = self.own.0[Own::NOTED].swap(0, Ordering::Relaxed);
        let tail = self.load(header::LOG_TAIL)?;
        let mut words = Vec::new();
        for pointer in self.own.pointers().iter().take(count as usize) {
            self.add_sum(&[pointer.load(Ordering::Relaxed)], &mut words)?;
        }
        self.append_sums(tail, &words)
    }

    /// Puts the checksums of blocks that somebody has published into the log, within limits; true if
    /// those were all, or somebody else is at it.
    fn prove_of(&self, whose: Whose, most: Most) -> Result<bool> {
        match whose {
            Whose::Process(slot) => self.prove_of_process(slot, most),
            Whose::Left => {
                if self.load(header::LEFT_UNPROVEN)? == 0 {
                    return Ok(true);
                }
                // Not with the lock held.
                self.make_log_room().ok();
                let (block, me) = self.me()?;
                if !self.try_acquire(block, me, LockId::Prove)? {
                    return Ok(true);
                }
                let prove = || match self.load(header::LEFT_UNPROVEN)?.checked_sub(1) {
                    None => Ok(None),
                    Some(first) => {
                        crash_point!("prove.left");
                        let at = self.prove_from(first, whose, most)?;
                        // Should this process be killed before, the next one begins there again.
                        self.store(header::LEFT_UNPROVEN, at.map_or(0, |at| at + 1))?;
                        Ok(at)
                    }
                };
                let proven = prove();
                self.release(block, me, LockId::Prove);
                proven.map(|at| at.is_none())
            }
        }
    }

    fn prove_of_process(&self, slot: u32, most: Most) -> Result<bool> {
        let unproven = self.word(process_at(slot) + process::UNPROVEN)?;
        if unproven.load(Ordering::Relaxed) == 0 {
            return Ok(true);
        }
        let prover = self.word(process_at(slot) + process::PROVER)?;
        let seen = prover.load(Ordering::Acquire);
        if seen != 0 && process::is_at_work(self, seen) {
            return Ok(true);
        }
        let mine = process::worker(self)?;
        if prover
            .compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return Ok(true);
        }
        let proven = self.prove_claimed(slot, unproven, most);
        prover.store(0, Ordering::Release);
        proven
    }

    /// Nobody else does so for the process in `slot`. Should this process be killed at it, the next
    /// one begins where it has begun.
    fn prove_claimed(&self, slot: u32, unproven: &AtomicU64, most: Most) -> Result<bool> {
        let begin = |word: u64| (word != 0).then_some(word | PROVING);
        let Ok(known) = unproven.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin) else {
            return Ok(true);
        };
        let known = known & !PROVING;
        // ORDERING: what is published so late that it does not lie before this tail takes the bit off.
        fence(Ordering::SeqCst);
        let tail = self.load(header::LOG_TAIL)?;
        crash_point!("prove.process");
        let proven = self.prove_from(known - 1, Whose::Process(slot), most);
        match proven {
            Ok(None) => {
                let (begun, done) = (known | PROVING, Ordering::AcqRel);
                let ended = unproven.compare_exchange(begun, 0, done, Ordering::Relaxed);
                if ended.is_err() {
                    unproven.store(tail + 1, Ordering::Release);
                }
            }
            Ok(Some(at)) => unproven.store(at + 1, Ordering::Release),
            Err(_) => unproven.store(known, Ordering::Release),
        }
        proven.map(|at| at.is_none())
    }

    /// Does so for what was published from `first` on; returns how far it has come if not to the end.
    fn prove_from(&self, first: u64, whose: Whose, most: Most) -> Result<Option<u64>> {
        let tail = self.load(header::LOG_TAIL)?;
        let from = first
            .max(self.load(header::DATA_SYNCED)?)
            .max(self.load(header::LOG_HEAD)?);
        let left_end = self.load(header::LEFT_END)?;
        if whose == Whose::Left && from >= left_end {
            return Ok(None);
        }
        let (mut found, mut pointers) = (Vec::new(), Vec::new());
        let mut newest: Map<Place, u64> = Map::default();
        let reached = self.each_recent_change(from, tail, &mut |record| {
            let own = match whose {
                Whose::Process(slot) => process_of(record[2]) == slot && record[1] >= left_end,
                Whose::Left => record[1] < left_end,
            };
            if own && found.len() >= most.blocks || record[1] >= from.saturating_add(most.log) {
                return Ok(false);
            }
            each_block_published(record, &mut |copies| {
                let begin = pointers.len();
                for copy in copies.iter().map(|copy| BlockPtr(*copy)) {
                    if !copy.is_hole() {
                        newest.insert(copy.place(), record[1]);
                        pointers.push(copy.0);
                    }
                }
                if own {
                    found.push((record[1], begin..pointers.len()));
                } else {
                    pointers.truncate(begin);
                }
                Ok(())
            })?;
            Ok(true)
        })?;
        let mut words = Vec::new();
        for (position, copies) in found {
            let copies = &pointers[copies];
            // A block that was taken again holds something else than the other copies do.
            let is_newest = |copy: &u64| newest.get(&BlockPtr(*copy).place()) == Some(&position);
            if copies.iter().all(is_newest) {
                self.add_sum(copies, &mut words)?;
            }
        }
        self.append_sums(reached.unwrap_or(tail), &words)?;
        Ok(reached)
    }

    /// Appends checksums of what was published before a position: what was published since may
    /// lie in the same blocks.
    fn append_sums(&self, before: u64, words: &[u64]) -> Result<()> {
        const PAIRS: usize = (TX_WORDS_MAX - RECORD_HEADER) / SUM_WORDS - 1;
        for part in words.chunks(PAIRS * SUM_WORDS) {
            // Where the log cannot be emptied, it may have room for this all the same.
            let short = self.make_log_room().err();
            let (block, me) = self.me()?;
            let mut record = vec![0; RECORD_HEADER];
            record.extend_from_slice(&[BlockPtr::HOLE.0, before]);
            record.extend_from_slice(part);
            // It takes no space; what gives some back needs the rest.
            if !self.leaves_room(record.len() as u64 * 8, false, false)? {
                return Err(short.unwrap_or(Errno::ENOSPC));
            }
            self.append(block, me, RecordKind::Sums, &mut record)?;
        }
        Ok(())
    }

    /// Lists the copies of a block with the checksum of what it holds now.
    fn add_sum(&self, copies: &[u64], words: &mut Vec<u64>) -> Result<()> {
        let mut places = [BlockPtr::HOLE; REPLICAS_MAX];
        let places = places.get_mut(..copies.len()).ok_or(Errno::EIO)?;
        for (place, copy) in places.iter_mut().zip(copies) {
            *place = BlockPtr(*copy);
        }
        // What cannot be read is not proven.
        let places = places.iter().filter(|place| !place.is_hole());
        let mut content = [0u64; BLOCK_WORDS];
        for place in places.clone() {
            if self.read_any_copy(&[*place], &mut content).is_ok() {
                let sum = u64::from(crc32fast::hash(as_bytes(&content)));
                places.for_each(|place| words.extend([place.0, sum]));
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` for the changes published from `from` to `tail`, until it says false: then where that
    /// change lies; or where the log begins now, if a checkpoint has covered what comes next.
    pub(crate) fn each_recent_change(
        &self,
        from: u64,
        tail: u64,
        each: &mut dyn FnMut(&[u64]) -> Result<bool>,
    ) -> Result<Option<u64>> {
        let ring = self.load(header::LOG_BYTES)?;
        let mut record = vec![0u64; TX_WORDS_MAX];
        let mut position = from;
        while position < tail {
            let to_end = ring - position % ring;
            self.log_words(position, &mut record[..1])?;
            let (kind, bytes) = kind_and_bytes(record[0]);
            let len = (bytes / 8) as usize;
            let whole = (RECORD_HEADER..=TX_WORDS_MAX).contains(&len) && bytes <= to_end;
            if whole {
                self.log_words(position, &mut record[..len])?;
            }
            // ORDERING: what was copied was there only if nobody may have overwritten it before this.
            fence(Ordering::Acquire);
            let head = self.load(header::LOG_HEAD)?;
            if position < head {
                return Ok((head < tail).then_some(head));
            }
            if whole && record[1] == position {
                if kind == RecordKind::Change as u8 && !each(&record[..len])? {
                    return Ok(Some(position));
                }
                position += bytes;
            } else if record[0] == to_end | PAD_MAGIC << 32 {
                position += to_end;
            } else {
                // Damaged: what follows is not proven.
                return Ok(None);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_while_a_proof_is_under_way_is_noted() {
        for (seen, after) in [(0, 77), (40 | PROVING, 40), (40, 40)] {
            let word = AtomicU64::new(seen);
            note_unproven(&word, seen, 77);
            assert_eq!(word.load(Ordering::Relaxed), after);
        }
        // It has ended since the word was looked at.
        let word = AtomicU64::new(0);
        note_unproven(&word, 40 | PROVING, 77);
        assert_eq!(word.load(Ordering::Relaxed), 77);
    }

    #[test]
    fn a_clock_that_is_set_back_delays_no_proof() {
        const NOW: u64 = 1 << 60;
        let words: Box<[AtomicU64; Own::WORDS]> = Box::new([const { AtomicU64::new(0) }; _]);
        let own = Own::new(Box::leak(words));
        own.tick(false, NOW);
        let before = NOW - 3_600_000_000_000;
        for pace in [&PUBLISHED, &CLOSED] {
            own.pace(pace, NOW);
            for _ in 0..pace.in_a_row {
                assert!(own.keeps(pace, before));
                own.pace(pace, before);
            }
            assert!(!own.keeps(pace, before));
            assert!(own.keeps(pace, before + pace.every));
        }
        own.tick(false, NOW);
        assert!(!own.is_due());
        own.tick(false, before);
        assert!(own.is_due());
    }
}
