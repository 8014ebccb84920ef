//! Putting a dead owner's affairs in order: redo what it published, void the rest, release.

use crate::layout::{RECORD_LOCAL, header, owner, owner_at};
use crate::limits::TX_WORDS_MAX;
use crate::log::{RecordKind, kind_and_bytes};
use crate::pool::Pool;
use crate::thread::ThreadBlock;
use crate::tx::{RECORD_HEADER, apply};
use shm::{OwnerId, OwnerState, Recover, crash_point};
use sys::{Errno, Result};

impl Recover for Pool {
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.slot(owner).is_ok_and(|slot| match slot.state() {
            OwnerState::Joining(process) => crate::process::is_gone(self, u32::from(process)),
            _ => slot.is_dead(),
        })
    }

    /// Every step can be repeated, so a recoverer that dies is itself recovered.
    fn recover(&self, dead: OwnerId) -> Result<()> {
        let (_, me) = self.me()?;
        if dead == me {
            // Inherited just now.
            return Ok(());
        }
        let slot = self.slot(dead)?;
        let seen = slot.look();
        match seen.state() {
            OwnerState::Free => return Ok(()),
            OwnerState::Recovering(by) if by != me && self.is_at_work(by) => {
                rustix::thread::sched_yield();
                return Ok(());
            }
            _ => {}
        }
        if !self.is_dead(dead) || !slot.change(seen, OwnerState::Recovering(me)) {
            return Ok(());
        }
        crash_point!("owner.recovering");
        self.settle(dead)?;
        self.give_back(dead, me)?;
        slot.vacate();
        Ok(())
    }
}

impl Pool {
    /// Whether a live thread has the slot.
    fn is_at_work(&self, owner: u16) -> bool {
        !self.is_dead(owner)
            && self
                .slot(owner)
                .is_ok_and(|slot| slot.state() != OwnerState::Free)
    }

    /// Whether the slot in the state `seen` is a dead thread's that nobody is recovering.
    pub(crate) fn is_abandoned(&self, owner: u16, seen: OwnerState) -> bool {
        match seen {
            OwnerState::Recovering(by) => !self.is_at_work(by),
            _ => self.is_dead(owner),
        }
    }

    /// Completes or voids what the dead `owner` was doing and releases its locks.
    fn settle(&self, owner: u16) -> Result<()> {
        self.redo(owner)?;
        self.doubt_flight(owner)?;
        // Before anything takes a lock: it would find this owner holding it and recover it again.
        self.release_noted(owner)?;
        // Whoever it was recovering must not be left behind.
        for other in self.owners()? {
            if other != owner && self.slot(other)?.state() == OwnerState::Recovering(owner) {
                self.recover(other)?;
            }
        }
        Ok(())
    }

    /// Puts right what the dead thread left that had the calling thread's slot before. Blocks and
    /// pages it had reserved stay with the slot.
    pub(crate) fn inherit(&self, block: &'static ThreadBlock, me: u16) -> Result<()> {
        self.settle(me)?;
        crash_point!("owner.settled");
        self.drain_freed_runs(block, me, me)?;
        self.drain_freed_pages(block, me, me)
    }

    /// Applies the record that `dead` published but may not have finished applying.
    fn redo(&self, dead: u16) -> Result<()> {
        let base = owner_at(dead);
        let len = self.load(base + owner::RECORD_LEN)?;
        if len == 0 {
            return Ok(());
        }
        let local = len & RECORD_LOCAL != 0;
        let bytes = len & !RECORD_LOCAL;
        let words = (bytes / 8) as usize;
        if !(RECORD_HEADER..=TX_WORDS_MAX).contains(&words) {
            return Err(Errno::EIO);
        }
        let at = self.load(base + owner::RECORD_AT)?;
        let published = local || self.load(header::LOG_TAIL)? >= at.saturating_add(bytes);
        if published {
            let mut record = vec![0u64; words];
            if local {
                self.words(base + owner::LOCAL_RECORD, &mut record)?;
            } else {
                self.log_words(at, &mut record)?;
            }
            if kind_and_bytes(record[0]) != (RecordKind::Change as u8, bytes) {
                return Err(Errno::EIO);
            }
            apply(self, &record, at, |_| {})?;
        }
        self.store(base + owner::RECORD_LEN, 0)
    }

    /// Returns everything `from` had reserved or freed, working as `me`.
    pub(crate) fn give_back(&self, from: u16, me: u16) -> Result<()> {
        let (block, _) = self.me()?;
        self.drain_freed_runs(block, me, from)?;
        self.drain_freed_pages(block, me, from)?;
        self.drain_reserved_runs(block, me, from)?;
        self.drain_reserved_pages(block, me, from)
    }
}
