//! Which descriptors are ours: a u32 per descriptor number, 0 = not ours.
//!
//! The stubs look at a byte per number modulo 65536; a byte counts the entries that
//! fall on it. A vfork child shares this memory but not the descriptors, so its changes are
//! dropped, and while one runs the stubs see a filter that lets every call through.

use crate::os;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};

const LOW: usize = 1 << 16;
const CHUNK: usize = 1 << 20;
const CHUNK_COUNT: usize = 1 << 11;
const STUCK: u8 = u8::MAX;

static FILTER: [AtomicU8; LOW] = [const { AtomicU8::new(0) }; LOW];
static LOW_TABLE: [AtomicU32; LOW] = [const { AtomicU32::new(0) }; LOW];
static CHUNKS: [AtomicPtr<AtomicU32>; CHUNK_COUNT] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNK_COUNT];
/// One above the highest number ever set.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn filter() -> usize {
    FILTER.as_ptr() as usize
}

fn chunk(fd: usize, create: bool) -> Option<&'static AtomicU32> {
    let slot = CHUNKS.get(fd / CHUNK)?;
    let mut base = slot.load(Ordering::Acquire);
    if base.is_null() {
        if !create {
            return None;
        }
        let fresh = os::anonymous(CHUNK * 4).ok()? as *mut AtomicU32;
        match slot.compare_exchange(base, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => base = fresh,
            Err(other) => {
                // SAFETY: the mapping was never published.
                unsafe { os::unmap(fresh as usize, CHUNK * 4) };
                base = other;
            }
        }
    }
    // SAFETY: a published chunk has CHUNK entries and is never unmapped.
    Some(unsafe { &*base.add(fd % CHUNK) })
}

fn entry(fd: usize, create: bool) -> Option<&'static AtomicU32> {
    match LOW_TABLE.get(fd) {
        Some(entry) => Some(entry),
        None => chunk(fd, create),
    }
}

/// The word of descriptor `fd`; 0 if it is not ours or no descriptor number at all.
///
/// The upper half of the register is ignored, as the kernel does.
#[inline]
pub fn get(fd: usize) -> u32 {
    entry(fd as u32 as usize, false).map_or(0, |entry| entry.load(Ordering::Acquire))
}

/// Makes `fd` ours with `word`, which is not 0, and returns the former word.
///
/// In a vfork child nothing happens: the table is the parent's. Numbers of 2^31 and above, which
/// the kernel never hands out, are ignored too.
pub fn set(fd: usize, word: u32) -> u32 {
    if crate::guard::in_vfork_child() {
        return 0;
    }
    let fd = fd as u32 as usize;
    let Some(entry) = entry(fd, word != 0) else {
        return 0;
    };
    let byte = &FILTER[fd % LOW];
    let count = |up: bool| {
        // A byte that ever was full stays: too many calls pass then, never too few.
        let step = |n: u8| match n {
            STUCK => None,
            n if up => Some(n + 1),
            n => Some(n.saturating_sub(1)),
        };
        byte.fetch_update(Ordering::AcqRel, Ordering::Acquire, step)
            .unwrap_or(STUCK)
    };
    if word != 0 {
        // Counted before it is there, so that the filter never says no to one of ours.
        count(true);
        if HIGHEST.load(Ordering::Relaxed) <= fd {
            HIGHEST.fetch_max(fd + 1, Ordering::AcqRel);
        }
    }
    let old = entry.swap(word, Ordering::AcqRel);
    if old != 0 {
        count(false);
    }
    old
}

/// Forgets `fd` and returns its word. Nothing happens in a vfork child.
pub fn clear(fd: usize) -> u32 {
    set(fd, 0)
}

/// One above the highest descriptor number that was ever set: the bound for a walk over all.
pub fn bound() -> usize {
    HIGHEST.load(Ordering::Acquire)
}

/// Calls `visit(fd, word)` for every descriptor of ours from `first` to `last`, both included.
pub fn for_each(first: usize, last: usize, mut visit: impl FnMut(usize, u32)) {
    let mut fd = first;
    let end = bound();
    while fd < end && fd <= last {
        if fd >= LOW && chunk(fd, false).is_none() {
            fd = (fd / CHUNK + 1) * CHUNK;
            continue;
        }
        let word = get(fd);
        if word != 0 {
            visit(fd, word);
        }
        fd += 1;
    }
}

static EVERYTHING: [AtomicU8; LOW] = [const { AtomicU8::new(1) }; LOW];

/// A filter that lets every call through.
pub(crate) fn open_filter() -> usize {
    EVERYTHING.as_ptr() as usize
}

/// The filter the path gate looks at: the real one or the open one.
pub(crate) static ACTIVE_FILTER: AtomicPtr<AtomicU8> = AtomicPtr::new(FILTER.as_ptr().cast_mut());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_filter_agree() {
        for fd in [70_000, 70_000 + LOW, (1 << 21) + 70_000] {
            assert_eq!(set(fd, 7), 0);
        }
        let byte = &FILTER[70_000 % LOW];
        assert_eq!(byte.load(Ordering::Relaxed), 3);
        assert_eq!(set(70_000, 8), 7);
        assert_eq!(byte.load(Ordering::Relaxed), 3);
        let mut seen = Vec::new();
        for_each(60_000, usize::MAX, |fd, word| seen.push((fd, word)));
        assert_eq!(seen, [(70_000, 8), (135_536, 7), (2_167_152, 7)]);
        for fd in [70_000, 70_000 + LOW, (1 << 21) + 70_000] {
            assert_ne!(clear(fd), 0);
            assert_eq!(get(fd), 0);
        }
        assert_eq!(byte.load(Ordering::Relaxed), 0);
        assert_eq!(get(usize::MAX), 0);
        assert_eq!(set(u32::MAX as usize, 1), 0);
    }
}
