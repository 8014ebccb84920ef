//! Attributes: stat, access, owner, permissions, times, statfs.

use crate::inode::{
    self, Guard, S_ISGID, at, high, is_dir, is_symlink, locate, low, pair, still, word,
};
use crate::perm::{self, WRITE};
use crate::{Cred, Dfs, Ino, Stat, prefix};
use core::sync::atomic::Ordering;
use engine::{LockId, Tx};
use sys::{Errno, Result};

/// A time to set (`utimensat(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it (`UTIME_OMIT`).
    Omit,
    /// The present (`UTIME_NOW`).
    Now,
    /// Nanoseconds since the epoch.
    At(i64),
}

/// After this time an access is recorded even if nothing changed since the last (`relatime`).
const RELATIME_NS: i64 = 24 * 3600 * 1_000_000_000;

/// Words of an inode that `stat` needs, from its tag on.
const STAT_WORDS: usize = word::CONTAINER as usize + 1;

impl Dfs {
    /// Attributes of an inode. `ESTALE` if it is gone.
    pub fn stat(&self, ino: Ino) -> Result<Stat> {
        let offset = inode::record(ino)?.offset();
        let mut words = [0; STAT_WORDS];
        self.pool.words(offset, &mut words)?;
        still(self.pool, ino, offset)?;
        let word = |number: u64| words[number as usize];
        let mode = high(word(word::MODE));
        let mut nlink = low(word(word::MODE));
        if is_dir(mode) && nlink != 0 {
            nlink = low(word(word::COUNTS)).saturating_add(2);
        }
        Ok(Stat {
            ino: ino.number,
            mode,
            nlink,
            uid: high(word(word::OWNER)),
            gid: low(word(word::OWNER)),
            rdev: word(word::RDEV),
            size: if is_dir(mode) {
                dir_size(word(word::COUNTS))
            } else {
                word(word::SIZE)
            },
            blocks: word(word::BLOCKS).saturating_mul(8),
            blksize: low(word(word::CLASS)).max(engine::PAGE as u32),
            atime: word(word::ATIME) as i64,
            mtime: word(word::MTIME) as i64,
            ctime: word(word::CTIME) as i64,
            btime: word(word::BTIME) as i64,
        })
    }

    /// Type of an inode (`S_IFMT` bits). `ESTALE` if it is gone.
    pub fn file_type(&self, ino: Ino) -> Result<u32> {
        Ok(Guard::of(self.pool, ino)?.mode & inode::S_IFMT)
    }

    /// May the caller do all of `mask` (read 4, write 2, execute 1; 0 = does it exist)? `EACCES`.
    pub fn access(&self, cred: &Cred<'_>, ino: Ino, mask: u32) -> Result<()> {
        let guard = Guard::of(self.pool, ino)?;
        perm::check(cred, &guard, mask & 7)
    }

    /// Sets permission bits (`mode & 07777`). `EPERM` unless owner or privileged; the set-group-id
    /// bit is dropped for strangers to the group; `EOPNOTSUPP` for symbolic links.
    pub fn chmod(&self, cred: &Cred<'_>, ino: Ino, mode: u32) -> Result<()> {
        self.change_rights(ino, |tx, offset, guard, now| {
            if is_symlink(guard.mode) {
                return Err(Errno::EOPNOTSUPP);
            }
            if !perm::owns(cred, guard) {
                return Err(Errno::EPERM);
            }
            let mut bits = mode & 0o7777;
            if !cred.privileged && !perm::in_group(cred, guard.gid) {
                bits &= !S_ISGID;
            }
            tx.set(
                at(offset, word::MODE),
                pair(guard.mode & !0o7777 | bits, guard.nlink),
            )?;
            tx.set(at(offset, word::CTIME), now as u64)?;
            Ok(())
        })
    }

    /// Sets owner and group; `None` leaves one. Only the privileged give files away; owners may
    /// choose among their groups (`EPERM`). Set-id bits of files go, see `chown(2)`.
    pub fn chown(
        &self,
        cred: &Cred<'_>,
        ino: Ino,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        self.change_rights(ino, |tx, offset, guard, now| {
            let owner = cred.uid == guard.uid;
            let uid_allowed = uid.is_none_or(|uid| owner && uid == guard.uid);
            let gid_allowed =
                gid.is_none_or(|gid| owner && (gid == guard.gid || perm::in_group(cred, gid)));
            let mode = perm::mode_after_chown(cred, guard);
            let mode_allowed = mode == guard.mode || owner;
            let allowed = uid_allowed && gid_allowed && mode_allowed;
            if !(cred.privileged || allowed) {
                return Err(Errno::EPERM);
            }
            if mode != guard.mode {
                tx.set(at(offset, word::MODE), pair(mode, guard.nlink))?;
            }
            let owner = pair(uid.unwrap_or(guard.uid), gid.unwrap_or(guard.gid));
            tx.set(at(offset, word::OWNER), owner)?;
            tx.set(at(offset, word::CTIME), now as u64)?;
            Ok(())
        })
    }

    /// Sets access and modification time. Both to the present: owner, privileged, or permission to
    /// write (`EACCES`); anything else: owner or privileged (`EPERM`).
    pub fn utimens(&self, cred: &Cred<'_>, ino: Ino, atime: SetTime, mtime: SetTime) -> Result<()> {
        if (atime, mtime) == (SetTime::Omit, SetTime::Omit) {
            return Guard::of(self.pool, ino).map(drop);
        }
        let touch = (atime, mtime) == (SetTime::Now, SetTime::Now);
        self.change(ino, |tx, offset, guard, now| {
            if !perm::owns(cred, guard) {
                if !touch {
                    return Err(Errno::EPERM);
                }
                perm::check(cred, guard, WRITE)?;
            }
            for (number, time) in [(word::ATIME, atime), (word::MTIME, mtime)] {
                match time {
                    SetTime::Omit => {}
                    SetTime::Now => tx.set(at(offset, number), now as u64)?,
                    SetTime::At(ns) => tx.set(at(offset, number), ns as u64)?,
                }
            }
            tx.set(at(offset, word::CTIME), now as u64)?;
            Ok(())
        })
    }

    /// Records a read of the data, by the rules of `relatime` (`mount(8)`): only if the last one
    /// was not after the last change, or was a day ago. Losing it is no error: it is stored without
    /// the inode's lock, for which a reader must not wait.
    pub fn touch_atime(&self, ino: Ino) {
        self.try_touch(ino).ok();
    }

    fn try_touch(&self, ino: Ino) -> Result<()> {
        let offset = locate(self.pool, ino)?;
        let time = |number| -> sys::Result<i64> { Ok(self.pool.load(at(offset, number))? as i64) };
        let atime = time(word::ATIME)?;
        let now = self.pool.now_ns();
        let changed = time(word::MTIME)?.max(time(word::CTIME)?);
        if atime > changed && now.saturating_sub(atime) < RELATIME_NS || atime == now {
            return Ok(());
        }
        still(self.pool, ino, offset)?;
        let word = self.pool.word(at(offset, word::ATIME))?;
        // Should the record become another's just now, it does not hold that time there.
        let stored = word.compare_exchange(
            atime as u64,
            now as u64,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        stored.map(drop).map_err(|_| Errno::EAGAIN)
    }

    /// [`Dfs::change`] of what decides who may search a directory.
    fn change_rights(
        &self,
        ino: Ino,
        edit: impl FnOnce(&mut Tx<'_>, u64, &Guard, i64) -> Result<()>,
    ) -> Result<()> {
        if !is_dir(Guard::of(self.pool, ino)?.mode) {
            return self.change(ino, edit);
        }
        let locks = [inode::lock(self.pool, ino)?, LockId::Rename];
        let mut tx = self.pool.tx(&locks)?;
        let offset = locate(self.pool, ino)?;
        let guard = Guard::read(self.pool, offset)?;
        prefix::change_begins(&mut tx)?;
        edit(&mut tx, offset, &guard, self.pool.now_ns())?;
        prefix::change_ends(&mut tx)?;
        tx.commit().map(drop)
    }

    /// One change of an inode under its lock: `edit` gets its offset, its permissions as they are
    /// and the time.
    pub(crate) fn change(
        &self,
        ino: Ino,
        edit: impl FnOnce(&mut Tx<'_>, u64, &Guard, i64) -> Result<()>,
    ) -> Result<()> {
        let mut tx = self.pool.tx(&[inode::lock(self.pool, ino)?])?;
        let offset = locate(self.pool, ino)?;
        let guard = Guard::read(self.pool, offset)?;
        edit(&mut tx, offset, &guard, self.pool.now_ns())?;
        tx.commit().map(drop)
    }
}

/// Size shown for a directory: 64 bytes per entry.
fn dir_size(counts: u64) -> u64 {
    u64::from(high(counts)) * engine::GRANULE
}
