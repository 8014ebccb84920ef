//! Descriptions that only one process has: it opens and closes them by stores of its own, without a
//! transaction.
//!
//! A process keeps the records of some descriptions it has closed, each in a *place*, a word of its
//! process slot that says in which state ([`state`]) the record is. To open, it takes a place that is
//! [`state::SPARE`], fills the record in, and has opened once the place says [`state::OPEN`]; to close,
//! it goes back. Neither the inode's open count nor the table of holds knows of it. Who has to know
//! looks through the places, and is not too late:
//!
//! * Who frees an inode sets [`inode::DYING`] before it looks ([`Dfs::is_open`]), and who opens sees to
//!   it that it is found before it reads that flag, so at least one of the two sees the other. Who closes
//!   reads the flag after it has let go, and frees what was kept for its sake ([`Dfs::reclaim`]) before the
//!   record names another.
//! * In the same way who forks or runs a program tells first, and looks then
//!   ([`Dfs::share_all`], [`Dfs::is_written`]).
//! * Before another process may come to have a description (fork, exec, messages), and before it gets
//!   locks, it becomes one like any other ([`Dfs::share`]); it never turns back.
//!
//! A word of the pool for each hash of an inode's number says how many private descriptions there may
//! be ([`noted`]); it is too high where a process was killed at the wrong moment, and never too low.
//!
//! What is stored here directly is never part of a transaction that somebody else might apply once more:
//! a place changes from 0 and to 0 by transactions, and from [`state::PARKED`] by who has committed them.

use super::holds::{self, word_at};
use super::{Open, Purpose, field};
use crate::inode::{self, high, link_word, low, pair, word};
use crate::{Dfs, Ino, Ofd};
use core::sync::atomic::{AtomicU64, Ordering, fence};
use engine::{LockId, Pool, Rec, SHARED_WORDS, Tx, crash_point, kind, process, tag_generation};
use sys::{Errno, Result};

/// Places of a process.
const PLACES: u64 = 8;
/// First of the words of a process that are places: they fill a cache line.
const FIRST_WORD: u64 = 11;

const _: () = assert!(FIRST_WORD + PLACES <= process::USER_WORDS);

/// States of a place, its highest byte; 0 = it has no record.
mod state {
    /// The record is of no use yet, or no more.
    pub(super) const PARKED: u64 = 1;
    /// The record may be used. It names no inode.
    pub(super) const SPARE: u64 = 2;
    /// The process has let go of it, and has yet to look whether the inode is to be freed.
    pub(super) const LEFT: u64 = 3;
    /// It is being filled in.
    pub(super) const OPENING: u64 = 4;
    /// The same, but it must not become [`OPEN`]: the process forks.
    pub(super) const REVOKED: u64 = 5;
    /// The process has the description.
    pub(super) const OPEN: u64 = 6;
    /// The process has it, and it is about to become one like any other.
    pub(super) const CLAIMED: u64 = 7;
}

const STATE_AT: u32 = 56;
const GENERATION: u64 = 0xff_ffff;

/// What a place says: `state:8 | low bits of the record's generation:24 | record:32`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    fn new(state: u64, generation: u32, rec: Rec) -> Entry {
        let generation = u64::from(generation) & GENERATION;
        Entry(state << STATE_AT | generation << 32 | u64::from(rec.0))
    }

    fn state(self) -> u64 {
        self.0 >> STATE_AT
    }

    fn rec(self) -> Rec {
        Rec(low(self.0))
    }

    fn to(self, state: u64) -> Entry {
        Entry(self.0 & !(u64::MAX << STATE_AT) | state << STATE_AT)
    }

    /// Whether the process has the description, as others see it.
    fn is_had(self) -> bool {
        matches!(self.state(), state::OPEN | state::CLAIMED)
    }

    /// Whether somebody may count on the description's inode.
    fn is_busy(self) -> bool {
        self.state() > state::LEFT
    }
}

/// A place of a process.
#[derive(Clone, Copy)]
struct Place<'p> {
    word: &'p AtomicU64,
    offset: u64,
}

impl<'p> Place<'p> {
    fn new(pool: &'p Pool, slot: u32, number: u64) -> Result<Place<'p>> {
        let offset = word_at(slot, FIRST_WORD + number % PLACES);
        Ok(Place {
            word: pool.word(offset)?,
            offset,
        })
    }

    fn all(pool: &'p Pool, slot: u32) -> impl Iterator<Item = Result<Place<'p>>> {
        (0..PLACES).map(move |number| Place::new(pool, slot, number))
    }

    fn get(self) -> Entry {
        Entry(self.word.load(Ordering::SeqCst))
    }

    /// Changes what the place says, if that is what is expected.
    fn change(self, from: Entry, to: Entry) -> bool {
        self.word
            .compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Changes the state alone.
    fn turn(self, from: Entry, state: u64) -> bool {
        self.change(from, from.to(state))
    }
}

/// How many private descriptions of an inode, or others with its hash, there may be.
fn noted(pool: &Pool, ino: Ino) -> Result<&AtomicU64> {
    let hash = ino.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    pool.word(engine::shared_word(hash % SHARED_WORDS))
}

/// A word that somebody may have changed before looking at what the caller has changed.
fn look(pool: &Pool, at: u64) -> Result<u64> {
    Ok(pool.word(at)?.load(Ordering::SeqCst))
}

/// Whether the inode has lost its last name, or somebody is about to free it.
fn is_dying(pool: &Pool, base: u64) -> Result<bool> {
    let flags = look(pool, inode::at(base, word::OPEN))?;
    let links = look(pool, inode::at(base, word::MODE))?;
    let nameless = low(links) == 0 && flags & inode::LINKABLE == 0;
    Ok(nameless || flags & inode::DYING != 0)
}

fn put(pool: &Pool, rec: Rec, field: u64, value: u64) -> Result<()> {
    let word = pool.word(rec.offset() + field * 8)?;
    word.store(value, Ordering::Release);
    Ok(())
}

fn set_tag(pool: &Pool, rec: Rec, kind: u8, generation: u32) -> Result<()> {
    put(pool, rec, field::TAG, engine::tag(kind, generation))
}

/// Whether the places of the process in `slot` say that it has something open, or is about to.
pub(super) fn has_any(pool: &Pool, slot: u32) -> Result<bool> {
    for place in Place::all(pool, slot) {
        if place?.get().is_busy() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Calls `each` for the private descriptions of the process in `slot`.
pub(super) fn for_each(
    pool: &Pool,
    slot: u32,
    mut each: impl FnMut(Ofd) -> Result<()>,
) -> Result<()> {
    for place in Place::all(pool, slot) {
        let entry = place?.get();
        if entry.is_had() {
            each(Ofd(entry.rec().0))?;
        }
    }
    Ok(())
}

/// Whether the process in `slot` has this description, privately.
pub(super) fn has(pool: &Pool, slot: u32, ofd: Ofd) -> Result<bool> {
    let mut found = false;
    for_each(pool, slot, |had| {
        found |= had == ofd;
        Ok(())
    })?;
    Ok(found)
}

/// Whether a place names the inode, somebody's who has it open or is about to, for which `counts`
/// holds, given the slot of the process, what the place says and the flags word.
fn is_named(
    pool: &Pool,
    ino: Ino,
    counts: impl Fn(u32, Entry, u64) -> Result<bool>,
) -> Result<bool> {
    if noted(pool, ino)?.load(Ordering::SeqCst) == 0 {
        return Ok(false);
    }
    for slot in 0..process::used(pool)? {
        for place in Place::all(pool, slot) {
            let entry = place?.get();
            if !entry.is_busy() {
                continue;
            }
            let at = entry.rec().offset();
            if pool.load(at + field::INO * 8)? == link_word(ino)
                && counts(slot, entry, pool.load(at + field::FLAGS * 8)?)?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether a description with this flags word may write.
fn writes(flags: u64) -> bool {
    Purpose::new(low(flags), high(flags)) == Purpose::Write
}

/// A closed description's record that is about to be kept.
pub(super) struct Parked<'p>(Place<'p>, Entry);

impl Parked<'_> {
    /// After the transaction.
    pub(super) fn spare(self) {
        crash_point!("private.parked");
        // Its owner may be settling its affairs already.
        self.0.turn(self.1, state::SPARE);
    }
}

/// Keeps the record of a description that the calling process, in `slot`, has let go of as the last one,
/// if it has a place for it. The lock of the process is held.
pub(super) fn park<'p>(tx: &mut Tx<'p>, slot: u32, open: &Open<'_>) -> Result<Option<Parked<'p>>> {
    let pool = tx.pool();
    if engine::vfork::is_child() || process::known_slot(pool) != Some(slot) {
        return Ok(None);
    }
    for place in Place::all(pool, slot) {
        let place = place?;
        if place.get().0 != 0 {
            continue;
        }
        let generation = tag_generation(open.tag);
        let entry = Entry::new(state::PARKED, generation, Rec(open.ofd.0));
        let tag = engine::tag(kind::OFD_CLOSED, generation);
        tx.set_volatile(open.at + field::TAG * 8, tag)?;
        tx.set_volatile(open.at + field::INO * 8, 0)?;
        tx.set_volatile(place.offset, entry.0)?;
        return Ok(Some(Parked(place, entry)));
    }
    Ok(None)
}

/// Where a private description is kept.
struct Home<'p> {
    slot: u32,
    place: Place<'p>,
    /// What the place says while the process has it.
    open: Entry,
}

impl<'p> Home<'p> {
    /// None if the description is like any other.
    fn of(open: &Open<'p>) -> Result<Option<Home<'p>>> {
        let home = open.pool.load(open.at + field::HOME * 8)?;
        let Some(slot) = high(home).checked_sub(1).filter(|s| *s < process::SLOTS) else {
            return Ok(None);
        };
        Ok(Some(Home {
            slot,
            place: Place::new(open.pool, slot, u64::from(low(home)))?,
            open: Entry::new(state::OPEN, tag_generation(open.tag), Rec(open.ofd.0)),
        }))
    }
}

impl Dfs {
    /// Opens an inode privately; `None` if it has to be opened as any other is.
    #[inline]
    pub(super) fn open_private(
        &self,
        ino: Ino,
        flags: u64,
        purpose: Purpose,
    ) -> Result<Option<Ofd>> {
        let pool = self.pool;
        if purpose == Purpose::Run || engine::vfork::is_child() {
            return Ok(None);
        }
        let Some(slot) = process::known_slot(pool) else {
            return Ok(None);
        };
        // A handler's fork in the midst of this would leave two processes at it.
        let Ok(undisturbed) = engine::undisturbed() else {
            return Ok(None);
        };
        for number in 0..PLACES {
            let place = Place::new(pool, slot, number)?;
            let spare = place.get();
            if spare.state() != state::SPARE || !place.turn(spare, state::OPENING) {
                continue;
            }
            let home = pair(slot + 1, number as u32);
            let opened = self.fill_in(ino, (flags, home), purpose, (place, spare))?;
            drop(undisturbed);
            return match opened {
                Ok(ofd) => Ok(Some(ofd)),
                // Who saw the place meanwhile has kept the inode for its sake.
                Err(left) => self.tidy_left(ino, place, left).map(|()| None),
            };
        }
        Ok(None)
    }

    /// Fills a record in and opens; what the place says, [`state::LEFT`], if that is not possible.
    fn fill_in(
        &self,
        ino: Ino,
        (flags, home): (u64, u64),
        purpose: Purpose,
        (place, spare): (Place<'_>, Entry),
    ) -> Result<core::result::Result<Ofd, Entry>> {
        let pool = self.pool;
        let rec = spare.rec();
        let generation = tag_generation(pool.load(rec.offset())?).wrapping_add(1);
        let words = [link_word(ino), flags, 0, pair(1, 0), 0, 0, home];
        for (field, word) in (field::INO..).zip(words) {
            put(pool, rec, field, word)?;
        }
        set_tag(pool, rec, kind::OFD, generation)?;
        crash_point!("private.opening");
        let noted = noted(pool, ino)?;
        noted.fetch_add(1, Ordering::SeqCst);
        crash_point!("private.noted");
        let opening = spare.to(state::OPENING);
        let next = Entry::new(state::OPEN, generation, rec);
        // What is not there is found out, and said, by who opens it as any other.
        let may = self.may_open(ino, home, purpose).unwrap_or(false);
        if may && place.change(opening, next) {
            crash_point!("private.opened");
            return Ok(Ok(Ofd(rec.0)));
        }
        let left = next.to(state::LEFT);
        if !place.change(opening, left) {
            place.change(opening.to(state::REVOKED), left);
        }
        set_tag(pool, rec, kind::OFD_CLOSED, generation)?;
        noted.fetch_sub(1, Ordering::SeqCst);
        Ok(Err(left))
    }

    /// Whether nothing speaks against opening privately, once others can see that it is being done.
    fn may_open(&self, ino: Ino, home: u64, purpose: Purpose) -> Result<bool> {
        let pool = self.pool;
        let base = inode::record(ino)?.offset();
        let flags = look(pool, inode::at(base, word::OPEN))?;
        // One that has no name yet is opened as any other.
        let named = low(look(pool, inode::at(base, word::MODE))?) != 0;
        let stays = flags & inode::DYING == 0 && named;
        let run = purpose != Purpose::Read && low(look(pool, inode::at(base, word::BUSY))?) != 0;
        let forks = look(pool, word_at(high(home) - 1, holds::proc::FORKING))? != 0;
        Ok(stays && !run && !forks && inode::still(pool, ino, base).is_ok())
    }

    /// Lets go of a private description of the process in `slot`; false if it is like any other.
    #[inline]
    pub(super) fn close_private(&self, slot: u32, open: &Open<'_>) -> Result<bool> {
        let pool = self.pool;
        let Some(home) = Home::of(open)?.filter(|home| home.slot == slot) else {
            return Ok(false);
        };
        let undisturbed = engine::undisturbed()?;
        if !home.place.turn(home.open, state::LEFT) {
            drop(undisturbed);
            // Somebody is sharing it.
            self.share(open)?;
            return Ok(false);
        }
        crash_point!("private.closing");
        let generation = tag_generation(open.tag);
        set_tag(pool, home.open.rec(), kind::OFD_CLOSED, generation)?;
        noted(pool, open.ino)?.fetch_sub(1, Ordering::SeqCst);
        crash_point!("private.closed");
        drop(undisturbed);
        self.tidy_left(open.ino, home.place, home.open.to(state::LEFT))?;
        Ok(true)
    }

    /// After the process has let go of a description of the inode: its record may be used again once the
    /// inode is freed, if that was left to do.
    #[inline]
    fn tidy_left(&self, ino: Ino, place: Place<'_>, left: Entry) -> Result<()> {
        let freed = self.reclaim_dying(ino);
        put(self.pool, left.rec(), field::INO, 0)?;
        // Nobody else changes it while this thread lives.
        let spare = left.to(state::SPARE);
        place.word.store(spare.0, Ordering::Release);
        freed
    }

    /// Frees an inode that somebody wanted to free meanwhile and has kept.
    fn reclaim_dying(&self, ino: Ino) -> Result<()> {
        let Ok(base) = inode::locate(self.pool, ino) else {
            return Ok(());
        };
        match is_dying(self.pool, base)? {
            true => self.reclaim(ino),
            false => Ok(()),
        }
    }

    /// Whether somebody has the inode open. Its lock is held; until that is let go, nobody opens it any more.
    pub(crate) fn is_open(&self, tx: &mut Tx<'_>, ino: Ino, base: u64) -> Result<bool> {
        let at = inode::at(base, word::OPEN);
        if high(tx.load(at)?) != 0 {
            return Ok(true);
        }
        self.pool.word(at)?.fetch_or(inode::DYING, Ordering::SeqCst);
        if !is_named(self.pool, ino, |_, _, _| Ok(true))? {
            return Ok(false);
        }
        // The transaction may have set the word before.
        let flags = tx.load(at)?;
        tx.set_volatile(at, flags | inode::DYING)?;
        Ok(true)
    }

    /// The same of an inode that nobody is to free.
    pub(crate) fn looks_open(&self, ino: Ino, base: u64) -> Result<bool> {
        let opened = self.pool.load(inode::at(base, word::OPEN))?;
        Ok(high(opened) != 0 || is_named(self.pool, ino, |_, _, _| Ok(true))?)
    }

    /// Whether somebody has the inode open privately; not who is only about to, or just lets go.
    pub(super) fn is_had_privately(&self, ino: Ino) -> Result<bool> {
        is_named(self.pool, ino, |_, entry, _| Ok(entry.is_had()))
    }

    /// Whether somebody may write to a file of which the caller has counted that a program runs from it.
    pub(super) fn is_written(&self, ino: Ino) -> Result<bool> {
        let _held = self.pool.tx(&[inode::lock(self.pool, ino)?])?;
        let base = inode::locate(self.pool, ino)?;
        // ORDERING: the count is there before the places are looked at (partner: `may_open`).
        fence(Ordering::SeqCst);
        let counted = high(self.pool.load(inode::at(base, word::BUSY))?) != 0;
        let may_write = |slot, entry: Entry, flags| {
            // One that is about to may have looked before.
            let may_have = entry.is_had()
                || entry.state() == state::OPENING && !process::is_dead(self.pool, slot)?;
            Ok(may_have && writes(flags))
        };
        Ok(counted || is_named(self.pool, ino, may_write)?)
    }

    /// Whether somebody has a private description of the file that may write.
    pub(super) fn has_private_writer(&self, ino: Ino) -> Result<bool> {
        is_named(self.pool, ino, |_, entry, flags| {
            Ok(entry.is_had() && writes(flags))
        })
    }

    /// Makes a description one like any other, if it is not yet. `EBADF` if it is gone.
    pub(crate) fn share(&self, open: &Open<'_>) -> Result<()> {
        let pool = self.pool;
        let Some(home) = Home::of(open)? else {
            return Ok(());
        };
        let own = inode::lock(pool, open.ino)?;
        let mut tx = pool.tx(&[own, holds::lock(pool, home.slot)])?;
        open.still()?;
        if pool.load(open.at + field::HOME * 8)? == 0 {
            return Ok(());
        }
        let claimed = home.open.to(state::CLAIMED);
        // Whoever has claimed it before has died, or could not go on.
        if !home.place.turn(home.open, state::CLAIMED) && home.place.get() != claimed {
            return Err(Errno::EBADF);
        }
        // Its generation may have come around.
        if let Err(errno) = open.still() {
            home.place.turn(claimed, state::OPEN);
            return Err(errno);
        }
        crash_point!("private.claimed");
        if let Err(errno) = self.enter_shared(&mut tx, open, &home) {
            home.place.turn(claimed, state::OPEN);
            return Err(errno);
        }
        // Failing that, it stays claimed.
        tx.commit()?;
        noted(pool, open.ino)?.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn enter_shared(&self, tx: &mut Tx<'_>, open: &Open<'_>, home: &Home<'_>) -> Result<()> {
        let base = inode::locate(self.pool, open.ino)?;
        let opened_at = inode::at(base, word::OPEN);
        let opened = tx.load(opened_at)?;
        tx.set_volatile(opened_at, opened + pair(1, 0))?;
        open.purpose().count(tx, base)?;
        holds::add(tx, home.slot, open.ofd)?;
        tx.set_volatile(open.at + field::HOME * 8, 0)?;
        tx.set_volatile(home.place.offset, 0)
    }

    /// Makes all descriptions of the calling process, in `slot`, ones like any other: it forks, and has
    /// said so.
    pub(super) fn share_all(&self, slot: u32) -> Result<()> {
        // ORDERING: that it forks is there before the places are looked at (partner: `may_open`).
        fence(Ordering::SeqCst);
        for place in Place::all(self.pool, slot) {
            let place = place?;
            loop {
                let entry = place.get();
                if entry.state() == state::OPENING && !place.turn(entry, state::REVOKED) {
                    continue;
                }
                if !entry.is_had() {
                    break;
                }
                let shared = self
                    .description(Ofd(entry.rec().0))
                    .and_then(|open| self.share(&open));
                match shared {
                    // It is being closed.
                    Ok(()) | Err(Errno::EBADF) => break,
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(())
    }

    /// In a new image, before it opens anything: what the image before was about to do when it ended is
    /// undone.
    pub(super) fn tidy_places(&self, slot: u32) -> Result<()> {
        // What its threads have published is done before that lock is had.
        drop(self.pool.tx(&[holds::lock(self.pool, slot)])?);
        for place in Place::all(self.pool, slot) {
            let place = place?;
            let entry = place.get();
            if entry.0 == 0 || entry.is_had() {
                continue;
            }
            let rec = entry.rec();
            let generation = tag_generation(self.pool.load(rec.offset())?);
            set_tag(self.pool, rec, kind::OFD_CLOSED, generation)?;
            let parked = Entry::new(state::PARKED, generation, rec);
            place.change(entry, parked);
            self.reclaim_left(rec)?;
            put(self.pool, rec, field::INO, 0)?;
            place.change(parked, parked.to(state::SPARE));
        }
        Ok(())
    }

    /// Frees the inode that was open last with a record, if that was still to be done.
    fn reclaim_left(&self, rec: Rec) -> Result<()> {
        let link = self.pool.load(rec.offset() + field::INO * 8)?;
        inode::from_link(link).map_or(Ok(()), |ino| self.reclaim_dying(ino))
    }

    /// Frees the records in the places of the process in `slot`, which has nothing open any more: it is
    /// dead, or about to end. False if some thread of it is at work with one.
    pub(super) fn empty_places(&self, slot: u32) -> Result<bool> {
        let pool = self.pool;
        let own = process::known_slot(pool) == Some(slot);
        for place in Place::all(pool, slot) {
            let place = place?;
            let entry = place.get();
            let at_work = entry.is_had() || own && entry.state() >= state::LEFT;
            if at_work || entry.0 != 0 && !place.turn(entry, state::PARKED) {
                return Ok(false);
            }
        }
        crash_point!("private.settling");
        let mut locks = [holds::lock(pool, slot); PLACES as usize + 1];
        let mut parked = [Entry(0); PLACES as usize];
        for ((place, lock), parked) in Place::all(pool, slot).zip(&mut locks).zip(&mut parked) {
            let entry = place?.get();
            if entry.0 != 0 {
                // While the record is there: whoever is killed before it is done is not the last to try.
                self.reclaim_left(entry.rec())?;
                *lock = LockId::Target(pool.target_of(entry.rec())?);
                *parked = entry;
            }
        }
        if parked == [Entry(0); PLACES as usize] {
            return Ok(true);
        }
        let mut tx = pool.tx(&locks)?;
        for (place, parked) in Place::all(pool, slot).zip(parked) {
            let place = place?;
            if place.get() != parked {
                return Ok(false);
            }
            if parked.0 != 0 {
                tx.free(parked.rec())?;
                tx.set_volatile(place.offset, 0)?;
            }
        }
        tx.commit()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, ROOT};
    use engine::testing::TempPool;

    /// A container whose process keeps one record, in its first place.
    fn container() -> (TempPool, Dfs) {
        let (temp, dfs) = testing::container();
        let first = dfs.open(&ROOT, dfs.root(), 0).expect("open");
        dfs.ofd_release(first).expect("release");
        (temp, dfs)
    }

    /// The first place of the calling process, and its slot.
    fn first(dfs: &Dfs) -> (Place<'static>, u32) {
        let slot = process::known_slot(dfs.pool).expect("known");
        (Place::new(dfs.pool, slot, 0).expect("place"), slot)
    }

    /// A thread that is about to open while another forks.
    #[test]
    fn a_fork_revokes_what_is_being_opened() {
        let (_temp, dfs) = container();
        let (place, slot) = first(&dfs);
        let spare = place.get();
        assert!(place.turn(spare, state::OPENING));
        let token = dfs.fork_prepare().expect("prepare").expect("may open");
        assert!(place.get() == spare.to(state::REVOKED));
        dfs.fork_failed(token).expect("no child");
        let home = (0, pair(slot + 1, 0));
        let opened = dfs.fill_in(dfs.root(), home, Purpose::Read, (place, spare));
        let left = opened.expect("filled in").expect_err("opened");
        assert!(place.get() == left && left.state() == state::LEFT);
        assert!(!has_any(dfs.pool, slot).expect("places"));
    }

    /// Threads that had got as far when another called exec.
    #[test]
    fn a_new_image_undoes_what_was_not_done() {
        let (temp, dfs) = container();
        let (place, _) = first(&dfs);
        for left in [state::PARKED, state::OPENING, state::REVOKED, state::LEFT] {
            let made = dfs.create(&ROOT, dfs.root(), b"f", 0o644, true);
            let (ino, _) = made.expect("create");
            let ofd = dfs.open(&ROOT, ino, 2).expect("open");
            assert!(place.turn(place.get(), left));
            dfs.unlink(&ROOT, dfs.root(), b"f").expect("unlink");
            // Who has no description yet, or no more, keeps a file without a name open for nobody else.
            assert_eq!(dfs.open(&ROOT, ino, 0), Err(Errno::ESTALE), "{left}");
            dfs.attach_process(&[]).expect("attach");
            assert_eq!(place.get().state(), state::SPARE, "{left}");
            assert_eq!(dfs.ofd_info(ofd), Err(Errno::EBADF));
            assert_eq!(dfs.stat(ino).map(drop), Err(Errno::ESTALE), "{left}");
        }
        drop(temp);
    }

    /// What is closed names no inode: nothing is kept for its sake.
    #[test]
    fn spare_records_name_nothing() {
        let (_temp, dfs) = container();
        let (place, _) = first(&dfs);
        let named = || dfs.pool.load(place.get().rec().offset() + field::INO * 8);
        assert_eq!(named(), Ok(0));
        let ofd = dfs.open(&ROOT, dfs.root(), 0).expect("open");
        assert_eq!(named(), Ok(link_word(dfs.root())));
        dfs.ofd_release(ofd).expect("release");
        assert_eq!((named(), place.get().state()), (Ok(0), state::SPARE));
    }

    /// Who comes late to let go of what waited, or was deferred, finds the number to be another's.
    #[test]
    fn who_comes_late_closes_nothing() {
        let (_temp, dfs) = container();
        let (_, slot) = first(&dfs);
        let ofd = dfs.open(&ROOT, dfs.root(), 0).expect("open");
        for late in [holds::State::Deferred, holds::State::Waiting] {
            assert_eq!(dfs.release_in(slot, ofd, Some(late)), Err(Errno::EBADF));
            assert_eq!(dfs.let_go(slot, ofd, Some(late)), Ok(()));
        }
        assert_eq!(dfs.ofd_is_held(ofd), Ok(true));
        dfs.ofd_release(ofd).expect("release");
    }

    /// Who is refused a run keeps no writer out meanwhile.
    #[test]
    fn a_run_that_is_refused_is_not_counted() {
        let (_temp, dfs) = container();
        let made = dfs.create(&ROOT, dfs.root(), b"f", 0o755, true);
        let (ino, _) = made.expect("create");
        let ofd = dfs.open(&ROOT, ino, 2).expect("open");
        let run = dfs.try_open(ino, pair(super::super::PROGRAM, 0), Purpose::Run);
        assert_eq!(run, Err(Errno::ETXTBSY));
        dfs.ofd_release(ofd).expect("release");
    }

    /// Who was to share a description has died, or could not.
    #[test]
    fn what_is_claimed_is_shared_by_the_next() {
        let (_temp, dfs) = container();
        let (place, _) = first(&dfs);
        let ofd = dfs.open(&ROOT, dfs.root(), 0).expect("open");
        assert!(place.turn(place.get(), state::CLAIMED));
        assert_eq!(dfs.ofd_is_held(ofd), Ok(true));
        dfs.ofd_release(ofd).expect("release");
        assert_eq!(dfs.ofd_info(ofd), Err(Errno::EBADF));
        assert_eq!(place.get().state(), state::SPARE);
    }
}
