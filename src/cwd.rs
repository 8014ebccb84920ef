//! The working directory when it lies in the mount.
//!
//! The kernel's working directory is then a removed directory whose *name* says which inode it
//! stands for (`/dev/shm/daos-cwd-CONTAINER-INODE-GENERATION-...`): the truth lies in the kernel,
//! so it survives fork, vfork, exec and programs without the preload, and whatever escapes
//! interception fails with `ENOENT` instead of touching the wrong place. The cache here only saves
//! the look at `/proc/self/cwd`.

use crate::abi::{PATH_MAX, nr};
use crate::calls::stat::is_dir;
use crate::dispatch::Stop;
use crate::kernel::{self, addr, call, text};
use crate::{above, cred, links, mounts, route};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use dfs::{Ino, Walk};
use intercept::paths;
use sys::{Errno, Result};

const UNKNOWN: u32 = 0;
const KERNEL: u32 = 1;
const MOUNT: u32 = 2;

/// Low two bits: state; the rest counts changes, so that a reader notices one.
static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);
static NUMBER: AtomicU64 = AtomicU64::new(0);
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Threads have working directories of their own (`unshare(CLONE_FS)`).
static PER_THREAD: AtomicBool = AtomicBool::new(false);
static SERIAL: AtomicU32 = AtomicU32::new(0);

const MARK: &[u8] = b"daos-cwd-";

fn uncached() -> bool {
    PER_THREAD.load(Ordering::Relaxed) || intercept::in_vfork_child()
}

/// The directory relative paths start from, if it lies in the mount.
#[inline]
pub(crate) fn base() -> Option<Ino> {
    if uncached() {
        return ask();
    }
    loop {
        // ORDERING: pairs with the Release stores in `remember`.
        let state = STATE.load(Ordering::Acquire);
        match state & 3 {
            KERNEL => return None,
            MOUNT => {
                let ino = Ino {
                    number: NUMBER.load(Ordering::Acquire),
                    generation: GENERATION.load(Ordering::Acquire),
                };
                if STATE.load(Ordering::Acquire) == state {
                    return Some(ino);
                }
            }
            _ => {
                let found = ask();
                remember(found);
                return found;
            }
        }
    }
}

fn remember(found: Option<Ino>) {
    if uncached() {
        return;
    }
    let changes = (STATE.load(Ordering::Relaxed) & !3).wrapping_add(4);
    STATE.store(changes | UNKNOWN, Ordering::Release);
    let state = match found {
        Some(ino) => {
            NUMBER.store(ino.number, Ordering::Release);
            GENERATION.store(ino.generation, Ordering::Release);
            MOUNT
        }
        None => KERNEL,
    };
    STATE.store(changes.wrapping_add(4) | state, Ordering::Release);
    paths::pass_all(found.is_some() || above::in_use());
}

/// Tells the front end whether relative paths can be ours: at start, and when a vfork child, which
/// may have changed it for itself, is gone.
pub(crate) fn filter() {
    let outside = STATE.load(Ordering::Acquire) & 3 == KERNEL
        || STATE.load(Ordering::Acquire) & 3 == UNKNOWN && !is_parked();
    paths::pass_all(!outside || PER_THREAD.load(Ordering::Relaxed) || above::in_use());
}

fn is_parked() -> bool {
    let mut buffer = [0u8; 256];
    kernel::readlink(c"/proc/self/cwd", &mut buffer).is_ok_and(|link| {
        if above::shown(link).is_some() {
            above::note_use();
        }
        link.rsplit(|&b| b == b'/')
            .next()
            .is_some_and(|n| n.starts_with(MARK))
    })
}

/// Reads the truth from the kernel.
#[cold]
fn ask() -> Option<Ino> {
    let mut buffer = [0u8; PATH_MAX];
    let link = kernel::readlink(c"/proc/self/cwd", &mut buffer).ok()?;
    let name = link.rsplit(|&b| b == b'/').next()?;
    let Some(name) = name.strip_prefix(MARK) else {
        return if mounts::shadows() {
            shadowed(link)
        } else {
            None
        };
    };
    let mut fields = name.split(|&b| b == b'-').map(hexadecimal);
    let (container, number, generation) = (fields.next()??, fields.next()??, fields.next()??);
    let attached = mounts::fs().is_ok();
    (attached && container == mounts::id()).then_some(Ino {
        number,
        generation: u32::try_from(generation).ok()?,
    })
}

/// The program was started, or has moved, where the kernel has a directory of its own at or below
/// the mount point: it means ours.
fn shadowed(link: &[u8]) -> Option<Ino> {
    let rest = links::below(mounts::path()?, link)?;
    let fs = mounts::fs().ok()?;
    let rest = if rest.is_empty() { b"/" } else { rest };
    let how = route::follow(true);
    let cred = cred::current();
    let Ok(Walk::Here(place)) = fs.walk(&cred, fs.root(), rest, how, &mut []) else {
        return None;
    };
    let ino = place.target.filter(|&ino| is_dir(fs, ino) == Ok(true))?;
    enter(ino).is_ok().then_some(ino)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// Moves into a directory of the mount.
pub(crate) fn enter(ino: Ino) -> core::result::Result<(), Stop> {
    mounts::fs()?;
    for place in [c"/dev/shm", c"/tmp", c"/var/tmp"] {
        if park(place, ino).is_ok() {
            remember(Some(ino));
            paths::pass_all(true);
            return Ok(());
        }
    }
    Err(Errno::EACCES.into())
}

fn park(place: &CStr, ino: Ino) -> Result<()> {
    const MODE: u32 = 0o700;
    let place = core::str::from_utf8(place.to_bytes()).map_err(|_| Errno::EINVAL)?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let name = text!(
        160,
        "{place}/daos-cwd-{:x}-{:x}-{:x}-{}-{serial}",
        mounts::id(),
        ino.number,
        ino.generation,
        kernel::gettid()
    );
    let path = addr(name.c_str().to_bytes_with_nul());
    call!(nr::MKDIRAT, kernel::abi_cwd(), path, MODE)?;
    let moved = call!(nr::CHDIR, path);
    let removed = call!(
        nr::UNLINKAT,
        kernel::abi_cwd(),
        path,
        crate::abi::AT_REMOVEDIR
    );
    moved.and(removed).map(drop)
}

/// The kernel's working directory was changed by the program.
pub(crate) fn kernel_changed() {
    remember(if mounts::shadows() { ask() } else { None });
}

/// The program gave a thread a working directory of its own.
pub(crate) fn per_thread() {
    PER_THREAD.store(true, Ordering::Relaxed);
    paths::pass_all(true);
}
