//! Directories: reading entries, the working directory.

use crate::abi::{self, PATH_MAX};
use crate::calls::stat::is_dir;
use crate::dispatch::{After, Served, Stop};
use crate::report::{Op, count};
use crate::route::{self, Arg, Spot};
use crate::{above, cred, cwd, files, kernel, mounts, user};
use dfs::{Dfs, Dirent, Ino};
use intercept::Call;
use sys::{Errno, Result};

/// Bytes before the name in `struct linux_dirent64` and `struct linux_dirent`.
pub(super) const HEAD64: usize = 19;
pub(super) const HEAD_OLD: usize = 18;
pub(super) const RECORD_MAX: usize = 288;

/// Writes one entry in the kernel's layout; the record's length (`getdents(2)`).
pub(super) fn record(entry: &Dirent<'_>, old: bool, out: &mut [u8; RECORD_MAX]) -> Result<usize> {
    let head = if old { HEAD_OLD } else { HEAD64 };
    // The old form keeps the type in the record's last byte, after the name's NUL.
    let tail = if old { 2 } else { 1 };
    let len = (head + entry.name.len() + tail).next_multiple_of(8);
    let record = out.get_mut(..len).ok_or(Errno::EIO)?;
    record.fill(0);
    record[..8].copy_from_slice(&entry.ino.to_le_bytes());
    record[8..16].copy_from_slice(&entry.cookie.to_le_bytes());
    record[16..18].copy_from_slice(&(len as u16).to_le_bytes());
    if old {
        record[len - 1] = entry.kind;
    } else {
        record[18] = entry.kind;
    }
    record
        .get_mut(head..head + entry.name.len())
        .ok_or(Errno::EIO)?
        .copy_from_slice(entry.name);
    Ok(len)
}

fn list(c: &Call, old: bool) -> Served {
    let Some(held) = files::get(c.args[0] as i32)? else {
        return super::listing::of_kernel(c, old);
    };
    count(Op::Readdir);
    let (out, room) = (c.args[1], c.args[2] as u32 as usize);
    let mut used = 0;
    let mut failed = None;
    let mut buffer = [0u8; RECORD_MAX];
    held.fs.getdents_ofd(held.ofd, &mut |entry| {
        let len = match record(entry, old, &mut buffer) {
            Ok(len) if used + len <= room => len,
            Ok(_) => {
                failed = Some(Errno::EINVAL);
                return false;
            }
            Err(errno) => {
                failed = Some(errno);
                return false;
            }
        };
        if let Err(errno) = user::put_bytes(out + used, buffer.get(..len).unwrap_or(&[])) {
            failed = Some(errno);
            return false;
        }
        used += len;
        true
    })?;
    match failed {
        Some(errno) if used == 0 => Err(errno.into()),
        _ => Ok(used),
    }
}

pub(crate) fn getdents64(c: &mut Call) -> Served {
    list(c, false)
}

pub(crate) fn getdents(c: &mut Call) -> Served {
    list(c, true)
}

fn enter(fs: &Dfs, ino: Ino) -> Served {
    const EXECUTE: u32 = 1;
    if !is_dir(fs, ino)? {
        return Err(Errno::ENOTDIR.into());
    }
    fs.access(&cred::current(), ino, EXECUTE)?;
    cwd::enter(ino)?;
    Ok(0)
}

/// `chdir(2)`; when the kernel does it, its result is looked at afterwards.
pub(crate) fn chdir(c: &mut Call) -> Served {
    let served = route::at(c, Arg::path(0), route::follow(true), &mut |spot: &Spot| {
        enter(spot.fs, spot.found()?)
    });
    match served {
        Err(Stop::PassThenLook | Stop::Pass) => Err(Stop::PassThen(After::Chdir)),
        Err(Stop::Kernel(0)) => {
            cwd::kernel_changed();
            Ok(0)
        }
        other => other,
    }
}

pub(crate) fn fchdir(c: &mut Call) -> Served {
    let Some(held) = files::get(c.args[0] as i32)? else {
        return Err(Stop::PassThen(After::Chdir));
    };
    enter(held.fs, held.info()?.ino)
}

/// `getcwd(2)`: the length with the NUL.
pub(crate) fn getcwd(c: &mut Call) -> Served {
    let Some(base) = cwd::base() else {
        return kernels_cwd(c);
    };
    let fs = mounts::fs()?;
    let mut inside = [0u8; PATH_MAX];
    let path = shown(fs, base, &mut inside)?;
    // The C library's own way up the tree is taken at ENAMETOOLONG only, whatever the room.
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if path.len() + 1 > c.args[1] {
        return Err(Errno::ERANGE.into());
    }
    user::put_bytes(c.args[0], &path)?;
    user::put(c.args[0] + path.len(), &0u8)?;
    Ok(path.len() + 1)
}

/// The kernel's answer, with the program's name for a directory above the mount point.
fn kernels_cwd(c: &Call) -> Served {
    let told = Errno::from_ret(kernel::raw(c.nr, c.args)).map_err(Stop::Fail)?;
    let mut path = std::vec![0u8; told.min(PATH_MAX)];
    user::get_bytes(c.args[0], &mut path)?;
    match above::shown(path.strip_suffix(b"\0").unwrap_or(&path)) {
        None => Ok(told),
        Some(known) => {
            user::put_bytes(c.args[0], known)?;
            user::put(c.args[0] + known.len(), &0u8)?;
            Ok(known.len() + 1)
        }
    }
}

/// What the kernel says of a path that is longer than any buffer.
pub(crate) fn too_long(errno: Errno) -> Errno {
    if errno == Errno::ERANGE {
        Errno::ENAMETOOLONG
    } else {
        errno
    }
}

/// The path of a directory as the program sees it.
pub(crate) fn shown(
    fs: &Dfs,
    dir: Ino,
    buffer: &mut [u8; abi::PATH_MAX],
) -> Result<std::vec::Vec<u8>> {
    let len = fs.path_of(dir, buffer).map_err(too_long)?;
    let inside = buffer.get(..len).ok_or(Errno::EIO)?;
    let mut path = mounts::path().ok_or(Errno::ENOENT)?.to_vec();
    if inside != b"/" {
        path.extend_from_slice(inside);
    }
    Ok(path)
}
