//! Which blocks are used when others were freed.

mod common;

use common::{after_restart, in_child};
use engine::testing::TempPool;
use engine::{LockId, Pool, Run, kind};

const LEN: u32 = 64;

fn take(pool: &Pool) -> Run {
    let mut stage = pool.stage().expect("stage");
    let run = stage.grab(0, LEN).expect("grab");
    assert_eq!(run.len, LEN);
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    let rec = tx.alloc(kind::MISC, 64, 0, 1).expect("alloc");
    assert!(!rec.is_none());
    tx.consume(&stage).expect("consume");
    tx.commit().expect("commit");
    run
}

#[test]
fn freed_blocks_are_the_next_to_be_used() {
    const RUNS: u64 = 16;
    let temp = TempPool::new(1, 64);
    let take = || take(temp.pool);
    let give_back = |run: Run| {
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.free_run(run).expect("free");
        tx.commit().expect("commit");
    };
    let all = |runs: Vec<Run>| {
        let mut starts: Vec<u64> = runs.iter().map(|run| run.start).collect();
        starts.sort_unstable();
        starts
    };
    let first: Vec<Run> = (0..RUNS).map(|_| take()).collect();
    let starts = all(first.clone());
    first.into_iter().for_each(give_back);
    let again: Vec<Run> = (0..RUNS).map(|_| take()).collect();
    assert_eq!(all(again.clone()), starts, "at once");
    // What is older than the last sync waits for the next one.
    temp.pool.sync().expect("sync");
    again.into_iter().for_each(give_back);
    let other: Vec<Run> = (0..RUNS).map(|_| take()).collect();
    for run in &other {
        assert!(!starts.contains(&run.start), "{run:?} waits");
    }
    temp.pool.sync().expect("sync");
    let back: Vec<Run> = (0..RUNS).map(|_| take()).collect();
    assert_eq!(all(back), starts, "after a sync");
}

/// What was given back since the last sync is not known any more, so nothing that is free is used: after
/// a power failure it may be in use.
#[test]
fn what_is_free_after_a_restart_waits_for_a_sync() {
    const RUNS: u64 = 8;
    let name = "what_is_free_after_a_restart_waits_for_a_sync";
    if let Some((pool, numbers)) = in_child() {
        let before = numbers[0]..numbers[1];
        for _ in 0..RUNS {
            let run = take(pool);
            assert!(!before.contains(&run.start), "{run:?} waits");
        }
        pool.sync().expect("sync");
        for _ in 0..RUNS {
            let run = take(pool);
            assert!(before.contains(&run.start), "{run:?} is free");
        }
        pool.leave().expect("leave");
        return;
    }
    let temp = TempPool::new(1, 64);
    // Nothing points there: once the arena is lost, they are free.
    let runs: Vec<Run> = (0..RUNS).map(|_| take(temp.pool)).collect();
    let start = runs.iter().map(|run| run.start).min().expect("runs");
    let end = runs.iter().map(|run| run.start + u64::from(run.len)).max();
    temp.pool.leave().expect("leave");
    after_restart(&temp, name, &format!("{start},{}", end.expect("runs")));
}
