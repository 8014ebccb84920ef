//! `RLIMIT_FSIZE` of the host program, which is about its files and not about those that hold a
//! pool: growing these must neither fail because of it nor raise `SIGXFSZ`.

use crate::{Errno, Result, syscall};
use core::sync::atomic::{AtomicU64, Ordering};

const RLIMIT_FSIZE: usize = 1;
const SIGXFSZ: u64 = 1 << (25 - 1);
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
const NONE: u64 = u64::MAX;

/// Limits as the program set them; they differ from the kernel's only inside [`exempt`].
static SOFT: AtomicU64 = AtomicU64::new(NONE);
static HARD: AtomicU64 = AtomicU64::new(NONE);

#[cfg(target_arch = "x86_64")]
mod nr {
    pub(super) const RT_SIGPROCMASK: usize = 14;
    pub(super) const RT_SIGPENDING: usize = 127;
    pub(super) const RT_SIGTIMEDWAIT: usize = 128;
    pub(super) const PRLIMIT64: usize = 302;
}
#[cfg(target_arch = "aarch64")]
mod nr {
    pub(super) const RT_SIGPROCMASK: usize = 135;
    pub(super) const RT_SIGPENDING: usize = 136;
    pub(super) const RT_SIGTIMEDWAIT: usize = 137;
    pub(super) const PRLIMIT64: usize = 261;
}

/// Asks the kernel: at start, and when the program has changed the limit.
pub fn learn() {
    let mut pair = [NONE; 2];
    // SAFETY: the kernel fills the pair.
    if unsafe { syscall!(nr::PRLIMIT64, 0, RLIMIT_FSIZE, 0, pair.as_mut_ptr()) }.is_ok() {
        SOFT.store(pair[0], Ordering::Relaxed);
        HARD.store(pair[1], Ordering::Relaxed);
    }
}

/// The largest file the program may write.
#[inline]
pub fn get() -> Option<u64> {
    let limit = SOFT.load(Ordering::Relaxed);
    (limit != NONE).then_some(limit)
}

/// Runs `grow`, which may make a file of the pool larger, outside the limit as far as the process
/// may lift it. Where it may not, the outcome is `ENOSPC`.
#[inline]
pub fn exempt<T>(grow: impl FnOnce() -> Result<T>) -> Result<T> {
    if get().is_none() {
        return grow();
    }
    let held = Held::new()?;
    let done = grow();
    let excess = matches!(done, Err(Errno::EFBIG));
    held.end(excess);
    if excess { Err(Errno::ENOSPC) } else { done }
}

struct Held {
    mask: u64,
    pending: u64,
}

impl Held {
    #[cold]
    fn new() -> Result<Held> {
        let (mut mask, mut pending) = (0u64, 0u64);
        let block = SIGXFSZ;
        // SAFETY: the kernel reads and fills words of the size given.
        unsafe {
            syscall!(
                nr::RT_SIGPROCMASK,
                SIG_BLOCK,
                &raw const block,
                &raw mut mask,
                8
            )?;
            syscall!(nr::RT_SIGPENDING, &raw mut pending, 8)?;
        }
        let hard = HARD.load(Ordering::Relaxed);
        if set([NONE, NONE]).is_err() {
            // Not privileged: as far as the hard limit. If that fails too, the limit stays.
            let _raised = set([hard, hard]);
        }
        Ok(Held { mask, pending })
    }

    #[cold]
    fn end(self, raised: bool) {
        let own = [SOFT.load(Ordering::Relaxed), HARD.load(Ordering::Relaxed)];
        // Lowering is always allowed.
        let _restored = set(own);
        let (signals, at_once) = (SIGXFSZ, [0u64; 2]);
        // SAFETY: the kernel reads words of the size given.
        unsafe {
            if raised && self.pending & SIGXFSZ == 0 {
                let _taken = syscall!(
                    nr::RT_SIGTIMEDWAIT,
                    &raw const signals,
                    0,
                    at_once.as_ptr(),
                    8
                );
            }
            let _unblocked = syscall!(nr::RT_SIGPROCMASK, SIG_SETMASK, &raw const self.mask, 0, 8);
        }
    }
}

fn set(pair: [u64; 2]) -> Result<usize> {
    // SAFETY: the kernel reads the pair.
    unsafe { syscall!(nr::PRLIMIT64, 0, RLIMIT_FSIZE, pair.as_ptr(), 0) }
}
