//! Per-thread words without lazy initialisation, allocation or destructors.
//!
//! `thread_local!` may call into the dynamic linker and the allocator on first use; inside a hook
//! neither is allowed. These words live in the initial-exec TLS block: they are zero in a new
//! thread, cost one instruction to reach, and a vfork child shares its parent's.

use core::sync::atomic::AtomicU64;

/// Number of words per thread.
pub const WORDS: usize = 8;

/// Word 0: the engine's thread block.
pub const ENGINE: usize = 0;

/// Word 1: in a vfork child, the engine's block of the parent's thread.
pub const ENGINE_PARENT: usize = 1;

/// Word 2: the engine's block that the next vfork child gets.
pub const ENGINE_CHILD: usize = 2;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .tbss.pil4dfs,\"awT\",@nobits",
    ".p2align 6",
    ".globl pil4dfs_thread_words",
    ".hidden pil4dfs_thread_words",
    "pil4dfs_thread_words:",
    ".zero 64",
    ".size pil4dfs_thread_words, 64",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .tbss.pil4dfs,\"awT\",@nobits",
    ".p2align 6",
    ".globl pil4dfs_thread_words",
    ".hidden pil4dfs_thread_words",
    "pil4dfs_thread_words:",
    ".zero 64",
    ".size pil4dfs_thread_words, 64",
    ".popsection",
);

/// The words of the calling thread.
///
/// The reference must not be handed to another thread: it dies with this one.
#[inline(always)]
pub fn words() -> &'static [AtomicU64; WORDS] {
    let address: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread pointer and a link-time constant; touches no other state.
    unsafe {
        core::arch::asm!(
            "mov {a}, qword ptr fs:[0]",
            "add {a}, qword ptr [rip + pil4dfs_thread_words@GOTTPOFF]",
            a = out(reg) address,
            options(nostack, readonly)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "mrs {a}, tpidr_el0",
            "adrp {b}, :gottprel:pil4dfs_thread_words",
            "ldr {b}, [{b}, :gottprel_lo12:pil4dfs_thread_words]",
            "add {a}, {a}, {b}",
            a = out(reg) address, b = out(reg) _,
            options(nostack, readonly)
        );
    }
    // SAFETY: the block is 64 zero-initialised, aligned bytes that live as long as the thread.
    unsafe { &*(address as *const [AtomicU64; WORDS]) }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    #[test]
    fn words_are_zero_in_a_new_thread_and_private() {
        super::words()[3].store(7, Ordering::Relaxed);
        let other = std::thread::spawn(|| super::words()[3].load(Ordering::Relaxed)).join();
        assert_eq!(other.ok(), Some(0));
        assert_eq!(super::words()[3].load(Ordering::Relaxed), 7);
    }
}
