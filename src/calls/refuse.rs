//! Interfaces that cannot reach the mount, refused in the way programs expect: rings, watches, file
//! handles.

use crate::dispatch::{Served, Stop};
use crate::files;
use crate::route::{self, Arg};
use core::sync::atomic::{AtomicBool, Ordering};
use intercept::Call;
use sys::Errno;

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
