//! Memory shared by unrelated processes: segments, owner slots, owner-recorded locks.
//!
//! Knows no storage word. Everything in a segment is a 64-bit (or, for futexes, 32-bit) atomic at
//! a checked offset; a process may die at any instruction, so whoever holds something is recorded
//! next to it and can be found dead.

mod lock;
mod owner;
mod segment;

pub use lock::{Lock, Recover};
pub use owner::{OWNER_BYTES, OwnerSlot, OwnerState, Robust, StateWord, thread_id};
pub use segment::{HUGE_PAGE, Segment};

/// Index of an owner slot; `u16::MAX` is never used.
pub type OwnerId = u16;

pub mod fault;

/// A named point at which tests may kill or stop the process; nothing in ordinary builds.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::fault::reached($name)
    };
}
