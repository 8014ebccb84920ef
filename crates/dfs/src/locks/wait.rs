//! Waiting for locks.
//!
//! A process notes whom it waits for as long as it does, with the file and the state of that file's
//! locks at which it was found blocked: no lock was released since if the state is still the same. So
//! others can tell a note that holds from one whose writer is about to wake up. Whoever makes or
//! renews a note looks for a circle, and nobody else: who waited before goes on waiting. Two that
//! close a circle at the same instant may both be refused.

use super::Target;
use super::list::{self, Owner};
use crate::Dfs;
use crate::inode::{self, high, low, pair, word};
use crate::ofd::{DEAD_TRIES, State, proc, word_at};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use engine::{Pool, Rec, process};
use sys::{Errno, Result, futex};

/// Longest sleep before it is looked whether the owner is dead.
const SLICE_NS: u64 = 50_000_000;
/// Processes in a circle of waiting that are followed.
const CIRCLE_MAX: usize = 64;

/// The counter of changes: the upper half of the head of the flock list.
fn counter<'p>(target: &Target<'p>) -> Result<&'p AtomicU32> {
    let word: &AtomicU64 = target.pool.word(target.head(word::FLOCKS))?;
    let halves = word.as_ptr().cast::<AtomicU32>();
    // SAFETY: the upper half of a live, aligned 64-bit atomic on a little-endian processor (the
    // only kind this is built for); it is only compared by the kernel and loaded here.
    Ok(unsafe { &*halves.add(1) })
}

#[cfg(not(target_endian = "little"))]
compile_error!("the counter of lock changes is the second 32-bit half of its word");

/// Wakes everybody who waits for a lock on the inode.
pub(super) fn wake(target: &Target<'_>) -> Result<()> {
    futex::wake(counter(target)?, u32::MAX >> 1);
    Ok(())
}

/// Repeats `attempt` until it grants the lock (`None`); what it returns instead is who holds it.
pub(super) fn acquire(
    dfs: &Dfs,
    target: &Target<'_>,
    wait: bool,
    owner: Owner,
    interrupted: &dyn Fn() -> bool,
    mut attempt: impl FnMut(&Target<'_>) -> Result<Option<Owner>>,
) -> Result<()> {
    let counter = counter(target)?;
    let mut settled = 0;
    let mut waiting: Option<Waiting<'_>> = None;
    loop {
        let seen = counter.load(Ordering::Acquire);
        let Some(holder) = attempt(target)? else {
            return Ok(());
        };
        // A dead holder is no holder: found out before anything is refused.
        if settled < DEAD_TRIES && settle(dfs, target, holder)? {
            settled += 1;
            continue;
        }
        settled = DEAD_TRIES;
        if !wait {
            return Err(Errno::EAGAIN);
        }
        if let (Owner::Process(me), Owner::Process(other)) = (owner, holder) {
            let edge = Edge::new(target, seen, other);
            if waiting.as_ref().is_none_or(|known| known.edge != edge) {
                waiting = Some(Waiting::new(dfs, me, edge)?);
            }
        } else {
            waiting = None;
        }
        match futex::wait(counter, seen, SLICE_NS) {
            Err(Errno::ETIMEDOUT) => settled = 0,
            Ok(()) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if interrupted() {
            return Err(Errno::EINTR);
        }
    }
}

/// Settles the affairs of the holder if it is dead; false if it lives.
fn settle(dfs: &Dfs, target: &Target<'_>, holder: Owner) -> Result<bool> {
    let slot = match holder {
        Owner::Process(slot) => slot,
        Owner::Description(ofd) => return dfs.settle_dead_holders(ofd),
    };
    let settled = || match process::pid(dfs.pool, slot)? {
        0 => Ok(()),
        _ => Err(Errno::EBUSY),
    };
    if settled().is_ok() {
        // Without this lock: its process had closed the file.
        return match super::drop_while(target, word::LOCKS, holder, settled) {
            Err(Errno::EBUSY) => Ok(true),
            outcome => outcome.map(|()| true),
        };
    }
    let locks = || {
        let _tx = target.tx()?;
        list::any(dfs.pool, target.head(word::LOCKS), holder)
    };
    if !process::is_dead(dfs.pool, slot)? {
        // Or the slot is another's by now, and what was in the way is gone.
        return Ok(!locks()?);
    }
    dfs.settle_dead(|at| Ok((at == slot && locks()?).then_some(State::Held)))
}

/// That a process waits for another, as one word: record of the inode, low bits of its counter of
/// changes, slot of the other + 1. 0 stands for none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Edge(u64);

const HOLDER_BITS: u32 = 14;
const STATE_BITS: u32 = 32 - HOLDER_BITS;
const _: () = assert!(process::SLOTS < 1 << HOLDER_BITS);

impl Edge {
    fn new(target: &Target<'_>, state: u32, holder: u32) -> Edge {
        let low = state << HOLDER_BITS | (holder + 1);
        Edge(pair(target.ino.number as u32, low))
    }

    /// The slot waited for; `None` for no edge, or a damaged one.
    fn holder(self) -> Option<u32> {
        let holder = low(self.0) & ((1 << HOLDER_BITS) - 1);
        holder.checked_sub(1).filter(|slot| *slot < process::SLOTS)
    }

    /// Whether no lock of the file was released since the edge was made.
    fn holds(self, pool: &Pool) -> Result<bool> {
        let flocks = inode::at(Rec(high(self.0)).offset(), word::FLOCKS);
        let state = high(pool.load(flocks)?) & ((1 << STATE_BITS) - 1);
        Ok(state == low(self.0) >> HOLDER_BITS)
    }
}

/// The note of an edge; gone when dropped.
struct Waiting<'d> {
    edge: Edge,
    note: &'d AtomicU64,
}

impl<'d> Waiting<'d> {
    /// `EDEADLK` when the holder waits, directly or not, for the process in slot `me`.
    fn new(dfs: &'d Dfs, me: u32, edge: Edge) -> Result<Waiting<'d>> {
        let note = note_of(dfs.pool, me)?;
        // ORDERING: of two that close a circle together, at least one sees the other's note.
        note.store(edge.0, Ordering::SeqCst);
        let waiting = Waiting { edge, note };
        let mut circle = [(0, Edge(0)); CIRCLE_MAX];
        // What was found one after the other was true at one moment if it is found again.
        if let Some(len) = follow(dfs.pool, me, edge, &mut circle)? {
            let mut again = [(0, Edge(0)); CIRCLE_MAX];
            let same = follow(dfs.pool, me, edge, &mut again)? == Some(len) && circle == again;
            if same && all_live(dfs.pool, circle.get(..len).unwrap_or(&[]))? {
                return Err(Errno::EDEADLK);
            }
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Another thread of the process may have noted its own wait since; that stays.
        let _cleared =
            self.note
                .compare_exchange(self.edge.0, 0, Ordering::SeqCst, Ordering::Relaxed);
    }
}

fn note_of(pool: &Pool, slot: u32) -> Result<&AtomicU64> {
    pool.word(word_at(slot, proc::WAITS))
}

/// Follows the edges from `edge` on; the length of the circle if they lead back to `me`.
fn follow(
    pool: &Pool,
    me: u32,
    edge: Edge,
    circle: &mut [(u32, Edge); CIRCLE_MAX],
) -> Result<Option<usize>> {
    let mut edge = edge;
    for (len, place) in circle.iter_mut().enumerate() {
        let Some(holder) = edge.holder() else {
            return Ok(None);
        };
        if !edge.holds(pool)? {
            return Ok(None);
        }
        *place = (holder, edge);
        if holder == me {
            return Ok(Some(len + 1));
        }
        edge = Edge(note_of(pool, holder)?.load(Ordering::SeqCst));
    }
    Ok(None)
}

/// Whether every process of a circle is there: what a dead one has is about to be released.
fn all_live(pool: &Pool, circle: &[(u32, Edge)]) -> Result<bool> {
    for (slot, _) in circle {
        if process::is_dead(pool, *slot)? {
            return Ok(false);
        }
    }
    Ok(true)
}
