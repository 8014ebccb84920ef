//! Waiting for locks.

use super::Target;
use super::list::Owner;
use crate::Dfs;
use crate::inode::word;
use crate::ofd::{proc, word_at};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use engine::process;
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
    let mut buried = false;
    loop {
        let seen = counter.load(Ordering::Acquire);
        let Some(holder) = attempt(target)? else {
            return Ok(());
        };
        // A dead holder is no holder: found out before anything is refused.
        if !buried && bury(dfs, target, holder)? {
            continue;
        }
        buried = true;
        if !wait {
            return Err(Errno::EAGAIN);
        }
        let waiting = Waiting::new(dfs, owner, holder)?;
        let woken = futex::wait(counter, seen, SLICE_NS);
        drop(waiting);
        match woken {
            Err(Errno::ETIMEDOUT) => buried = false,
            Ok(()) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if interrupted() {
            return Err(Errno::EINTR);
        }
    }
}

/// Puts the affairs of dead processes in order that may be the holder; true if there were any.
fn bury(dfs: &Dfs, target: &Target<'_>, holder: Owner) -> Result<bool> {
    match holder {
        Owner::Process(slot) if process::pid(dfs.pool, slot)? == 0 => {
            // Settled already, without this lock: its process had closed the file.
            super::drop_of_process(dfs, target.ino, slot)?;
            Ok(true)
        }
        Owner::Process(slot) if !process::is_dead(dfs.pool, slot)? => Ok(false),
        Owner::Process(_) | Owner::Description(_) => Ok(dfs.reap(usize::MAX)? > 0),
    }
}

/// The note that a process waits for another, for the detection of circles.
struct Waiting<'d> {
    note: Option<&'d AtomicU64>,
}

impl<'d> Waiting<'d> {
    /// `EDEADLK` when the holder waits, directly or not, for the owner.
    fn new(dfs: &'d Dfs, owner: Owner, holder: Owner) -> Result<Waiting<'d>> {
        let (Owner::Process(me), Owner::Process(mut other)) = (owner, holder) else {
            return Ok(Waiting { note: None });
        };
        let note = dfs.pool.word(word_at(me, proc::WAITS))?;
        note.store(u64::from(other) + 1, Ordering::SeqCst);
        let waiting = Waiting { note: Some(note) };
        for _ in 0..CIRCLE_MAX {
            if other == me {
                return Err(Errno::EDEADLK);
            }
            let next = dfs
                .pool
                .word(word_at(other, proc::WAITS))?
                .load(Ordering::SeqCst);
            if next == 0 || next > u64::from(process::SLOTS) {
                break;
            }
            other = (next - 1) as u32;
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(note) = self.note {
            note.store(0, Ordering::SeqCst);
        }
    }
}
