//! Names: making, removing, moving and linking entries.

use crate::abi::*;
use crate::calls::stat::is_dir;
use crate::dispatch::{Served, Stop};
use crate::kernel::{self, text};
use crate::magic::{Magic, magic_name};
use crate::report::{Op, count};
use crate::route::{self, Arg, Spot};
use crate::{above, calls, cred, cwd, exec, files, mounts, user};
use dfs::Ino;
use intercept::Call;
use sys::{Errno, Result};

/// Checks that a spot can take a new name; `EEXIST` if it is taken.
fn vacant<'n>(spot: &Spot<'n>, directory: bool) -> Result<&'n [u8]> {
    if spot.target.is_some() {
        return Err(Errno::EEXIST);
    }
    if spot.trailing_slash && !directory {
        return Err(Errno::ENOENT);
    }
    Ok(spot.name)
}

fn make_dir(c: &Call, arg: Arg, mode: usize) -> Served {
    let made = route::at(c, arg, route::follow(false), &mut |spot| {
        count(Op::Mkdir);
        let name = vacant(spot, true)?;
        spot.fs
            .mkdir(&cred::current(), spot.parent, name, mode as u32 & 0o7777)?;
        Ok(0)
    });
    if made == Err(Stop::PassThenLook) && route::is_above(c, arg) {
        return Err(Errno::EEXIST.into());
    }
    made
}

pub(crate) fn mkdir(c: &mut Call) -> Served {
    make_dir(c, Arg::path(0), c.args[1])
}

pub(crate) fn mkdirat(c: &mut Call) -> Served {
    make_dir(c, Arg::at(0, 1), c.args[2])
}

fn make_node(c: &Call, arg: Arg, mode: usize, device: usize) -> Served {
    let mode = mode as u32 & (S_IFMT | 0o7777);
    route::at(c, arg, route::follow(false), &mut |spot| {
        let kind = match mode & S_IFMT {
            0 => S_IFREG,
            S_IFDIR => return Err(Errno::EPERM.into()),
            kind @ (S_IFREG | S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK) => kind,
            _ => return Err(Errno::EINVAL.into()),
        };
        let cred = cred::current();
        let name = vacant(spot, false)?;
        if matches!(kind, S_IFCHR | S_IFBLK) && !cred.privileged {
            return Err(Errno::EPERM.into());
        }
        // The kernel takes the device number in its 32-bit form, which is also stat's.
        let rdev = if matches!(kind, S_IFCHR | S_IFBLK) {
            device as u64
        } else {
            0
        };
        spot.fs
            .mknod(&cred, spot.parent, name, kind | (mode & 0o7777), rdev)?;
        Ok(0)
    })
}

pub(crate) fn mknod(c: &mut Call) -> Served {
    make_node(c, Arg::path(0), c.args[1], c.args[2])
}

pub(crate) fn mknodat(c: &mut Call) -> Served {
    make_node(c, Arg::at(0, 1), c.args[2], c.args[3])
}

fn remove_file(spot: &Spot) -> Served {
    count(Op::Unlink);
    let ino = spot.found()?;
    let before = spot.fs.stat(ino)?;
    if spot.trailing_slash {
        // Said before permission is looked at, unlike what `unlink` says.
        return Err(match before.mode & S_IFMT {
            S_IFDIR => Errno::EISDIR.into(),
            _ => Errno::ENOTDIR.into(),
        });
    }
    spot.fs.unlink(&cred::current(), spot.parent, spot.name)?;
    if matches!(before.mode & S_IFMT, S_IFIFO | S_IFSOCK) && before.nlink == 1 {
        crate::calls::special::removed(ino);
    }
    Ok(0)
}

fn remove_dir(spot: &Spot) -> Served {
    count(Op::Rmdir);
    let ino = spot.found()?;
    if ino == spot.fs.root() {
        return Err(Errno::EBUSY.into());
    }
    spot.fs.rmdir(&cred::current(), spot.parent, spot.name)?;
    Ok(0)
}

/// The last component as written: rmdir(2) and rename(2) treat `.` and `..` specially, which a
/// resolved place no longer shows.
fn written_last(address: usize) -> Last {
    let mut buffer = user::path_buffer();
    let Ok(path) = user::path(address, &mut buffer) else {
        return Last::Name;
    };
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |i| i + 1);
    let path = path.get(..end).unwrap_or(path);
    match path.rsplit(|&b| b == b'/').next() {
        Some(b".") => Last::Dot,
        Some(b"..") => Last::DotDot,
        _ => Last::Name,
    }
}

#[derive(PartialEq, Eq)]
enum Last {
    Name,
    Dot,
    DotDot,
}

fn rmdir_at(c: &Call, arg: Arg) -> Served {
    route::at(
        c,
        arg,
        route::follow(false),
        &mut |spot| match written_last(arg.address(c)) {
            Last::Dot => Err(Errno::EINVAL.into()),
            Last::DotDot => Err(Errno::ENOTEMPTY.into()),
            Last::Name => remove_dir(spot),
        },
    )
}

pub(crate) fn rmdir(c: &mut Call) -> Served {
    rmdir_at(c, Arg::path(0))
}

pub(crate) fn unlink(c: &mut Call) -> Served {
    route::at(c, Arg::path(0), route::follow(false), &mut remove_file)
}

pub(crate) fn unlinkat(c: &mut Call) -> Served {
    let flags = c.args[2] as u32;
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Stop::Pass);
    }
    if flags & AT_REMOVEDIR != 0 {
        return rmdir_at(c, Arg::at(0, 1));
    }
    route::at(c, Arg::at(0, 1), route::follow(false), &mut remove_file)
}

const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
const RENAME_WHITEOUT: u32 = 4;

fn move_name(c: &Call, from: Arg, to: Arg, flags: u32) -> Served {
    let known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
    let contradiction =
        flags & RENAME_EXCHANGE != 0 && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0;
    if flags & !known != 0 || contradiction {
        return Err(Stop::Pass);
    }
    let how = route::follow(false);
    let (no_replace, exchange) = (flags & RENAME_NOREPLACE != 0, flags & RENAME_EXCHANGE != 0);
    route::pair(c, (from, how), (to, how), &|_| Ok(()), &mut |old, new| {
        count(Op::Rename);
        let named = |arg: Arg| written_last(arg.address(c)) == Last::Name;
        if !named(from) || !named(to) {
            let taken = named(from) && no_replace;
            return Err(if taken { Errno::EEXIST } else { Errno::EBUSY }.into());
        }
        let root = Some(old.fs.root());
        if old.target == root || new.target == root {
            return Err(Errno::EBUSY.into());
        }
        let source = old.found()?;
        if no_replace && new.target.is_some() {
            return Err(Errno::EEXIST.into());
        }
        let directory = |slash: bool, ino: Ino| match slash && !is_dir(old.fs, ino)? {
            true => Err(Errno::ENOTDIR),
            false => Ok(()),
        };
        // In an exchange each slash concerns the name it follows, else both the file moved.
        if exchange {
            directory(new.trailing_slash, new.found()?)?;
        }
        directory(
            old.trailing_slash || new.trailing_slash && !exchange,
            source,
        )?;
        let cred = cred::current();
        let (from, to) = (old.name, new.name);
        old.fs
            .rename(&cred, old.parent, from, new.parent, to, flags)?;
        Ok(0)
    })
}

pub(crate) fn rename(c: &mut Call) -> Served {
    move_name(c, Arg::path(0), Arg::path(1), 0)
}

pub(crate) fn renameat(c: &mut Call) -> Served {
    move_name(c, Arg::at(0, 1), Arg::at(2, 3), 0)
}

pub(crate) fn renameat2(c: &mut Call) -> Served {
    move_name(c, Arg::at(0, 1), Arg::at(2, 3), c.args[4] as u32)
}

fn add_name(spot: &Spot, ino: Ino) -> Served {
    count(Op::Link);
    let name = vacant(spot, false)?;
    spot.fs.link(&cred::current(), ino, spot.parent, name)?;
    Ok(0)
}

fn link_at(c: &Call, from: Arg, to: Arg, follow: bool) -> Served {
    let follow = follow || user::ends_in_slash(from.address(c));
    let hows = (route::follow(follow), route::follow(false));
    let exists = |old: &Spot| match is_dir(old.fs, old.found()?) {
        Ok(false) if old.trailing_slash => Err(Errno::ENOTDIR),
        _ => Ok(()),
    };
    route::pair(c, (from, hows.0), (to, hows.1), &exists, &mut |old, new| {
        add_name(new, old.found()?)
    })
}

pub(crate) fn link(c: &mut Call) -> Served {
    link_at(c, Arg::path(0), Arg::path(1), false)
}

/// `linkat(2)`, also with `AT_EMPTY_PATH` for files without a name.
pub(crate) fn linkat(c: &mut Call) -> Served {
    let flags = c.args[4] as u32;
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Stop::Pass);
    }
    let (from, to) = (Arg::at(0, 1), Arg::at(2, 3));
    let empty = flags & AT_EMPTY_PATH != 0 && user::get::<u8>(from.address(c)) == Ok(0);
    if !empty {
        return link_at(c, from, to, flags & AT_SYMLINK_FOLLOW != 0);
    }
    let dirfd = from.dirfd(c);
    if !files::is_ours(dirfd) {
        // A foreign file cannot get a name in the mount.
        return route::at(c, to, route::follow(false), &mut |_| {
            Err(Errno::EXDEV.into())
        });
    }
    let ino = files::ours(dirfd)?.info()?.ino;
    let mut inside = false;
    let served = route::at(c, to, route::follow(false), &mut |spot| {
        inside = true;
        add_name(spot, ino)
    });
    if inside {
        served
    } else {
        Err(Errno::EXDEV.into())
    }
}

fn make_symlink(c: &Call, target: usize, arg: Arg) -> Served {
    route::at(c, arg, route::follow(false), &mut |spot| {
        let mut buffer = user::path_buffer();
        let target = user::path(target, &mut buffer)?;
        if target.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let name = vacant(spot, false)?;
        spot.fs
            .symlink(&cred::current(), target, spot.parent, name)?;
        Ok(0)
    })
}

pub(crate) fn symlink(c: &mut Call) -> Served {
    make_symlink(c, c.args[0], Arg::path(1))
}

pub(crate) fn symlinkat(c: &mut Call) -> Served {
    make_symlink(c, c.args[0], Arg::at(1, 2))
}

fn put_link(bytes: &[u8], out: usize, room: usize) -> Served {
    if room == 0 {
        return Err(Errno::EINVAL.into());
    }
    let len = bytes.len().min(room);
    user::put_bytes(out, bytes.get(..len).unwrap_or(bytes))?;
    Ok(len)
}

/// Targets of `/proc/self/fd/N`, `/proc/self/cwd` and `/proc/self/exe` that we know better.
fn magic_target(address: usize) -> Option<Result<Vec<u8>>> {
    let mut buffer = user::path_buffer();
    let path = user::path(address, &mut buffer).ok()?;
    let (what, rest) = magic_name(path)?;
    if !rest.is_empty() {
        return None;
    }
    match what {
        Magic::Fd(fd) => match files::get(fd).ok()? {
            Some(held) => Some(path_of_file(&held)),
            None => above_of(what),
        },
        Magic::Exe => exec::program_path().map(|path| Ok(path.to_vec())),
        Magic::Cwd => match cwd::base() {
            Some(base) => Some(path_of_dir(mounts::fs().ok()?, base)),
            None => above_of(what),
        },
    }
}

/// The name of a directory above the mount point, if the link leads to one that the kernel lacks.
fn above_of(what: Magic) -> Option<Result<Vec<u8>>> {
    if !above::in_use() {
        return None;
    }
    let mut target = [0u8; PATH_MAX];
    let link = match what {
        Magic::Fd(fd) => kernel::readlink(text!(40, "/proc/self/fd/{fd}").c_str(), &mut target),
        _ => kernel::readlink(c"/proc/self/cwd", &mut target),
    };
    above::shown(link.ok()?).map(|path| Ok(path.to_vec()))
}

const DELETED: &[u8] = b" (deleted)";

fn path_of_dir(fs: &dfs::Dfs, dir: Ino) -> Result<Vec<u8>> {
    let mut inside = [0u8; PATH_MAX];
    match calls::dir::shown(fs, dir, &mut inside) {
        // Its last name is not kept.
        Err(Errno::ENOENT) => Ok([mounts::path().unwrap_or(b""), b"/", DELETED].concat()),
        other => other,
    }
}

/// The path by which an open file is shown: the name it was opened by, with the kernel's mark if it
/// no longer has that name.
pub(crate) fn path_of_file(held: &files::Held) -> Result<Vec<u8>> {
    let info = held.info()?;
    if info.kind == S_IFDIR {
        return path_of_dir(held.fs, info.ino);
    }
    let Some((parent, name)) = files::name_of(held.ofd) else {
        return Ok([mounts::path().unwrap_or(b""), b"/", DELETED].concat());
    };
    let mut path = path_of_dir(held.fs, parent)?;
    let there = held.fs.lookup(&cred::unchecked(), parent, &name);
    path.push(b'/');
    path.extend_from_slice(&name);
    if there != Ok(info.ino) {
        path.extend_from_slice(DELETED);
    }
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(path)
}

fn read_link(c: &Call, arg: Arg, out: usize, room: usize) -> Served {
    if let Some(target) = magic_target(arg.address(c)) {
        return put_link(&target?, out, room);
    }
    let empty = arg.dir.is_some() && user::get::<u8>(arg.address(c)) == Ok(0);
    if empty && files::is_ours(arg.dirfd(c)) {
        let held = files::ours(arg.dirfd(c))?;
        return link_of(held.fs, held.info()?.ino, out, room);
    }
    route::lookup(c, arg, false, &mut |spot| {
        link_of(spot.fs, spot.found()?, out, room)
    })
}

fn link_of(fs: &dfs::Dfs, ino: Ino, out: usize, room: usize) -> Served {
    count(Op::Readlink);
    let mut target = [0u8; PATH_MAX];
    let len = fs.readlink(ino, &mut target)?;
    put_link(target.get(..len).unwrap_or(&target), out, room)
}

pub(crate) fn readlink(c: &mut Call) -> Served {
    read_link(c, Arg::path(0), c.args[1], c.args[2])
}

pub(crate) fn readlinkat(c: &mut Call) -> Served {
    read_link(c, Arg::at(0, 1), c.args[2], c.args[3] as i32 as usize)
}
