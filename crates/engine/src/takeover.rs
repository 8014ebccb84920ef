//! Putting a dead owner's affairs in order: redo what it published, void the rest, release.

use crate::layout::{RECORD_LOCAL, header, owner, owner_at};
use crate::limits::TX_WORDS_MAX;
use crate::pool::Pool;
use crate::tx::{RECORD_HEADER, RECORD_MAGIC, apply};
use shm::{OwnerId, OwnerState, Recover};
use sys::{Errno, Result};

impl Recover for Pool {
    fn is_dead(&self, owner: OwnerId) -> bool {
        self.slot(owner).is_ok_and(|slot| slot.is_dead())
    }

    /// Every step can be repeated, so a recoverer that dies is itself recovered.
    fn recover(&self, dead: OwnerId) -> Result<()> {
        let (_, me) = self.me()?;
        if dead == me {
            return Err(Errno::EIO);
        }
        let slot = self.slot(dead)?;
        let seen = slot.look();
        match seen.state() {
            OwnerState::Free => return Ok(()),
            OwnerState::Recovering(by) if by != me && !self.is_dead(by) => {
                rustix::thread::sched_yield();
                return Ok(());
            }
            _ => {}
        }
        if !slot.is_dead() || !slot.change(seen, OwnerState::Recovering(me)) {
            return Ok(());
        }
        // Whoever the dead one was recovering comes first: its locks may guard their lists.
        for other in self.owners()? {
            if other != dead && self.slot(other)?.state() == OwnerState::Recovering(dead) {
                self.recover(other)?;
            }
        }
        self.redo(dead)?;
        self.release_noted(dead)?;
        self.give_back(dead, me)?;
        slot.vacate();
        Ok(())
    }
}

impl Pool {
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
        let published = local || self.load(header::LOG_TAIL)? >= at + bytes;
        if published {
            let mut record = vec![0u64; words];
            if local {
                self.words(base + owner::LOCAL_RECORD, &mut record)?;
            } else {
                self.log_words(at, &mut record)?;
            }
            if record[0] != bytes | RECORD_MAGIC << 32 {
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
