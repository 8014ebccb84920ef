//! Descriptors that belong to the library, kept out of the program's sight.
//!
//! Inside a host program they sit above a floor, are closed by exec, and are announced to whoever
//! watches (the dispatcher, which then hides them from `close`, `dup2` and close-all loops).

use crate::{Errno, Result};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Told about each descriptor that becomes (`true`) or ceases to be (`false`) the library's own.
pub type Watcher = fn(fd: i32, own: bool);

static WATCHER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static FLOOR: AtomicUsize = AtomicUsize::new(0);

#[cfg(target_arch = "x86_64")]
mod nr {
    pub(super) const CLOSE: usize = 3;
    pub(super) const FCNTL: usize = 72;
    pub(super) const PRLIMIT64: usize = 302;
}
#[cfg(target_arch = "aarch64")]
mod nr {
    pub(super) const CLOSE: usize = 57;
    pub(super) const FCNTL: usize = 25;
    pub(super) const PRLIMIT64: usize = 261;
}

const F_DUPFD_CLOEXEC: usize = 1030;
const RLIMIT_NOFILE: usize = 7;
/// Where our descriptors start when the limit is generous. A higher number would make the kernel
/// grow the table of every process, which fork then copies.
const FLOOR_MAX: usize = 960;
/// Numbers left to us below a small limit.
const ROOM: usize = 64;

/// Names the one who is told; without one, descriptors stay where they are (a command of ours, a
/// test). Called once at start-up.
pub fn watch(watcher: Watcher) {
    WATCHER.store(watcher as *mut (), Ordering::Release);
}

fn tell(fd: i32, own: bool) -> bool {
    let watcher = WATCHER.load(Ordering::Acquire);
    if watcher.is_null() {
        return false;
    }
    // SAFETY: the pointer was stored by `watch` from a function of this type.
    let watcher: Watcher = unsafe { core::mem::transmute(watcher) };
    watcher(fd, own);
    true
}

fn floor() -> usize {
    let known = FLOOR.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let mut limits = [0u64; 2];
    // SAFETY: asks for a limit of this process; the buffer has the two words of struct rlimit.
    let asked = unsafe { crate::syscall!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, 0, limits.as_mut_ptr()) };
    let limit = if asked.is_ok() {
        limits[0] as usize
    } else {
        256
    };
    let floor = limit.saturating_sub(ROOM).clamp(3, FLOOR_MAX);
    FLOOR.store(floor, Ordering::Relaxed);
    floor
}

/// Moves a fresh descriptor of the library above the floor and announces it; `fd` itself is closed
/// then. Without a watcher it is returned as it is.
pub fn keep(fd: i32) -> Result<i32> {
    if WATCHER.load(Ordering::Acquire).is_null() {
        return Ok(fd);
    }
    // SAFETY: duplicates a descriptor that the caller owns.
    let high = unsafe { crate::syscall!(nr::FCNTL, fd, F_DUPFD_CLOEXEC, floor()) };
    let high = match high {
        Ok(high) => {
            // SAFETY: the low number is the caller's and not used again.
            let closed = unsafe { crate::syscall!(nr::CLOSE, fd) };
            debug_assert!(closed.is_ok());
            high as i32
        }
        Err(Errno::EINVAL | Errno::EMFILE) => fd,
        Err(errno) => return Err(errno),
    };
    tell(high, true);
    Ok(high)
}

/// Announces a descriptor that already lies out of the program's way and stays open for good.
pub fn announce(fd: i32) {
    tell(fd, true);
}

/// Closes a descriptor that went through [`keep`].
pub fn close(fd: i32) {
    tell(fd, false);
    // SAFETY: the descriptor is the library's own and not used again.
    let closed = unsafe { crate::syscall!(nr::CLOSE, fd) };
    debug_assert!(closed.is_ok());
}
