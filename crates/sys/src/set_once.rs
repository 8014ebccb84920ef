//! A value that is set at most once and then only read, without a libc lock.

use crate::futex;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

const EMPTY: u32 = 0;
const BUSY: u32 = 1;
const SET: u32 = 2;
const FAILED: u32 = 3;
const STATE: u32 = 3;
const WAIT_NS_MAX: u64 = 100_000_000;

/// Forks between this process and its first forebear, above the bits of a state: with [`BUSY`] it says
/// whether the maker is a thread of this process.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// In the child of a fork: values that other threads of the parent were making are nobody's now.
pub fn after_fork() {
    FORKS.fetch_add(STATE + 1, Ordering::Relaxed);
}

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

    /// Waits until nobody of this process is making the value.
    pub fn await_maker(&self) {
        let busy = busy();
        while self.state.load(Ordering::Acquire) == busy {
            self.wait(busy);
        }
    }

    /// A timeout or a signal only means that the state is looked at again.
    fn wait(&self, seen: u32) {
        if futex::wait(&self.state, seen, WAIT_NS_MAX).is_err() {
            core::hint::spin_loop();
        }
    }

    #[cold]
    fn make(&self, make: impl FnOnce() -> Option<T>) -> Option<&T> {
        let busy = busy();
        let mut from = EMPTY;
        loop {
            match self
                .state
                .compare_exchange(from, busy, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => break,
                Err(seen) if seen == busy => {
                    self.wait(busy);
                    from = EMPTY;
                }
                // A thread that a fork has left behind.
                Err(seen) if seen & STATE == BUSY => from = seen,
                Err(EMPTY) => from = EMPTY,
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

fn busy() -> u32 {
    BUSY | FORKS.load(Ordering::Relaxed)
}

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::SetOnce;
    use core::sync::atomic::Ordering;

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
    fn a_maker_left_behind_by_a_fork_is_not_waited_for() {
        let cell: SetOnce<u64> = SetOnce::new();
        cell.state.store(super::BUSY, Ordering::Relaxed);
        super::after_fork();
        cell.await_maker();
        assert_eq!(cell.init(|| Some(7)).copied(), Some(7));
        assert_eq!(cell.init(|| Some(8)).copied(), Some(7));
    }

    #[test]
    fn a_failure_stays() {
        let cell: SetOnce<u64> = SetOnce::new();
        assert!(cell.init(|| None).is_none());
        assert!(cell.failed());
        assert!(cell.init(|| Some(1)).is_none());
    }
}
