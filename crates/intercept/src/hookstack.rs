//! Hook stacks: one per thread that ever entered a hook, reused when the thread is gone.
//!
//! The program's stack may be tiny (16 KiB for glibc's helper threads, less in Go), so a hook
//! leaves it after a few words. There is no hook at thread exit; a slot whose owner the kernel no
//! longer knows is taken over by the next thread that needs one.

use crate::{nr, os, tls};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Usable bytes of a hook stack.
pub(crate) const STACK_BYTES: usize = 256 * 1024;
const GUARD_BYTES: usize = os::PAGE;
/// How many slots one search asks the kernel about.
const PROBES_MAX: usize = 16;

/// Header at the low end of each mapping, below the guard page.
#[repr(C)]
struct Slot {
    owner: AtomicU32,
    next: AtomicPtr<Slot>,
}

const MAPPING_BYTES: usize = os::PAGE + GUARD_BYTES + STACK_BYTES;

/// All slots ever mapped, newest first; slots are never unmapped.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(core::ptr::null_mut());
/// Where the next search for a dead owner begins, as a count from the newest.
static CURSOR: AtomicUsize = AtomicUsize::new(0);

fn slots() -> impl Iterator<Item = &'static Slot> {
    let mut at = SLOTS.load(Ordering::Acquire);
    core::iter::from_fn(move || {
        // SAFETY: published slots stay mapped for the life of the process.
        let slot = unsafe { at.as_ref() }?;
        at = slot.next.load(Ordering::Acquire);
        Some(slot)
    })
}

fn is_dead(pid: u32, tid: u32) -> bool {
    // SAFETY: signal 0 only asks whether the thread exists.
    let asked = unsafe { sys::syscall!(nr::TGKILL, pid, tid, 0) };
    asked == Err(sys::Errno::ESRCH)
}

/// A slot whose owner is gone, now owned by `tid`.
fn reuse(pid: u32, tid: u32) -> Option<&'static Slot> {
    let skip = CURSOR.load(Ordering::Relaxed);
    let mut seen = 0;
    for (i, slot) in slots().enumerate().skip(skip).take(PROBES_MAX) {
        seen = i + 1;
        let owner = slot.owner.load(Ordering::Acquire);
        // A slot marked with this thread's own number belonged to a dead one of that number.
        let free = owner == tid || is_dead(pid, owner);
        if free
            && slot
                .owner
                .compare_exchange(owner, tid, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            return Some(slot);
        }
    }
    let wrapped = seen < skip + PROBES_MAX;
    CURSOR.store(if wrapped { 0 } else { seen }, Ordering::Relaxed);
    None
}

fn fresh(tid: u32) -> Option<&'static Slot> {
    let base = os::anonymous(MAPPING_BYTES).ok()?;
    // SAFETY: the guard page lies inside the mapping just made; nothing uses it.
    let guarded = unsafe { sys::syscall!(nr::MPROTECT, base + os::PAGE, GUARD_BYTES, 0) };
    debug_assert!(guarded.is_ok());
    let slot = base as *mut Slot;
    // SAFETY: fresh zeroed memory of sufficient size and alignment, never unmapped; every bit
    // pattern is a valid Slot.
    let slot_ref = unsafe { &*slot };
    slot_ref.owner.store(tid, Ordering::Relaxed);
    let mut head = SLOTS.load(Ordering::Acquire);
    loop {
        slot_ref.next.store(head, Ordering::Relaxed);
        match SLOTS.compare_exchange_weak(head, slot, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(slot_ref),
            Err(now) => head = now,
        }
    }
}

/// Gives the calling thread a hook stack and returns its top, 0 if there is no memory.
pub(crate) extern "sysv64" fn new_stack() -> usize {
    let (pid, tid) = (os::getpid(), os::gettid());
    let Some(slot) = reuse(pid, tid).or_else(|| fresh(tid)) else {
        return 0;
    };
    let base = core::ptr::from_ref(slot) as usize;
    let top = base + MAPPING_BYTES;
    let block = tls::block();
    block.stack_slot.store(base as u64, Ordering::Relaxed);
    block.stack_top.store(top as u64, Ordering::Relaxed);
    top
}

/// In the child of a fork: the thread has a new number.
pub(crate) fn after_fork() {
    let base = tls::block().stack_slot.load(Ordering::Relaxed) as usize;
    if base != 0 {
        // SAFETY: the word holds 0 or the address of this thread's slot, which stays mapped.
        let slot = unsafe { &*(base as *const Slot) };
        slot.owner.store(os::gettid(), Ordering::Release);
    }
    CURSOR.store(0, Ordering::Relaxed);
}

/// Number of the thread whose hook stack this is: of a vfork child, its parent's.
pub(crate) fn owner() -> Option<u32> {
    let base = tls::block().stack_slot.load(Ordering::Relaxed) as usize;
    if base == 0 {
        return None;
    }
    // SAFETY: as in `after_fork`.
    let slot = unsafe { &*(base as *const Slot) };
    Some(slot.owner.load(Ordering::Acquire))
}
