//! Descriptions across fork, exec and vfork, with no moment at which one could vanish.
//!
//! * fork: the parent notes that a fork is under way ([`Dfs::fork_prepare`]); until the child has
//!   entered what it inherited ([`Dfs::ofd_adopt_after_fork`]) the parent's closes are deferred.
//! * exec: a process keeps its slot, and with it its holds; the new image compares them with the
//!   descriptors it finds ([`Dfs::attach_process`]).
//! * vfork child, which runs on its parent's memory: a process of its own (`engine::vfork`), it holds
//!   what it opens, and before it execs what its new image will find ([`Dfs::exec_prepare`]).

use super::holds::{self, State, for_each, proc, word_at};
use super::private;
use crate::inode::high;
use crate::{Dfs, Ofd};
use core::sync::atomic::AtomicU32;
use engine::{crash_point, process, vfork};
use sys::{Result, futex};

/// Names the parent of a fork under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForkToken {
    slot: u32,
}

impl Dfs {
    /// Called in the parent before fork. Give the token to the child's
    /// [`Dfs::ofd_adopt_after_fork`], or to [`Dfs::fork_failed`]. None if there is nothing to inherit.
    pub fn fork_prepare(&self) -> Result<Option<ForkToken>> {
        let Some(slot) = process::known_slot(self.pool) else {
            return Ok(None);
        };
        if !self.holds_anything(slot)? {
            return Ok(None);
        }
        let forgotten =
            self.pool.load(word_at(slot, proc::FORKING))? >> 48 != 0 && !self.forks(slot)?;
        if forgotten {
            self.release_deferred(slot)?;
            self.count_forks(slot, i64::MIN)?;
        }
        self.count_forks(slot, 1)?;
        let token = ForkToken { slot };
        match self.share_all(slot) {
            Ok(()) => Ok(Some(token)),
            Err(errno) => {
                self.fork_done(token)?;
                Err(errno)
            }
        }
    }

    /// Whether the process in `slot` holds descriptions or has files mapped.
    fn holds_anything(&self, slot: u32) -> Result<bool> {
        let used = self.pool.load(word_at(slot, proc::USED))?;
        Ok(high(used) != 0
            || private::has_any(self.pool, slot)?
            || self.pool.load(word_at(slot, proc::MAPS))? != 0)
    }

    /// Called in the parent when the fork failed.
    pub fn fork_failed(&self, token: ForkToken) -> Result<()> {
        self.fork_done(token)
    }

    /// Called in the child: holds the descriptions it inherited (`live`) and its parent's shared
    /// mappings (`mapped`), and lets the parent's deferred closes happen.
    pub fn ofd_adopt_after_fork(&self, token: ForkToken, live: &[Ofd]) -> Result<()> {
        let adopted = self.adopt(token, live);
        self.fork_done(token)?;
        adopted
    }

    fn adopt(&self, token: ForkToken, live: &[Ofd]) -> Result<()> {
        let slot = self.process_slot()?;
        let mut outcome = Ok(());
        for ofd in live {
            if let Err(errno) = self.hold_in(slot, *ofd, false) {
                outcome = Err(errno);
            }
        }
        crate::mapfile::inherit(self, token.slot, slot)?;
        outcome
    }

    fn count_forks(&self, slot: u32, change: i64) -> Result<u64> {
        let mut tx = self.pool.tx(&[holds::lock(self.pool, slot)])?;
        let at = word_at(slot, proc::FORKING);
        let count = (tx.load(at)? >> 48)
            .saturating_add_signed(change)
            .min(0xffff);
        let seconds = (self.pool.now_ns() / 1_000_000_000) as u64 & 0xffff_ffff_ffff;
        tx.set_volatile(at, if count == 0 { 0 } else { count << 48 | seconds })?;
        tx.commit()?;
        Ok(count)
    }

    fn fork_done(&self, token: ForkToken) -> Result<()> {
        if self.count_forks(token.slot, -1)? > 0 {
            return Ok(());
        }
        self.release_deferred(token.slot)
    }

    fn release_deferred(&self, slot: u32) -> Result<()> {
        for_each(self.pool, slot, |ofd, state| match state {
            State::Deferred => {
                crash_point!("holds.deferred");
                self.let_go(slot, ofd, Some(state))
            }
            State::Held | State::Waiting => Ok(()),
        })
    }

    /// Called before exec with the descriptions whose descriptors stay open: a vfork child has
    /// inherited them and does not hold them yet.
    pub fn exec_prepare(&self, kept: &[Ofd]) -> Result<()> {
        if kept.is_empty() {
            return Ok(());
        }
        let slot = self.process_slot()?;
        // One that is gone keeps no other from being held.
        let mut outcome = Ok(());
        for ofd in kept {
            if let Err(errno) = self.hold_in(slot, *ofd, false) {
                outcome = Err(errno);
            }
        }
        outcome
    }

    /// Whether the calling process is known to others: it has opened something, or holds it.
    pub fn is_known(&self) -> bool {
        process::known_slot(self.pool).is_some()
    }

    /// Called last before exec, by a process of one thread: the next image may never attach, so the
    /// process is forgotten if it holds nothing. It is known again when it comes back.
    pub fn exec_leave(&self) -> Result<()> {
        // Of what is not noted others have to find out. The kernel executes nothing before it is done.
        self.pool.await_flushes().unwrap_or_default();
        let Some(slot) = process::known_slot(self.pool) else {
            return self.pool.leave();
        };
        let needed = self.holds_anything(slot)?
            || self.forks(slot)?
            || process::is_unproven(self.pool, slot)?;
        if needed {
            return self.pool.leave();
        }
        let settled = self.settle(slot)?;
        self.pool.leave()?;
        if settled {
            process::vacate(self.pool, slot)?;
        }
        Ok(())
    }

    /// Called in the parent of a vfork child that has ended without exec: if it was killed, what it
    /// held is let go.
    pub fn vfork_child_ended(&self) -> Result<()> {
        match vfork::ended_child(self.pool)? {
            Some(slot) => self.bury(slot).map(drop),
            None => Ok(()),
        }
    }

    /// Called by a new image with the descriptions of the descriptors it found: what else its
    /// process held before exec is let go, unless a child may still come for it. Also puts a few dead
    /// processes' affairs in order.
    ///
    /// Descriptions that are gone (`EBADF`) are reported after the others were entered.
    pub fn attach_process(&self, found: &[Ofd]) -> Result<()> {
        let slot = self.process_slot()?;
        self.children_have_come(slot)?;
        self.tidy_places(slot)?;
        crate::mapfile::settle(self, slot)?;
        let mut outcome = Ok(());
        for ofd in found {
            if let Err(errno) = self.hold_in(slot, *ofd, false) {
                outcome = Err(errno);
            }
        }
        for_each(self.pool, slot, |ofd, state| {
            if found.contains(&ofd) || state != State::Held {
                return Ok(());
            }
            // As any close does, an exec's lets go of the process's record locks on the file.
            self.drop_records(slot, ofd)?;
            self.let_go(slot, ofd, None)
        })?;
        self.reap(REAP_AT_ATTACH).unwrap_or_default();
        outcome
    }

    /// Whether everything that the process in `slot` holds could be let go at its end.
    fn let_go_of_all(&self, slot: u32) -> Result<bool> {
        if self.children_have_come(slot)? {
            return self.settle(slot);
        }
        // Its record locks are nobody else's.
        for_each(self.pool, slot, |ofd, _| self.drop_records(slot, ofd))?;
        Ok(false)
    }

    /// Called when the last thread of a process ends in order: lets go of everything, and frees its slot.
    /// What a process that does not call it held is let go by others, and so is what children may
    /// still come for.
    pub fn depart(&self) -> Result<()> {
        // What is not noted is flushed once more.
        self.pool.await_flushes().unwrap_or_default();
        let Some(slot) = process::known_slot(self.pool) else {
            return self.pool.leave();
        };
        let settled = self.let_go_of_all(slot)?;
        // The owner slot goes first: one that is being left by a process that is not there any
        // more would be taken for a dead one's.
        self.pool.leave()?;
        if settled {
            process::vacate(self.pool, slot)?;
        }
        Ok(())
    }

    /// Waits a little for children that are on their way to take over what they inherited. False if
    /// one has not come: then the process's affairs are left to whoever finds it dead.
    pub(crate) fn children_have_come(&self, slot: u32) -> Result<bool> {
        for _ in 0..CHILD_LOOKS {
            if !self.forks(slot)? {
                return Ok(true);
            }
            pause(CHILD_PAUSE_NS);
        }
        Ok(!self.forks(slot)?)
    }
}

/// Sleeps.
pub(super) fn pause(ns: u64) {
    // Nothing wakes this: a timeout, or a signal, is what is waited for.
    if futex::wait(&AtomicU32::new(0), 0, ns).is_ok() {
        core::hint::spin_loop();
    }
}

/// Looks of an ending process at whether its children have come, and the time between two.
const CHILD_LOOKS: u32 = 500;
const CHILD_PAUSE_NS: u64 = 100_000;
/// Processes a starting image looks at for dead ones.
const REAP_AT_ATTACH: usize = 4;
