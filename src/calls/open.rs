//! `open`, `openat`, `openat2`, `creat`: flags decoded, the file found or made, a descriptor given.

use crate::abi::*;
use crate::calls::special;
use crate::dispatch::{Served, Stop};
use crate::report::{Op, count};
use crate::route::{self, Arg, Spot};
use crate::{cred, files, kernel, placeholder, user};
use dfs::{How, Ino};
use intercept::Call;
use sys::Errno;

const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;
const RESOLVE_CACHED: u64 = 0x20;

/// What the caller of `open` wants, after decoding.
#[derive(Clone, Copy)]
struct Wish {
    flags: u32,
    mode: u32,
    /// The descriptor taken in advance, if one was.
    number: Option<i32>,
}

pub(crate) fn open(c: &mut Call) -> Served {
    serve(c, Arg::path(0), c.args[1] as u32, c.args[2] as u32, 0)
}

pub(crate) fn creat(c: &mut Call) -> Served {
    serve(
        c,
        Arg::path(0),
        O_CREAT | O_WRONLY | O_TRUNC,
        c.args[1] as u32,
        0,
    )
}

pub(crate) fn openat(c: &mut Call) -> Served {
    serve(c, Arg::at(0, 1), c.args[2] as u32, c.args[3] as u32, 0)
}

/// `openat2(2)`: unlike `open`, unknown flags and stray mode bits are errors.
pub(crate) fn openat2(c: &mut Call) -> Served {
    const KNOWN: u64 = 0x3f;
    if c.args[3] < size_of::<OpenHow>() {
        return Err(Stop::Pass);
    }
    let how: OpenHow = user::get(c.args[2]).map_err(|_| Stop::Pass)?;
    let makes = how.flags & u64::from(O_CREAT | O_TMPFILE_BIT) != 0;
    let both = how.resolve & RESOLVE_BENEATH != 0 && how.resolve & RESOLVE_IN_ROOT != 0;
    let bad = how.flags > u64::from(u32::MAX)
        || how.resolve & !KNOWN != 0
        || both
        || how.mode & !0o7777 != 0
        || (how.mode != 0 && !makes);
    if bad {
        // The kernel refuses these wherever the path leads, and says how.
        return Err(Stop::Pass);
    }
    serve(
        c,
        Arg::at(0, 1),
        how.flags as u32,
        how.mode as u32,
        how.resolve,
    )
}

fn serve(c: &mut Call, arg: Arg, flags: u32, mode: u32, resolve: u64) -> Served {
    let wish = Wish {
        flags,
        mode: mode & 0o7777,
        number: None,
    };
    let new_only = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    // Without `O_CREAT`, a slash after the last name follows a link in any case.
    let stays = flags & O_NOFOLLOW != 0 && !user::ends_in_slash(arg.address(c));
    let how = How {
        follow: !stays && !new_only,
        creates: flags & (O_CREAT | O_PATH) == O_CREAT,
        no_symlinks: resolve & RESOLVE_NO_SYMLINKS != 0,
        beneath: resolve & RESOLVE_BENEATH != 0,
        in_root: resolve & RESOLVE_IN_ROOT != 0,
    };
    if resolve & (RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS) != 0
        && !starts_in_mount(c, arg)
        && route::is_inside(c, arg)
    {
        let crossing = if resolve & RESOLVE_NO_XDEV != 0 {
            Errno::EXDEV
        } else {
            Errno::ELOOP
        };
        if resolve & RESOLVE_NO_XDEV != 0 {
            return Err(crossing.into());
        }
    }
    if resolve & RESOLVE_CACHED != 0 && route::is_inside(c, arg) {
        return Err(Errno::EAGAIN.into());
    }
    let mut fifo = None;
    let served = route::at(c, arg, how, &mut |spot| {
        let served = open_spot(spot, wish);
        if served == Err(Stop::Fail(IS_FIFO)) {
            fifo = spot.target.map(|ino| (spot.fs, ino));
        }
        served
    });
    match fifo {
        Some((fs, ino)) => special::open_fifo(c, fs, ino, flags),
        None => served,
    }
}

/// Inside this file: the file is a fifo, which the kernel serves.
const IS_FIFO: Errno = Errno::ESPIPE;

fn starts_in_mount(c: &Call, arg: Arg) -> bool {
    let dirfd = arg.dirfd(c);
    if dirfd == AT_FDCWD {
        crate::cwd::base().is_some()
    } else {
        files::is_ours(dirfd)
    }
}

fn open_spot(spot: &Spot, wish: Wish) -> Served {
    // What makes or empties a file must not find out afterwards that there is no number for it.
    if wish.flags & O_PATH != 0 || wish.flags & (O_CREAT | O_TRUNC | O_TMPFILE_BIT) == 0 {
        return open_as(spot, wish);
    }
    let fd = placeholder::fresh(wish.flags & O_CLOEXEC != 0)?;
    let number = Some(fd);
    open_as(spot, Wish { number, ..wish }).inspect_err(|_| kernel::close(fd))
}

fn open_as(spot: &Spot, wish: Wish) -> Served {
    let flags = wish.flags;
    let directory = flags & O_DIRECTORY != 0;
    count(if directory { Op::Opendir } else { Op::Open });
    if flags & O_PATH == 0 && flags & (O_TMPFILE_BIT | O_DIRECTORY) == O_TMPFILE_BIT | O_DIRECTORY {
        return nameless(spot, wish);
    }
    if flags & O_PATH == 0 && flags & O_CREAT != 0 {
        if directory {
            // Since Linux 6.4 (open(2), BUGS).
            return Err(Errno::EINVAL.into());
        }
        return make_or_open(spot, wish);
    }
    existing(spot, spot.found()?, wish)
}

/// `O_TMPFILE`: a file without a name in the directory given.
fn nameless(spot: &Spot, wish: Wish) -> Served {
    if wish.flags & O_ACCMODE == 0 {
        return Err(Errno::EINVAL.into());
    }
    let dir = spot.found()?;
    let ino = spot.fs.tmpfile(&cred::current(), dir, wish.mode)?;
    let given = give(spot, ino, wish, true)?;
    if wish.flags & O_EXCL != 0 {
        // It never gets a name (open(2)).
        spot.fs.never_named(ino)?;
    }
    Ok(given)
}

/// Times a file is made that others remove before it is open.
const TRIES: u32 = 1000;

fn make_or_open(spot: &Spot, wish: Wish) -> Served {
    let exclusive = wish.flags & O_EXCL != 0;
    if spot.trailing_slash {
        return Err(Errno::EISDIR.into());
    }
    if let Some(ino) = spot.target {
        if exclusive {
            return Err(Errno::EEXIST.into());
        }
        if spot.fs.file_type(ino)? == S_IFDIR {
            return Err(Errno::EISDIR.into());
        }
        return existing(spot, ino, wish);
    }
    for _ in 0..TRIES {
        let (ino, made) = spot.fs.create(
            &cred::current(),
            spot.parent,
            spot.name,
            wish.mode,
            exclusive,
        )?;
        let served = match made {
            true => give(spot, ino, wish, true),
            false => existing(spot, ino, wish),
        };
        // Somebody has removed it since: then it is made again.
        if !matches!(served, Err(Stop::Fail(Errno::ESTALE | Errno::ENOENT))) {
            return served;
        }
    }
    Err(Errno::ESTALE.into())
}

fn existing(spot: &Spot, ino: Ino, wish: Wish) -> Served {
    let kind = spot.fs.file_type(ino)?;
    if kind != S_IFDIR && (wish.flags & O_DIRECTORY != 0 || spot.trailing_slash) {
        return Err(Errno::ENOTDIR.into());
    }
    if wish.flags & O_PATH == 0 {
        match kind {
            S_IFLNK => return Err(Errno::ELOOP.into()),
            // Entries only: no data path behind them (open(2): ENXIO).
            S_IFIFO => return Err(IS_FIFO.into()),
            S_IFSOCK | S_IFCHR | S_IFBLK => return Err(Errno::ENXIO.into()),
            _ => {}
        }
    }
    give(spot, ino, wish, false)
}

fn give(spot: &Spot, ino: Ino, wish: Wish, fresh: bool) -> Served {
    // Mode bits of a file this call has made do not limit the descriptor (open(2)).
    let cred = cred::current();
    let flags = wish.flags & !(O_CREAT | O_EXCL | O_NOCTTY | O_CLOEXEC | O_TMPFILE_BIT);
    let ofd = if fresh {
        spot.fs.open_created(&cred, ino, flags & !O_DIRECTORY)?
    } else {
        spot.fs.open(&cred, ino, flags)?
    };
    let installed = match wish.number {
        Some(number) => files::install_at(spot.fs, ofd, number),
        None => files::install(spot.fs, ofd, wish.flags & O_CLOEXEC != 0),
    };
    if installed.is_ok() && !spot.anonymous && spot.name != b"." {
        files::remember_name(ofd, spot.parent, spot.name);
    }
    Ok(installed?)
}
