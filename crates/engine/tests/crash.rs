//! Processes killed or stopped anywhere: nothing completed is lost, nothing leaks, nobody hangs.
//!
//! Workers change one pool: transfers between accounts on different targets (the sum must hold),
//! and replacement of a record, its page and its blocks (what is reachable must equal what is
//! allocated). Each worker counts its finished operations in a file of its own.

use engine::testing::{TempPool, attach_from, audit};
use engine::{LockId, PageLink, Pool, Rec, Run, kind};
use shm::fault::{self, Action};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const WORKERS: usize = 8;
const ACCOUNTS: u64 = 16;
const TOTAL: u64 = ACCOUNTS * 1000;
/// Words of the board, a page that everybody finds through the environment.
const WORKER_WORDS: u64 = 8;

/// Small deterministic generator (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn account(board: PageLink, index: u64) -> u64 {
    board.offset() + index * 8
}

fn worker_words(board: PageLink, worker: usize) -> u64 {
    board.offset() + (ACCOUNTS + worker as u64 * WORKER_WORDS) * 8
}

fn set_up(pool: &Pool) -> PageLink {
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    let board = tx.alloc_page(kind::BLOB, 0, 1, true).expect("board");
    for i in 0..ACCOUNTS {
        tx.set(account(board, i), TOTAL / ACCOUNTS).expect("set");
    }
    tx.commit().expect("commit");
    board
}

fn transfer(
    pool: &Pool,
    board: PageLink,
    worker: usize,
    counter: u64,
    random: &mut Random,
) -> sys::Result<()> {
    let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
    let targets = [
        LockId::Target(worker as u16),
        LockId::Target(from as u16),
        LockId::Target(to as u16),
    ];
    let mut tx = pool.tx(&targets)?;
    let amount = random.below(1 + tx.load(account(board, from))?);
    let less = tx.load(account(board, from))? - amount;
    tx.set(account(board, from), less)?;
    let more = tx.load(account(board, to))? + amount;
    tx.set(account(board, to), more)?;
    let done = tx.load(counter)?;
    tx.set(counter, done + 1)?;
    tx.commit()?;
    Ok(())
}

/// The worker's words: 0 operations done, 1 record, 2 page, 3 rank and start and length of a run.
fn replace(pool: &Pool, worker: usize, words: u64, random: &mut Random) -> sys::Result<()> {
    let target = random.below(pool.target_count()) as u16;
    let mut stage = pool.stage()?;
    let rank = random.below(u64::from(pool.rank_count())) as u16;
    let run = stage.grab(rank, 1 + random.below(100) as u32)?;
    // A worker's words are guarded by the target of its number: the last operation of its killed
    // predecessor may be published and not yet applied.
    let guard = LockId::Target(worker as u16);
    let old_rec = Rec(pool.load(words + 8)? as u32);
    let mut locks = vec![guard, LockId::Target(target)];
    if !old_rec.is_none() {
        locks.push(LockId::Target(pool.target_of(old_rec)?));
    }
    let mut tx = pool.tx(&locks)?;
    if Rec(tx.load(words + 8)? as u32) != old_rec {
        return Ok(());
    }
    let old_run = tx.load(words + 24)?;
    let old_page = PageLink(tx.load(words + 16)?);
    let bytes = [64, 256, 1024][random.below(3) as usize];
    let rec = tx.alloc(kind::MISC, bytes, target, random.below(4) as u8)?;
    let page = tx.alloc_page(kind::MAP_NODE, target, random.below(3) as u8, true)?;
    tx.consume(&stage)?;
    tx.set(words + 8, u64::from(rec.0))?;
    tx.set(words + 16, page.0)?;
    tx.set(
        words + 24,
        u64::from(run.rank) << 54 | run.start << 20 | u64::from(run.len),
    )?;
    if !old_rec.is_none() {
        tx.free(old_rec)?;
        tx.free_page(old_page)?;
        tx.free_run(unpack(old_run))?;
    }
    let done = tx.load(words)?;
    tx.set(words, done + 1)?;
    tx.commit()?;
    Ok(())
}

fn unpack(word: u64) -> Run {
    Run {
        rank: (word >> 54) as u16,
        start: word >> 20 & 0x3_ffff_ffff,
        len: (word & 0xf_ffff) as u32,
        fresh: false,
    }
}

/// The body of a worker process. Never returns: it is killed, or leaves when its time is up.
fn work() -> bool {
    let Ok(handover) = std::env::var("CRASH_HANDOVER") else {
        return false;
    };
    let number = |name: &str| std::env::var(name).expect(name).parse::<u64>().expect(name);
    let pool = attach_from(&handover);
    let board = PageLink(number("CRASH_BOARD"));
    let worker = number("CRASH_WORKER") as usize;
    let progress = std::fs::File::options()
        .write(true)
        .open(std::env::var("CRASH_PROGRESS").expect("progress"))
        .expect("progress file");
    if let Ok(point) = std::env::var("CRASH_POINT") {
        let action = if number("CRASH_STOP") == 1 {
            Action::Stop
        } else {
            Action::Kill
        };
        fault::arm(point.leak(), action, number("CRASH_NTH"));
    }
    let words = worker_words(board, worker);
    let mut random = Random(number("CRASH_SEED"));
    let end = Instant::now() + Duration::from_millis(number("CRASH_MILLIS"));
    let mut longest = Duration::ZERO;
    while Instant::now() < end {
        let start = Instant::now();
        let changed = if random.below(2) == 0 {
            transfer(pool, board, worker, words, &mut random)
        } else {
            replace(pool, worker, words, &mut random)
        };
        changed.expect("an operation of a survivor");
        longest = longest.max(start.elapsed());
        let done = pool.load(words).expect("counter");
        progress
            .write_all_at(&done.to_le_bytes(), worker as u64 * 8)
            .expect("progress");
    }
    assert!(
        longest < Duration::from_secs(1),
        "an operation took {longest:?}"
    );
    pool.leave().expect("leave");
    true
}

struct Storm {
    temp: TempPool,
    board: PageLink,
    progress: tempfile::NamedTempFile,
}

impl Storm {
    fn new() -> Storm {
        let temp = TempPool::new(4, 64);
        let board = set_up(temp.pool);
        let progress = tempfile::NamedTempFile::new().expect("progress");
        progress
            .as_file()
            .set_len(WORKERS as u64 * 8)
            .expect("progress");
        temp.pool.leave().expect("leave");
        Storm {
            temp,
            board,
            progress,
        }
    }

    fn spawn(
        &self,
        worker: usize,
        seed: u64,
        millis: u64,
        point: Option<(&str, Action, u64)>,
    ) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("exe"));
        command
            .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
            .env("CRASH_HANDOVER", self.temp.handover())
            .env("CRASH_BOARD", self.board.0.to_string())
            .env("CRASH_WORKER", worker.to_string())
            .env("CRASH_PROGRESS", self.progress.path())
            .env("CRASH_SEED", seed.to_string())
            .env("CRASH_MILLIS", millis.to_string())
            .stdout(std::process::Stdio::null());
        if let Some((name, action, nth)) = point {
            command
                .env("CRASH_POINT", name)
                .env("CRASH_STOP", if action == Action::Stop { "1" } else { "0" })
                .env("CRASH_NTH", nth.to_string());
        }
        command.spawn().expect("worker")
    }

    /// Everything completed is there, everything else is clean.
    fn verify(&self) {
        let pool = self.temp.pool;
        pool.reap().expect("reap");
        pool.leave().expect("leave");
        let mut sum = 0;
        for i in 0..ACCOUNTS {
            sum += pool.load(account(self.board, i)).expect("account");
        }
        assert_eq!(sum, TOTAL, "a transfer happened by half");
        let (mut records, mut blocks) = (0, 0);
        for worker in 0..WORKERS {
            let words = worker_words(self.board, worker);
            let load = |i: u64| pool.load(words + i * 8).expect("word");
            let mut reported = [0; 8];
            self.progress
                .as_file()
                .read_exact_at(&mut reported, worker as u64 * 8)
                .expect("progress");
            let reported = u64::from_le_bytes(reported);
            assert!(
                load(0) >= reported,
                "worker {worker}: {} < {reported}",
                load(0)
            );
            if load(1) != 0 {
                records += 1;
                blocks += u64::from(unpack(load(3)).len);
            }
        }
        let found = audit(pool);
        assert_eq!(found.records, records);
        assert_eq!(found.pages, records + 1, "pages in use");
        assert_eq!(found.blocks, blocks, "blocks in use");
    }
}

/// It died of the kill and not of an error before.
fn assert_killed(child: &mut Child) {
    let status = child.wait().expect("wait");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "{status}"
    );
}

#[test]
fn worker() {
    work();
}

#[test]
fn killed_at_every_crash_point() {
    let points = [
        "lock.noted",
        "lock.held",
        "tx.built",
        "log.written",
        "log.noted",
        "log.published",
        "tx.published",
        "tx.applying",
        "tx.applied",
        "tx.closed",
        "space.noted",
        "space.taken",
        "space.cleared",
        "space.returned",
        "pages.popping",
        "pages.extending",
        "pages.reserved",
        "pages.pushing",
        "pages.pushed",
    ];
    let storm = Storm::new();
    for (i, point) in points.iter().enumerate() {
        // A lone worker extends the arena only at its start.
        let often: &[u64] = if *point == "pages.extending" {
            &[1]
        } else {
            &[1, 2, 5, 17, 60]
        };
        for &nth in often {
            let seed = 1 + i as u64 * 1000 + nth;
            let status = storm
                .spawn(i % WORKERS, seed, 3000, Some((point, Action::Kill, nth)))
                .wait()
                .expect("wait");
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(9),
                "{point} was never reached {nth} times"
            );
            storm.verify();
        }
    }
}

#[test]
fn storm() {
    let seconds: u64 = std::env::var("PIL_STORM_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(10);
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock")
        .as_nanos() as u64;
    let mut random = Random(seed | 1);
    let storm = Storm::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut children: Vec<Child> = (0..WORKERS)
        .map(|w| storm.spawn(w, random.below(1 << 30) + 1, 60_000, None))
        .collect();
    let mut kills = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(random.below(40)));
        let victim = random.below(WORKERS as u64) as usize;
        children[victim].kill().expect("kill");
        assert_killed(&mut children[victim]);
        kills += 1;
        let seed = random.below(1 << 30) + 1;
        children[victim] = storm.spawn(victim, seed, 60_000, None);
    }
    for child in &mut children {
        child.kill().expect("kill");
        assert_killed(child);
    }
    assert!(kills > 20, "only {kills} kills");
    storm.verify();
}

#[test]
fn readers_go_on_while_a_writer_is_stopped() {
    for point in [
        "lock.held",
        "log.written",
        "log.published",
        "tx.applying",
        "space.taken",
    ] {
        let storm = Storm::new();
        let mut stopped = storm.spawn(0, 7, 60_000, Some((point, Action::Stop, 3)));
        let pid = rustix::process::Pid::from_child(&stopped);
        let waited = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED)
            .expect("wait")
            .expect("a stop");
        assert!(waited.1.stopped(), "{point}: {waited:?}");
        let start = Instant::now();
        let mut sum = 0;
        for i in 0..ACCOUNTS {
            sum += storm
                .temp
                .pool
                .load(account(storm.board, i))
                .expect("account");
        }
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(sum > 0);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("continue");
        stopped.kill().expect("kill");
        stopped.wait().expect("wait");
        storm.verify();
    }
}
