//! The engine's state of one thread: its owner slot in each pool, and room to build a record.
//!
//! Blocks are private memory that the kernel wipes in a forked child, so a child never takes its
//! parent's identity for its own. A vfork child has its parent's words, but is a thread of its own to
//! the kernel, which may kill either without the other: it works on a block lent to it ([`vfork`]).

pub mod vfork;

use crate::limits::{POOLS_MAX, TX_WORDS_MAX};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, compiler_fence};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use shm::Robust;
use sys::{Errno, Result};

/// Words each thread has for the layer above.
pub const THREAD_WORDS: usize = 1288;

/// Written last when a block is set up; zero in a wiped block.
const READY: u64 = 0x7468_7265_6164_0001;
/// Being set up.
const TAKEN: u64 = 1;
/// Its thread has ended. A wiped block (0) is not free: the thread that forked still points to it.
const UNUSED: u64 = 2;

pub(crate) struct ThreadBlock {
    ready: AtomicU64,
    /// A transaction is being built. Set again by a signal handler's operation: refused.
    pub(crate) busy: AtomicBool,
    /// Owner slot + 1 in each pool of this process and in one being built, and the slot's
    /// generation above it.
    owners: [AtomicU64; POOLS_MAX + 1],
    /// Lent to a vfork child: only the parent's thread takes it back.
    pub(crate) lent: AtomicBool,
    /// Number of the thread it is lent to.
    lent_to: AtomicU64,
    /// Slot + 1 of the process of the vfork child whose block this is, the index of the pool above it.
    process: AtomicU64,
    /// The same of the child of the thread whose block this is that ended last.
    ended: AtomicU64,
    /// Of a thread whose vfork child runs: what the word for a child's parent was before.
    outer: AtomicU64,
    /// Locks held, as indices into the owner slot's list.
    pub(crate) held: AtomicU64,
    pub(crate) robust: Robust,
    pub(crate) words: UnsafeCell<[u64; TX_WORDS_MAX]>,
    upper: [AtomicU64; THREAD_WORDS],
    next: AtomicPtr<ThreadBlock>,
}

/// Every block of this process, for reuse when its thread has ended.
static BLOCKS: AtomicPtr<ThreadBlock> = AtomicPtr::new(core::ptr::null_mut());

/// The calling thread's words for the layer above: zero in a new thread and in a forked child, or
/// what a thread that has ended left in them.
#[inline]
pub fn words() -> Result<&'static [AtomicU64; THREAD_WORDS]> {
    Ok(&ThreadBlock::current()?.upper)
}

/// While it lives, operations of the calling thread's signal handlers are refused, as they are while it
/// is in a transaction.
pub struct Undisturbed(&'static ThreadBlock);

/// `EDEADLK` in a handler that has interrupted a transaction, or another [`Undisturbed`].
#[inline]
pub fn undisturbed() -> Result<Undisturbed> {
    let block = ThreadBlock::current()?;
    // Nobody but this thread's handlers sets it, and they set it back.
    if block.busy.load(Ordering::Relaxed) {
        return Err(Errno::EDEADLK);
    }
    block.busy.store(true, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    Ok(Undisturbed(block))
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

impl ThreadBlock {
    /// The calling thread's block.
    #[inline]
    pub(crate) fn current() -> Result<&'static ThreadBlock> {
        let address = sys::tls::words()[sys::tls::ENGINE].load(Ordering::Relaxed);
        if address != 0 {
            // SAFETY: only `set_up` stores here, and blocks are never unmapped.
            let block = unsafe { &*(address as *const ThreadBlock) };
            if block.ready.load(Ordering::Relaxed) == READY {
                return Ok(block);
            }
            block.reset();
            return Ok(block);
        }
        ThreadBlock::set_up()
    }

    /// Owner slot in the pool with this index, if the thread has one.
    #[inline]
    pub(crate) fn owner(&self, pool: usize) -> Option<u16> {
        match self.owners[pool].load(Ordering::Relaxed) {
            0 => None,
            entry => Some((entry as u16) - 1),
        }
    }

    /// Notes the owner slot in a pool, and its generation.
    pub(crate) fn set_owner(&self, pool: usize, owner: Option<(u16, u16)>) {
        let entry = owner.map_or(0, |(o, generation)| {
            (u64::from(o) + 1) | u64::from(generation) << 16
        });
        self.owners[pool].store(entry, Ordering::Relaxed);
    }

    fn reset(&self) {
        for owner in &self.owners {
            owner.store(0, Ordering::Relaxed);
        }
        self.busy.store(false, Ordering::Relaxed);
        self.held.store(0, Ordering::Relaxed);
        self.lent.store(false, Ordering::Relaxed);
        self.process.store(0, Ordering::Relaxed);
        self.ended.store(0, Ordering::Relaxed);
        self.ready.store(READY, Ordering::Release);
    }

    #[cold]
    fn set_up() -> Result<&'static ThreadBlock> {
        let block = ThreadBlock::obtain()?;
        block.reset();
        sys::tls::words()[sys::tls::ENGINE].store(&raw const *block as u64, Ordering::Relaxed);
        Ok(block)
    }

    /// A block that is nobody's, marked as taken.
    fn obtain() -> Result<&'static ThreadBlock> {
        for pool in &crate::pool::POOLS {
            // SAFETY: handles are never freed.
            if let Some(pool) = unsafe { pool.load(Ordering::Acquire).as_ref() } {
                pool.release_blocks();
            }
        }
        match ThreadBlock::reuse() {
            Some(block) => Ok(block),
            None => ThreadBlock::allocate(),
        }
    }

    fn reuse() -> Option<&'static ThreadBlock> {
        let mut at = BLOCKS.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: blocks on the list are never unmapped.
            let block = unsafe { &*at };
            if block
                .ready
                .compare_exchange(UNUSED, TAKEN, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                return Some(block);
            }
            at = block.next.load(Ordering::Acquire);
        }
        None
    }

    fn allocate() -> Result<&'static ThreadBlock> {
        let bytes = size_of::<ThreadBlock>().next_multiple_of(4096);
        // SAFETY: a fresh private mapping at an address of the kernel's choice.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let memory = memory.map_err(|e| Errno::new(e.raw_os_error()))?;
        // The links of the list would be wiped with the rest; a child starts with an empty list.
        // SAFETY: advice on the mapping just made.
        unsafe { rustix::mm::madvise(memory, bytes, Advice::LinuxWipeOnFork) }
            .map_err(|e| Errno::new(e.raw_os_error()))?;
        // SAFETY: zeroed memory is a valid block: atomics, integers and null pointers.
        let block = unsafe { &*memory.cast::<ThreadBlock>() };
        block.ready.store(TAKEN, Ordering::Relaxed);
        let mut head = BLOCKS.load(Ordering::Acquire);
        loop {
            block.next.store(head, Ordering::Relaxed);
            match BLOCKS.compare_exchange(head, memory.cast(), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(block),
                Err(now) => head = now,
            }
        }
    }

    /// Marks the blocks of ended threads reusable, given a test whether the thread that had an
    /// owner slot of pool `pool` in a generation has ended.
    pub(crate) fn release_dead(pool: usize, is_gone: impl Fn(u16, u16) -> bool) {
        let mut at = BLOCKS.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: blocks on the list are never unmapped.
            let block = unsafe { &*at };
            if block.lent.load(Ordering::Acquire) {
                at = block.next.load(Ordering::Acquire);
                continue;
            }
            let entry = block.owners[pool].load(Ordering::Acquire);
            // The exchange lets one caller only through, and none once the block is in use again.
            if entry != 0
                && is_gone((entry as u16).wrapping_sub(1), (entry >> 16) as u16)
                && block.owners[pool]
                    .compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                // Nobody's any more, whatever it says of other pools.
                block.ready.store(UNUSED, Ordering::Release);
            }
            at = block.next.load(Ordering::Acquire);
        }
    }
}

// SAFETY: the words are touched only by the thread whose block it is, while `busy`.
unsafe impl Sync for ThreadBlock {}
