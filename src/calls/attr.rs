//! Attributes, changed: mode, owner, times, size by path; and permission to access.

use crate::abi::*;
use crate::calls::stat::empty_path;
use crate::dispatch::{After, Served, Stop};
use crate::route::{self, Arg, Spot};
use crate::{cred, files, limits, mounts, user};
use dfs::{Dfs, Ino, SetTime};
use intercept::Call;
use sys::{Errno, Result};

/// Serves a change by path; the last component is followed unless told otherwise.
fn change(c: &Call, arg: Arg, follow: bool, act: &dyn Fn(&Dfs, Ino) -> Result<()>) -> Served {
    route::lookup(c, arg, follow, &mut |spot: &Spot| {
        act(spot.fs, spot.found()?)?;
        Ok(0)
    })
}

/// [`change`] for calls with `AT_EMPTY_PATH`.
fn change_at(c: &Call, flags: u32, act: &dyn Fn(&Dfs, Ino) -> Result<()>) -> Served {
    let arg = Arg::at(0, 1);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Stop::Pass);
    }
    if let Some(ino) = empty_path(c, arg, flags)? {
        act(mounts::fs()?, ino)?;
        return Ok(0);
    }
    change(c, arg, flags & AT_SYMLINK_NOFOLLOW == 0, act)
}

/// A change through a descriptor; `EBADF` for `O_PATH` (open(2)).
fn change_fd(c: &Call, act: &dyn Fn(&Dfs, Ino) -> Result<()>) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let info = held.info()?;
    if info.flags & O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    act(held.fs, info.ino)?;
    Ok(0)
}

fn set_mode(mode: usize) -> impl Fn(&Dfs, Ino) -> Result<()> {
    move |fs, ino| {
        // Linux has no mode of its own for symbolic links (fchmodat2(2)).
        if fs.stat(ino)?.mode & S_IFMT == S_IFLNK {
            return Err(Errno::EOPNOTSUPP);
        }
        fs.chmod(&cred::current(), ino, mode as u32 & 0o7777)
    }
}

pub(crate) fn chmod(c: &mut Call) -> Served {
    change(c, Arg::path(0), true, &set_mode(c.args[1]))
}

pub(crate) fn fchmod(c: &mut Call) -> Served {
    change_fd(c, &set_mode(c.args[1]))
}

pub(crate) fn fchmodat(c: &mut Call) -> Served {
    change(c, Arg::at(0, 1), true, &set_mode(c.args[2]))
}

pub(crate) fn fchmodat2(c: &mut Call) -> Served {
    change_at(c, c.args[3] as u32, &set_mode(c.args[2]))
}

fn set_owner(uid: usize, gid: usize) -> impl Fn(&Dfs, Ino) -> Result<()> {
    let id = |value: usize| Some(value as u32).filter(|&id| id != u32::MAX);
    let (uid, gid) = (id(uid), id(gid));
    move |fs, ino| fs.chown(&cred::current(), ino, uid, gid)
}

pub(crate) fn chown(c: &mut Call) -> Served {
    change(c, Arg::path(0), true, &set_owner(c.args[1], c.args[2]))
}

pub(crate) fn lchown(c: &mut Call) -> Served {
    change(c, Arg::path(0), false, &set_owner(c.args[1], c.args[2]))
}

pub(crate) fn fchown(c: &mut Call) -> Served {
    change_fd(c, &set_owner(c.args[1], c.args[2]))
}

pub(crate) fn fchownat(c: &mut Call) -> Served {
    change_at(c, c.args[4] as u32, &set_owner(c.args[2], c.args[3]))
}

const NS: i64 = 1_000_000_000;

fn from_timespec(t: Timespec) -> Result<SetTime> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    match t.nsec {
        UTIME_NOW => Ok(SetTime::Now),
        UTIME_OMIT => Ok(SetTime::Omit),
        0..NS => Ok(SetTime::At(t.sec.saturating_mul(NS).saturating_add(t.nsec))),
        _ => Err(Errno::EINVAL),
    }
}

fn from_timeval(t: Timeval) -> Result<SetTime> {
    if !(0..1_000_000).contains(&t.usec) {
        return Err(Errno::EINVAL);
    }
    Ok(SetTime::At(
        t.sec.saturating_mul(NS).saturating_add(t.usec * 1000),
    ))
}

const NOW: (SetTime, SetTime) = (SetTime::Now, SetTime::Now);

fn timespecs(address: usize) -> Result<(SetTime, SetTime)> {
    if address == 0 {
        return Ok(NOW);
    }
    let second = user::get::<Timespec>(address + size_of::<Timespec>())?;
    Ok((from_timespec(user::get(address)?)?, from_timespec(second)?))
}

fn timevals(address: usize) -> Result<(SetTime, SetTime)> {
    if address == 0 {
        return Ok(NOW);
    }
    let second = user::get::<Timeval>(address + size_of::<Timeval>())?;
    Ok((from_timeval(user::get(address)?)?, from_timeval(second)?))
}

fn set_times(times: (SetTime, SetTime)) -> impl Fn(&Dfs, Ino) -> Result<()> {
    move |fs, ino| {
        if matches!(times, (SetTime::Omit, SetTime::Omit)) {
            return Ok(());
        }
        fs.utimens(&cred::current(), ino, times.0, times.1)
    }
}

/// `utimensat(2)`: a null path means the descriptor itself.
pub(crate) fn utimensat(c: &mut Call) -> Served {
    let times = timespecs(c.args[2]);
    if c.args[1] == 0 {
        let held = files::ours(c.args[0] as i32)?;
        if c.args[3] != 0 {
            return Err(Errno::EINVAL.into());
        }
        set_times(times?)(held.fs, held.info()?.ino)?;
        return Ok(0);
    }
    change_at(c, c.args[3] as u32, &|fs, ino| set_times(times?)(fs, ino))
}

pub(crate) fn utimes(c: &mut Call) -> Served {
    let times = timevals(c.args[1]);
    change(c, Arg::path(0), true, &|fs, ino| set_times(times?)(fs, ino))
}

pub(crate) fn futimesat(c: &mut Call) -> Served {
    let times = timevals(c.args[2]);
    if c.args[1] == 0 {
        let held = files::ours(c.args[0] as i32)?;
        set_times(times?)(held.fs, held.info()?.ino)?;
        return Ok(0);
    }
    change(c, Arg::at(0, 1), true, &|fs, ino| {
        set_times(times?)(fs, ino)
    })
}

/// `utime(2)`: two whole seconds.
pub(crate) fn utime(c: &mut Call) -> Served {
    let times = |address: usize| -> Result<(SetTime, SetTime)> {
        if address == 0 {
            return Ok(NOW);
        }
        let at = |sec: i64| SetTime::At(sec.saturating_mul(NS));
        Ok((at(user::get(address)?), at(user::get(address + 8)?)))
    };
    let times = times(c.args[1]);
    change(c, Arg::path(0), true, &|fs, ino| set_times(times?)(fs, ino))
}

pub(crate) fn truncate(c: &mut Call) -> Served {
    let len = c.args[1] as i64;
    if len < 0 {
        // Refused wherever the path leads.
        return Err(Stop::Pass);
    }
    change(c, Arg::path(0), true, &|fs, ino| {
        let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
        match fs.stat(ino)?.mode & S_IFMT {
            S_IFDIR => Err(Errno::EISDIR),
            S_IFREG => {
                limits::check(len, fs, ino).and_then(|()| fs.truncate(&cred::current(), ino, len))
            }
            _ => Err(Errno::EINVAL),
        }
    })
}

fn check(c: &Call, arg: Arg, mode: u32, flags: u32) -> Served {
    const KNOWN: u32 = AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
    if mode & !7 != 0 || flags & !KNOWN != 0 {
        return Err(Stop::Pass);
    }
    let cred = if flags & AT_EACCESS != 0 {
        cred::current()
    } else {
        cred::real()
    };
    let allowed = |fs: &Dfs, ino: Ino| match mode {
        0 => fs.stat(ino).map(drop),
        mode => fs.access(&cred, ino, mode),
    };
    if let Some(ino) = empty_path(c, arg, flags)? {
        allowed(mounts::fs()?, ino)?;
        return Ok(0);
    }
    change(c, arg, flags & AT_SYMLINK_NOFOLLOW == 0, &allowed)
}

pub(crate) fn access(c: &mut Call) -> Served {
    check(c, Arg::path(0), c.args[1] as u32, 0)
}

pub(crate) fn faccessat(c: &mut Call) -> Served {
    check(c, Arg::at(0, 1), c.args[2] as u32, 0)
}

pub(crate) fn faccessat2(c: &mut Call) -> Served {
    check(c, Arg::at(0, 1), c.args[2] as u32, c.args[3] as u32)
}

/// `umask(2)`: the kernel keeps it, we learn it.
pub(crate) fn umask(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Umask))
}

/// `setuid(2)` and its kin. A privileged process may not be able to open the pool's files
/// afterwards, so it opens them now.
pub(crate) fn set_uids(c: &mut Call) -> Served {
    if cred::current().privileged
        && mounts::path().is_some()
        && let Ok(fs) = mounts::fs()
        && let Err(errno) = fs.pool().retain_files()
    {
        debug_assert!(errno != Errno::EFAULT);
    }
    set_ids(c)
}

/// `setgid(2)` and its kin: the kernel decides, we ask again afterwards.
pub(crate) fn set_ids(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Credentials))
}

/// `setfsuid(2)`, `setfsgid(2)`: the ids of this thread alone.
pub(crate) fn set_fs_ids(_c: &mut Call) -> Served {
    cred::per_thread();
    Err(Stop::PassThen(After::Credentials))
}
