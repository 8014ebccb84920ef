//! The block of a vfork child. The child is a process and a thread of its own: it holds locks,
//! reservations and descriptions under its own numbers, so that the death of whoever works is
//! noticed, be it the child or its suspended parent.

use super::{ThreadBlock, UNUSED};
use crate::pool::Pool;
use core::sync::atomic::Ordering;
use sys::Result;
use sys::tls::{ENGINE, ENGINE_CHILD, ENGINE_PARENT, words};

/// Before vfork: provides the child's block. When it fails, the child works on its parent's.
pub fn prepare() -> Result<()> {
    let words = words();
    ThreadBlock::current()?.ended.store(0, Ordering::Relaxed);
    if words[ENGINE_CHILD].load(Ordering::Relaxed) == 0 {
        let block = ThreadBlock::obtain()?;
        words[ENGINE_CHILD].store(&raw const *block as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// In the child, before anything else. Does nothing when called again.
pub fn begin() {
    let words = words();
    let child = words[ENGINE_CHILD].swap(0, Ordering::Relaxed);
    let own = words[ENGINE].load(Ordering::Relaxed);
    if let (Some(child), Some(own)) = (at(child), at(own)) {
        child.reset();
        let me = u64::from(shm::thread_id());
        child.lent_to.store(me, Ordering::Relaxed);
        child.lent.store(true, Ordering::Release);
        let outer = words[ENGINE_PARENT].swap(&raw const *own as u64, Ordering::Relaxed);
        own.outer.store(outer, Ordering::Relaxed);
        words[ENGINE].store(&raw const *child as u64, Ordering::Relaxed);
    }
}

/// In the parent, once the child has exec'd or died. The child's slots are put right like those
/// of any dead; its block is free. Does nothing when called again.
pub fn end() {
    let words = words();
    let child = at(words[ENGINE].load(Ordering::Relaxed));
    let own = at(words[ENGINE_PARENT].load(Ordering::Relaxed));
    if let (Some(child), Some(own)) = (child, own)
        && child.lent.load(Ordering::Relaxed)
        && child.lent_to.load(Ordering::Relaxed) != u64::from(shm::thread_id())
    {
        words[ENGINE].store(&raw const *own as u64, Ordering::Relaxed);
        let outer = own.outer.swap(0, Ordering::Relaxed);
        words[ENGINE_PARENT].store(outer, Ordering::Relaxed);
        let process = child.process.load(Ordering::Relaxed);
        own.ended.store(process, Ordering::Relaxed);
        child.reset();
        child.ready.store(UNUSED, Ordering::Release);
    }
}

/// In the parent, after [`end`]: slot of the child's process in `pool`, if it took one and has not
/// given it back. Known once.
pub fn ended_child(pool: &Pool) -> Result<Option<u32>> {
    let ended = &ThreadBlock::current()?.ended;
    let slot = slot_in(ended.load(Ordering::Relaxed), pool);
    if slot.is_some() {
        ended.store(0, Ordering::Relaxed);
    }
    Ok(slot)
}

/// The process slot in `pool` that a word names.
fn slot_in(word: u64, pool: &Pool) -> Option<u32> {
    (word >> 32 == pool.index as u64)
        .then_some(word as u32)?
        .checked_sub(1)
}

/// Whether the caller is a vfork child.
#[inline]
pub fn is_child() -> bool {
    child().is_some()
}

/// The caller's block if the caller is a vfork child.
#[inline]
pub(crate) fn child() -> Option<&'static ThreadBlock> {
    if words()[ENGINE_PARENT].load(Ordering::Relaxed) == 0 {
        return None;
    }
    // In a child that such a child has forked, the block is wiped.
    at(words()[ENGINE].load(Ordering::Relaxed)).filter(|block| block.lent.load(Ordering::Relaxed))
}

impl ThreadBlock {
    /// Slot of the vfork child's process in `pool`, if it has taken one.
    pub(crate) fn known_process(&self, pool: &Pool) -> Option<u32> {
        slot_in(self.process.load(Ordering::Relaxed), pool)
    }

    /// The vfork child's process has given its slot up.
    pub(crate) fn forget_process(&self) {
        self.process.store(0, Ordering::Relaxed);
    }

    /// Slot of the vfork child's process in `pool`.
    pub(crate) fn process(&self, pool: &Pool) -> Result<u32> {
        if let Some(slot) = self.known_process(pool) {
            return Ok(slot);
        }
        let slot = crate::process::slot_of(pool, 0)?;
        let known = (pool.index as u64) << 32 | (u64::from(slot) + 1);
        self.process.store(known, Ordering::Relaxed);
        Ok(slot)
    }
}

fn at(address: u64) -> Option<&'static ThreadBlock> {
    // SAFETY: the words hold 0 or the addresses of blocks, which are never unmapped.
    unsafe { (address as *const ThreadBlock).as_ref() }
}
