//! Several processes at once, one of which is killed: each has a directory of its own, so that what
//! it asks for follows from its seed; when it is done does not. A failure keeps the tape, which
//! repeats it.

use crate::calls::{Calls, Place};
use crate::common::ROOT;
use crate::cut::{Caller, Story};
use crate::run::{BASE, RANKS, container, kind_of_pool};
use daos_types::Redundancy;
use dfs::Dfs;
use engine::PoolSpec;
use engine::testing::{self, Dice, Disk, TempPool, tape};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Calls of each process.
const CALLS: usize = 60;
/// Processes besides the one that starts them, whose number is 0.
const WORKERS: u64 = 3;
/// Job of a worker: `NUMBER SEED POOL`.
pub(crate) const WORKER: &str = "PIL4DFS_POWER_WORKER";
/// The tape of a failure.
pub(crate) const TAPE: &str = "PIL4DFS_POWER_TAPE";

fn directory(caller: u64) -> String {
    format!("c{caller}")
}

fn dice(seed: u64, caller: u64) -> Dice {
    Dice(Dice(seed ^ caller << 48).roll())
}

fn place(pool: &'static engine::Pool, caller: u64) -> Place {
    let info = pool.find_container("c").expect("container");
    let dfs = Dfs::mount(pool, &info).expect("mount");
    let dir = dfs.lookup(&ROOT, dfs.root(), directory(caller).as_bytes());
    let dir = dir.expect("directory");
    Place { dfs, pool, dir }
}

/// A worker: tells each call on its output.
pub(crate) fn work(job: &str) {
    let mut words = job.splitn(3, ' ');
    let mut number = || -> u64 { words.next().expect("job").parse().expect("number") };
    let (caller, seed) = (number(), number());
    let pool = testing::attach_from(words.next().expect("pool"));
    let mut calls = Calls::new(Some(place(pool, caller)), dice(seed, caller), caller);
    for call in 0..CALLS {
        calls.step();
        println!("{call}");
    }
    pool.leave().expect("leave");
}

fn start(caller: u64, seed: u64, pool: &TempPool, tape: &Path) -> Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "worker", "--nocapture"])
        .env(WORKER, format!("{caller} {seed} {}", pool.handover()))
        .env(tape::VARIABLE, tape)
        .stdout(Stdio::piped())
        .spawn()
        .expect("worker")
}

/// Kills the worker some time after it told its call number `call`.
fn kill(worker: &mut Child, call: usize, later: Duration) {
    let mut lines = BufReader::new(worker.stdout.take().expect("output")).lines();
    while lines
        .next()
        .is_some_and(|line| line.expect("line") != call.to_string())
    {}
    std::thread::sleep(later);
    worker.kill().expect("kill");
}

/// Runs everybody, and returns the pool's description.
fn run(seed: u64, dice: &mut Dice, tape: &Path) -> PoolSpec {
    let (ring, redundancy, groups) = kind_of_pool(dice);
    let temp = TempPool::with_log(Path::new(BASE), RANKS, 48, ring);
    let dfs = container(&temp, redundancy, groups);
    for caller in 0..=WORKERS {
        let name = directory(caller);
        let made = dfs.mkdir(&ROOT, dfs.root(), name.as_bytes(), 0o755);
        made.expect("mkdir");
    }
    temp.pool.sync().expect("sync");
    tape::make(tape, &temp.pool.spec().ranks);
    tape::mark(0);
    let workers = 1..=WORKERS;
    let mut workers: Vec<Child> = workers.map(|w| start(w, seed, &temp, tape)).collect();
    let victim = dice.below(workers.len());
    let later = Duration::from_micros(dice.below(1500) as u64);
    kill(&mut workers[victim], dice.below(CALLS), later);
    let mut calls = Calls::new(Some(place(temp.pool, 0)), self::dice(seed, 0), 0);
    for _ in 0..CALLS {
        calls.step();
    }
    for (index, mut worker) in workers.into_iter().enumerate() {
        // Its output is read, or it would wait.
        std::io::copy(
            &mut worker.stdout.take().map_or(
                Box::new(std::io::empty()) as Box<dyn std::io::Read>,
                |out| Box::new(out),
            ),
            &mut std::io::sink(),
        )
        .expect("output");
        let status = worker.wait().expect("worker");
        assert!(index == victim || status.success(), "worker {index}");
    }
    temp.pool.spec().clone()
}

/// Plays a seed and looks at `count` points of it; or at one of a tape.
pub(crate) fn play(seed: u64, count: usize, only: Option<usize>) {
    testing::stop_clock(1_700_000_000_000_000_000);
    let mut dice = Dice(seed);
    let kept = std::env::var_os(TAPE).map(PathBuf::from);
    let path = Path::new(BASE).join(format!("pil4dfs-tape-{}", std::process::id()));
    let spec = match &kept {
        Some(tape) => {
            tape::open(tape);
            TempPool::spec_of_ranks(&tape::ranks(), 48)
        }
        None => run(seed, &mut dice, &path),
    };
    let mut dice_again = Dice(seed);
    let (_, redundancy, _) = kind_of_pool(&mut dice_again);
    let callers = (0..=WORKERS).map(|caller| {
        let mut calls = Calls::new(None, self::dice(seed, caller), caller);
        calls.model.in_place = redundancy == Redundancy::Replicas(1);
        for _ in 0..CALLS {
            calls.step();
        }
        Caller::new(format!("{}/", directory(caller)), calls)
    });
    let events = tape::stop();
    let is_note = |event: &testing::Event| matches!(event, testing::Event::Note(_));
    let mut story = Story {
        callers: callers.collect(),
        spec: &spec,
        first: events.iter().position(is_note).expect("a mark"),
        events,
        images: Path::new(BASE).join(format!("pil4dfs-image-{}", std::process::id())),
        seed,
        repeat: format!("{TAPE}={} ", kept.as_ref().unwrap_or(&path).display()),
    };
    story.cut(Disk::empty(&spec.ranks), count, &mut dice, only);
    if kept.is_none() {
        std::fs::remove_file(&path).expect("tape");
    }
}
