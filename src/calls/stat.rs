//! Attributes of files and of the file system, read.

use crate::abi::*;
use crate::dispatch::{Served, Stop};
use crate::report::{Op, count};
use crate::route::{self, Arg};
use crate::{files, mounts, user};
use dfs::{Dfs, Ino};
use intercept::Call;
use sys::Result;

const NS: i64 = 1_000_000_000;

fn split(ns: i64) -> (i64, i64) {
    (ns.div_euclid(NS), ns.rem_euclid(NS))
}

fn kernel_form(s: &dfs::Stat) -> Stat {
    let (atime, atime_ns) = split(s.atime);
    let (mtime, mtime_ns) = split(s.mtime);
    let (ctime, ctime_ns) = split(s.ctime);
    Stat {
        dev: mounts::device(),
        ino: s.ino,
        nlink: u64::from(s.nlink),
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        rdev: s.rdev,
        size: s.size as i64,
        blksize: i64::from(s.blksize),
        blocks: s.blocks as i64,
        atime,
        atime_ns,
        mtime,
        mtime_ns,
        ctime,
        ctime_ns,
        ..Stat::default()
    }
}

fn statx_form(s: &dfs::Stat, root: bool) -> Statx {
    let time = |ns: i64| {
        let (sec, nsec) = split(ns);
        StatxTime {
            sec,
            nsec: nsec as u32,
            pad: 0,
        }
    };
    let device = mounts::device();
    Statx {
        mask: STATX_SERVED,
        blksize: s.blksize,
        attributes: if root { STATX_ATTR_MOUNT_ROOT } else { 0 },
        attributes_mask: STATX_ATTR_MOUNT_ROOT,
        nlink: s.nlink,
        uid: s.uid,
        gid: s.gid,
        mode: s.mode as u16,
        ino: s.ino,
        size: s.size,
        blocks: s.blocks,
        atime: time(s.atime),
        btime: time(s.btime),
        ctime: time(s.ctime),
        mtime: time(s.mtime),
        rdev_major: dev_major(s.rdev),
        rdev_minor: dev_minor(s.rdev),
        dev_major: dev_major(device),
        dev_minor: dev_minor(device),
        ..Statx::default()
    }
}

fn put_stat(fs: &Dfs, ino: Ino, out: usize) -> Served {
    count(Op::Stat);
    let stat = fs.stat(ino)?;
    user::put(out, &kernel_form(&stat))?;
    Ok(0)
}

fn by_path(c: &Call, arg: Arg, follow: bool, out: usize) -> Served {
    route::lookup(c, arg, follow, &mut |spot| {
        put_stat(spot.fs, spot.found()?, out)
    })
}

/// Whether the file is a directory.
pub(crate) fn is_dir(fs: &Dfs, ino: Ino) -> Result<bool> {
    Ok(fs.stat(ino)?.mode & S_IFMT == S_IFDIR)
}

pub(crate) fn stat(c: &mut Call) -> Served {
    by_path(c, Arg::path(0), true, c.args[1])
}

pub(crate) fn lstat(c: &mut Call) -> Served {
    by_path(c, Arg::path(0), false, c.args[1])
}

pub(crate) fn fstat(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    put_stat(held.fs, held.info()?.ino, c.args[1])
}

/// Does the call mean the descriptor itself: `AT_EMPTY_PATH` with an empty path or, as Linux 6.11
/// allows for stat calls, without one?
fn means_descriptor(c: &Call, arg: Arg, flags: u32) -> bool {
    flags & AT_EMPTY_PATH != 0 && (arg.address(c) == 0 || user::get::<u8>(arg.address(c)) == Ok(0))
}

/// The inode an `*at` call with `AT_EMPTY_PATH` means, if it is ours.
pub(crate) fn empty_path(
    c: &Call,
    arg: Arg,
    flags: u32,
) -> core::result::Result<Option<Ino>, Stop> {
    if !means_descriptor(c, arg, flags) {
        return Ok(None);
    }
    let dirfd = arg.dirfd(c);
    if dirfd == AT_FDCWD {
        return crate::cwd::base().map(Some).ok_or(Stop::Pass);
    }
    Ok(Some(files::ours(dirfd)?.info()?.ino))
}

pub(crate) fn newfstatat(c: &mut Call) -> Served {
    const KNOWN: u32 = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
    let flags = c.args[3] as u32;
    let arg = Arg::at(0, 1);
    if flags & !KNOWN != 0 {
        return Err(Stop::Pass);
    }
    if let Some(ino) = empty_path(c, arg, flags)? {
        return put_stat(mounts::fs()?, ino, c.args[2]);
    }
    by_path(c, arg, flags & AT_SYMLINK_NOFOLLOW == 0, c.args[2])
}

fn put_statx(fs: &Dfs, ino: Ino, out: usize) -> Served {
    count(Op::Stat);
    let stat = fs.stat(ino)?;
    user::put(out, &statx_form(&stat, ino == fs.root()))?;
    Ok(0)
}

pub(crate) fn statx(c: &mut Call) -> Served {
    const KNOWN: u32 = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
    let (flags, mask, out) = (c.args[2] as u32, c.args[3] as u32, c.args[4]);
    let arg = Arg::at(0, 1);
    let both_sync = flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE;
    if flags & !KNOWN != 0 || mask & STATX_RESERVED != 0 || both_sync {
        return Err(Stop::Pass);
    }
    if let Some(ino) = empty_path(c, arg, flags)? {
        return put_statx(mounts::fs()?, ino, out);
    }
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    route::lookup(c, arg, follow, &mut |spot| {
        put_statx(spot.fs, spot.found()?, out)
    })
}

fn put_statfs(fs: &Dfs, out: usize) -> Served {
    const NAME_MAX: i64 = 255;
    const BLOCK: i64 = 4096;
    let s = fs.statfs()?;
    let shown = Statfs {
        kind: FUSE_SUPER_MAGIC,
        bsize: BLOCK,
        blocks: s.blocks,
        bfree: s.bfree,
        bavail: s.bfree,
        files: s.files.saturating_add(s.ffree),
        ffree: s.ffree,
        fsid: [s.fsid as i32, (s.fsid >> 32) as i32],
        namelen: NAME_MAX,
        frsize: BLOCK,
        ..Statfs::default()
    };
    user::put(out, &shown)?;
    Ok(0)
}

pub(crate) fn statfs(c: &mut Call) -> Served {
    let out = c.args[1];
    route::at(c, Arg::path(0), route::follow(true), &mut |spot| {
        spot.found()?;
        put_statfs(spot.fs, out)
    })
}

pub(crate) fn fstatfs(c: &mut Call) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    put_statfs(held.fs, c.args[1])
}
