//! Extended attributes: twelve calls by path, link path and descriptor, four `*at` forms.

use crate::abi::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, O_PATH, XattrArgs};
use crate::calls::stat::empty_path;
use crate::dispatch::{Served, Stop};
use crate::route::{self, Arg};
use crate::{cred, files, mounts, user};
use dfs::{Dfs, Ino};
use intercept::Call;
use std::vec;
use sys::{Errno, Result};

/// Longest name with its NUL, and longest value and list (`xattr(7)`).
const NAME_MAX: usize = 256;
const VALUE_MAX: usize = 65536;
const SMALL: usize = 1024;

fn name(address: usize, buffer: &mut user::PathBuffer) -> Result<&[u8]> {
    let name = user::path(address, buffer).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::ERANGE,
        other => other,
    })?;
    if name.is_empty() || name.len() >= NAME_MAX {
        Err(Errno::ERANGE)
    } else {
        Ok(name)
    }
}

/// Lets `fill` write into a buffer of the size the program gave and copies the result out.
fn fetch(out: usize, size: usize, fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Served {
    let mut small = [0u8; SMALL];
    let mut large;
    let buffer = if size <= SMALL {
        small.get_mut(..size).ok_or(Errno::EINVAL)?
    } else {
        large = vec![0u8; size.min(VALUE_MAX)];
        &mut large
    };
    let len = fill(buffer)?;
    if size != 0 {
        user::put_bytes(out, buffer.get(..len).ok_or(Errno::ERANGE)?)?;
    }
    Ok(len)
}

fn get(fs: &Dfs, ino: Ino, named: usize, out: usize, size: usize) -> Served {
    let mut buffer = user::path_buffer();
    let name = name(named, &mut buffer)?;
    fetch(out, size, &mut |value| {
        fs.getxattr(&cred::current(), ino, name, value)
    })
}

fn set(fs: &Dfs, ino: Ino, named: usize, value: usize, size: usize, flags: u32) -> Served {
    if flags & !3 != 0 {
        return Err(Errno::EINVAL.into());
    }
    if size > VALUE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mut buffer = user::path_buffer();
    let name = name(named, &mut buffer)?;
    let mut bytes = vec![0u8; size];
    user::get_bytes(value, &mut bytes)?;
    fs.setxattr(&cred::current(), ino, name, &bytes, flags)?;
    Ok(0)
}

fn list(fs: &Dfs, ino: Ino, out: usize, size: usize) -> Served {
    fetch(out, size, &mut |names| {
        fs.listxattr(&cred::current(), ino, names)
    })
}

fn remove(fs: &Dfs, ino: Ino, named: usize) -> Served {
    let mut buffer = user::path_buffer();
    fs.removexattr(&cred::current(), ino, name(named, &mut buffer)?)?;
    Ok(0)
}

type Act<'a> = &'a dyn Fn(&Dfs, Ino) -> Served;

fn by_path(c: &Call, arg: Arg, follow: bool, act: Act<'_>) -> Served {
    route::lookup(c, arg, follow, &mut |spot| act(spot.fs, spot.found()?))
}

fn by_fd(c: &Call, act: Act<'_>) -> Served {
    let held = files::ours(c.args[0] as i32)?;
    let info = held.info()?;
    if info.flags & O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    act(held.fs, info.ino)
}

fn by_at(c: &Call, act: Act<'_>) -> Served {
    let (arg, flags) = (Arg::at(0, 1), c.args[2] as u32);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Stop::Pass);
    }
    if let Some(ino) = empty_path(c, arg, flags)? {
        return act(mounts::fs()?, ino);
    }
    by_path(c, arg, flags & AT_SYMLINK_NOFOLLOW == 0, act)
}

/// How the file is named; the rest of the arguments is alike.
#[derive(Clone, Copy)]
enum By {
    Path,
    Link,
    Fd,
}

fn served(c: &Call, by: By, act: Act<'_>) -> Served {
    match by {
        By::Path => by_path(c, Arg::path(0), true, act),
        By::Link => by_path(c, Arg::path(0), false, act),
        By::Fd => by_fd(c, act),
    }
}

macro_rules! forms {
    ($($name:ident $by:ident $op:ident($($arg:expr),*);)*) => {
        $(pub(crate) fn $name(c: &mut Call) -> Served {
            let a = c.args;
            served(c, By::$by, &|fs, ino| $op(fs, ino $(, forms!(@ a $arg))*))
        })*
    };
    (@ $a:ident $index:expr) => { $a[$index] };
}

forms! {
    getxattr Path get(1, 2, 3);
    lgetxattr Link get(1, 2, 3);
    fgetxattr Fd get(1, 2, 3);
    listxattr Path list(1, 2);
    llistxattr Link list(1, 2);
    flistxattr Fd list(1, 2);
    removexattr Path remove(1);
    lremovexattr Link remove(1);
    fremovexattr Fd remove(1);
}

pub(crate) fn setxattr(c: &mut Call) -> Served {
    let a = c.args;
    served(c, By::Path, &|fs, ino| {
        set(fs, ino, a[1], a[2], a[3], a[4] as u32)
    })
}

pub(crate) fn lsetxattr(c: &mut Call) -> Served {
    let a = c.args;
    served(c, By::Link, &|fs, ino| {
        set(fs, ino, a[1], a[2], a[3], a[4] as u32)
    })
}

pub(crate) fn fsetxattr(c: &mut Call) -> Served {
    let a = c.args;
    served(c, By::Fd, &|fs, ino| {
        set(fs, ino, a[1], a[2], a[3], a[4] as u32)
    })
}

fn at_args(c: &Call) -> core::result::Result<XattrArgs, Stop> {
    if c.args[5] < size_of::<XattrArgs>() {
        return Err(Stop::Pass);
    }
    user::get(c.args[4]).map_err(|_| Stop::Pass)
}

pub(crate) fn setxattrat(c: &mut Call) -> Served {
    let (named, v) = (c.args[3], at_args(c)?);
    by_at(c, &|fs, ino| {
        set(fs, ino, named, v.value as usize, v.size as usize, v.flags)
    })
}

pub(crate) fn getxattrat(c: &mut Call) -> Served {
    let (named, v) = (c.args[3], at_args(c)?);
    if v.flags != 0 {
        return Err(Stop::Pass);
    }
    by_at(c, &|fs, ino| {
        get(fs, ino, named, v.value as usize, v.size as usize)
    })
}

pub(crate) fn listxattrat(c: &mut Call) -> Served {
    let a = c.args;
    by_at(c, &|fs, ino| list(fs, ino, a[3], a[4]))
}

pub(crate) fn removexattrat(c: &mut Call) -> Served {
    let a = c.args;
    by_at(c, &|fs, ino| remove(fs, ino, a[3]))
}
