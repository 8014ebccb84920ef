//! Advisory locks: records (`fcntl(2)`, owned by processes or by descriptions) and whole files
//! (`flock(2)`).
//!
//! Locks are volatile records in two lists of the inode, changed under its lock. The upper half of
//! the second list's head counts the changes; waiters sleep on it, and look from time to time
//! whether the owner they wait for is dead.

mod list;
mod range;
mod wait;

pub use range::{LockInfo, LockKind, LockReq};

use crate::inode::{self, low, word};
use crate::ofd::Open;
use crate::{Dfs, Ino, Ofd};
use engine::{LockId, Pool, Tx};
use list::{Owner, remove_all};
use sys::{Errno, Result};

/// `flock(2)`: shared.
pub const LOCK_SH: u32 = 1;
/// Exclusive.
pub const LOCK_EX: u32 = 2;
/// Do not wait.
pub const LOCK_NB: u32 = 4;
/// Release.
pub const LOCK_UN: u32 = 8;

/// An inode whose lists are changed: its offset, its lock domain.
struct Target<'p> {
    pool: &'p Pool,
    ino: Ino,
    base: u64,
    domain: u16,
}

impl<'p> Target<'p> {
    fn new(pool: &'p Pool, ino: Ino) -> Result<Target<'p>> {
        let base = inode::locate(pool, ino)?;
        Ok(Target {
            pool,
            ino,
            base,
            domain: pool.target_of(inode::record(ino)?)?,
        })
    }

    fn tx(&self) -> Result<Tx<'p>> {
        let tx = self.pool.tx(&[LockId::Target(self.domain)])?;
        inode::still(self.pool, self.ino, self.base)?;
        Ok(tx)
    }

    fn head(&self, word: u64) -> u64 {
        inode::at(self.base, word)
    }
}

impl Dfs {
    /// Sets or drops a lock on the whole file (`flock(2)`): owned by the description, dropped with
    /// it. Changing the type of a held lock drops it first, as Linux does.
    ///
    /// `EAGAIN` with `LOCK_NB` when it conflicts; `EINTR` when `interrupted` says so while waiting.
    pub fn flock(&self, ofd: Ofd, op: u32, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let open = self.description(ofd)?;
        if open.is_path() {
            return Err(Errno::EBADF);
        }
        let write = match op & !LOCK_NB {
            LOCK_SH => Some(false),
            LOCK_EX => Some(true),
            LOCK_UN => None,
            _ => return Err(Errno::EINVAL),
        };
        self.share(&open)?;
        let target = Target::new(self.pool, open.ino)?;
        let owner = Owner::Description(ofd);
        if list::held_whole(&target, owner)? == write && write.is_some() {
            return Ok(());
        }
        drop_from(&target, word::FLOCKS, owner)?;
        let Some(write) = write else { return Ok(()) };
        wait::acquire(
            self,
            &target,
            op & LOCK_NB == 0,
            owner,
            interrupted,
            |target| {
                let mut tx = target.tx()?;
                let head = target.head(word::FLOCKS);
                if let Some(other) = list::conflict(&tx, head, owner, write, 0, u64::MAX)? {
                    return Ok(Some(other.owner));
                }
                list::add(&mut tx, target, word::FLOCKS, owner, (0, u64::MAX), write)?;
                tx.commit()?;
                Ok(None)
            },
        )
    }

    /// Drops the calling process's record locks on a file: any close of it by the process does
    /// (`fcntl(2)`).
    pub fn posix_locks_drop(&self, ino: Ino) -> Result<()> {
        let slot = self.process_slot()?;
        drop_of_process(self, ino, slot)
    }
}

/// Drops what `owner` has in one list of an inode and wakes those who wait.
fn drop_from(target: &Target<'_>, list: u64, owner: Owner) -> Result<()> {
    drop_while(target, list, owner, || Ok(()))
}

/// [`drop_from`] as long as `still`, under the inode's lock, says that `owner` is who is meant.
fn drop_while(
    target: &Target<'_>,
    list: u64,
    owner: Owner,
    still: impl Fn() -> Result<()>,
) -> Result<()> {
    if low(target.pool.load(target.head(list))?) == 0 {
        return Ok(());
    }
    loop {
        let mut tx = target.tx()?;
        still()?;
        let (removed, more) = remove_all(&mut tx, target, list, owner)?;
        if !removed {
            return Ok(());
        }
        tx.commit()?;
        wait::wake(target)?;
        if !more {
            return Ok(());
        }
    }
}

/// Drops the record locks of the process in `slot`.
pub(crate) fn drop_of_process(dfs: &Dfs, ino: Ino, slot: u32) -> Result<()> {
    match Target::new(dfs.pool, ino) {
        Ok(target) => drop_from(&target, word::LOCKS, Owner::Process(slot)),
        Err(Errno::ESTALE) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Drops all locks of a description; `EBADF` if it is gone.
pub(crate) fn drop_of_description(dfs: &Dfs, open: &Open<'_>) -> Result<()> {
    let target = Target::new(dfs.pool, open.ino)?;
    let owner = Owner::Description(open.ofd);
    drop_while(&target, word::LOCKS, owner, || open.still())?;
    drop_while(&target, word::FLOCKS, owner, || open.still())
}

/// Whether a description has locks. The inode's lock is held.
pub(crate) fn has_of_description(pool: &Pool, ino: Ino, ofd: Ofd) -> Result<bool> {
    let base = inode::locate(pool, ino)?;
    let owner = Owner::Description(ofd);
    for word in [word::LOCKS, word::FLOCKS] {
        if list::any(pool, inode::at(base, word), owner)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ROOT, container};

    #[test]
    fn locks_of_the_next_description_of_that_number_stay() {
        let (temp, dfs) = container();
        let locked = || {
            let ofd = dfs.open(&ROOT, dfs.root(), 0).expect("open");
            dfs.flock(ofd, LOCK_EX | LOCK_NB, &|| false).expect("lock");
            dfs.description(ofd).expect("description")
        };
        let gone = locked();
        dfs.ofd_release(gone.ofd).expect("release");
        let next = locked();
        assert_eq!((next.ofd, next.ino), (gone.ofd, gone.ino));
        assert_eq!(drop_of_description(&dfs, &gone), Err(Errno::EBADF));
        assert_eq!(has_of_description(temp.pool, next.ino, next.ofd), Ok(true));
        assert_eq!(drop_of_description(&dfs, &next), Ok(()));
        assert_eq!(has_of_description(temp.pool, next.ino, next.ofd), Ok(false));
    }
}
