//! The log in several places, flushed for many at once, and put there by more than one thread.

mod common;

use common::{after_restart, container, in_child, record};
use engine::testing::TempPool;
use engine::{ContainerInfo, Pool};

/// Class of three replicas, one group.
const RP_3G1: &str = "RP_3G1";

fn protected(pool: &Pool, label: &str) -> ContainerInfo {
    let class: daos_types::ObjectClass = RP_3G1.parse().expect("class");
    let spec = ContainerInfo {
        file_class: class.id(),
        dir_class: class.id(),
        ..container(label)
    };
    pool.create_container(&spec).expect("create")
}

#[test]
fn the_rank_with_the_log_is_lost() {
    let name = "the_rank_with_the_log_is_lost";
    if let Some((pool, numbers)) = in_child() {
        let found = pool.containers().expect("containers");
        let labels: Vec<&str> = found.iter().map(|info| info.label.as_str()).collect();
        assert_eq!(labels, ["after", "before"]);
        assert!(pool.load(numbers[0]).is_ok());
        // It goes on on another rank, also after the next restart.
        protected(pool, &format!("more{}", numbers[1]));
        pool.sync().expect("sync");
        pool.remove_container(
            pool.find_container(&format!("more{}", numbers[1]))
                .expect("made")
                .uuid,
        )
        .expect("remove");
        pool.leave().expect("leave");
        return;
    }
    let temp = TempPool::new(3, 64);
    protected(temp.pool, "before");
    let rec = record(temp.pool, 4, 1);
    temp.pool.checkpoint().expect("checkpoint");
    protected(temp.pool, "after");
    temp.pool.sync().expect("sync");
    std::fs::remove_dir_all(&temp.pool.spec().ranks[0]).expect("rank");
    // Everybody who has the log mapped goes on.
    temp.pool.sync().expect("sync");
    temp.pool.leave().expect("leave");
    for round in 0..3 {
        after_restart(&temp, name, &format!("{},{round}", rec.offset()));
    }
}

#[test]
fn a_log_that_was_left_behind_is_not_gone_by() {
    let name = "a_log_that_was_left_behind_is_not_gone_by";
    if let Some((pool, numbers)) = in_child() {
        let label = format!("round{}", numbers[0]);
        assert!(pool.find_container("stale").is_err());
        protected(pool, &label);
        pool.sync().expect("sync");
        pool.leave().expect("leave");
        return;
    }
    // Less than the other goes on with, and more.
    for records in [0, 100] {
        let temp = TempPool::new(3, 64);
        protected(temp.pool, "kept");
        temp.pool.sync().expect("sync");
        // Not synced: only the first rank's log has it.
        protected(temp.pool, "stale");
        for i in 0..records {
            record(temp.pool, 0, i);
        }
        temp.pool.leave().expect("leave");
        let first = &temp.pool.spec().ranks[0];
        let away = first.with_extension("away");
        std::fs::rename(first, &away).expect("away");
        after_restart(&temp, name, "0");
        std::fs::rename(&away, first).expect("back");
        after_restart(&temp, name, "1");
        after_restart(&temp, name, "2");
    }
}

/// A power failure in the middle of a sync can leave a copy that goes on further than the first log. Should
/// its rank be gone at first, and come back, what was done meanwhile counts.
#[test]
fn a_copy_that_was_ahead_and_away_is_not_gone_by() {
    let name = "a_copy_that_was_ahead_and_away_is_not_gone_by";
    if let Some((pool, numbers)) = in_child() {
        assert!(pool.find_container("stale").is_err());
        for round in 0..numbers[0] {
            assert!(pool.find_container(&format!("round{round}")).is_ok());
        }
        protected(pool, &format!("round{}", numbers[0]));
        pool.sync().expect("sync");
        pool.leave().expect("leave");
        return;
    }
    let temp = TempPool::new(3, 64);
    let ranks = &temp.pool.spec().ranks;
    protected(temp.pool, "kept");
    temp.pool.sync().expect("sync");
    let logs = [0, 2].map(|rank| (ranks[rank].join("log"), ranks[rank].join("before")));
    for (log, before) in &logs {
        std::fs::copy(log, before).expect("copy");
    }
    protected(temp.pool, "stale");
    for i in 0..100 {
        record(temp.pool, 0, i);
    }
    temp.pool.sync().expect("sync");
    temp.pool.leave().expect("leave");
    for (log, before) in &logs {
        std::fs::rename(before, log).expect("before");
    }
    let away = |rank: usize| ranks[rank].with_extension("away");
    std::fs::rename(&ranks[1], away(1)).expect("away");
    after_restart(&temp, name, "0");
    std::fs::rename(away(1), &ranks[1]).expect("back");
    std::fs::rename(&ranks[0], away(0)).expect("away");
    after_restart(&temp, name, "1");
    std::fs::rename(away(0), &ranks[0]).expect("back");
    after_restart(&temp, name, "2");
}

#[test]
fn many_wait_for_one_flush() {
    let temp = TempPool::new(2, 64);
    let pool = temp.pool;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for i in 0..50 {
                    record(pool, (thread * 2) as u16, i);
                    if i % 2 == 0 {
                        pool.sync().expect("sync");
                    } else {
                        pool.sync_names().expect("sync");
                    }
                }
                pool.leave().expect("leave");
            });
        }
    });
    pool.sync().expect("sync");
}
