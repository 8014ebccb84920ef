//! A value that is set at most once and then only read, without a libc lock.

use crate::futex;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

const EMPTY: u32 = 0;
const BUSY: u32 = 1;
const SET: u32 = 2;
const FAILED: u32 = 3;
const WAIT_NS_MAX: u64 = 100_000_000;

/// A cell for a `static`: empty, then set for good, or failed for good.
pub struct SetOnce<T> {
    state: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by the one caller that moved the state from EMPTY to BUSY and read
// only after SET was seen.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}

impl<T> SetOnce<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        SetOnce {
            state: AtomicU32::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The value, if it has been set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        // ORDERING: pairs with the Release store in `init`.
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: SET means the value was written and will not be written again.
        Some(unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// Whether an attempt to set the value has failed.
    pub fn failed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FAILED
    }

    /// The value, made by the first caller; others wait for it. `None` once making it has failed.
    ///
    /// `make` must not use the same cell.
    #[inline]
    pub fn init(&self, make: impl FnOnce() -> Option<T>) -> Option<&T> {
        match self.get() {
            Some(value) => Some(value),
            None => self.make(make),
        }
    }

    #[cold]
    fn make(&self, make: impl FnOnce() -> Option<T>) -> Option<&T> {
        loop {
            match self
                .state
                .compare_exchange(EMPTY, BUSY, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => break,
                Err(BUSY) => {
                    // A timeout or a signal only means that the state is looked at again.
                    if futex::wait(&self.state, BUSY, WAIT_NS_MAX).is_err() {
                        core::hint::spin_loop();
                    }
                }
                Err(_) => return self.get(),
            }
        }
        let made = make();
        let state = if made.is_some() { SET } else { FAILED };
        if let Some(value) = made {
            // SAFETY: this caller alone moved the state to BUSY; nobody reads before SET.
            unsafe { (*self.value.get()).write(value) };
        }
        // ORDERING: pairs with the Acquire loads in `get` and `init`.
        self.state.store(state, Ordering::Release);
        futex::wake(&self.state, i32::MAX as u32);
        self.get()
    }
}

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::SetOnce;

    #[test]
    fn is_made_once_and_seen_by_all() {
        static CELL: SetOnce<u64> = SetOnce::new();
        let threads: Vec<_> = (0..4)
            .map(|n| std::thread::spawn(move || CELL.init(|| Some(n)).copied()))
            .collect();
        let seen: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(seen.iter().all(|v| v.is_some() && *v == seen[0]));
    }

    #[test]
    fn a_failure_stays() {
        let cell: SetOnce<u64> = SetOnce::new();
        assert!(cell.init(|| None).is_none());
        assert!(cell.failed());
        assert!(cell.init(|| Some(1)).is_none());
    }
}
