//! A lock that records its owner, so that a waiter can find the owner dead and take over.

use crate::OwnerId;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};
use sys::{Errno, Result, futex};

const WAITERS: u32 = 1 << 31;
const OWNER: u32 = 0xffff;

/// Rounds of spinning before sleeping, ever longer: the locks taken most are held for 100 ns, and
/// together the rounds last 2 us where a pause is short and 12 us where it is long.
const SPIN_ROUNDS: u32 = 60;
/// Longest sleep before the owner is looked at again.
const SLEEP_NS: u64 = 10_000_000;
/// Sleeps after which a live but stopped owner is reported rather than waited for: 10 minutes.
const SLEEPS_MAX: u32 = 60_000;

/// What a waiter does about the holder of a lock.
pub trait Recover {
    /// Whether `owner` is dead.
    fn is_dead(&self, owner: OwnerId) -> bool;
    /// Completes or voids what the dead `owner` was doing and releases all its locks, unless somebody
    /// else alive is doing so.
    fn recover(&self, owner: OwnerId) -> Result<()>;
}

/// The lock word: 0 = free, else owner + 1 and a flag that somebody sleeps.
#[repr(transparent)]
pub struct Lock(AtomicU32);

impl Lock {
    /// Views a 32-bit word of a segment as a lock.
    pub fn from_word(word: &AtomicU32) -> &Lock {
        // SAFETY: repr(transparent) over the same type.
        unsafe { &*(&raw const *word).cast::<Lock>() }
    }

    /// Who holds the lock.
    pub fn holder(&self) -> Option<OwnerId> {
        match self.0.load(Ordering::Acquire) & OWNER {
            0 => None,
            held => Some((held - 1) as OwnerId),
        }
    }

    /// Takes the lock for `me` if it is free.
    #[inline]
    pub fn try_acquire(&self, me: OwnerId) -> bool {
        self.0
            .compare_exchange(0, u32::from(me) + 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the lock, waiting for a live holder and recovering a dead one.
    #[inline]
    pub fn acquire(&self, me: OwnerId, world: &impl Recover) -> Result<()> {
        if self.try_acquire(me) {
            Ok(())
        } else {
            self.acquire_slow(me, world)
        }
    }

    #[cold]
    fn acquire_slow(&self, me: OwnerId, world: &impl Recover) -> Result<()> {
        for round in 0..SPIN_ROUNDS {
            for _ in 0..=round / 8 {
                spin_loop();
            }
            if self.0.load(Ordering::Relaxed) == 0 && self.try_acquire(me) {
                return Ok(());
            }
        }
        for _ in 0..SLEEPS_MAX {
            let seen = self.0.load(Ordering::Relaxed);
            if seen & OWNER == 0 {
                // Whoever slept keeps the flag: others may sleep still.
                let mine = (u32::from(me) + 1) | WAITERS;
                if self
                    .0
                    .compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
                {
                    return Ok(());
                }
                continue;
            }
            let holder = ((seen & OWNER) - 1) as OwnerId;
            if holder == me {
                return Err(Errno::EDEADLK);
            }
            if world.is_dead(holder) {
                world.recover(holder)?;
                // If nothing has come of it somebody else is at it, who may be stopped or slow.
                if self.0.load(Ordering::Relaxed) & OWNER != seen & OWNER {
                    continue;
                }
            }
            let waited = seen | WAITERS;
            if seen == waited
                || self
                    .0
                    .compare_exchange(seen, waited, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                // A wake-up, a timeout and a signal all mean: look again.
                if let Err(Errno::EFAULT) = futex::wait(&self.0, waited, SLEEP_NS) {
                    return Err(Errno::EIO);
                }
            }
        }
        Err(Errno::EIO)
    }

    /// Releases the lock if `owner` holds it; true if it did.
    #[inline]
    pub fn release(&self, owner: OwnerId) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        if seen & OWNER != u32::from(owner) + 1 {
            return false;
        }
        // ORDERING: what was done under the lock is visible to the next acquirer.
        if self.0.swap(0, Ordering::Release) & WAITERS != 0 {
            futex::wake(&self.0, 1);
        }
        true
    }
}
