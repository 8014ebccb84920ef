//! Removing names.

use super::orphan::Retired;
use super::{Held, TRIES, check_len, find, set_nlink};
use crate::dir;
use crate::inode::{self, Guard, at, high, is_dir, locate, word};
use crate::perm::{self, EXECUTE, WRITE};
use crate::{Cred, Dfs, Ino};
use sys::{Errno, Result};

impl Dfs {
    /// Removes a name that is not a directory's (`EISDIR`). The file lives on while it has other
    /// names or is open.
    pub fn unlink(&self, cred: &Cred<'_>, dir: Ino, name: &[u8]) -> Result<()> {
        match name {
            b"." | b".." => Err(Errno::EISDIR),
            _ => self.remove_name(cred, dir, name, false),
        }
    }

    /// Removes an empty directory. `EINVAL` for `.`, `ENOTEMPTY` for `..` as `rmdir(2)` has it.
    pub fn rmdir(&self, cred: &Cred<'_>, dir: Ino, name: &[u8]) -> Result<()> {
        match name {
            b"." => Err(Errno::EINVAL),
            b".." => Err(Errno::ENOTEMPTY),
            _ => self.remove_name(cred, dir, name, true),
        }
    }

    fn remove_name(&self, cred: &Cred<'_>, dir: Ino, name: &[u8], of_dir: bool) -> Result<()> {
        check_len(name)?;
        let hash = dir::hash(name);
        let mut queue = false;
        for _ in 0..TRIES {
            let seen = find(self.pool, cred, dir, name, hash)?.ok_or(Errno::ENOENT)?;
            let mut locks = [inode::lock(self.pool, dir)?; 3];
            locks[1] = inode::lock(self.pool, seen.child())?;
            if queue {
                locks[2] = inode::lock(self.pool, self.root)?;
            }
            let mut tx = self.pool.tx(&locks)?;
            let held = Held::new(self.pool, cred, dir)?;
            let found = held.find(self.pool, name, hash)?.ok_or(Errno::ENOENT)?;
            if found.child() != seen.child() {
                continue;
            }
            let child = locate(self.pool, found.child()).map_err(|_| Errno::EIO)?;
            let guard = Guard::read(self.pool, child)?;
            check_delete(cred, &held.guard, &guard, of_dir)?;
            if of_dir && high(self.pool.load(at(child, word::COUNTS))?) != 0 {
                return Err(Errno::ENOTEMPTY);
            }
            let now = self.pool.now_ns();
            let emptied = dir::remove(&mut tx, self.pool, dir, held.offset, &found)?;
            held.changed(&mut tx, now, -1, -i32::from(of_dir))?;
            let nlink = if of_dir {
                0
            } else {
                guard.nlink.saturating_sub(1)
            };
            let mut retired = Retired::Kept;
            if nlink == 0 {
                retired = self.retire(&mut tx, found.child(), child, &guard, now, queue)?;
            } else {
                set_nlink(&mut tx, child, &guard, nlink, now)?;
            }
            if matches!(retired, Retired::NeedsQueue) {
                queue = true;
                continue;
            }
            tx.commit()?;
            if let Some(link) = emptied {
                self.tidy(dir, link);
            }
            if matches!(retired, Retired::Queued) {
                self.drain_reclaim();
            }
            return Ok(());
        }
        Err(Errno::EAGAIN)
    }

    /// Frees a chunk of a directory that ran empty. Should that fail, it is merely kept.
    pub(super) fn tidy(&self, dir: Ino, link: engine::PageLink) {
        dir::tidy(self.pool, dir, link).ok();
    }
}

/// May a name of `victim` be removed from `dir`, by `rmdir` or else by `unlink`?
pub(super) fn check_delete(
    cred: &Cred<'_>,
    dir: &Guard,
    victim: &Guard,
    of_dir: bool,
) -> Result<()> {
    perm::check(cred, dir, WRITE | EXECUTE)?;
    perm::check_sticky(cred, dir, victim)?;
    match (of_dir, is_dir(victim.mode)) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}
