//! Making, moving and removing names.
//!
//! Every operation finds what it needs without a lock, takes the target locks of all inodes it
//! changes, checks again that everything is as it was found, and starts over if not. Words are
//! ordered so that a stopped writer leaves a name leading to the old or the new inode, never to
//! nothing: what is new is complete before an entry names it; what goes is freed last.

mod empty;
mod link;
mod make;
pub(crate) mod orphan;
mod remove;
mod rename;

pub(crate) use empty::PRIVILEGED;
pub use rename::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};

use crate::dir::{self, Found, NAME_MAX};
use crate::inode::{self, Guard, at, high, is_dir, low, pair, word};
use crate::perm::{self, EXECUTE};
use crate::{Cred, Ino};
use engine::{Pool, Tx};
use sys::{Errno, Result};

/// How often an operation starts over because others changed what it had found.
const TRIES: usize = 4096;

/// A directory's identity, offset and permissions, read under its lock.
struct Held {
    ino: Ino,
    offset: u64,
    guard: Guard,
}

impl Held {
    /// Checks a directory under its lock and the right to search it. `ENOENT` if it is gone,
    /// `ENOTDIR`, `EACCES`.
    fn new(pool: &Pool, cred: &Cred<'_>, dir: Ino) -> Result<Held> {
        let offset = inode::locate(pool, dir).map_err(gone)?;
        let guard = Guard::read(pool, offset)?;
        check_search(cred, &guard)?;
        Ok(Held {
            ino: dir,
            offset,
            guard,
        })
    }

    /// Finds a name.
    fn find(&self, pool: &Pool, name: &[u8], hash: u32) -> Result<Option<Found>> {
        dir::find_locked(pool, self.ino, self.offset, name, hash)
    }

    /// Records that entries were added or removed: counts and times.
    fn changed(&self, tx: &mut Tx<'_>, now: i64, entries: i32, subdirs: i32) -> Result<()> {
        let counts = tx.load(at(self.offset, word::COUNTS))?;
        let add = |count: u32, change: i32| count.checked_add_signed(change).ok_or(Errno::EIO);
        let changed = pair(add(high(counts), entries)?, add(low(counts), subdirs)?);
        if changed != counts {
            tx.set(at(self.offset, word::COUNTS), changed)?;
        }
        tx.put(at(self.offset, word::MTIME), &[now as u64, now as u64])?;
        Ok(())
    }
}

/// A file that is gone has no name.
fn gone(errno: Errno) -> Errno {
    if errno == Errno::ESTALE {
        Errno::ENOENT
    } else {
        errno
    }
}

/// `ENOTDIR` or `EACCES` unless names may be looked up in the inode.
fn check_search(cred: &Cred<'_>, guard: &Guard) -> Result<()> {
    if !is_dir(guard.mode) {
        return Err(Errno::ENOTDIR);
    }
    perm::check(cred, guard, EXECUTE)
}

/// Finds a name without a lock, after checking the right to search. `ENOENT` if the directory is
/// gone.
fn find(pool: &Pool, cred: &Cred<'_>, dir: Ino, name: &[u8], hash: u32) -> Result<Option<Found>> {
    check_search(cred, &Guard::of(pool, dir).map_err(gone)?)?;
    dir::find(pool, dir, name, hash).map_err(gone)
}

/// `ENAMETOOLONG`, or `ENOENT` for the empty name. `.` and `..` are left to the callers.
fn check_len(name: &[u8]) -> Result<()> {
    match name.len() {
        0 => Err(Errno::ENOENT),
        1..=NAME_MAX => Ok(()),
        _ => Err(Errno::ENAMETOOLONG),
    }
}

/// Is it `.` or `..`?
fn is_dots(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

/// Sets the number of names of an inode and its change time.
fn set_nlink(tx: &mut Tx<'_>, offset: u64, guard: &Guard, nlink: u32, now: i64) -> Result<()> {
    tx.set(at(offset, word::MODE), pair(guard.mode, nlink))?;
    tx.set(at(offset, word::CTIME), now as u64)
}
