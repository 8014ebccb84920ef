//! Who asks: credentials and umask of the process, cached and renewed by the calls that set them.
//!
//! glibc sets ids in all threads at once, so one cache per process is right for programs that go
//! through it. A program that calls `setfsuid` or `setfsgid` works per thread; from then on every
//! operation asks the kernel.

use crate::abi::nr;
use crate::kernel::{self, addr_mut, call};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use dfs::Cred;
use intercept::Call;
use std::boxed::Box;
use std::vec::Vec;
use sys::Errno;

/// Supplementary groups that are asked for without asking for their number first; real users have a
/// few (`NGROUPS_MAX` is 65536).
const GROUPS_USUAL: usize = 256;

/// One state of the process's credentials. Blocks are never freed, but each distinct state is
/// kept only once, so a program that switches between users does not grow.
struct Block {
    uid: u32,
    gid: u32,
    real_uid: u32,
    real_gid: u32,
    groups: Vec<u32>,
    next: *const Block,
}

static CURRENT: AtomicPtr<Block> = AtomicPtr::new(core::ptr::null_mut());
static ALL: AtomicPtr<Block> = AtomicPtr::new(core::ptr::null_mut());
static PER_THREAD: AtomicBool = AtomicBool::new(false);
static UMASK: AtomicU32 = AtomicU32::new(0o022);

fn deref(block: *const Block) -> Option<&'static Block> {
    // SAFETY: pointers in CURRENT, ALL and `next` come from Box::leak and are never freed.
    unsafe { block.as_ref() }
}

fn known(wanted: &Block) -> Option<&'static Block> {
    let mut at = deref(ALL.load(Ordering::Acquire));
    while let Some(block) = at {
        if block.uid == wanted.uid
            && block.gid == wanted.gid
            && block.real_uid == wanted.real_uid
            && block.real_gid == wanted.real_gid
            && block.groups == wanted.groups
        {
            return Some(block);
        }
        at = deref(block.next);
    }
    None
}

/// The supplementary groups, all of them: one that is left out may be one that is kept from a file.
fn groups() -> Vec<u32> {
    let mut usual = [0u32; GROUPS_USUAL];
    let mut count = call!(nr::GETGROUPS, GROUPS_USUAL, addr_mut(&mut usual));
    if count != Err(Errno::EINVAL) {
        let count = count.unwrap_or(0);
        return usual.get(..count).unwrap_or(&[]).to_vec();
    }
    let mut all = Vec::new();
    // Another thread may give the process more of them between the two calls.
    while count == Err(Errno::EINVAL) {
        all.resize(call!(nr::GETGROUPS, 0, 0).unwrap_or(0).max(1), 0u32);
        count = call!(nr::GETGROUPS, all.len(), all.as_mut_ptr().addr());
    }
    all.truncate(count.unwrap_or(0));
    all
}

#[cold]
fn ask() -> &'static Block {
    let id = |number: usize, arg: usize| kernel::raw(number, [arg, 0, 0, 0, 0, 0]) as u32;
    // An invalid id leaves the file-system ids alone and returns them (setfsuid(2)).
    let mut fresh = Block {
        uid: id(nr::SETFSUID, usize::MAX),
        gid: id(nr::SETFSGID, usize::MAX),
        real_uid: id(nr::GETUID, 0),
        real_gid: id(nr::GETGID, 0),
        groups: groups(),
        next: core::ptr::null(),
    };
    let block = match known(&fresh) {
        Some(block) => block,
        None => {
            let mut head = ALL.load(Ordering::Acquire);
            fresh.next = head;
            let made: *mut Block = Box::leak(Box::new(fresh));
            while let Err(now) =
                ALL.compare_exchange(head, made, Ordering::AcqRel, Ordering::Acquire)
            {
                head = now;
                // SAFETY: not published yet, so nobody else looks at it.
                unsafe { (*made).next = head };
            }
            // SAFETY: just leaked.
            unsafe { &*made }
        }
    };
    CURRENT.store(core::ptr::from_ref(block).cast_mut(), Ordering::Release);
    block
}

#[inline]
fn block() -> &'static Block {
    match deref(CURRENT.load(Ordering::Acquire)) {
        Some(block) if !PER_THREAD.load(Ordering::Relaxed) => block,
        _ => ask(),
    }
}

/// Effective credentials for permission checks.
#[inline]
pub(crate) fn current() -> Cred<'static> {
    let block = block();
    Cred {
        uid: block.uid,
        gid: block.gid,
        groups: &block.groups,
        privileged: block.uid == 0,
        umask: UMASK.load(Ordering::Relaxed),
    }
}

/// Credentials for `access(2)`, which asks for the real ids.
pub(crate) fn real() -> Cred<'static> {
    let block = block();
    Cred {
        uid: block.real_uid,
        gid: block.real_gid,
        groups: &block.groups,
        privileged: block.real_uid == 0,
        umask: UMASK.load(Ordering::Relaxed),
    }
}

/// For work that POSIX exempts from permission checks, such as opening a file just created.
pub(crate) fn unchecked() -> Cred<'static> {
    Cred {
        privileged: true,
        ..current()
    }
}

/// A call of the `set*id` family has gone through.
pub(crate) fn changed() {
    CURRENT.store(core::ptr::null_mut(), Ordering::Release);
}

/// The program sets ids per thread.
pub(crate) fn per_thread() {
    PER_THREAD.store(true, Ordering::Relaxed);
}

/// Learns the umask without a window in which another thread sees a wrong one: only for start-up,
/// when there is one thread.
pub(crate) fn learn_umask() {
    let mask = kernel::raw(nr::UMASK, [0o077, 0, 0, 0, 0, 0]);
    let _was = kernel::raw(nr::UMASK, [mask as usize, 0, 0, 0, 0, 0]);
    UMASK.store(mask as u32 & 0o777, Ordering::Relaxed);
}

/// The program's `umask(2)` has gone through.
pub(crate) fn umask_changed(call: &Call, _old: isize) {
    if !intercept::in_vfork_child() {
        UMASK.store(call.args[0] as u32 & 0o777, Ordering::Relaxed);
    }
}
