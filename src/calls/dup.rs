//! Descriptors: close, duplicate, and the parts of `fcntl` that are about descriptors.

use crate::abi::{self, nr};
use crate::calls::lock;
use crate::dispatch::{Served, Stop};
use crate::files;
use crate::kernel::{self, call};
use intercept::Call;
use std::vec::Vec;
use sys::{Errno, Result};

const F_DUPFD: u32 = 0;
const F_GETFD: u32 = 1;
const F_SETFD: u32 = 2;
const F_GETFL: u32 = 3;
const F_SETFL: u32 = 4;
const F_GETLK: u32 = 5;
const F_SETLKW: u32 = 7;
const F_SETOWN: u32 = 8;
const F_GETOWN: u32 = 9;
const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLKW: u32 = 38;
const F_SETLEASE: u32 = 1024;
const F_GETLEASE: u32 = 1025;
const F_NOTIFY: u32 = 1026;
const F_DUPFD_CLOEXEC: u32 = 1030;
const F_GETPIPE_SZ: u32 = 1032;
const F_ADD_SEALS: u32 = 1033;
const F_GET_SEALS: u32 = 1034;
const F_UNLCK: usize = 2;
const DN_MULTISHOT: u32 = 1 << 31;

pub(crate) fn close(c: &mut Call) -> Served {
    let fd = c.args[0] as i32;
    if files::is_own(fd) && !intercept::in_vfork_child() {
        return Err(Errno::EBADF.into());
    }
    if !files::is_ours(fd) {
        return Err(Stop::Pass);
    }
    Ok(files::close(fd)?)
}

fn duplicate(c: &Call) -> Served {
    let fd = c.args[0] as i32;
    let held = files::ours(fd)?;
    files::replacing(|| {
        let new = sys::Errno::from_ret(kernel::raw(c.nr, c.args))?;
        files::duplicated(Some((fd, &held)), new as i32);
        Ok(new)
    })
}

pub(crate) fn dup(c: &mut Call) -> Served {
    duplicate(c)
}

/// `dup2(2)` and `dup3(2)`: either side may be ours.
fn onto(c: &Call) -> Served {
    let (old, new) = (c.args[0] as i32, c.args[1] as i32);
    if files::is_own(new) && !intercept::in_vfork_child() {
        // Nothing of ours may go by a remembered number while it moves, so the program is told
        // that it cannot have this one; only close-all loops meet such numbers.
        return Err(Errno::EBADF.into());
    }
    let held = files::get(old)?;
    if held.is_none() && !files::is_ours(new) {
        return Err(Stop::Pass);
    }
    files::replacing(|| {
        let done = Errno::from_ret(kernel::raw(c.nr, c.args))?;
        if old != new {
            files::duplicated(held.as_ref().map(|held| (old, held)), new);
        }
        Ok(done)
    })
}

pub(crate) fn dup2(c: &mut Call) -> Served {
    onto(c)
}

pub(crate) fn dup3(c: &mut Call) -> Served {
    onto(c)
}

/// `close_range(2)`: the library's own descriptors stay.
pub(crate) fn close_range(c: &mut Call) -> Served {
    const CLOEXEC: usize = 4;
    const KNOWN: usize = 6;
    let (first, last, flags) = (
        c.args[0] as u32 as usize,
        c.args[1] as u32 as usize,
        c.args[2],
    );
    if first > last || flags & !KNOWN != 0 {
        return Err(Stop::Pass);
    }
    if intercept::in_vfork_child() {
        // The child execs or exits: nothing of ours is needed there after it.
        return Err(Stop::Pass);
    }
    let own = files::own_in(first, last);
    let closes = flags & CLOEXEC == 0;
    let (result, taken) = files::replacing(|| {
        let taken = if closes {
            files::take_range(first, last)
        } else {
            Vec::new()
        };
        (close_around(&own, first, last, flags), taken)
    });
    files::release_all(&taken);
    Ok(result?)
}

/// Closes a range without the library's own descriptors in it.
fn close_around(own: &[usize], first: usize, last: usize, flags: usize) -> Result<usize> {
    let mut from = first;
    let mut result = Ok(0);
    for &stop in own {
        if stop > from {
            result = result.and(call!(nr::CLOSE_RANGE, from, stop - 1, flags));
        }
        from = stop + 1;
    }
    if from <= last {
        result = result.and(call!(nr::CLOSE_RANGE, from, last, flags));
    }
    result
}

pub(crate) fn fcntl(c: &mut Call) -> Served {
    let command = c.args[1] as u32;
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => duplicate(c),
        F_GETFD | F_SETFD => Err(Stop::Pass),
        F_GETLK..=F_SETLKW | F_OFD_GETLK..=F_OFD_SETLKW => lock::record(c),
        _ => other(c, command),
    }
}

fn other(c: &Call, command: u32) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let flags = held.info()?.flags;
    if flags & abi::O_PATH != 0 && command != F_GETFL {
        return Err(Errno::EBADF.into());
    }
    match command {
        F_GETFL => Ok((flags | abi::O_LARGEFILE) as usize),
        F_SETFL => {
            const MAY: u32 =
                abi::O_APPEND | abi::O_NONBLOCK | abi::O_DIRECT | abi::O_NOATIME | abi::O_ASYNC;
            held.fs
                .set_flags(held.ofd, (flags & !MAY) | (c.args[2] as u32 & MAY))?;
            Ok(0)
        }
        F_GETOWN | F_SETOWN => Ok(0),
        F_GETLEASE => Ok(F_UNLCK),
        // No event is asked for: there is none to be forgotten either.
        F_NOTIFY if c.args[2] as u32 & !DN_MULTISHOT == 0 => Ok(0),
        // As file systems without leases and seals answer (fcntl(2)).
        F_SETLEASE | F_NOTIFY | F_ADD_SEALS | F_GET_SEALS => Err(Errno::EINVAL.into()),
        F_GETPIPE_SZ => Err(Errno::EBADF.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}
