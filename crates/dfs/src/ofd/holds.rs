//! Which process holds which descriptions.
//!
//! Each process slot has a volatile hash table of the descriptions its process holds, so that
//! whoever finds the process dead can let go of them. Tables change in the transaction that
//! changes the description's count, under the lock of the process ([`lock`]).

use super::{Open, field, private, sent};
use crate::inode::{self, Guard, high, low, pair, word};
use crate::names::orphan::Retired;
use crate::{Dfs, Ino, Ofd, locks, mapfile};
use core::sync::atomic::Ordering;
use engine::{LockId, PAGE, PageLink, Pool, Rec, Tx, kind, process};
use sys::{Errno, Result};

/// Numbers of a process's words that belong to this crate.
pub(crate) mod proc {
    /// Link of the table of holds, log2 of its slots in the tag; 0 = none.
    pub(crate) const TABLE: u64 = 0;
    /// `entries:32 | slots ever used:32`.
    pub(crate) const USED: u64 = 1;
    /// Whose lock the process waits for, and where (`locks::wait::Edge`); 0 = nobody's.
    pub(crate) const WAITS: u64 = 2;
    /// First record of the list of files the process has mapped shared.
    pub(crate) const MAPS: u64 = 3;
    /// Forks under way, and when the last began: `count:16 | seconds:48`.
    pub(crate) const FORKING: u64 = 4;
    /// Entries of the table that wait for a receiver.
    pub(crate) const WAITING: u64 = 5;
}

/// A slot that was used: searches go on behind it.
const GONE: u64 = u64::MAX;
/// Flag of an entry: the process let go, but a child being forked may still come for it.
const DEFERRED: u64 = 1 << 32;
/// Flag of an entry: nobody holds the description, but it is on its way in a message that this
/// process looks after ([`super::sent`]). Not counted among the holds.
const WAITING: u64 = 1 << 33;
/// log2 of the slots of the first table: one page.
const FIRST_LOG2: u16 = 9;
/// Seconds a fork may be under way: a child that was killed before it came for its parent's holds
/// must not keep them for ever.
const FORK_GRACE_S: u64 = 10;

/// Arena offset of a word of a process.
pub(crate) fn word_at(slot: u32, number: u64) -> u64 {
    process::user_word(slot, number)
}

/// Lock under which a process's words and table change.
pub(crate) fn lock(pool: &Pool, slot: u32) -> LockId {
    LockId::Target((u64::from(slot) % pool.target_count().max(1)) as u16)
}

fn target(pool: &Pool, slot: u32) -> u16 {
    (u64::from(slot) % pool.target_count().max(1)) as u16
}

/// A table as its link describes it.
#[derive(Clone, Copy)]
struct Table {
    base: u64,
    log2: u16,
}

impl Table {
    fn new(link: PageLink) -> Table {
        Table {
            base: link.offset(),
            log2: link.tag().clamp(1, 24),
        }
    }

    fn slots(self) -> u64 {
        1 << self.log2
    }

    fn at(self, ofd: Ofd, probe: u64) -> u64 {
        let spread = u64::from(ofd.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let home = spread >> (64 - u32::from(self.log2));
        self.base + ((home + probe) & (self.slots() - 1)) * 8
    }
}

/// Offset and value of the entry of `ofd`, or the offset of the slot where it would go.
fn find(tx: &Tx<'_>, table: Table, ofd: Ofd) -> Result<(u64, Option<u64>)> {
    let mut free = None;
    for probe in 0..table.slots() {
        let at = table.at(ofd, probe);
        match tx.load(at)? {
            0 => return Ok((free.unwrap_or(at), None)),
            GONE => free = free.or(Some(at)),
            entry if low(entry) == ofd.0 => return Ok((at, Some(entry))),
            _ => {}
        }
    }
    free.map(|at| (at, None)).ok_or(Errno::EIO)
}

/// Enters `ofd` among the holds of `slot`; false if it was there already, held.
pub(super) fn add(tx: &mut Tx<'_>, slot: u32, ofd: Ofd) -> Result<bool> {
    let link = PageLink(tx.load(word_at(slot, proc::TABLE))?);
    let used_at = word_at(slot, proc::USED);
    let used = tx.load(used_at)?;
    let link = match link.is_none() {
        true => {
            let page = tx.alloc_page(kind::TABLE, target(tx.pool(), slot), 0, true)?;
            let link = page.with_tag(FIRST_LOG2);
            tx.set_volatile(word_at(slot, proc::TABLE), link.0)?;
            link
        }
        false if u64::from(low(used)) * 4 >= Table::new(link).slots() * 3 => {
            rebuild(tx, slot, link, high(used))?
        }
        false => link,
    };
    let used = tx.load(used_at)?;
    let (at, entry) = find(tx, Table::new(link), ofd)?;
    match entry.map(State::of) {
        Some(State::Held) => return Ok(false),
        // It counts as before.
        Some(State::Deferred) => {
            tx.set_volatile(at, u64::from(ofd.0))?;
            return Ok(false);
        }
        Some(State::Waiting) => {
            tx.set_volatile(at, u64::from(ofd.0))?;
            count_waiting(tx, slot, -1)?;
        }
        None => {
            let fresh = u32::from(tx.load(at)? == 0);
            tx.set_volatile(used_at, pair(high(used) + 1, low(used) + fresh))?;
            tx.set_volatile(at, u64::from(ofd.0))?;
        }
    }
    Ok(true)
}

/// Replaces a table that has filled up by one with room for four times its entries.
#[cold]
fn rebuild(tx: &mut Tx<'_>, slot: u32, old: PageLink, live: u32) -> Result<PageLink> {
    let pool = tx.pool();
    if u64::from(live) > Table::new(old).slots() {
        return Err(Errno::EIO);
    }
    let log2 = (u64::from(live.max(64)) * 4)
        .next_power_of_two()
        .trailing_zeros() as u16;
    let log2 = log2.max(FIRST_LOG2);
    let pages = ((8u64 << log2) / PAGE) as u32;
    let new = tx
        .alloc_pages(kind::TABLE, target(pool, slot), pages)?
        .with_tag(log2);
    let (from, to) = (Table::new(old), Table::new(new));
    let mut count = 0;
    for index in 0..from.slots() {
        let entry = pool.load(from.base + index * 8)?;
        if entry == 0 || entry == GONE {
            continue;
        }
        // Nobody can reach the new table yet: plain stores.
        for probe in 0..to.slots() {
            let at = pool.word(to.at(Ofd(low(entry)), probe))?;
            if at.load(Ordering::Relaxed) == 0 {
                at.store(entry, Ordering::Release);
                break;
            }
        }
        count += 1;
    }
    tx.set_volatile(word_at(slot, proc::TABLE), new.0)?;
    tx.set_volatile(word_at(slot, proc::USED), pair(count, count))?;
    let old_pages = ((8u64 << from.log2) / PAGE).max(1) as u32;
    tx.free_pages(old.with_tag(0), old_pages)?;
    Ok(new)
}

/// What an entry of a table says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum State {
    /// The process holds the description.
    Held,
    /// It let go, but a child that is being forked may still come for it.
    Deferred,
    /// Nobody holds it, but it is on its way in a message.
    Waiting,
}

impl State {
    fn of(entry: u64) -> State {
        match entry & (DEFERRED | WAITING) {
            0 => State::Held,
            DEFERRED => State::Deferred,
            _ => State::Waiting,
        }
    }
}

/// Offset and state of the entry of `ofd` in the table of `slot`.
fn entry(tx: &Tx<'_>, slot: u32, ofd: Ofd) -> Result<Option<(u64, State)>> {
    let link = PageLink(tx.load(word_at(slot, proc::TABLE))?);
    if link.is_none() {
        return Ok(None);
    }
    let (at, entry) = find(tx, Table::new(link), ofd)?;
    Ok(entry.map(|entry| (at, State::of(entry))))
}

/// Takes the entry at `at` from the table of `slot`.
fn remove(tx: &mut Tx<'_>, slot: u32, (at, state): (u64, State)) -> Result<()> {
    let used = tx.load(word_at(slot, proc::USED))?;
    tx.set_volatile(
        word_at(slot, proc::USED),
        pair(high(used).saturating_sub(1), low(used)),
    )?;
    if state == State::Waiting {
        count_waiting(tx, slot, -1)?;
    }
    tx.set_volatile(at, GONE)
}

fn count_waiting(tx: &mut Tx<'_>, slot: u32, change: i64) -> Result<()> {
    let at = word_at(slot, proc::WAITING);
    let count = tx.load(at)?.saturating_add_signed(change);
    tx.set_volatile(at, count)
}

/// Calls `each` for every description of the process in `slot`, as far as that can be read without a
/// lock.
pub(super) fn for_each(
    pool: &Pool,
    slot: u32,
    mut each: impl FnMut(Ofd, State) -> Result<()>,
) -> Result<()> {
    private::for_each(pool, slot, |ofd| each(ofd, State::Held))?;
    let link = PageLink(pool.load(word_at(slot, proc::TABLE))?);
    if link.is_none() {
        return Ok(());
    }
    let table = Table::new(link);
    for index in 0..table.slots() {
        let entry = pool.load(table.base + index * 8)?;
        if entry != 0 && entry != GONE {
            each(Ofd(low(entry)), State::of(entry))?;
        }
    }
    Ok(())
}

/// What letting go of a description led to.
enum Let {
    /// Done.
    Done,
    /// Only messages have it any more, if they do: to be found out ([`super::sent`]).
    Sent,
    /// The inode goes too, and needs the list of what is to be freed.
    NeedsQueue,
    /// The description goes, but still has locks.
    Locked,
}

impl Dfs {
    /// Notes that the calling process has a descriptor of a description: `arrived` in a message, or
    /// taken from another process. `EBADF` if it is gone.
    pub fn ofd_hold(&self, ofd: Ofd, arrived: bool) -> Result<()> {
        let slot = self.process_slot()?;
        self.hold_in(slot, ofd, arrived).map(drop)
    }

    /// Lets `slot` hold `ofd`; with `arrived` it counts as the arrival of one that was sent. False
    /// if it held it already.
    pub(super) fn hold_in(&self, slot: u32, ofd: Ofd, arrived: bool) -> Result<bool> {
        let open = self.description(ofd)?;
        self.share(&open)?;
        let own = LockId::Target(self.pool.target_of(inode::record(open.ino)?)?);
        let mut tx = self.pool.tx(&[own, lock(self.pool, slot)])?;
        open.still()?;
        let added = add(&mut tx, slot, ofd)?;
        let at = open.at + field::HOLDS * 8;
        let counts = tx.load(at)?;
        let sent = low(counts).saturating_sub(u32::from(arrived));
        tx.set_volatile(at, pair(high(counts) + u32::from(added), sent))?;
        tx.commit()?;
        Ok(added)
    }

    /// Notes that the calling process has closed its last descriptor of a description. The last
    /// one to let go closes it, and frees a file that has no name any more. The process's record
    /// locks on the file go, as with any close (`fcntl(2)`).
    pub fn ofd_release(&self, ofd: Ofd) -> Result<()> {
        let slot = self.process_slot()?;
        locks::drop_of_process(self, self.description(ofd)?.ino, slot)?;
        self.release_in(slot, ofd, None)?;
        self.pool.prove_closed();
        Ok(())
    }

    /// Takes `ofd` from `slot`, if its entry is in this state still; with none the process itself
    /// lets go of what it holds, so that a fork under way counts.
    pub(super) fn release_in(&self, slot: u32, ofd: Ofd, seen: Option<State>) -> Result<()> {
        let mut queue = false;
        let mut under_way = None;
        // What is found out is true of this description alone, not of the next one with its number.
        let open = self.description(ofd)?;
        // What waits or is deferred is none: the number may be another's by now.
        let may_be_private = matches!(seen, None | Some(State::Held));
        if may_be_private && self.close_private(slot, &open)? {
            return Ok(());
        }
        loop {
            match self.try_release(slot, &open, seen, queue, under_way)? {
                Let::Locked => locks::drop_of_description(self, &open)?,
                Let::NeedsQueue => queue = true,
                Let::Sent => under_way = Some(sent::is_under_way(&open)?),
                Let::Done => return Ok(()),
            }
        }
    }

    /// `under_way`: whether a message has the description, if that has been found out.
    fn try_release(
        &self,
        slot: u32,
        open: &Open<'_>,
        seen: Option<State>,
        queue: bool,
        under_way: Option<bool>,
    ) -> Result<Let> {
        let pool = self.pool;
        let target = LockId::Target(pool.target_of(inode::record(open.ino)?)?);
        let list = if queue {
            inode::lock(pool, self.root)?
        } else {
            target
        };
        // Its record may lie elsewhere: it was made for a file it had before.
        let record = LockId::Target(pool.target_of(Rec(open.ofd.0))?);
        let mut tx = pool.tx(&[target, lock(pool, slot), list, record])?;
        open.still()?;
        let (entry_at, state) = entry(&tx, slot, open.ofd)?.ok_or(Errno::EBADF)?;
        // Whoever looks through a table may come late: the description is gone, and its number another's.
        if state != seen.unwrap_or(State::Held) {
            return Err(Errno::EBADF);
        }
        let inherited = seen.is_none() || state == State::Deferred;
        if inherited && self.forks(slot)? {
            if seen.is_none() {
                tx.set_volatile(entry_at, u64::from(open.ofd.0) | DEFERRED)?;
                tx.commit()?;
            }
            return Ok(Let::Done);
        }
        let at = open.at + field::HOLDS * 8;
        let counts = tx.load(at)?;
        let waits = state == State::Waiting;
        let left = high(counts).saturating_sub(u32::from(!waits));
        // A waiting entry is of no use once somebody holds the description again.
        let is_last = left == 0;
        if is_last && low(counts) != 0 && under_way.is_none() {
            return Ok(Let::Sent);
        }
        if is_last && low(counts) != 0 && under_way == Some(true) {
            if !waits {
                tx.set_volatile(entry_at, u64::from(open.ofd.0) | WAITING)?;
                count_waiting(&mut tx, slot, 1)?;
                tx.set_volatile(at, pair(0, low(counts)))?;
                tx.commit()?;
            }
            return Ok(Let::Done);
        }
        remove(&mut tx, slot, (entry_at, state))?;
        if !is_last {
            tx.set_volatile(at, pair(left, low(counts)))?;
            tx.commit()?;
            return Ok(Let::Done);
        }
        if locks::has_of_description(pool, open.ino, open.ofd)? {
            return Ok(Let::Locked);
        }
        let base = inode::locate(pool, open.ino)?;
        let opened = tx.load(inode::at(base, word::OPEN))?;
        let opened = pair(high(opened).saturating_sub(1), low(opened));
        tx.set_volatile(inode::at(base, word::OPEN), opened)?;
        open.purpose().end(&mut tx, base)?;
        let parked = match seen {
            None => private::park(&mut tx, slot, open)?,
            Some(_) => None,
        };
        if parked.is_none() {
            tx.free(Rec(open.ofd.0))?;
        }
        let retired = self.retire_closed(&mut tx, open.ino, base, queue)?;
        if retired == Retired::NeedsQueue {
            return Ok(Let::NeedsQueue);
        }
        tx.commit()?;
        if let Some(parked) = parked {
            parked.spare();
        }
        if retired == Retired::Queued {
            self.drain_reclaim();
        }
        Ok(Let::Done)
    }

    /// Frees an inode whose open count this transaction has lowered, in the same transaction, if
    /// nothing keeps it: a process killed right after must not leave it behind.
    pub(crate) fn retire_closed(
        &self,
        tx: &mut Tx<'_>,
        ino: Ino,
        base: u64,
        queue: bool,
    ) -> Result<Retired> {
        let guard = Guard::read(self.pool, base)?;
        if guard.nlink != 0 || self.is_open(tx, ino, base)? {
            return Ok(Retired::Kept);
        }
        self.retire(tx, ino, base, &guard, self.pool.now_ns(), queue)
    }

    /// Whether the calling process holds a description.
    pub fn ofd_is_held(&self, ofd: Ofd) -> Result<bool> {
        let slot = self.process_slot()?;
        Ok(self.hold_of(slot, ofd)? == Some(State::Held))
    }

    /// How the process in `slot` holds a description.
    pub(super) fn hold_of(&self, slot: u32, ofd: Ofd) -> Result<Option<State>> {
        let tx = self.pool.tx(&[lock(self.pool, slot)])?;
        if private::has(self.pool, slot, ofd)? {
            return Ok(Some(State::Held));
        }
        Ok(entry(&tx, slot, ofd)?.map(|(_, state)| state))
    }

    /// The calling process's slot. A table full of dead processes is cleared first.
    pub(crate) fn process_slot(&self) -> Result<u32> {
        match process::slot(self.pool) {
            Err(Errno::EAGAIN) => {
                self.reap(usize::MAX)?;
                process::slot(self.pool)
            }
            slot => slot,
        }
    }

    /// Lets go of everything dead processes held: descriptions, record locks, mappings. Looks at
    /// no more than `processes` of them, others each time; returns how many were dead, or lost what
    /// they had sent.
    pub fn reap(&self, processes: usize) -> Result<usize> {
        let pool = self.pool;
        let slots = process::used(pool)?;
        let mut occupied = 0usize;
        for slot in 0..slots {
            occupied += usize::from(process::pid(pool, slot)? != 0);
        }
        let spread = engine::place::mix(pool.now_ns() as u64) as usize;
        let skip = spread.checked_rem(occupied).unwrap_or(0);
        let mut seen = 0usize;
        let mut dead = 0;
        for step in 0..slots * 2 {
            let slot = step % slots;
            let pid = process::pid(pool, slot)?;
            if pid == 0 {
                continue;
            }
            seen += 1;
            if seen <= skip {
                continue;
            }
            if seen - skip > processes.min(occupied) {
                break;
            }
            dead += usize::from(self.bury(slot)?);
            dead += usize::from(self.sweep(slot)?);
        }
        Ok(dead)
    }

    /// Settles the affairs of the process in `slot` if it is dead.
    pub(super) fn bury(&self, slot: u32) -> Result<bool> {
        if self.forks(slot)? {
            return Ok(false);
        }
        let settle = || match self.settle(slot)? {
            true => Ok(()),
            // The slot stays until what the process has sent is received or lost.
            false => Err(Errno::EBUSY),
        };
        match process::bury(self.pool, slot, settle) {
            Err(Errno::EBUSY) => Ok(false),
            outcome => outcome,
        }
    }

    /// Whether a child of the process in `slot` may still be on its way to take over its holds.
    #[inline]
    pub(crate) fn forks(&self, slot: u32) -> Result<bool> {
        let forking = self.pool.load(word_at(slot, proc::FORKING))?;
        if forking >> 48 == 0 {
            return Ok(false);
        }
        let now = (self.pool.now_ns() / 1_000_000_000) as u64 & 0xffff_ffff_ffff;
        Ok(now.saturating_sub(forking & 0xffff_ffff_ffff) < FORK_GRACE_S)
    }

    /// Drops the record locks of the process in `slot` on the file of a description, if that is there.
    pub(super) fn drop_records(&self, slot: u32, ofd: Ofd) -> Result<()> {
        match self.description(ofd) {
            Ok(open) => locks::drop_of_process(self, open.ino, slot),
            Err(_) => Ok(()),
        }
    }

    /// Lets go of everything the process in `slot` held, and of its table; false if messages keep
    /// some of it, or a thread of the process is at work.
    pub(super) fn settle(&self, slot: u32) -> Result<bool> {
        mapfile::settle(self, slot)?;
        for_each(self.pool, slot, |ofd, state| {
            self.drop_records(slot, ofd)?;
            self.let_go(slot, ofd, Some(state))
        })?;
        self.free_table(slot)?;
        let emptied = self.empty_places(slot)?;
        Ok(emptied && self.pool.load(word_at(slot, proc::WAITING))? == 0)
    }

    /// Frees the table of the process in `slot`, if it has no entries.
    fn free_table(&self, slot: u32) -> Result<()> {
        let mut tx = self.pool.tx(&[lock(self.pool, slot)])?;
        let used = tx.load(word_at(slot, proc::USED))?;
        let link = PageLink(tx.load(word_at(slot, proc::TABLE))?);
        if !link.is_none() && high(used) == 0 {
            let pages = (Table::new(link).slots() * 8 / PAGE).max(1) as u32;
            tx.set_volatile(word_at(slot, proc::TABLE), 0)?;
            tx.set_volatile(word_at(slot, proc::USED), 0)?;
            tx.free_pages(link.with_tag(0), pages)?;
            tx.commit()?;
        }
        Ok(())
    }

    /// [`Dfs::release_in`] of an entry that may have changed meanwhile. One of a description that is
    /// gone goes too.
    pub(super) fn let_go(&self, slot: u32, ofd: Ofd, seen: Option<State>) -> Result<()> {
        match self.release_in(slot, ofd, seen) {
            Err(Errno::EBADF) => self.forget_waiting(slot, ofd),
            outcome => outcome,
        }
    }

    /// Takes a waiting entry off that has outlived its description.
    fn forget_waiting(&self, slot: u32, ofd: Ofd) -> Result<()> {
        if self.pool.load(word_at(slot, proc::WAITING))? == 0 {
            return Ok(());
        }
        let mut tx = self.pool.tx(&[lock(self.pool, slot)])?;
        let Some(found @ (_, State::Waiting)) = entry(&tx, slot, ofd)? else {
            return Ok(());
        };
        if self.description(ofd).is_err() {
            remove(&mut tx, slot, found)?;
            tx.commit()?;
        }
        Ok(())
    }

    /// Lets go of what the process in `slot`, dead or not, has sent and nobody can receive any more;
    /// whether there was any.
    pub(super) fn sweep(&self, slot: u32) -> Result<bool> {
        let waiting = || self.pool.load(word_at(slot, proc::WAITING));
        let before = waiting()?;
        if before == 0 {
            return Ok(false);
        }
        for_each(self.pool, slot, |ofd, state| match state {
            State::Waiting => self.let_go(slot, ofd, Some(state)),
            State::Held | State::Deferred => Ok(()),
        })?;
        Ok(waiting()? < before)
    }
}
