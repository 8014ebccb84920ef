//! Calls at the edge of files: `ioctl`, messages that carry descriptors, watches, rings, handles.

use crate::dispatch::{After, Served, Stop};
use crate::handover::{self, MMSGHDR_BYTES};
use crate::kernel;
use crate::route::{self, Arg};
use crate::{files, user};
use core::sync::atomic::{AtomicBool, Ordering};
use intercept::Call;
use sys::Errno;

/// `ioctl(2)` on a file of ours.
pub(crate) fn ioctl(c: &mut Call) -> Served {
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    const FIONREAD: u32 = 0x541b;
    const FIGETBSZ: u32 = 2;
    const O_NONBLOCK: u32 = crate::abi::O_NONBLOCK;
    let request = c.args[1] as u32;
    if matches!(request, FIOCLEX | FIONCLEX) {
        // About the descriptor, not the file: the kernel keeps that flag.
        return Err(Stop::Pass);
    }
    let held = files::ours(c.args[0] as i32)?;
    let info = held.info()?;
    match request {
        FIONREAD => {
            let size = held.fs.stat(info.ino)?.size;
            let left = size.saturating_sub(info.offset).min(i32::MAX as u64) as i32;
            user::put(c.args[2], &left)?;
        }
        FIONBIO => {
            let on: i32 = user::get(c.args[2])?;
            let flags = if on != 0 {
                info.flags | O_NONBLOCK
            } else {
                info.flags & !O_NONBLOCK
            };
            held.fs.set_flags(held.ofd, flags)?;
        }
        FIGETBSZ => user::put(c.args[2], &4096i32)?,
        _ => return Err(Errno::ENOTTY.into()),
    }
    Ok(0)
}

/// `sendmsg(2)`: descriptors of ours get their identity first.
pub(crate) fn sendmsg(c: &mut Call) -> Served {
    handover::sending(c.args[1]);
    Err(Stop::Pass)
}

pub(crate) fn sendmmsg(c: &mut Call) -> Served {
    const MESSAGES_MAX: usize = 1024;
    for index in 0..c.args[2].min(MESSAGES_MAX) {
        handover::sending(c.args[1] + index * MMSGHDR_BYTES);
    }
    Err(Stop::Pass)
}

pub(crate) fn recvmsg(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Recvmsg))
}

pub(crate) fn recvmmsg(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Recvmmsg))
}

pub(crate) fn pidfd_getfd(_c: &mut Call) -> Served {
    Err(Stop::PassThen(After::Pidfd))
}

static RINGS: AtomicBool = AtomicBool::new(false);

/// `D_IL_IO_URING`: the program keeps its rings off the mount.
pub(crate) fn allow_rings() {
    RINGS.store(true, Ordering::Relaxed);
}

/// `io_uring_setup(2)`: the kernel would work on the placeholders behind our back, so programs are
/// told that there are no rings; they fall back to ordinary calls.
pub(crate) fn io_uring_setup(_c: &mut Call) -> Served {
    if RINGS.load(Ordering::Relaxed) {
        Err(Stop::Pass)
    } else {
        Err(Errno::ENOSYS.into())
    }
}

/// `io_submit(2)`: a batch that touches one of our files is refused before anything of it runs.
pub(crate) fn io_submit(c: &mut Call) -> Served {
    /// Offset of `aio_fildes` in `struct iocb`.
    const FILDES: usize = 20;
    let count = isize::try_from(c.args[1]).unwrap_or(0).clamp(0, 65536) as usize;
    for index in 0..count {
        let Ok(iocb) = user::get::<usize>(c.args[2] + index * size_of::<usize>()) else {
            break;
        };
        let Ok(fd) = user::get::<i32>(iocb + FILDES) else {
            break;
        };
        if files::is_ours(fd) {
            // What file systems without asynchronous I/O answer (io_submit(2)).
            return if index == 0 {
                Err(Errno::EINVAL.into())
            } else {
                partly(c, index)
            };
        }
    }
    Err(Stop::Pass)
}

/// The requests before the first of ours are submitted, as the kernel does with a bad one.
fn partly(c: &Call, count: usize) -> Served {
    let mut args = c.args;
    args[1] = count;
    Err(Stop::Kernel(kernel::raw(c.nr, args)))
}

/// `inotify_add_watch(2)`: nobody would feed events; `ENOSPC` is what programs expect when watches
/// run out, and they fall back to polling.
pub(crate) fn inotify_add_watch(c: &mut Call) -> Served {
    if route::is_inside(c, Arg::path(1)) {
        Err(Errno::ENOSPC.into())
    } else {
        Err(Stop::Pass)
    }
}

pub(crate) fn fanotify_mark(c: &mut Call) -> Served {
    let inside = match c.args[4] {
        0 => files::is_ours(c.args[3] as i32),
        _ => route::is_inside(c, Arg::at(3, 4)),
    };
    if inside {
        Err(Errno::ENODEV.into())
    } else {
        Err(Stop::Pass)
    }
}

/// `name_to_handle_at(2)`: file systems without handles answer `EOPNOTSUPP`.
pub(crate) fn name_to_handle_at(c: &mut Call) -> Served {
    if files::is_ours(c.args[0] as i32) || route::is_inside(c, Arg::at(0, 1)) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    Err(Stop::PassThenLook)
}

pub(crate) fn open_by_handle_at(c: &mut Call) -> Served {
    if files::is_ours(c.args[0] as i32) {
        return Err(Errno::ESTALE.into());
    }
    Err(Stop::Pass)
}

/// `open_tree(2)`: needs a mount of the kernel.
pub(crate) fn open_tree(c: &mut Call) -> Served {
    if files::is_ours(c.args[0] as i32) || route::is_inside(c, Arg::at(0, 1)) {
        return Err(Errno::EINVAL.into());
    }
    Err(Stop::Pass)
}
