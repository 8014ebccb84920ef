//! Owner identity per thread, and its death.
//!
//! A thread's slot carries an alive word that the kernel marks when the thread ends, however it
//! ends: the slot looks like a robust mutex to the kernel and is spliced into the robust-futex list
//! that glibc registered for the thread (`get_robust_list(2)`). File locks cannot do this: a child
//! keeps them alive, and a program that closes all descriptors drops them.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sys::{Errno, Result, syscall};

/// Bytes of an owner slot: 2 KiB of bookkeeping, 2 KiB for a small redo record.
pub const OWNER_BYTES: u64 = 4096;

const OWNER_DIED: u32 = 0x4000_0000;

/// Life of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnerState {
    /// Nobody's.
    Free,
    /// Being set up or left by a thread of the process with this number.
    Joining(u16),
    /// A thread's.
    Live,
    /// Its thread is dead and the named owner is putting things right.
    Recovering(u16),
}

/// Head of a slot. Offsets 0, 24 and 32 are fixed by the layout of glibc's mutex: the kernel finds
/// the alive word 32 bytes before the `next` pointer, glibc writes `prev` 8 bytes before it.
#[repr(C)]
pub struct OwnerSlot {
    alive: AtomicU32,
    _pad: [u32; 5],
    prev: AtomicU64,
    next: AtomicU64,
    state: AtomicU32,
    _spare: [u32; 3],
}

/// A look at a slot's state, good for one change: the word also counts how often the slot was
/// given out, so that a slot recovered and joined again in the meantime is not taken for the old.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateWord(u32);

impl StateWord {
    /// What it says.
    pub fn state(self) -> OwnerState {
        match self.0 & 0xf {
            0 => OwnerState::Free,
            1 => OwnerState::Joining((self.0 >> 4 & 0xfff) as u16),
            2 => OwnerState::Live,
            _ => OwnerState::Recovering((self.0 >> 4 & 0xfff) as u16),
        }
    }

    fn with(self, state: OwnerState) -> StateWord {
        let low = match state {
            OwnerState::Free => 0,
            OwnerState::Joining(process) => 1 | u32::from(process & 0xfff) << 4,
            OwnerState::Live => 2,
            OwnerState::Recovering(by) => 3 | u32::from(by & 0xfff) << 4,
        };
        StateWord(self.0 & 0xffff_0000 | low)
    }

    fn next(self) -> StateWord {
        StateWord(self.0.wrapping_add(1 << 16))
    }

    /// How often the slot was given out, modulo 65536.
    pub fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

const _: () = assert!(core::mem::offset_of!(OwnerSlot, prev) == 24);
const _: () = assert!(core::mem::offset_of!(OwnerSlot, next) == 32);

impl OwnerSlot {
    /// Bytes of the head; the rest of the slot belongs to the user of this crate.
    pub const HEAD_BYTES: u64 = 64;

    /// Current state.
    pub fn state(&self) -> OwnerState {
        self.look().state()
    }

    /// Current state, to be changed by [`OwnerSlot::change`].
    pub fn look(&self) -> StateWord {
        StateWord(self.state.load(Ordering::Acquire))
    }

    /// Moves from a state looked at to another; false if anything happened in between.
    pub fn change(&self, from: StateWord, to: OwnerState) -> bool {
        self.state
            .compare_exchange(from.0, from.with(to).0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Claims a free slot, or that of a dead thread, for a thread of `process`.
    pub fn claim(&self, from: StateWord, process: u16) -> bool {
        let to = from.with(OwnerState::Joining(process)).next();
        self.state
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Whether the kernel has marked the slot's thread as ended.
    ///
    /// In `Joining` the kernel does not know of the slot: whoever asks looks at the process.
    pub fn is_dead(&self) -> bool {
        match self.state() {
            OwnerState::Free | OwnerState::Joining(_) => false,
            OwnerState::Live => self.alive.load(Ordering::Acquire) & OWNER_DIED != 0,
            // Also if the alive word does not say so: the thread may have died while it joined, and the
            // recovering owner while it vacated the slot.
            OwnerState::Recovering(_) => true,
        }
    }

    /// Makes the slot, claimed by the caller, the calling thread's.
    pub fn join(&self, robust: &Robust) -> Result<()> {
        self.alive.store(thread_id(), Ordering::Release);
        robust.splice(self)?;
        let joining = self.look();
        if matches!(joining.state(), OwnerState::Joining(_))
            && self.change(joining, OwnerState::Live)
        {
            Ok(())
        } else {
            Err(Errno::EIO)
        }
    }

    /// Takes the live slot of the calling thread, one of `process`, off its list and gives it back.
    pub fn leave(&self, process: u16, robust: &Robust) -> Result<()> {
        let live = self.look();
        if live.state() != OwnerState::Live || !self.change(live, OwnerState::Joining(process)) {
            return Err(Errno::EIO);
        }
        robust.remove(self)?;
        self.vacate();
        Ok(())
    }

    /// Frees the slot. For the thread that leaves it, and for the owner that recovered it.
    pub fn vacate(&self) {
        self.alive.store(0, Ordering::Release);
        let free = self.look().with(OwnerState::Free).next();
        self.state.store(free.0, Ordering::Release);
    }
}

/// The calling thread's id, as the kernel compares it with the alive word.
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// The calling thread's robust-futex list (`set_robust_list(2)`).
///
/// glibc registers one per thread; a thread made by a raw `clone` has none and gets `own`.
#[repr(C)]
pub struct Robust {
    /// glibc's code writes a back pointer 8 bytes before a list head.
    before: AtomicU64,
    own: RobustHead,
}

#[repr(C)]
struct RobustHead {
    list: AtomicU64,
    futex_offset: AtomicU64,
    pending: AtomicU64,
}

const SYS_SET_ROBUST_LIST: usize = if cfg!(target_arch = "x86_64") {
    273
} else {
    99
};
const SYS_GET_ROBUST_LIST: usize = if cfg!(target_arch = "x86_64") {
    274
} else {
    100
};
const FUTEX_OFFSET: i64 = -32;

impl Robust {
    fn head(&self) -> Result<&RobustHead> {
        let mut head = 0usize;
        let mut len = 0usize;
        // SAFETY: both results are written to live locals.
        unsafe { syscall!(SYS_GET_ROBUST_LIST, 0, &raw mut head, &raw mut len) }?;
        if head == 0 {
            let own = &raw const self.own;
            self.own.list.store(own as u64, Ordering::Relaxed);
            self.own
                .futex_offset
                .store(FUTEX_OFFSET as u64, Ordering::Relaxed);
            self.own.pending.store(0, Ordering::Relaxed);
            // SAFETY: the head lives in the thread's block, which is never unmapped.
            unsafe { syscall!(SYS_SET_ROBUST_LIST, own, size_of::<RobustHead>()) }?;
            return Ok(&self.own);
        }
        // SAFETY: the kernel reported this thread's registered list head; only this thread and the
        // kernel at its death use it.
        let head = unsafe { &*(head as *const RobustHead) };
        if head.futex_offset.load(Ordering::Relaxed) as i64 != FUTEX_OFFSET {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(head)
    }

    fn splice(&self, slot: &OwnerSlot) -> Result<()> {
        let head = self.head()?;
        let first = head.list.load(Ordering::Relaxed);
        slot.next.store(first, Ordering::Relaxed);
        slot.prev.store(&raw const *head as u64, Ordering::Relaxed);
        set_back_pointer(first, slot.next.as_ptr() as u64);
        // ORDERING: the node is complete before the kernel can find it.
        head.list
            .store(slot.next.as_ptr() as u64, Ordering::Release);
        Ok(())
    }

    fn remove(&self, slot: &OwnerSlot) -> Result<()> {
        let head = self.head()?;
        let next = slot.next.load(Ordering::Relaxed);
        let prev = slot.prev.load(Ordering::Relaxed);
        let node = slot.next.as_ptr() as u64;
        if prev == &raw const *head as u64 {
            head.list.store(next, Ordering::Release);
        } else if prev != 0 && head.list.load(Ordering::Relaxed) != node {
            // SAFETY: a list node of this thread: `prev` is the address of its next pointer.
            unsafe { (*((prev & !1) as *const AtomicU64)).store(next, Ordering::Release) };
        } else {
            return Err(Errno::EINVAL);
        }
        set_back_pointer(next, prev);
        Ok(())
    }
}

/// Sets the `prev` pointer of the list element whose next pointer is at `element`.
fn set_back_pointer(element: u64, value: u64) {
    // SAFETY: elements and heads of a robust list have a back pointer 8 bytes before their next
    // pointer (glibc's layout, and `Robust::before` for our own head); bit 0 is a flag.
    unsafe { (*(((element & !1) - 8) as *const AtomicU64)).store(value, Ordering::Relaxed) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_died_while_it_joined_stays_dead_while_it_is_recovered() {
        let slot = OwnerSlot {
            alive: AtomicU32::new(0),
            _pad: [0; 5],
            prev: AtomicU64::new(0),
            next: AtomicU64::new(0),
            state: AtomicU32::new(0),
            _spare: [0; 3],
        };
        assert!(slot.claim(slot.look(), 1));
        // Not yet on a list from which the kernel would mark it.
        slot.alive.store(thread_id(), Ordering::Release);
        assert!(slot.change(slot.look(), OwnerState::Recovering(2)));
        assert!(slot.is_dead());
        slot.vacate();
        assert!(!slot.is_dead());
    }
}
