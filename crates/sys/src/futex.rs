//! Futex waits on words in memory shared between processes.

use crate::{Errno, Result};
use core::sync::atomic::AtomicU32;

const SYS_FUTEX: usize = if cfg!(target_arch = "x86_64") {
    202
} else {
    98
};
const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;

#[repr(C)]
struct Timespec {
    sec: i64,
    nsec: i64,
}

/// Sleeps while `word` holds `expected`, at most `timeout_ns`.
///
/// Returns `Ok` on a wake-up or when the word had changed already, `ETIMEDOUT` or `EINTR`
/// otherwise (`futex(2)`).
pub fn wait(word: &AtomicU32, expected: u32, timeout_ns: u64) -> Result<()> {
    let timeout = Timespec {
        sec: (timeout_ns / 1_000_000_000) as i64,
        nsec: (timeout_ns % 1_000_000_000) as i64,
    };
    // SAFETY: the word is a live aligned u32 and the timeout outlives the call.
    let done = unsafe {
        crate::syscall!(
            SYS_FUTEX,
            word.as_ptr(),
            FUTEX_WAIT,
            expected,
            &raw const timeout
        )
    };
    match done {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Wakes up to `count` waiters of `word`.
pub fn wake(word: &AtomicU32, count: u32) {
    // SAFETY: the word is a live aligned u32; waking has no other effect.
    let woken = unsafe { crate::syscall!(SYS_FUTEX, word.as_ptr(), FUTEX_WAKE, count) };
    debug_assert!(woken.is_ok());
}
