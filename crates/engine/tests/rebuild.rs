//! What the ranks hold is enough: after the arena is gone, everything published comes back.

mod common;

use common::{after_restart, check, in_child, record, scenario};
use engine::testing::TempPool;
use engine::{LockId, kind};

#[test]
fn from_the_log_alone() {
    scenario("from_the_log_alone", |_, _| {});
}

#[test]
fn from_checkpoints_and_the_log() {
    scenario("from_checkpoints_and_the_log", |temp, i| {
        if i % 30 == 29 {
            temp.pool.checkpoint().expect("checkpoint");
        }
    });
}

#[test]
fn from_a_checkpoint_alone() {
    scenario("from_a_checkpoint_alone", |temp, i| {
        if i == 99 {
            temp.pool.checkpoint().expect("checkpoint");
        }
    });
}

#[test]
fn the_log_wraps_and_is_checkpointed_by_itself() {
    let temp = TempPool::new(1, 64);
    let pool = temp.pool;
    let rec = record(pool, 0, 1);
    let (_, size) = pool.log_fill().expect("fill");
    let words = vec![5u64; 1000];
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    let mut page = tx.alloc_pages(kind::BLOB, 0, 2).expect("pages");
    tx.commit().expect("commit");
    page = page.with_tag(0);
    for _ in 0..3 * size / 8000 {
        let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.put(page.offset(), &words).expect("put");
        tx.commit().expect("commit");
    }
    let (used, _) = pool.log_fill().expect("fill");
    assert!(used < size);
    check(pool, rec, 1);
}

#[test]
fn blocks_of_before_a_restart_do_not_pass_for_zeros() {
    let name = "blocks_of_before_a_restart_do_not_pass_for_zeros";
    if let Some((pool, numbers)) = in_child() {
        for _ in 0..numbers[0] {
            let mut stage = pool.stage().expect("stage");
            let run = stage.grab(0, 16).expect("grab");
            assert!(!run.fresh, "{run:?}");
            pool.leave().expect("leave");
        }
        return;
    }
    let temp = TempPool::new(1, 64);
    let mut stage = temp.pool.stage().expect("stage");
    let run = stage.grab(0, 64).expect("grab");
    assert!(run.fresh);
    temp.pool.leave().expect("leave");
    after_restart(&temp, name, "2");
}

#[test]
fn what_a_killed_builder_left_is_removed() {
    let name = "what_a_killed_builder_left_is_removed";
    if in_child().is_some() {
        return;
    }
    let temp = TempPool::new(1, 64);
    let left = temp.pool.arena_path().with_extension("building-0123");
    std::fs::write(&left, "half an arena").expect("left");
    temp.pool.leave().expect("leave");
    after_restart(&temp, name, "0");
    assert!(!left.exists());
}
