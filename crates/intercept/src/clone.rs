//! Before and after fork, vfork, clone and clone3.
//!
//! The call itself runs in place. Before it the kind is pushed on the thread's stack of 4-bit
//! kinds; after it the parent pops. A vfork child, which shares that word, marks its kind instead,
//! and the gate takes the mark away when the parent goes on; a thread has a block of its own, where
//! nothing was pushed.

use crate::arch::frame::Frame;
use crate::{hookstack, nr, os, tls};
use core::sync::atomic::{AtomicUsize, Ordering};

const CHILD: u64 = 8;
const VFORK_CHILDREN: u64 = 0x8888_8888_8888_8888;
const CLONE_VM: usize = 0x100;
const CLONE_VFORK: usize = 0x4000;

/// What a clone call makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum CloneKind {
    /// A process with a copy of the memory.
    Fork = 1,
    /// A process that shares memory and thread block while the parent thread waits.
    Vfork = 2,
    /// A thread, or what else shares memory with a parent that goes on.
    Thread = 3,
}

pub(crate) fn in_vfork_child(mode: u64) -> bool {
    mode & VFORK_CHILDREN != 0
}

/// Number of running vfork children of this process.
static CHILDREN: AtomicUsize = AtomicUsize::new(0);

fn kind_of(call: usize, args: &[usize; 6]) -> CloneKind {
    let flags = match call {
        nr::CLONE => args[0],
        // The flags are the first word of the structure. A wild pointer is the kernel's to refuse.
        nr::CLONE3 => sys::uaccess::load::<u64>(args[0]).unwrap_or(0) as usize,
        nr::VFORK => CLONE_VM | CLONE_VFORK,
        _ => 0,
    };
    match (flags & CLONE_VM != 0, flags & CLONE_VFORK != 0) {
        (false, _) => CloneKind::Fork,
        (true, true) => CloneKind::Vfork,
        (true, false) => CloneKind::Thread,
    }
}

/// In the parent, before the call.
pub(crate) fn before(frame: &Frame) {
    let kind = kind_of(frame.nr, &frame.args);
    if let Some(config) = crate::config() {
        (config.before_clone)(kind);
    }
    if kind == CloneKind::Vfork && CHILDREN.fetch_add(1, Ordering::AcqRel) == 0 {
        crate::set_filter(true);
    }
    let mode = &tls::block().clone_mode;
    mode.store(
        mode.load(Ordering::Relaxed) << 4 | kind as u64,
        Ordering::Relaxed,
    );
}

/// After it, in the parent or the child. `frame.nr` is the kernel's result.
pub(crate) fn after(frame: &Frame) {
    let block = tls::block();
    let mode = block.clone_mode.load(Ordering::Relaxed);
    let kind = match mode & 7 {
        1 => CloneKind::Fork,
        2 => CloneKind::Vfork,
        _ => CloneKind::Thread,
    };
    let config = crate::config();
    if frame.nr != 0 {
        block.clone_mode.store(mode >> 4, Ordering::Relaxed);
        if kind == CloneKind::Vfork {
            if CHILDREN.fetch_sub(1, Ordering::AcqRel) == 1 {
                crate::set_filter(false);
            }
            if let Some(config) = config {
                (config.vfork_is_over)();
            }
        }
        if let Some(config) = config {
            (config.after_clone)(kind, frame.nr as isize);
        }
        return;
    }
    match kind {
        CloneKind::Fork => {
            block.clone_mode.store(0, Ordering::Relaxed);
            CHILDREN.store(0, Ordering::Relaxed);
            crate::set_filter(false);
            crate::hookstack::after_fork();
            crate::sud::arm();
            if let Some(config) = config {
                (config.child_after_fork)();
            }
        }
        CloneKind::Vfork => {
            block.clone_mode.store(mode | CHILD, Ordering::Relaxed);
            if let Some(config) = config {
                (config.child_of_vfork)();
            }
        }
        CloneKind::Thread => crate::sud::arm(),
    }
}

/// Whether the calling thread is between [`before`] and [`after`] of a fork, on whichever side: what the
/// dispatcher holds meanwhile, a handler of the program would wait for for ever.
pub(crate) fn is_forking() -> bool {
    tls::block().clone_mode.load(Ordering::Relaxed) & 15 == CloneKind::Fork as u64
}

/// At a signal, before anything is made of it: it may have come between the system call and
/// [`after`]. Then the thread's block still says what was true on the other side: a child does not
/// know yet that it is one, and a parent may find itself in the hook in which its child was killed.
pub(crate) fn settle_side() {
    let block = tls::block();
    let mode = block.clone_mode.load(Ordering::Relaxed);
    // A child of a child has no thread block whose owner could be asked for.
    if mode >> 4 != 0 || mode & 7 != CloneKind::Vfork as u64 {
        return;
    }
    let is_parent = hookstack::owner() == Some(os::gettid());
    if is_parent == (mode & CHILD == 0) {
        return;
    }
    block.clone_mode.store(mode ^ CHILD, Ordering::Relaxed);
    if is_parent {
        block.depth.store(0, Ordering::Relaxed);
        block.deferred.store(0, Ordering::Relaxed);
    }
    if let Some(config) = crate::config() {
        if is_parent {
            (config.vfork_is_over)();
        } else {
            (config.child_of_vfork)();
        }
    }
}
