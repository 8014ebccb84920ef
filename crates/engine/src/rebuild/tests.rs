//! Pools that are brought up without a rank, and damage.

use super::*;
use crate::pool::LockId;
use crate::testing::image::Image;

fn len(temp: &Image, file: &str) -> u64 {
    let file = temp.spec.ranks[1].join(file);
    file.metadata().map_or(0, |found| found.len())
}

#[test]
fn a_rank_that_was_gone_and_comes_back_while_the_pool_runs_keeps_what_it_holds() {
    for not_mounted in [false, true] {
        let mut temp = Image::new(3);
        let lost = temp.page(4, 1);
        let kept = temp.page(0, 1);
        temp.put(lost, 4, 7);
        temp.put(kept, 0, 7);
        let mut stage = temp.pool.stage().expect("stage");
        stage.grab(1, 1).expect("block");
        temp.pool.checkpoint().expect("checkpoint");
        temp.take_away(1);
        if not_mounted {
            std::fs::create_dir(&temp.spec.ranks[1]).expect("directory");
        }
        temp.reopen();
        if not_mounted {
            std::fs::remove_dir(&temp.spec.ranks[1]).expect("directory");
        }
        temp.bring_back(1);
        let before = ["meta", "data", "log"].map(|file| len(&temp, file));
        assert!(before[0] > 0 && before[1] > 0, "{before:?}");
        temp.put(kept, 0, 8);
        temp.pool.store(header::LOG_PLACES, 3).expect("places");
        temp.pool.sync().expect("sync");
        temp.pool.checkpoint().expect("checkpoint");
        let mut stage = temp.pool.stage().expect("stage");
        assert_eq!(stage.grab(1, 1).err(), Some(Errno::EIO));
        let after = ["meta", "data", "log"].map(|file| len(&temp, file));
        assert_eq!(before, after);
        temp.reopen();
        assert_eq!(temp.pool.load(lost.offset()), Ok(7));
        assert_eq!(temp.pool.load(kept.offset()), Ok(8));
        // It is one of the others again.
        temp.put(lost, 4, 9);
        temp.pool.checkpoint().expect("checkpoint");
        assert!(len(&temp, "meta") > after[0]);
        temp.reopen();
        assert_eq!(temp.pool.load(lost.offset()), Ok(9));
    }
}

#[test]
fn numbers_of_pages_that_only_an_absent_rank_holds_are_not_used_again() {
    let mut temp = Image::new(3);
    let kept = temp.page(0, 1);
    // The last there are.
    let lost: Vec<PageLink> = (0..40).map(|_| temp.page(4, 1)).collect();
    for (page, value) in lost.iter().zip(7..) {
        temp.put(*page, 4, value);
    }
    temp.pool.checkpoint().expect("checkpoint");
    temp.take_away(1);
    for _ in 0..2 {
        temp.reopen();
        for _ in 0..60 {
            let new = temp.page(0, 1);
            temp.put(new, 0, 1);
            assert!(lost.iter().all(|page| page.page() != new.page()), "{new:?}");
        }
        temp.put(kept, 0, 8);
        temp.pool.checkpoint().expect("checkpoint");
    }
    temp.bring_back(1);
    temp.reopen();
    assert_eq!(temp.pool.load(kept.offset()), Ok(8));
    for (page, value) in lost.iter().zip(7..) {
        assert_eq!(temp.pool.load(page.offset()), Ok(value));
    }
}

#[test]
fn blocks_of_files_whose_maps_an_absent_rank_holds_are_not_used_again() {
    let mut temp = Image::new(3);
    temp.page(0, 1);
    let map = |temp: &Image, target, rank| {
        let mut stage = temp.pool.stage().expect("stage");
        let run = stage.grab(rank, 1).expect("block");
        let data = [7u8; BLOCK as usize];
        // SAFETY: the source is a live buffer, the run is this test's.
        unsafe {
            temp.pool
                .write_blocks(rank, run.start, 0, data.as_ptr(), data.len())
        }
        .expect("write");
        let mut tx = temp.pool.tx(&[LockId::Target(target)]).expect("tx");
        let leaf = tx.alloc_page(kind::MAP_LEAF, target, 1, true);
        let leaf = leaf.expect("leaf");
        tx.consume(&stage).expect("consume");
        let pointer = BlockPtr::new(rank, run.start, 1);
        tx.put_blocks(leaf.offset(), &[pointer.0], 1).expect("put");
        tx.commit().expect("commit");
        pointer.place()
    };
    // On a rank that stays, of a file that only another knows.
    let lost: Vec<u64> = (0..20).map(|_| map(&temp, 4, 0)).collect();
    temp.pool.checkpoint().expect("checkpoint");
    temp.take_away(1);
    for _ in 0..2 {
        temp.reopen();
        for _ in 0..40 {
            assert!(!lost.contains(&map(&temp, 0, 0)));
        }
        temp.pool.checkpoint().expect("checkpoint");
    }
    temp.bring_back(1);
    temp.reopen();
    // All is known again: what was held is free, or in use once.
    crate::testing::audit_blocks(temp.pool);
}

#[test]
fn pages_of_which_there_are_enough_copies_hold_no_blocks() {
    let mut temp = Image::new(3);
    temp.page(0, 2);
    let mut stage = temp.pool.stage().expect("stage");
    let run = stage.grab(0, 1).expect("block");
    temp.pool.checkpoint().expect("checkpoint");
    temp.take_away(1);
    temp.reopen();
    temp.pool.sync().expect("sync");
    let again = temp.pool.stage().expect("stage").grab(0, 1);
    assert_eq!(again.expect("block").start, run.start);
}

#[test]
fn a_page_with_more_copies_than_there_can_be_is_damage() {
    let temp = Image::new(1);
    let heads = |target| temp.pool.load(partial_at(target, 0, 0));
    let before = heads(1);
    for replicas in [PAGE_REPLICAS_MAX as u8 + 1, 100, u8::MAX] {
        let state = PageState {
            kind: kind::SLOTS,
            class: 0,
            replicas,
            target: 0,
            version: 1,
        };
        // An empty page, all slots of which are free.
        let derived = temp.pool.derive_slots(1, state, at::PAGES);
        assert_eq!(derived, Err(Errno::EIO), "{replicas}");
    }
    assert_eq!(heads(1), before);
}
