//! Power failures: a run of random calls is noted as its stores and flushes reach the rank files;
//! then, for many points of it and many fates of what was not flushed, the pool is recovered from
//! what the devices would hold, and compared with what had been asked for.
//!
//! `PIL4DFS_POWER_CUTS` is the number of points (1000), `PIL4DFS_POWER_SEED` the first seed. A
//! failure prints the seed and the point; `PIL4DFS_POWER_ONLY=SEED:POINT` repeats it. The
//! same is done with several processes, one of which is killed, and with a rank that is away now and then, for a
//! quarter as many points each.

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod cut;
mod model;
mod run;

use engine::testing::Fate;
use std::collections::VecDeque;
use std::process::{Child, Command};

/// Points looked at by one process, which runs one seed.
const CUTS_PER_RUN: u64 = 125;
/// Kinds, seeds and points that have failed: names of what a checkpoint had made when the memory was
/// lost; what a write behind the end of a file had left there; a rank that was gone and came back.
const KNOWN: [(&str, u64, u64); 11] = [
    (ALONE, 1_020_008, 957),
    (ALONE, 1_030_007, 676),
    (ALONE, 1_040_011, 556),
    (ALONE, 1_050_014, 1355),
    (ALONE, 4_020_014, 15),
    (ALONE, 6_110_010, 116),
    (ALONE, 7_010_009, 989),
    (ALONE, 7_010_021, 560),
    (PARTED, 7_020_004, 1321),
    (PARTED, 7_020_004, 1563),
    (PARTED, 7_030_018, 1093),
];
const JOB: &str = "PIL4DFS_POWER_JOB";
/// Kinds of jobs: one process, one whose ranks come and go, several.
const ALONE: &str = "alone";
const PARTED: &str = "parted";
const CROWD: &str = "crowd";

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect(name),
        Err(_) => default,
    }
}

/// A process that plays one seed: the job is `KIND SEED COUNT [POINT]`.
#[test]
fn player() {
    let Ok(job) = std::env::var(JOB) else { return };
    let words: Vec<&str> = job.split(' ').collect();
    let number = |at: usize| {
        words
            .get(at)
            .map(|word| word.parse::<u64>().expect("number"))
    };
    let (seed, count) = (number(1).expect("seed"), number(2).expect("count"));
    let only = number(3).map(|point| point as usize);
    match words[0] {
        ALONE => run::play(seed, count as usize, only, None),
        PARTED => run::play(seed, count as usize, only, Some(run::Ranks::new(seed))),
        _ => crowd::play(seed, count as usize, only),
    }
}

/// A process of a crowd.
#[test]
fn worker() {
    if let Ok(job) = std::env::var(crowd::WORKER) {
        crowd::work(&job);
    }
}

fn start(job: &str) -> Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "player", "--nocapture"])
        .env(JOB, job)
        .spawn()
        .expect("player")
}

/// Plays as many seeds of a kind as it takes to look at `cuts` points.
fn play(kind: &str, cuts: u64) {
    if let Ok(only) = std::env::var("PIL4DFS_POWER_ONLY") {
        let of = match std::env::var(crowd::TAPE) {
            Ok(_) => CROWD,
            Err(_) if std::env::var(run::PARTED).is_ok() => PARTED,
            Err(_) => ALONE,
        };
        if of == kind {
            let (seed, point) = only.split_once(':').expect("SEED:POINT");
            let status = start(&format!("{kind} {seed} 1 {point}")).wait();
            assert!(status.expect("player").success());
        }
        return;
    }
    for (_, seed, point) in KNOWN.iter().filter(|known| known.0 == kind) {
        finish((*seed, start(&format!("{kind} {seed} 1 {point}"))));
    }
    let seed = number("PIL4DFS_POWER_SEED", 1);
    let at_once = std::thread::available_parallelism().map_or(2, |n| n.get());
    let mut players = VecDeque::new();
    for run in 0..cuts.div_ceil(CUTS_PER_RUN) {
        if players.len() == at_once {
            players.pop_front().into_iter().for_each(finish);
        }
        let seed = seed + run;
        players.push_back((seed, start(&format!("{kind} {seed} {CUTS_PER_RUN}"))));
    }
    players.into_iter().for_each(finish);
}

fn finish((seed, mut player): (u64, Child)) {
    let status = player.wait().expect("player");
    assert!(status.success(), "seed {seed} failed: see above");
}

#[test]
fn what_was_synced_is_there_and_nothing_that_never_was() {
    play(ALONE, number("PIL4DFS_POWER_CUTS", 1000));
}

#[test]
fn the_same_with_a_rank_that_goes_and_comes_back() {
    play(PARTED, number("PIL4DFS_POWER_CUTS", 1000) / 4);
}

#[test]
fn the_same_of_several_processes_one_of_which_is_killed() {
    play(CROWD, number("PIL4DFS_POWER_CUTS", 1000) / 4);
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
