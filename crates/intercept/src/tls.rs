//! Per-thread state, in an initial-exec thread-local block.
//!
//! `thread_local!` may allocate lazily and register destructors, which a hook must not do: the
//! block is a plain zero-initialised `.tbss` symbol. It is zero in every new thread, copied by
//! fork, and shared between a vfork child and its parent thread.

use core::sync::atomic::AtomicU64;

/// Number of words in [`words`].
pub const WORD_COUNT: usize = 8;

/// The block; the assembly knows the offsets of its fields.
#[repr(C)]
pub(crate) struct Block {
    /// 1 while the thread is inside a hook.
    pub(crate) depth: AtomicU64,
    /// Top of the thread's hook stack, 0 before the first hook.
    pub(crate) stack_top: AtomicU64,
    /// Stack of 4-bit clone kinds, see `clone.rs`.
    pub(crate) clone_mode: AtomicU64,
    /// 1 when signals were deferred and `saved_mask` is to be restored at the end of the hook.
    pub(crate) deferred: AtomicU64,
    /// The signal mask the program believes in while `deferred` is 1.
    pub(crate) saved_mask: AtomicU64,
    /// Synchronous signals the program believes to have blocked.
    pub(crate) hidden_mask: AtomicU64,
    /// Start of the mapping that holds the hook stack.
    pub(crate) stack_slot: AtomicU64,
    /// Start and length of the thread's alternate signal stack; length 0 if there is none.
    pub(crate) alternate_start: AtomicU64,
    pub(crate) alternate_len: AtomicU64,
    /// 1 in a hook whose call the kernel has already refused with `ENOENT`.
    pub(crate) refused: AtomicU64,
    /// Byte 0 is the thread's selector for Syscall User Dispatch: 0 in hooks, 1 outside.
    pub(crate) selector: AtomicU64,
    pad: [u64; 5],
    words: [AtomicU64; WORD_COUNT],
}

pub(crate) const DEPTH: usize = core::mem::offset_of!(Block, depth);
pub(crate) const STACK_TOP: usize = core::mem::offset_of!(Block, stack_top);
pub(crate) const CLONE_MODE: usize = core::mem::offset_of!(Block, clone_mode);
pub(crate) const DEFERRED: usize = core::mem::offset_of!(Block, deferred);
pub(crate) const SAVED_MASK: usize = core::mem::offset_of!(Block, saved_mask);
pub(crate) const ALTERNATE_START: usize = core::mem::offset_of!(Block, alternate_start);
pub(crate) const ALTERNATE_LEN: usize = core::mem::offset_of!(Block, alternate_len);
pub(crate) const REFUSED: usize = core::mem::offset_of!(Block, refused);
pub(crate) const SELECTOR: usize = core::mem::offset_of!(Block, selector);
pub(crate) const SIZE: usize = size_of::<Block>();

/// The calling thread's block.
#[inline(always)]
pub(crate) fn block() -> &'static Block {
    let address = crate::arch::thread_block();
    // SAFETY: the block lives as long as the thread; the reference does not leave it, since every
    // user of this function drops it within the same hook or signal handler.
    unsafe { &*(address as *const Block) }
}

/// Words for the dispatcher's own use, one set per thread, zero in a new thread.
///
/// After fork the child has a copy of the forking thread's words; a vfork child shares them with
/// its parent. The reference must not be handed to another thread.
#[inline(always)]
pub fn words() -> &'static [AtomicU64; WORD_COUNT] {
    &block().words
}
