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
        let shared = temp.page(4, 2);
        let kept = temp.page(0, 2);
        temp.put(shared, 4, 7);
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
        assert_eq!(temp.pool.load(shared.offset()), Ok(7));
        assert_eq!(temp.pool.load(kept.offset()), Ok(8));
        // It is one of the others again.
        temp.put(shared, 4, 9);
        temp.pool.checkpoint().expect("checkpoint");
        assert!(len(&temp, "meta") > after[0]);
        temp.reopen();
        assert_eq!(temp.pool.load(shared.offset()), Ok(9));
    }
}

#[test]
fn pages_that_only_an_absent_rank_holds_are_waited_for() {
    let mut temp = Image::new(3);
    let lost = temp.page(4, 1);
    temp.put(lost, 4, 7);
    temp.pool.checkpoint().expect("checkpoint");
    // Only the log has this.
    temp.put(lost, 4, 8);
    temp.take_away(1);
    for not_mounted in [false, true] {
        if not_mounted {
            std::fs::create_dir(&temp.spec.ranks[1]).expect("directory");
        }
        let before = temp.files();
        let told = temp.refused();
        let cures = ["lacks rank 1,", "mount its device", "dmg pool exclude"];
        assert!(cures.iter().all(|cure| told.contains(cure)), "{told}");
        assert!(before == temp.files(), "files were changed");
    }
    std::fs::remove_dir(&temp.spec.ranks[1]).expect("directory");
    temp.bring_back(1);
    temp.reopen();
    assert_eq!(temp.pool.load(lost.offset()), Ok(8));
}

#[test]
fn a_rank_of_which_only_the_log_is_left_is_gone() {
    let mut temp = Image::new(3);
    let page = temp.page(4, 2);
    temp.put(page, 4, 7);
    temp.pool.checkpoint().expect("checkpoint");
    let before = len(&temp, "meta");
    for file in ["data", "meta"] {
        std::fs::remove_file(temp.spec.ranks[0].join(file)).expect("removed");
    }
    temp.reopen();
    // Whatever else there may be is older: all pages are written anew.
    assert!(len(&temp, "meta") > before);
    assert_eq!(temp.pool.load(page.offset()), Ok(7));
}

#[test]
fn an_excluded_rank_does_not_come_back() {
    let mut temp = Image::new(3);
    let kept = temp.page(0, 2);
    // The last there are.
    let lost: Vec<PageLink> = (0..40).map(|_| temp.page(4, 1)).collect();
    for (page, value) in lost.iter().zip(7..) {
        temp.put(*page, 4, value);
    }
    temp.put(kept, 0, 7);
    temp.pool.checkpoint().expect("checkpoint");
    temp.put(kept, 0, 8);
    temp.put(lost[0], 4, 8);
    temp.take_away(1);
    temp.refused();
    temp.spec.excluded = vec![1];
    for value in [8, 9, 10] {
        temp.reopen();
        assert_eq!(temp.pool.load(kept.offset()), Ok(value));
        assert_eq!(temp.pool.rank_dir(1).err(), Some(Errno::ENOENT));
        // Links to the lost pages are still there.
        for _ in 0..60 {
            let new = temp.page(0, 1);
            temp.put(new, 0, 1);
            assert!(lost.iter().all(|page| page.page() != new.page()), "{new:?}");
        }
        let mut stage = temp.pool.stage().expect("stage");
        assert_eq!(stage.grab(1, 1).err(), Some(Errno::EIO));
        temp.put(kept, 0, value + 1);
        temp.pool.sync().expect("sync");
        temp.pool.checkpoint().expect("checkpoint");
        if value == 8 {
            temp.bring_back(1);
        }
    }
    // One more and all copies may be gone.
    temp.take_away(2);
    temp.refused();
}

/// A block on rank 1, with a copy on rank 2 or without, as `byte` says; where the pointers are.
fn write_block(temp: &Image, copies: u16, byte: u8) -> u64 {
    let mut stage = temp.pool.stage().expect("stage");
    let mut pointers = Vec::new();
    for rank in 1..=copies {
        let run = stage.grab(rank, 1).expect("block");
        let data = [byte; BLOCK as usize];
        // SAFETY: the source is a live buffer, the run is this test's.
        let written = unsafe {
            temp.pool
                .write_blocks(rank, run.start, 0, data.as_ptr(), data.len())
        };
        written.expect("write");
        pointers.push(BlockPtr::new(rank, run.start, 1).0);
    }
    let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
    let leaf = tx.alloc_page(kind::MAP_LEAF, 0, 3, true).expect("leaf");
    tx.consume(&stage).expect("consume");
    tx.put_blocks(leaf.offset(), &pointers, pointers.len())
        .expect("put");
    tx.commit().expect("commit");
    leaf.offset()
}

fn read_blocks(pool: &Pool, off: u64, copies: u16) -> Vec<(u16, u8)> {
    let pointers =
        (0..copies).map(|copy| BlockPtr(pool.load(off + u64::from(copy) * 8).expect("pointer")));
    let read = |pointer: BlockPtr| {
        let mut data = [0u8; BLOCK as usize];
        let to = data.as_mut_ptr();
        // SAFETY: the destination is a live buffer.
        unsafe { pool.read_blocks(pointer.rank(), pointer.block(), 0, to, data.len()) }
            .expect("read");
        assert!(data.iter().all(|byte| *byte == data[0]));
        (pointer.rank(), data[0])
    };
    pointers.map(read).collect()
}

#[test]
fn blocks_that_only_an_absent_rank_may_have_are_waited_for() {
    let mut temp = Image::new(4);
    let shared = write_block(&temp, 2, 11);
    let alone = write_block(&temp, 1, 10);
    temp.take_away(1);
    let before = temp.files();
    let told = temp.refused();
    assert!(told.contains("lacks rank 1,"), "{told}");
    assert!(before == temp.files(), "files were changed");
    temp.bring_back(1);
    temp.reopen();
    assert_eq!(read_blocks(temp.pool, alone, 1), [(1, 10)]);
    // Once it is on its device it waits there.
    temp.pool.sync().expect("sync");
    let again = write_block(&temp, 2, 12);
    temp.take_away(1);
    temp.reopen();
    let pointer = BlockPtr(temp.pool.load(alone).expect("pointer"));
    assert_eq!(pointer.rank(), 1);
    assert_eq!(BlockPtr(temp.pool.load(shared).expect("pointer")).rank(), 1);
    // What may not be there is stored from its other copy.
    let read = read_blocks(temp.pool, again, 2);
    assert!(
        read.iter().all(|(rank, now)| *now == 12 && *rank != 1),
        "{read:?}"
    );
    temp.bring_back(1);
    temp.reopen();
    assert_eq!(read_blocks(temp.pool, alone, 1), [(1, 10)]);
    assert_eq!(read_blocks(temp.pool, shared, 2), [(1, 11), (2, 11)]);
    assert_eq!(read_blocks(temp.pool, again, 2), read);
    crate::testing::audit_blocks(temp.pool);
}

#[test]
fn what_the_log_has_of_an_absent_rank_gets_another_place() {
    for (copies, excluded) in [(1, false), (2, false), (2, true), (1, true)] {
        let mut temp = Image::new(4);
        let words: Vec<u64> = (0..5).map(|i| write_block(&temp, copies, 10 + i)).collect();
        temp.pool.checkpoint().expect("checkpoint");
        for (off, byte) in words.iter().zip(20..) {
            let mut contents = temp
                .pool
                .sync_contents(LockId::Target(0))
                .expect("contents");
            let copies: Vec<BlockPtr> = (0..copies)
                .map(|copy| BlockPtr(temp.pool.load(off + u64::from(copy) * 8).expect("pointer")))
                .collect();
            for copy in &copies {
                let data = [byte; BLOCK as usize];
                // SAFETY: the source is a live buffer.
                unsafe {
                    temp.pool
                        .write_blocks(copy.rank(), copy.block(), 0, data.as_ptr(), data.len())
                }
                .expect("write");
            }
            contents.add(&copies).expect("add");
            contents.finish().expect("finish");
        }
        // The device goes before it has what was stored there.
        let data = temp.spec.ranks[1].join("data");
        let mut bytes = std::fs::read(&data).expect("data");
        bytes.fill(1);
        std::fs::write(&data, bytes).expect("data");
        temp.take_away(1);
        if excluded {
            temp.spec.excluded = vec![1];
        }
        for round in 0..3 {
            temp.reopen();
            for (off, byte) in words.iter().zip(20..) {
                let read = read_blocks(temp.pool, *off, copies);
                assert!(
                    read.iter().all(|(rank, now)| *now == byte && *rank != 1),
                    "{read:?}"
                );
                assert!(copies == 1 || read[0].0 != read[1].0, "{read:?}");
            }
            if round == 1 {
                temp.bring_back(1);
            } else if round == 2 && !excluded {
                crate::testing::audit_blocks(temp.pool);
            }
        }
    }
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
