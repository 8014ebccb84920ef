//! Whose code runs: inside a hook, in a vfork child, and how many bugs were caught.

use crate::tls;
use core::sync::atomic::{AtomicU64, Ordering};

// The unwinder comes from the static archive, so that the library does not need libgcc_s.so.
#[link(name = "gcc_eh", kind = "static", modifiers = "+whole-archive,-bundle")]
unsafe extern "C" {}

static PANICS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Is the calling thread inside a hook? Then its system calls pass natively.
pub fn in_hook() -> bool {
    tls::block().depth.load(Ordering::Relaxed) != 0
}

/// Does the caller run in a vfork child, or in another that shares its parent's memory and thread
/// block but not its descriptors? Then [`crate::fdtab`] speaks of the parent's descriptors, and
/// nothing that belongs to the process may be changed.
#[inline]
pub fn in_vfork_child() -> bool {
    crate::clone::in_vfork_child(tls::block().clone_mode.load(Ordering::Relaxed))
}

/// Panics of the dispatcher that became `EIO` in this process.
pub fn panic_count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Memory faults inside hooks that became `EIO` in this process.
pub fn fault_count() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// Inside a hook: has a signal come in that waits for the hook to end? A long wait should then give
/// up with `EINTR`.
pub fn signal_is_pending() -> bool {
    tls::block().deferred.load(Ordering::Relaxed) != 0
}

pub(crate) fn count_panic() {
    PANICS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn count_fault() {
    FAULTS.fetch_add(1, Ordering::Relaxed);
}

/// Runs `body` as a hook of its own kind: for work of the library outside an intercepted call,
/// such as start-up. Signals are deferred and nested calls pass natively meanwhile.
pub fn with_hook<R>(body: impl FnOnce() -> R) -> R {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            if self.0 {
                let block = tls::block();
                block.depth.store(0, Ordering::Relaxed);
                crate::signals::flush();
                block.selector.store(1, Ordering::Relaxed);
            }
        }
    }
    let block = tls::block();
    let outer = block.depth.load(Ordering::Relaxed) == 0;
    block.depth.store(1, Ordering::Relaxed);
    block.selector.store(0, Ordering::Relaxed);
    let _leave = Leave(outer);
    body()
}
