//! Inodes without a name: freed once nobody has them open.
//!
//! What fits one transaction is freed with the last name. What does not is queued on a list that
//! starts in the container's root, in that same transaction, so that a killed process leaves
//! nothing behind that the next one does not free. The last on the list leads back to the root: what
//! is on it leads somewhere, and is freed by way of the list alone.

use crate::dir;
use crate::inode::{
    self, Guard, at, from_link, is_dir, is_file, is_symlink, link_word, locate, low, word,
};
use crate::{Dfs, Ino};
use engine::{PageLink, Rec, Tx, crash_point};
use sys::Result;

use super::make::TARGET_RECORD;

/// What became of an inode that lost its last name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retired {
    /// It is open somewhere: the last close frees it.
    Kept,
    /// All of it is freed with this transaction.
    Freed,
    /// It waits on the list; call [`Dfs::drain_reclaim`] after the commit.
    Queued,
    /// It must be queued: abort and come back holding the root's lock.
    NeedsQueue,
}

impl Dfs {
    /// Frees the inode at `offset`, which has just lost its last name, or keeps it for those who
    /// have it open. Its lock is held; with `queue` the root's too.
    pub(crate) fn retire(
        &self,
        tx: &mut Tx<'_>,
        ino: Ino,
        offset: u64,
        guard: &Guard,
        now: i64,
        queue: bool,
    ) -> Result<Retired> {
        // As this transaction leaves it: the last close lowers it in the same one.
        if self.is_open(tx, ino, offset)? {
            super::set_nlink(tx, offset, guard, 0, now)?;
            return Ok(Retired::Kept);
        }
        if self.free_contents(tx, ino, offset, guard)? {
            tx.free(inode::record(ino)?)?;
            return Ok(Retired::Freed);
        }
        if !queue {
            return Ok(Retired::NeedsQueue);
        }
        super::set_nlink(tx, offset, guard, 0, now)?;
        let root = locate(self.pool, self.root)?;
        let next = match tx.load(at(root, word::RECLAIM))? {
            0 => link_word(self.root),
            first => first,
        };
        tx.set_volatile(at(offset, word::RECLAIM), next)?;
        tx.set_volatile(at(root, word::RECLAIM), link_word(ino))?;
        Ok(Retired::Queued)
    }

    /// Frees an inode if it has neither a name nor an open description; the last close calls this.
    pub(crate) fn reclaim(&self, ino: Ino) -> Result<()> {
        for queue in [false, true] {
            let root = inode::lock(self.pool, self.root)?;
            let own = inode::lock(self.pool, ino)?;
            let mut tx = self.pool.tx(&[own, if queue { root } else { own }])?;
            let Ok(offset) = locate(self.pool, ino) else {
                return Ok(());
            };
            let guard = Guard::read(self.pool, offset)?;
            if guard.nlink != 0 || self.is_open(&mut tx, ino, offset)? {
                return Ok(());
            }
            if tx.load(at(offset, word::RECLAIM))? != 0 {
                // Somebody was faster.
                drop(tx);
                self.drain_reclaim();
                return Ok(());
            }
            let now = self.pool.now_ns();
            match self.retire(&mut tx, ino, offset, &guard, now, queue)? {
                Retired::NeedsQueue => continue,
                Retired::Queued => {
                    tx.commit()?;
                    self.drain_reclaim();
                }
                Retired::Kept | Retired::Freed => tx.commit().map(drop)?,
            }
            break;
        }
        Ok(())
    }

    /// Frees what waits on the list, whoever queued it. On an error the rest stays queued.
    pub(crate) fn drain_reclaim(&self) {
        crash_point!("orphan.draining");
        while let Ok(true) = self.reclaim_first() {}
    }

    /// One transaction's worth of the first inode on the list; `false` when the list is empty.
    fn reclaim_first(&self) -> Result<bool> {
        let root = locate(self.pool, self.root)?;
        let Some(first) = from_link(self.pool.load(at(root, word::RECLAIM))?) else {
            return Ok(false);
        };
        let locks = [
            inode::lock(self.pool, first)?,
            inode::lock(self.pool, self.root)?,
        ];
        let mut tx = self.pool.tx(&locks)?;
        if self.pool.load(at(root, word::RECLAIM))? != link_word(first) {
            return Ok(true);
        }
        let Ok(offset) = locate(self.pool, first) else {
            // Damage; the list cannot be followed any further.
            tx.set_volatile(at(root, word::RECLAIM), 0)?;
            return tx.commit().map(|_| false);
        };
        let guard = Guard::read(self.pool, offset)?;
        if self.free_contents(&mut tx, first, offset, &guard)? {
            let next = match tx.load(at(offset, word::RECLAIM))? {
                last if last == link_word(self.root) => 0,
                next => next,
            };
            tx.set_volatile(at(root, word::RECLAIM), next)?;
            tx.free(inode::record(first)?)?;
        }
        tx.commit().map(|_| true)
    }

    /// Frees what an inode owns, as much as the transaction has room for; `true` if that was all.
    pub(super) fn free_contents(
        &self,
        tx: &mut Tx<'_>,
        ino: Ino,
        offset: u64,
        guard: &Guard,
    ) -> Result<bool> {
        let done = if is_file(guard.mode) {
            crate::map::free::free_step(tx, offset)?
        } else if is_dir(guard.mode) {
            dir::clear(tx, self.pool, ino, offset)?
        } else {
            if is_symlink(guard.mode) {
                self.free_target(tx, offset)?;
            }
            true
        };
        Ok(done && crate::xattr::free_all(tx, self.pool, offset)?)
    }

    /// Frees the target of a symbolic link.
    fn free_target(&self, tx: &mut Tx<'_>, offset: u64) -> Result<()> {
        let data = tx.load(at(offset, word::DATA))?;
        if data == 0 {
            return Ok(());
        }
        tx.set(at(offset, word::DATA), 0)?;
        if tx.load(at(offset, word::SIZE))? <= TARGET_RECORD as u64 {
            tx.free(Rec(low(data)))
        } else {
            tx.free_page(PageLink(data))
        }
    }
}
