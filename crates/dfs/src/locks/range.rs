//! Record locks: ranges of bytes, split and merged as `fcntl(2)` has it.

use super::list::{self, Lock, Owner};
use super::{Target, wait};
use crate::inode::word;
use crate::map::SIZE_MAX;
use crate::{Dfs, Ofd};
use core::sync::atomic::Ordering;
use engine::Tx;
use sys::{Errno, Result};

/// What to do with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// `F_RDLCK`.
    Read,
    /// `F_WRLCK`.
    Write,
    /// `F_UNLCK`.
    Unlock,
}

/// A request of `fcntl(F_SETLK)` and its kin, the range resolved by [`Dfs::lock_range`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockReq {
    /// What to do.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Number of bytes; 0 = to the end of any file.
    pub len: u64,
    /// Owned by the description (`F_OFD_SETLK`), not by the process.
    pub ofd_owned: bool,
    /// Wait for a conflicting lock (`F_SETLKW`).
    pub wait: bool,
}

/// A lock that stands in the way (`F_GETLK`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockInfo {
    /// Exclusive.
    pub write: bool,
    /// First byte.
    pub start: u64,
    /// Number of bytes; 0 = to the end of any file.
    pub len: u64,
    /// Process id of the owner; -1 for a lock owned by a description.
    pub pid: i32,
}

/// Last byte a lock can cover.
const END: u64 = SIZE_MAX;

impl LockReq {
    fn last(&self) -> Result<u64> {
        match self.len {
            0 => Ok(END),
            len => self
                .start
                .checked_add(len - 1)
                .filter(|e| *e <= END)
                .ok_or(Errno::EOVERFLOW),
        }
    }
}

impl Dfs {
    /// Resolves `l_whence`, `l_start` and `l_len` of a `struct flock` to start and length (0 = to
    /// the end of any file). `EINVAL` for a start before the file, `EOVERFLOW` beyond any.
    pub fn lock_range(&self, ofd: Ofd, whence: u32, start: i64, len: i64) -> Result<(u64, u64)> {
        let open = self.description(ofd)?;
        let base = match whence {
            0 => 0,
            1 => open.offset()?.load(Ordering::Acquire) as i64,
            2 => open.file()?.size()? as i64,
            _ => return Err(Errno::EINVAL),
        };
        let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
        let (first, count) = match len {
            0.. => (start, len),
            _ => (
                start.checked_add(len).ok_or(Errno::EINVAL)?,
                len.checked_neg().unwrap_or(0),
            ),
        };
        let first = u64::try_from(first).map_err(|_| Errno::EINVAL)?;
        if count > 0
            && first
                .checked_add(count as u64 - 1)
                .is_none_or(|last| last > END)
        {
            return Err(Errno::EOVERFLOW);
        }
        Ok((first, count as u64))
    }

    fn owner(&self, ofd: Ofd, ofd_owned: bool) -> Result<Owner> {
        if ofd_owned {
            Ok(Owner::Description(ofd))
        } else {
            Ok(Owner::Process(self.process_slot()?))
        }
    }

    /// Sets or drops a record lock (`fcntl(2)`: `F_SETLK`, `F_SETLKW`, `F_OFD_SETLK`, ...).
    ///
    /// `EAGAIN` for a conflict, `EDEADLK` when waiting would never end, `EINTR` when `interrupted`
    /// says so while waiting, `EBADF` when the description is not open for what is locked.
    pub fn lock_posix(&self, ofd: Ofd, req: LockReq, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let open = self.description(ofd)?;
        let allowed = match req.kind {
            LockKind::Read => open.readable(),
            LockKind::Write => open.writable(),
            LockKind::Unlock => !open.is_path(),
        };
        if !allowed {
            return Err(Errno::EBADF);
        }
        let range = (req.start, req.last()?);
        if req.ofd_owned {
            self.share(&open)?;
        }
        let owner = self.owner(ofd, req.ofd_owned)?;
        let target = Target::new(self.pool, open.ino)?;
        if req.kind == LockKind::Unlock {
            loop {
                let mut tx = target.tx()?;
                let changed = change(&mut tx, &target, owner, range, None)?;
                if changed.released {
                    tx.commit()?;
                    wait::wake(&target)?;
                }
                if !changed.more {
                    return Ok(());
                }
            }
        }
        let write = req.kind == LockKind::Write;
        wait::acquire(self, &target, req.wait, owner, interrupted, |target| {
            loop {
                let mut tx = target.tx()?;
                let head = target.head(word::LOCKS);
                if let Some(other) = list::conflict(&tx, head, owner, write, range.0, range.1)? {
                    return Ok(Some(other.owner));
                }
                let changed = change(&mut tx, target, owner, range, Some(write))?;
                tx.commit()?;
                if changed.released {
                    wait::wake(target)?;
                }
                if !changed.more {
                    return Ok(None);
                }
            }
        })
    }

    /// The first lock that would keep the request from being granted (`F_GETLK`).
    pub fn getlk(&self, ofd: Ofd, req: LockReq) -> Result<Option<LockInfo>> {
        let open = self.description(ofd)?;
        if open.is_path() {
            return Err(Errno::EBADF);
        }
        if req.kind == LockKind::Unlock {
            // F_OFD_GETLK with F_UNLCK asks for any lock; the classic call refuses it.
            return Err(Errno::EINVAL);
        }
        let owner = self.owner(ofd, req.ofd_owned)?;
        let target = Target::new(self.pool, open.ino)?;
        let tx = target.tx()?;
        let write = req.kind == LockKind::Write;
        let head = target.head(word::LOCKS);
        let found = list::conflict(&tx, head, owner, write, req.start, req.last()?)?;
        Ok(found.map(|lock| LockInfo {
            write: lock.write,
            start: lock.start,
            len: if lock.end >= END {
                0
            } else {
                lock.end - lock.start + 1
            },
            pid: match lock.owner {
                Owner::Process(_) => lock.pid as i32,
                Owner::Description(_) => -1,
            },
        }))
    }
}

/// Words a transaction must have room for to take one more lock off and list what replaces it.
const ROOM_MIN: usize = 128;

/// What [`change`] did.
struct Changed {
    /// Somebody else may have been waiting for what went.
    released: bool,
    /// The transaction is full: to be done again in a further one. The owner has at least what it
    /// asked for meanwhile.
    more: bool,
}

/// Gives `owner` a lock on a range (`None`: no lock), cutting and merging what it has.
fn change(
    tx: &mut Tx<'_>,
    target: &Target<'_>,
    owner: Owner,
    (start, end): (u64, u64),
    write: Option<bool>,
) -> Result<Changed> {
    let head = target.head(word::LOCKS);
    let (mut from, mut to) = (start, end);
    let mut rest: [Option<(u64, u64, bool)>; 2] = [None; 2];
    let mut released = false;
    // Each round takes one affected lock off the list.
    let more = loop {
        if tx.room() < ROOM_MIN {
            break true;
        }
        let mut found: Option<(Lock, u64)> = None;
        list::for_each(
            head,
            |at| tx.load(at),
            |lock, link_at| {
                let overlaps = lock.start <= end && lock.end >= start;
                let touches =
                    lock.start <= end.saturating_add(1) && lock.end.saturating_add(1) >= start;
                let affected = if Some(lock.write) == write {
                    touches
                } else {
                    overlaps
                };
                if lock.owner == owner && affected {
                    found = Some((*lock, link_at));
                }
                Ok(found.is_none())
            },
        )?;
        let Some((lock, link_at)) = found else {
            break false;
        };
        if Some(lock.write) == write {
            (from, to) = (from.min(lock.start), to.max(lock.end));
        } else {
            released |= write.is_none() || lock.write;
            if lock.start < start {
                rest[0] = Some((lock.start, start - 1, lock.write));
            }
            if lock.end > end {
                rest[1] = Some((end + 1, lock.end, lock.write));
            }
        }
        list::remove(tx, &lock, link_at)?;
    };
    for (start, end, write) in rest.into_iter().flatten() {
        list::add(tx, target, word::LOCKS, owner, (start, end), write)?;
    }
    if let Some(write) = write {
        list::add(tx, target, word::LOCKS, owner, (from, to), write)?;
    }
    if released {
        list::count_change(tx, target)?;
    }
    Ok(Changed { released, more })
}
