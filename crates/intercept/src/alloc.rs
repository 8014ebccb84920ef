//! A heap of the library's own, so that the host's is never touched.
//!
//! Small blocks come from lock-free lists, one per size class, over 64 KiB chunks of regions that are
//! never unmapped; large ones are mappings. No lock means that fork, vfork, signals and sudden death at
//! any instruction leave it consistent: at worst a block is lost.

use crate::os::{self, PAGE};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use sys::syscall;

/// Sizes of small blocks; each power of two from 16 on is among them, which serves alignment.
const CLASSES: [usize; 20] = [
    16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192,
    12288, 16384,
];
const SMALL_MAX: usize = CLASSES[CLASSES.len() - 1];
const CHUNK: usize = 64 * 1024;
/// Chunks are mapped together: a call for each would be felt in every exec.
const REGION: usize = 16 * CHUNK;
const MREMAP_MAYMOVE: usize = 1;

/// Blocks are 16-byte aligned and user addresses have 47 bits: 43 bits of address, 21 of tag.
const ADDRESS_BITS: u32 = 43;

struct Class {
    /// Tagged address of the first free block; the tag grows with every change.
    free: AtomicU64,
    /// The next never-used block of the class's chunk, 0 if there is none.
    fresh: AtomicUsize,
}

static HEAP: [Class; CLASSES.len()] = [const {
    Class {
        free: AtomicU64::new(0),
        fresh: AtomicUsize::new(0),
    }
}; CLASSES.len()];
/// The next never-used chunk of the region, 0 if there is none.
static NEXT_CHUNK: AtomicUsize = AtomicUsize::new(0);
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// The first small blocks, whatever their class, lie beside each other: a page for each class would
/// be felt in every exec.
#[repr(align(4096))]
struct Start(UnsafeCell<[u8; START_BYTES]>);

// SAFETY: its bytes are handed out, each once, and not touched through this.
unsafe impl Sync for Start {}

static START: Start = Start(UnsafeCell::new([0; START_BYTES]));
static START_USED: AtomicUsize = AtomicUsize::new(0);
const START_BYTES: usize = 4 * PAGE;
const START_SIZE_MAX: usize = 1024;

/// The allocator, for `#[global_allocator]` in the preloaded library.
///
/// May be used in any context: early, in hooks, in signal handlers, in children of fork and vfork.
pub struct HostAlloc;

impl HostAlloc {
    /// Bytes of address space the heap has mapped now.
    pub fn mapped_bytes() -> usize {
        MAPPED.load(Ordering::Relaxed)
    }
}

fn address_of(tagged: u64) -> usize {
    ((tagged & ((1 << ADDRESS_BITS) - 1)) << 4) as usize
}

fn retag(old: u64, address: usize) -> u64 {
    let tag = (old >> ADDRESS_BITS).wrapping_add(1);
    tag << ADDRESS_BITS | address as u64 >> 4
}

fn class_index(layout: &Layout) -> Option<usize> {
    let size = match layout.align() {
        ..=16 => layout.size(),
        align => layout.size().max(align).checked_next_power_of_two()?,
    };
    CLASSES.iter().position(|&class| size <= class)
}

/// The first word of a free block is the address of the next.
fn next_of(block: usize) -> &'static AtomicUsize {
    // SAFETY: chunks are never unmapped. A block that another thread has taken meanwhile yields
    // garbage, which the tag then rejects.
    unsafe { &*(block as *const AtomicUsize) }
}

impl Class {
    fn pop(&self) -> Option<usize> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let block = address_of(head);
            if block == 0 {
                return None;
            }
            let next = next_of(block).load(Ordering::Relaxed);
            let new = retag(head, next & 0x7fff_ffff_fff0);
            match self
                .free
                .compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(block),
                Err(now) => head = now,
            }
        }
    }

    fn push(&self, block: usize) {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            next_of(block).store(address_of(head), Ordering::Relaxed);
            let new = retag(head, block);
            match self
                .free
                .compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn carve(&self, size: usize) -> Option<usize> {
        loop {
            let block = self.fresh.load(Ordering::Acquire);
            if block == 0 {
                if let Some(block) = take_from_start(size) {
                    return Some(block);
                }
                // Block 0 of a chunk is left out: a multiple of CHUNK would look like the end.
                let chunk = take_chunk()?;
                let first = chunk + size;
                let new = if size * 2 > CHUNK - size {
                    0
                } else {
                    first + size
                };
                let won = self
                    .fresh
                    .compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire);
                if won.is_ok() {
                    return Some(first);
                }
                // Another thread was first; its chunk serves both, and this one is lost.
                continue;
            }
            let after = block + size;
            let new = if after % CHUNK + size > CHUNK || after.is_multiple_of(CHUNK) {
                0
            } else {
                after
            };
            if self
                .fresh
                .compare_exchange(block, new, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return Some(block);
            }
        }
    }
}

fn take_from_start(size: usize) -> Option<usize> {
    // Sizes that are powers of two serve alignment.
    let align = if size.is_power_of_two() { size } else { 16 };
    let mut used = START_USED.load(Ordering::Relaxed);
    loop {
        let at = used.next_multiple_of(align);
        if size > START_SIZE_MAX || at + size > START_BYTES {
            return None;
        }
        match START_USED.compare_exchange_weak(used, at + size, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => return Some(START.0.get() as usize + at),
            Err(now) => used = now,
        }
    }
}

/// A chunk that no class has.
fn take_chunk() -> Option<usize> {
    let after = |chunk: usize| match (chunk + CHUNK) % REGION {
        0 => 0,
        _ => chunk + CHUNK,
    };
    loop {
        let chunk = NEXT_CHUNK.load(Ordering::Acquire);
        let region = match chunk {
            // Where address space is scarce a chunk alone may still fit.
            0 => match map_aligned(REGION, REGION) {
                None => return map_aligned(CHUNK, CHUNK),
                fresh => fresh,
            },
            _ => None,
        };
        let taken = region.unwrap_or(chunk);
        let won =
            NEXT_CHUNK.compare_exchange(chunk, after(taken), Ordering::AcqRel, Ordering::Acquire);
        match (won, region) {
            (Ok(_), _) => return Some(taken),
            (Err(_), Some(region)) => unmap(region, REGION),
            (Err(_), None) => {}
        }
    }
}

/// Maps `len` bytes, a multiple of the page size, at a multiple of `align`.
fn map_aligned(len: usize, align: usize) -> Option<usize> {
    let slack = align.saturating_sub(PAGE);
    let total = len.checked_add(slack)?;
    let start = os::anonymous(total).ok()?;
    let at = start.next_multiple_of(align.max(PAGE));
    // SAFETY: the parts before and behind were just mapped and are not used.
    unsafe {
        if at > start {
            os::unmap(start, at - start);
        }
        if start + total > at + len {
            os::unmap(at + len, start + total - at - len);
        }
    }
    MAPPED.fetch_add(len, Ordering::Relaxed);
    Some(at)
}

fn unmap(at: usize, len: usize) {
    // SAFETY: the mapping is the heap's own and not used any more.
    unsafe { os::unmap(at, len) };
    MAPPED.fetch_sub(len, Ordering::Relaxed);
}

fn large_len(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(PAGE)
}

// SAFETY: blocks are disjoint, sized and aligned as asked; nothing here unwinds.
unsafe impl GlobalAlloc for HostAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = match class_index(&layout) {
            Some(index) => HEAP[index]
                .pop()
                .or_else(|| HEAP[index].carve(CLASSES[index])),
            None => large_len(layout.size()).and_then(|len| map_aligned(len, layout.align())),
        };
        block.map_or(core::ptr::null_mut(), |at| at as *mut u8)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_index(&layout) {
            Some(index) => HEAP[index].push(block as usize),
            None => unmap(block as usize, large_len(layout.size()).unwrap_or(0)),
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else {
            return core::ptr::null_mut();
        };
        match (class_index(&layout), class_index(&new)) {
            (Some(old), Some(new)) if old == new => return block,
            (None, None) if layout.align() <= PAGE => {
                let (Some(old_len), Some(new_len)) = (large_len(layout.size()), large_len(size))
                else {
                    return core::ptr::null_mut();
                };
                // SAFETY: the block is a mapping of this heap, given up by the caller.
                let moved =
                    unsafe { syscall!(crate::nr::MREMAP, block, old_len, new_len, MREMAP_MAYMOVE) };
                return moved.map_or(core::ptr::null_mut(), |at| {
                    MAPPED.fetch_add(new_len, Ordering::Relaxed);
                    MAPPED.fetch_sub(old_len, Ordering::Relaxed);
                    at as *mut u8
                });
            }
            _ => {}
        }
        // SAFETY: both blocks hold the smaller of the two sizes; the old one is given up.
        unsafe {
            let fresh = self.alloc(new);
            if !fresh.is_null() {
                core::ptr::copy_nonoverlapping(block, fresh, layout.size().min(size));
                self.dealloc(block, layout);
            }
            fresh
        }
    }
}

const _: () = assert!(SMALL_MAX * 3 <= CHUNK);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn blocks_are_disjoint_aligned_and_keep_their_bytes() {
        let threads: Vec<_> = (0..4u64)
            .map(|seed| std::thread::spawn(move || exercise(seed)))
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    /// The bytes of a live block.
    fn bytes(at: usize, len: usize) -> &'static mut [u8] {
        // SAFETY: every caller names a block it owns and drops the slice before the block.
        unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) }
    }

    fn free(at: usize, layout: Layout) {
        // SAFETY: the block is live and of this layout.
        unsafe { HostAlloc.dealloc(at as *mut u8, layout) }
    }

    fn exercise(seed: u64) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let mut live: BTreeMap<usize, (Layout, u8)> = BTreeMap::new();
        for round in 0..20_000 {
            let pick = random();
            let size = match pick % 8 {
                0 => 1 + random() % 200_000,
                1..4 => 1 + random() % 5000,
                _ => 1 + random() % 300,
            };
            if live.len() > 200 || (pick % 3 == 0 && !live.is_empty()) {
                let at = *live.keys().nth(random() % live.len()).unwrap();
                let (old, byte) = live.remove(&at).unwrap();
                assert!(bytes(at, old.size()).iter().all(|&b| b == byte));
                if pick % 2 == 1 {
                    free(at, old);
                    continue;
                }
                // SAFETY: the block is live and of the old layout.
                let new = unsafe { HostAlloc.realloc(at as *mut u8, old, size) } as usize;
                let kept = old.size().min(size);
                assert!(bytes(new, kept).iter().all(|&b| b == byte));
                bytes(new, size).fill(byte);
                live.insert(
                    new,
                    (Layout::from_size_align(size, old.align()).unwrap(), byte),
                );
                continue;
            }
            let layout = Layout::from_size_align(size, 1 << (random() % 14)).unwrap();
            // SAFETY: the size is not 0.
            let at = unsafe { HostAlloc.alloc(layout) } as usize;
            assert!(at != 0 && at.is_multiple_of(layout.align()));
            let before = live.range(..=at).next_back();
            assert!(before.is_none_or(|(start, (old, _))| start + old.size() <= at));
            let behind = live.range(at..).next();
            assert!(behind.is_none_or(|(start, _)| at + size <= *start));
            let byte = round as u8;
            bytes(at, size).fill(byte);
            live.insert(at, (layout, byte));
        }
        for (at, (layout, _)) in live {
            free(at, layout);
        }
    }
}
