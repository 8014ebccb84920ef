//! Processes attached to a pool: who they are, whether they live, and words for the layer above.
//!
//! A process is its id, its start time and its PID namespace, so that a reused id is not taken for
//! the process that had it before. The entry outlives `exec`: the new image finds it again.

use crate::layout::{header, process_at};
use crate::limits::{PROCESSES_MAX, RANKS_MAX, at};
use crate::media::errno;
use crate::pool::Pool;
use crate::thread::vfork;
use core::sync::atomic::Ordering;
use rustix::fs::{Mode, OFlags};
use shm::{OwnerState, crash_point};
use sys::{Errno, Result};

/// Words of a process slot for the layer above: from [`user_word`] 0 to this.
pub const USER_WORDS: u64 = (ASKED - USER) / 8;

const ID: u64 = 0;
const STARTED: u64 = 8;
const NAMESPACE: u64 = 16;
/// Log position + 1 from which on data that was published by this slot's processes may not be proven; a
/// bit says that it is being proven. It is the slot's: what is left of a process that is gone is proven
/// by others while the slot is free, or with what its next process stores.
pub(crate) const UNPROVEN: u64 = 24;
/// The thread that proves it ([`worker`]), 0 = none.
pub(crate) const PROVER: u64 = 32;
const USER: u64 = 40;
/// Words with a bit for each rank whose data the process has asked the kernel to flush, without having
/// been told what came of it; the same of the log, one word.
pub(crate) const ASKED: u64 = ASKED_LOG - RANKS_MAX as u64 / 8;
pub(crate) const ASKED_LOG: u64 = at::PROCESS_BYTES - 8;
/// In the id word: the entry is being filled in.
const FILLING: u64 = 1 << 63;
/// In the id word: the thread that settles a dead process's affairs ([`worker`]).
const BURIER_AT: u32 = 32;
/// In the note of a thread at work: owner slot + 1, and the generation of that slot behind it.
const WORKER: u64 = 0xfff;
const GENERATION_AT: u32 = 12;

/// Number of process slots.
pub const SLOTS: u32 = PROCESSES_MAX as u32;

/// What identifies a process for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    id: u64,
    started: u64,
    namespace: u64,
}

/// A process of the caller's PID namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Life {
    id: u32,
    started: u64,
}

/// Arena offset of a process's `index`th word for the layer above.
pub fn user_word(slot: u32, index: u64) -> u64 {
    process_at(slot) + USER + index.min(USER_WORDS - 1) * 8
}

/// The calling process's slot in `pool`, taken on first use and anew in a forked child.
#[inline]
pub fn slot(pool: &Pool) -> Result<u32> {
    if let Some(child) = vfork::child() {
        return child.process(pool);
    }
    match pool.own.slot().load(Ordering::Relaxed) {
        0 => register(pool),
        known => Ok(known as u32 - 1),
    }
}

/// The calling process's slot in `pool`, if it has taken one.
pub fn known_slot(pool: &Pool) -> Option<u32> {
    match vfork::child() {
        Some(child) => child.known_process(pool),
        None => (pool.own.slot().load(Ordering::Relaxed) as u32).checked_sub(1),
    }
}

#[cold]
fn register(pool: &Pool) -> Result<u32> {
    let found = slot_of(pool, 0)?;
    // An image before this one may have asked for flushes: nobody is told of them any more.
    pool.doubt_asked(found)?;
    pool.own
        .slot()
        .store(u64::from(found) + 1, Ordering::Relaxed);
    Ok(found)
}

/// Slots from this number on were never used.
pub fn used(pool: &Pool) -> Result<u32> {
    Ok(slots(pool)?.end)
}

/// Numbers of the slots that were ever used.
fn slots(pool: &Pool) -> Result<core::ops::Range<u32>> {
    Ok(0..pool.load(header::PROCESSES_USED)?.min(PROCESSES_MAX as u64) as u32)
}

fn find(pool: &Pool, who: Identity) -> Result<Option<u32>> {
    for slot in slots(pool)? {
        if stored(pool, slot)? == who {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

/// Takes a free slot for `who`, which may also be a child about to exec, if there is one then one of
/// which nothing is to be proven; failing that, the slot of a dead process that left nothing to settle.
fn claim(pool: &Pool, who: Identity) -> Result<u32> {
    for only_proven in [true, false] {
        for slot in 0..PROCESSES_MAX as u32 {
            if only_proven && is_unproven(pool, slot)? {
                continue;
            }
            if take(pool, slot, 0, who)? {
                return Ok(slot);
            }
        }
    }
    for slot in 0..PROCESSES_MAX as u32 {
        let id = pool.load(process_at(slot) + ID)?;
        if !is_being_buried(pool, id)
            && is_dead(pool, slot)?
            && left_nothing(pool, slot)?
            && take(pool, slot, id, who)?
        {
            return Ok(slot);
        }
    }
    Err(Errno::EAGAIN)
}

fn left_nothing(pool: &Pool, slot: u32) -> Result<bool> {
    for word in 0..USER_WORDS {
        if pool.load(user_word(slot, word))? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn take(pool: &Pool, slot: u32, from: u64, who: Identity) -> Result<bool> {
    let base = process_at(slot);
    let id = pool.word(base + ID)?;
    let filling = who.id | FILLING;
    if id
        .compare_exchange(from, filling, Ordering::AcqRel, Ordering::Relaxed)
        .is_err()
    {
        return Ok(false);
    }
    let used = pool.word(header::PROCESSES_USED)?;
    used.fetch_max(u64::from(slot) + 1, Ordering::AcqRel);
    pool.store(base + STARTED, who.started)?;
    pool.store(base + NAMESPACE, who.namespace)?;
    pool.doubt_asked(slot)?;
    for word in 0..USER_WORDS {
        pool.store(user_word(slot, word), 0)?;
    }
    id.store(who.id, Ordering::Release);
    Ok(true)
}

/// The slot of process `pid` of the caller's PID namespace, 0 = the caller, made if it has none.
pub(crate) fn slot_of(pool: &Pool, pid: u32) -> Result<u32> {
    let life = life_of(pid)?;
    let who = Identity {
        id: u64::from(life.id),
        started: life.started,
        namespace: namespace(pool)?,
    };
    match find(pool, who)? {
        Some(slot) => Ok(slot),
        None => claim(pool, who),
    }
}

/// Whether a process in `slot` has published data that may still have to be proven.
pub fn is_unproven(pool: &Pool, slot: u32) -> Result<bool> {
    Ok(pool.load(process_at(slot) + UNPROVEN)? != 0)
}

/// Frees the calling process's slot, when its affairs are settled. It gets another when it needs one.
pub fn vacate(pool: &Pool, slot: u32) -> Result<()> {
    match vfork::child() {
        Some(child) => child.forget_process(),
        None => pool.own.slot().store(0, Ordering::Relaxed),
    }
    pool.doubt_asked(slot)?;
    pool.store(process_at(slot) + ID, 0)
}

/// Process id in `slot`, 0 if free.
pub fn pid(pool: &Pool, slot: u32) -> Result<u32> {
    Ok(pool.load(process_at(slot) + ID)? as u32)
}

/// Whether the process in `slot` is gone. One of another PID namespace is taken to be alive.
pub fn is_dead(pool: &Pool, slot: u32) -> Result<bool> {
    let who = stored(pool, slot)?;
    if who.id == 0 {
        return Ok(false);
    }
    if known_slot(pool) == Some(slot) {
        return Ok(false);
    }
    if who.id & FILLING == 0 && who.namespace != namespace(pool)? {
        return Ok(false);
    }
    let dead = match life_of(who.id as u32) {
        Ok(now) => who.id & FILLING == 0 && now.started != who.started,
        Err(Errno::ESRCH) => true,
        Err(Errno::ENOENT) => !may_exist(who.id as u32),
        Err(errno) => return Err(errno),
    };
    // Not an entry that has changed hands meanwhile.
    Ok(dead && stored(pool, slot)? == who)
}

/// Whether nobody of the process in `slot` can be at work: it is dead, or settled already.
pub(crate) fn is_gone(pool: &Pool, slot: u32) -> bool {
    pid(pool, slot) == Ok(0) || is_dead(pool, slot) == Ok(true)
}

/// Settles the affairs of the process in `slot` with `settle`, then frees the slot, if the process
/// is dead. Nobody else does so at the same time, or has the slot before it is done: its new process
/// would be taken for the dead one. False if the process lives, or another thread is at it.
pub fn bury(pool: &Pool, slot: u32, settle: impl FnOnce() -> Result<()>) -> Result<bool> {
    let id = pool.word(process_at(slot) + ID)?;
    let seen = id.load(Ordering::Acquire);
    if seen == 0 || is_being_buried(pool, seen) || !is_dead(pool, slot)? {
        return Ok(false);
    }
    let mine = u64::from(seen as u32) | (worker(pool)? << BURIER_AT);
    if id
        .compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed)
        .is_err()
    {
        return Ok(false);
    }
    crash_point!("process.burying");
    let settled = pool.doubt_asked(slot).and_then(|()| settle());
    // After that: nobody who waits for what it held waits for this. What is not proven may be lost in a power
    // failure, no more. What is too much, or somebody else is at, is left to the next who looks: the slot need
    // not wait for it.
    pool.prove_of_dead(slot).ok();
    // What could not be settled is left to the next who comes.
    let left = if settled.is_ok() {
        0
    } else {
        mine as u32 as u64
    };
    id.store(left, Ordering::Release);
    settled.map(|()| true)
}

/// Whether a live thread is settling the affairs of the process whose entry says `id`.
fn is_being_buried(pool: &Pool, id: u64) -> bool {
    is_at_work(pool, id >> BURIER_AT & u64::from(u32::MAX >> 1))
}

/// The calling thread, as noted where it is at work: 28 bits, never 0.
pub(crate) fn worker(pool: &Pool) -> Result<u64> {
    let (_, me) = pool.me()?;
    let generation = pool.slot(me)?.look().generation();
    Ok((u64::from(me) + 1) | (u64::from(generation) << GENERATION_AT))
}

/// Whether the thread of a note is alive.
pub(crate) fn is_at_work(pool: &Pool, noted: u64) -> bool {
    let Some(by) = (noted & WORKER).checked_sub(1) else {
        return false;
    };
    pool.slot(by as u16).is_ok_and(|slot| {
        let seen = slot.look();
        seen.state() == OwnerState::Live
            && seen.generation() == (noted >> GENERATION_AT) as u16
            && !slot.is_dead()
    })
}

/// Number of processes attached.
pub fn count(pool: &Pool) -> Result<usize> {
    let mut live = 0;
    for slot in slots(pool)? {
        if pid(pool, slot)? != 0 && !is_dead(pool, slot)? {
            live += 1;
        }
    }
    Ok(live)
}

fn stored(pool: &Pool, slot: u32) -> Result<Identity> {
    let base = process_at(slot);
    Ok(Identity {
        id: pool.load(base + ID)?,
        started: pool.load(base + STARTED)?,
        namespace: pool.load(base + NAMESPACE)?,
    })
}

/// Process `pid`, 0 = the caller; `ENOENT` when there is none.
fn life_of(pid: u32) -> Result<Life> {
    let pid = match pid {
        0 => getpid(),
        pid => pid,
    };
    // "/proc/4294967295/stat" and a zero.
    let mut path = [0u8; 24];
    let mut at = 6;
    path[..6].copy_from_slice(b"/proc/");
    let mut digits = [0u8; 10];
    let mut left = pid;
    let mut count = 0;
    while left > 0 || count == 0 {
        digits[count] = b'0' + (left % 10) as u8;
        left /= 10;
        count += 1;
    }
    for digit in digits[..count].iter().rev() {
        path[at] = *digit;
        at += 1;
    }
    path[at..at + 5].copy_from_slice(b"/stat");
    let path = core::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| Errno::EIO)?;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut text = [0u8; 512];
    let len = rustix::io::read(file.map_err(errno)?, &mut text).map_err(errno)?;
    let text = &text[..len];
    if is_ended(text) {
        return Err(Errno::ESRCH);
    }
    let started = start_time(text).ok_or(Errno::EIO)?;
    Ok(Life { id: pid, started })
}

/// Whether there is a process `pid`, as a process can tell that sees no `/proc`, or not all of it.
fn may_exist(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// Field 22 of `/proc/PID/stat` (proc(5)): the name in field 2 may hold blanks and brackets.
fn start_time(text: &[u8]) -> Option<u64> {
    let after_name = text.iter().rposition(|b| *b == b')')?;
    let field = text[after_name..].split(|b| *b == b' ').nth(20)?;
    core::str::from_utf8(field).ok()?.parse().ok()
}

/// Whether the process has ended and only waits for its parent: its last thread is a zombie.
fn is_ended(text: &[u8]) -> bool {
    let Some(after_name) = text.iter().rposition(|b| *b == b')') else {
        return false;
    };
    let mut fields = text[after_name..].split(|b| *b == b' ');
    let zombie = matches!(fields.nth(1), Some(b"Z" | b"X"));
    // Field 20: threads; a main thread that ended before the others is a zombie too.
    zombie && matches!(fields.nth(16), Some(b"0" | b"1"))
}

/// Inode of the caller's PID namespace, which a process never leaves.
fn namespace(pool: &Pool) -> Result<u64> {
    // A process that shares this one's memory, and so this word, may be in another one.
    let me = u64::from(getpid()) << 32;
    let known = pool.own.namespace().load(Ordering::Relaxed);
    if known & !u64::from(u32::MAX) == me && vfork::child().is_none() {
        return Ok(u64::from(known as u32));
    }
    let found = rustix::fs::stat(c"/proc/self/ns/pid")
        .map_err(errno)?
        .st_ino;
    if u32::try_from(found).is_ok() {
        pool.own.namespace().store(me | found, Ordering::Relaxed);
    }
    Ok(found)
}

fn getpid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_odd_names() {
        let text = b"12 (a) b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_time(text), Some(4711));
        assert_eq!(start_time(b"12 (x"), None);
    }

    #[test]
    fn zombies_have_ended_unless_other_threads_live() {
        let ended = b"12 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 0 4711 20";
        let leader = b"12 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 3 0 4711 20";
        let live = b"12 (a) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 0 4711 20";
        assert!(is_ended(ended) && !is_ended(leader) && !is_ended(live));
    }

    #[test]
    fn own_life_is_stable() {
        let first = life_of(0);
        assert!(first.is_ok());
        assert_eq!(first, life_of(0));
    }
}
