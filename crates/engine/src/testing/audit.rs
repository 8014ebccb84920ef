//! Checks that nothing is lost, held or given out twice once nobody is at work.

use crate::layout::{
    CLASSES, PageState, descriptor, descriptor_at, header, kind, owner, owner_at, partial_at,
    partial_shift, rank, rank_at, tag_kind,
};
use crate::limits::{LOCKS_MAX, PAGE, PAGE_REPLICAS_MAX, at};
use crate::pool::Pool;
use shm::OwnerState;
use std::collections::HashSet;

/// What the walk over a quiet pool found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Slot records in use.
    pub records: u64,
    /// Pages in use other than those for slots, bitmaps and zone tables.
    pub pages: u64,
    /// Blocks marked used.
    pub blocks: u64,
}

/// Walks everything the engine keeps about space.
///
/// # Panics
/// When a structure contradicts another, or anything is still held.
pub fn audit(pool: &Pool) -> Audit {
    let load = |off| pool.load(off).expect("arena word");
    // Those behind were never used.
    for owner in pool.owners().expect("owners") {
        let slot = pool.slot(owner).expect("slot");
        assert_eq!(
            slot.state(),
            OwnerState::Free,
            "owner {owner} is still there"
        );
        for off in (owner::RECORD_LEN..owner::LOCAL_RECORD).step_by(8) {
            assert_eq!(
                load(owner_at(owner) + off),
                0,
                "owner {owner} left word {off}"
            );
        }
    }
    for lock in 0..LOCKS_MAX {
        let word = pool
            .arena
            .word32(at::LOCKS + lock * at::LOCK_BYTES)
            .expect("lock");
        let held = word.load(core::sync::atomic::Ordering::SeqCst);
        assert_eq!(held, 0, "lock {lock} is held");
    }
    let frontier = load(header::FRONTIER) as u32;
    let mut free = HashSet::new();
    let mut page = load(header::FREE_HEAD) as u32;
    while page != 0 {
        assert!(
            page < frontier,
            "free page {page} beyond the frontier {frontier}"
        );
        assert!(free.insert(page), "page {page} is on the free list twice");
        page = load(descriptor_at(page) + descriptor::NEXT) as u32;
    }
    let mut found = Audit::default();
    for page in 1..frontier {
        let state = PageState::unpack(load(descriptor_at(page) + descriptor::STATE));
        let listed = free.contains(&page);
        assert_eq!(
            state.kind == kind::FREE,
            listed,
            "page {page} {state:?} lost or doubled"
        );
        match state.kind {
            kind::FREE | kind::BITMAP | kind::ZONES => {}
            kind::SLOTS => found.records += audit_slots(pool, page, state),
            _ => found.pages += 1,
        }
    }
    audit_partial(pool, frontier);
    for r in 0..pool.rank_count() {
        let used = load(rank_at(r) + rank::USED);
        pool.recount(r).expect("recount");
        assert_eq!(
            used,
            load(rank_at(r) + rank::USED),
            "used blocks of rank {r}"
        );
        found.blocks += used;
    }
    found
}

/// Checks that no block is in two places of maps, that all are marked used, and no others are.
///
/// # Panics
/// When one of these does not hold.
pub fn audit_blocks(pool: &Pool) {
    let frontier = pool.load(header::FRONTIER).expect("frontier") as u32;
    let mut seen = HashSet::new();
    for page in 1..frontier {
        pool.for_each_block(page, &mut |pointer| {
            let (rank, block) = (pointer.rank(), pointer.block());
            assert!(
                seen.insert((rank, block)),
                "block {block} of rank {rank} is in two places"
            );
            assert!(
                pool.is_used(rank, block)?,
                "block {block} of rank {rank} is not marked used"
            );
            Ok(())
        })
        .expect("map");
    }
    assert_eq!(pool.used_blocks(), Ok(seen.len() as u64), "used blocks");
}

fn audit_slots(pool: &Pool, page: u32, state: PageState) -> u64 {
    let bytes = CLASSES[usize::from(state.class)];
    let bitmap = pool
        .load(descriptor_at(page) + descriptor::FREE_SLOTS)
        .expect("bitmap");
    let mut used = 0;
    for slot in 0..PAGE / bytes {
        let tag = pool
            .load(at::PAGES + u64::from(page) * PAGE + slot * bytes)
            .expect("tag");
        let free = tag_kind(tag) == kind::FREE;
        assert_eq!(
            free,
            bitmap & (1 << slot) != 0,
            "slot {slot} of page {page}: tag {tag:x}"
        );
        used += u64::from(!free);
    }
    used
}

/// Every slot page with a free slot is on its target's list once; no other is.
fn audit_partial(pool: &Pool, frontier: u32) {
    let load = |off| pool.load(off).expect("arena word");
    let mut listed = HashSet::new();
    for target in 0..pool.target_count() as u16 {
        for class in 0..CLASSES.len() {
            for replicas in 0..=PAGE_REPLICAS_MAX as u8 {
                let heads = load(partial_at(target, class, replicas));
                let mut page = (heads >> partial_shift(class, replicas)) as u32;
                while page != 0 {
                    assert!(listed.insert(page), "page {page} is listed twice");
                    let state = pool.page_state(page).expect("state");
                    let here = (state.target, usize::from(state.class), state.replicas);
                    assert_eq!(
                        here,
                        (target, class, replicas),
                        "page {page} on a foreign list"
                    );
                    page = load(descriptor_at(page) + descriptor::NEXT) as u32;
                }
            }
        }
    }
    for page in 1..frontier {
        let state = pool.page_state(page).expect("state");
        let open =
            state.kind == kind::SLOTS && load(descriptor_at(page) + descriptor::FREE_SLOTS) != 0;
        assert_eq!(open, listed.contains(&page), "page {page} {state:?}");
    }
}
