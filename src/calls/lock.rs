//! Advisory locks: `fcntl` record locks of processes and of descriptions, `flock`.

use crate::abi::{Flock, O_PATH};
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

/// Whether a wait for a lock should end with `EINTR`: a signal has come and waits for its handler.
fn interrupted() -> bool {
    intercept::guard::signal_is_pending()
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
    let whence = u32::try_from(lock.whence).map_err(|_| Errno::EINVAL)?;
    let (start, len) = held.fs.lock_range(held.ofd, whence, lock.start, lock.len)?;
    let wait = matches!(command, F_SETLKW | F_OFD_SETLKW);
    let request = LockReq {
        kind,
        start,
        len,
        ofd_owned,
        wait,
    };
    if matches!(command, F_GETLK | F_OFD_GETLK) {
        if kind == LockKind::Unlock {
            return Err(Errno::EINVAL.into());
        }
        match held.fs.getlk(held.ofd, request)? {
            None => lock.kind = F_UNLCK,
            Some(found) => {
                lock.kind = if found.write { F_WRLCK } else { F_RDLCK };
                lock.whence = 0;
                lock.start = found.start as i64;
                lock.len = found.len as i64;
                lock.pid = found.pid;
            }
        }
        user::put(c.args[2], &lock)?;
        return Ok(0);
    }
    match ofd_owned {
        true => files::uses_description_locks(),
        false => files::uses_locks(),
    }
    held.fs.lock_posix(held.ofd, request, &interrupted)?;
    Ok(0)
}

/// `flock(2)`.
pub(crate) fn flock(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    if held.info()?.flags & O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    files::uses_description_locks();
    held.fs.flock(held.ofd, c.args[1] as u32, &interrupted)?;
    Ok(0)
}
