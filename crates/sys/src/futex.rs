//! Futex waits on words in memory shared between processes.

use crate::{Errno, Result};
use core::sync::atomic::{AtomicU32, Ordering};

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

/// A lock among the threads of one process, held briefly. It may be given back by another thread or process than the one
/// that took it, as around a fork. 0 when free, 1 when held, 2 when held and somebody may be waiting.
#[derive(Default)]
pub struct Lock(AtomicU32);

impl Lock {
    /// A free lock.
    #[must_use]
    pub const fn new() -> Lock {
        Lock(AtomicU32::new(0))
    }

    /// Takes the lock, however long that takes.
    pub fn acquire(&self) {
        const WAIT_NS: u64 = 10_000_000;
        let free = self
            .0
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        if free.is_ok() {
            return;
        }
        while self.0.swap(2, Ordering::Acquire) != 0 {
            // A wake-up, a timeout and a signal all mean: look again.
            if wait(&self.0, 2, WAIT_NS).is_err() {
                core::hint::spin_loop();
            }
        }
    }

    /// Gives the lock back; for whoever has it.
    pub fn release(&self) {
        if self.0.swap(0, Ordering::Release) == 2 {
            wake(&self.0, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;

    struct Guarded(Lock, UnsafeCell<u64>);
    // SAFETY: the number is touched only by whoever has the lock.
    unsafe impl Sync for Guarded {}

    #[test]
    fn a_lock_is_of_one_thread_at_a_time() {
        const THREADS: u64 = 4;
        const TIMES: u64 = 100_000;
        let guarded = Guarded(Lock::new(), UnsafeCell::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let guarded = &guarded;
                    for _ in 0..TIMES {
                        guarded.0.acquire();
                        // SAFETY: the lock is held.
                        unsafe { *guarded.1.get() += 1 };
                        guarded.0.release();
                    }
                });
            }
        });
        assert_eq!(guarded.1.into_inner(), THREADS * TIMES);
    }
}
