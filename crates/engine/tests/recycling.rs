//! Which blocks are used when others were freed.

use engine::testing::TempPool;
use engine::{LockId, Run, kind};

#[test]
fn freed_blocks_are_the_next_to_be_used() {
    const RUNS: u64 = 16;
    const LEN: u32 = 64;
    let temp = TempPool::new(1, 64);
    let take = || {
        let mut stage = temp.pool.stage().expect("stage");
        let run = stage.grab(0, LEN).expect("grab");
        assert_eq!(run.len, LEN);
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        let rec = tx.alloc(kind::MISC, 64, 0, 1).expect("alloc");
        assert!(!rec.is_none());
        tx.consume(&stage).expect("consume");
        tx.commit().expect("commit");
        run
    };
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
