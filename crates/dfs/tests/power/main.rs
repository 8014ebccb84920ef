//! Power failures: a run of random calls is noted as its stores and flushes reach the rank files;
//! then, for many points of it and many fates of what was not flushed, the pool is recovered from
//! what the devices would hold, and compared with what had been asked for.
//!
//! `PIL4DFS_POWER_CUTS` is the number of points (1200), `PIL4DFS_POWER_SEED` the first seed. A
//! failure prints the seed and the point; `PIL4DFS_POWER_ONLY=SEED:POINT` repeats it.

#[path = "../common/mod.rs"]
mod common;
mod model;
mod run;

use engine::testing::Fate;
use std::process::Command;

/// Points looked at by one process, which runs one seed.
const CUTS_PER_RUN: usize = 150;
const JOB: &str = "PIL4DFS_POWER_JOB";

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect(name),
        Err(_) => default,
    }
}

/// A process that plays one seed: the job is `SEED:COUNT` or `SEED@POINT`.
#[test]
fn player() {
    let Ok(job) = std::env::var(JOB) else { return };
    if let Some((seed, point)) = job.split_once('@') {
        run::play(
            seed.parse().expect("seed"),
            1,
            Some(point.parse().expect("point")),
        );
    } else {
        let (seed, count) = job.split_once(':').expect("job");
        run::play(
            seed.parse().expect("seed"),
            count.parse().expect("count"),
            None,
        );
    }
}

fn start(job: &str) -> std::process::Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "player", "--nocapture"])
        .env(JOB, job)
        .spawn()
        .expect("player")
}

#[test]
fn what_was_synced_is_there_and_nothing_that_never_was() {
    if let Ok(only) = std::env::var("PIL4DFS_POWER_ONLY") {
        let status = start(&only.replace(':', "@")).wait().expect("player");
        assert!(status.success());
        return;
    }
    let seed = number("PIL4DFS_POWER_SEED", 1);
    let cuts = number("PIL4DFS_POWER_CUTS", 1200) as usize;
    let runs = cuts.div_ceil(CUTS_PER_RUN) as u64;
    let at_once = std::thread::available_parallelism().map_or(2, |n| n.get());
    let mut players = std::collections::VecDeque::new();
    for run in 0..runs {
        if players.len() == at_once {
            let first: (u64, std::process::Child) = players.pop_front().expect("player");
            finish(first);
        }
        let seed = seed + run;
        players.push_back((seed, start(&format!("{seed}:{CUTS_PER_RUN}"))));
    }
    players.into_iter().for_each(finish);
}

fn finish((seed, mut player): (u64, std::process::Child)) {
    let status = player.wait().expect("player");
    assert!(status.success(), "seed {seed} failed: see above");
}

/// Fates in turn.
const FATES: [Fate; 6] = [
    Fate::Lost,
    Fate::Kept,
    Fate::Pages,
    Fate::Torn,
    Fate::Pages,
    Fate::Torn,
];
