//! Reading, writing, seeking, and what concerns a file's bytes through a descriptor.

use crate::abi::{self, RW_MAX};
use crate::dispatch::{Served, Stop};
use crate::files::{self, Held};
use crate::report::{Op, count};
use crate::{limits, user};
use dfs::IoVec;
use intercept::Call;
use std::vec::Vec;
use sys::{Errno, Result};

const RWF_APPEND: u32 = 0x10;
const RWF_NOAPPEND: u32 = 0x20;
const RWF_DSYNC: u32 = 0x02;
const RWF_SYNC: u32 = 0x04;
/// High priority and nowait change nothing here, nor does any of these for a read.
const RWF_HARMLESS: u32 = 0x0f;

fn one(c: &Call) -> [IoVec; 1] {
    [IoVec {
        base: c.args[1] as *mut u8,
        len: c.args[2].min(RW_MAX),
    }]
}

/// A file position of the program; `dfs` refuses negative ones.
fn position(value: usize) -> Result<i64> {
    let at = value as i64;
    if at < 0 { Err(Errno::EINVAL) } else { Ok(at) }
}

/// A transfer may not reach beyond the largest offset (`read(2)`, `write(2)`: `EINVAL`).
fn reachable(pieces: &[IoVec], at: Option<i64>) -> Result<()> {
    let len: usize = pieces.iter().map(|piece| piece.len).sum();
    let end = at.unwrap_or(0).checked_add(len as i64);
    end.map(drop).ok_or(Errno::EINVAL)
}

fn read_at(held: &Held, pieces: &[IoVec], at: Option<i64>) -> Result<usize> {
    count(Op::Read);
    reachable(pieces, at)?;
    match at {
        // SAFETY: the program's own addresses; dfs touches them through guarded copies only.
        None => unsafe { held.fs.read(held.ofd, pieces) },
        // SAFETY: as above.
        Some(at) => unsafe { held.fs.pread(held.ofd, pieces, at) },
    }
}

/// [`read_at`] for the vectored calls, which look no further when there is nothing to read.
fn read_pieces(held: &Held, pieces: &[IoVec], at: Option<i64>) -> Result<usize> {
    match read_at(held, pieces, at) {
        Err(Errno::EISDIR) if pieces.iter().all(|piece| piece.len == 0) => Ok(0),
        other => other,
    }
}

/// Whether a write goes to the end of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Append {
    /// If the descriptor says so.
    AsOpened,
    Always,
    Never,
}

fn write_at(held: &Held, pieces: &[IoVec], at: Option<i64>, append: Append) -> Result<usize> {
    count(Op::Write);
    reachable(pieces, at)?;
    write_within_limit(held, pieces, at, append)
}

/// Writes as far as `RLIMIT_FSIZE` allows.
pub(crate) fn write_within_limit(
    held: &Held,
    pieces: &[IoVec],
    at: Option<i64>,
    append: Append,
) -> Result<usize> {
    match limits::file_size() {
        None => write_pieces(held, pieces, at, append),
        Some(limit) => write_limited(held, pieces, at, append, limit),
    }
}

fn write_pieces(held: &Held, pieces: &[IoVec], at: Option<i64>, append: Append) -> Result<usize> {
    match at {
        // SAFETY: the program's own addresses; dfs touches them through guarded copies only.
        None if append == Append::Always => unsafe { held.fs.append(held.ofd, pieces) },
        // SAFETY: as above.
        at if append == Append::Never => unsafe { held.fs.overwrite(held.ofd, pieces, at) },
        // SAFETY: as above.
        None => unsafe { held.fs.write(held.ofd, pieces) },
        // SAFETY: as above.
        Some(at) => unsafe {
            let append = append == Append::Always;
            held.fs.pwrite(held.ofd, pieces, at, append)
        },
    }
}

/// A write under `RLIMIT_FSIZE`: cut at the limit, refused beyond it.
#[cold]
fn write_limited(
    held: &Held,
    pieces: &[IoVec],
    at: Option<i64>,
    append: Append,
    limit: u64,
) -> Result<usize> {
    let info = held.info()?;
    let appends = match append {
        Append::AsOpened => info.flags & abi::O_APPEND != 0,
        Append::Always => true,
        Append::Never => false,
    };
    let start = match at {
        _ if appends => held.fs.stat(info.ino)?.size,
        Some(at) => at as u64,
        None => info.offset,
    };
    let mut room = usize::try_from(limit.saturating_sub(start)).unwrap_or(usize::MAX);
    if room == 0 && pieces.iter().any(|piece| piece.len > 0) {
        return Err(limits::exceeded());
    }
    let mut cut = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let len = piece.len.min(room);
        room -= len;
        cut.push(IoVec {
            base: piece.base,
            len,
        });
    }
    write_pieces(held, &cut, at, append)
}

pub(crate) fn read(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    Ok(read_at(&held, &one(c), None)?)
}

pub(crate) fn write(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    Ok(write_at(&held, &one(c), None, Append::AsOpened)?)
}

pub(crate) fn pread64(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    Ok(read_at(&held, &one(c), Some(position(c.args[3])?))?)
}

pub(crate) fn pwrite64(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    Ok(write_at(
        &held,
        &one(c),
        Some(position(c.args[3])?),
        Append::AsOpened,
    )?)
}

pub(crate) fn readv(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    Ok(user::with_vector(c.args[1], c.args[2], |v| {
        read_pieces(&held, v, None)
    })?)
}

pub(crate) fn writev(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    Ok(user::with_vector(c.args[1], c.args[2], |v| {
        write_at(&held, v, None, Append::AsOpened)
    })?)
}

pub(crate) fn preadv(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let at = position(c.args[3])?;
    Ok(user::with_vector(c.args[1], c.args[2], |v| {
        read_pieces(&held, v, Some(at))
    })?)
}

pub(crate) fn pwritev(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let at = position(c.args[3])?;
    Ok(user::with_vector(c.args[1], c.args[2], |v| {
        write_at(&held, v, Some(at), Append::AsOpened)
    })?)
}

/// `preadv2(2)`: position -1 means the file offset.
pub(crate) fn preadv2(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    if c.args[5] as u32 & !RWF_HARMLESS != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let at = if c.args[3] as i64 == -1 {
        None
    } else {
        Some(position(c.args[3])?)
    };
    Ok(user::with_vector(c.args[1], c.args[2], |v| {
        read_pieces(&held, v, at)
    })?)
}

/// `pwritev2(2)`.
pub(crate) fn pwritev2(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let flags = c.args[5] as u32;
    if flags & !(RWF_HARMLESS | RWF_APPEND | RWF_NOAPPEND) != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if flags & RWF_NOAPPEND != 0 && flags & RWF_APPEND != 0 {
        return Err(Errno::EINVAL.into());
    }
    let done = write_with(c, &held, flags)?;
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 && done > 0 {
        held.fs.fsync(held.ofd)?;
    }
    Ok(done)
}

/// `pwritev2(2)` but for bringing what was written to the devices.
fn write_with(c: &Call, held: &Held, flags: u32) -> Result<usize> {
    let append = match flags & (RWF_APPEND | RWF_NOAPPEND) {
        0 => Append::AsOpened,
        RWF_APPEND => Append::Always,
        _ => Append::Never,
    };
    let at = if c.args[3] as i64 == -1 {
        None
    } else {
        Some(position(c.args[3])?)
    };
    user::with_vector(c.args[1], c.args[2], |v| write_at(held, v, at, append))
}

pub(crate) fn lseek(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    count(Op::Seek);
    Ok(held.fs.seek(held.ofd, c.args[1] as i64, c.args[2] as u32)? as usize)
}

pub(crate) fn ftruncate(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let len = position(c.args[1])? as u64;
    limits::check(len, held.fs, held.info()?.ino)?;
    held.fs.ftruncate(held.ofd, len)?;
    Ok(0)
}

const FALLOC_FL_PUNCH_HOLE: u32 = 2;

pub(crate) fn fallocate(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let (at, len) = (position(c.args[2])?, position(c.args[3])?);
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    if c.args[1] as u32 & FALLOC_FL_PUNCH_HOLE == 0 {
        let end = (at as u64).saturating_add(len as u64);
        limits::check(end, held.fs, held.info()?.ino)?;
    }
    held.fs.fallocate(held.ofd, c.args[1] as u32, at, len)?;
    Ok(0)
}

/// `fsync(2)`, `fdatasync(2)`: one log holds sizes and all other attributes.
pub(crate) fn fsync(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    refuse_path(&held)?;
    held.fs.fsync(held.ofd)?;
    Ok(0)
}

/// Calls that need more than an `O_PATH` descriptor fail with `EBADF` (open(2)).
pub(crate) fn refuse_path(held: &Held) -> core::result::Result<(), Stop> {
    if held.info()?.flags & abi::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    Ok(())
}

/// `sync_file_range(2)`: a promise about one range; the whole file's data is synced instead.
pub(crate) fn sync_file_range(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    refuse_path(&held)?;
    let (at, len) = (c.args[1] as i64, c.args[2] as i64);
    if c.args[3] as u32 & !7 != 0 || at < 0 || len < 0 || at.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    if c.args[3] as u32 & 7 != 0 {
        held.fs.fsync(held.ofd)?;
    }
    Ok(0)
}

pub(crate) fn syncfs(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    refuse_path(&held)?;
    held.fs.sync()?;
    Ok(0)
}

/// `sync(2)`: ours and the kernel's.
pub(crate) fn sync(_c: &mut Call) -> Served {
    if let Some(fs) = crate::mounts::attached() {
        // sync(2) reports nothing.
        if fs.sync().is_err() {
            core::hint::spin_loop();
        }
    }
    Err(Stop::Pass)
}

/// `posix_fadvise(2)`: the advice is checked and not needed, everything is in memory.
pub(crate) fn fadvise64(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    refuse_path(&held)?;
    if (c.args[2] as i64) < 0 || c.args[3] > 5 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// `readahead(2)`.
pub(crate) fn readahead(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let info = held.info()?;
    if info.flags & abi::O_ACCMODE == abi::O_WRONLY || info.flags & abi::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    Ok(0)
}
