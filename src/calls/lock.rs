//! Advisory locks: `fcntl` record locks of processes and of descriptions, `flock`.

use crate::abi::{Flock, O_ACCMODE, O_PATH, O_RDWR, O_WRONLY};
use crate::dispatch::Served;
use crate::{files, user};
use dfs::{LockKind, LockReq};
use intercept::Call;
use sys::{Errno, Result};

const F_GETLK: u32 = 5;
const F_SETLKW: u32 = 7;
const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;
const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;

fn kind(value: i16) -> Result<LockKind> {
    match value {
        F_RDLCK => Ok(LockKind::Read),
        F_WRLCK => Ok(LockKind::Write),
        F_UNLCK => Ok(LockKind::Unlock),
        _ => Err(Errno::EINVAL),
    }
}

/// Start of the range, from the beginning of the file; negative lengths reach backwards.
fn range(held: &files::Held, lock: &Flock) -> Result<(u64, u64)> {
    let base = match lock.whence {
        0 => 0,
        1 => i64::try_from(held.info()?.offset).map_err(|_| Errno::EOVERFLOW)?,
        2 => i64::try_from(held.fs.stat(held.info()?.ino)?.size).map_err(|_| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(lock.start).ok_or(Errno::EOVERFLOW)?;
    let (start, len) = if lock.len < 0 {
        (start.checked_add(lock.len).ok_or(Errno::EINVAL)?, lock.len.unsigned_abs())
    } else {
        (start, lock.len.unsigned_abs())
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    if len != 0 && start + (len - 1) > i64::MAX as u64 {
        return Err(Errno::EOVERFLOW);
    }
    Ok((start, len))
}

/// `F_SETLK`, `F_SETLKW`, `F_GETLK` and their `F_OFD_` forms.
pub(crate) fn record(c: &Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let command = c.args[1] as u32;
    let flags = held.info()?.flags;
    if flags & O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    let mut lock: Flock = user::get(c.args[2])?;
    let ofd_owned = matches!(command, F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW);
    if ofd_owned && lock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let kind = kind(lock.kind)?;
    let (start, len) = range(&held, &lock)?;
    let wait = matches!(command, F_SETLKW | F_OFD_SETLKW);
    let request = LockReq { kind, start, len, ofd_owned, wait };
    if matches!(command, F_GETLK | F_OFD_GETLK) {
        if kind == LockKind::Unlock {
            return Err(Errno::EINVAL.into());
        }
        match held.fs.getlk(held.ofd, request)? {
            None => lock.kind = F_UNLCK,
            Some(found) => {
                lock.kind = if found.kind == LockKind::Read { F_RDLCK } else { F_WRLCK };
                lock.whence = 0;
                lock.start = found.start as i64;
                lock.len = found.len as i64;
                lock.pid = found.pid;
            }
        }
        user::put(c.args[2], &lock)?;
        return Ok(0);
    }
    let access = flags & O_ACCMODE;
    let refused = match kind {
        LockKind::Read => access == O_WRONLY,
        LockKind::Write => access != O_WRONLY && access != O_RDWR,
        LockKind::Unlock => false,
    };
    if refused {
        return Err(Errno::EBADF.into());
    }
    if !ofd_owned {
        files::uses_locks();
    }
    held.fs.lock_posix(held.ofd, request)?;
    Ok(0)
}

/// `flock(2)`.
pub(crate) fn flock(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    if held.info()?.flags & O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    held.fs.flock(held.ofd, c.args[1] as u32)?;
    Ok(0)
}
