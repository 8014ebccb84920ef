//! Several processes in one container: each does as a plain tree would, nothing completed is lost
//! when they are killed, and readers go on beside a stopped writer. The test program starts itself
//! as the other processes.

mod common;

use common::ops::{Answer, USERS, op};
use common::{Container, ROOT, list, memory, ours};
use dfs::{Dfs, DirCursor, Ino};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use sys::{Errno, syscall};

const JOB: &str = "PIL4DFS_TEST_JOB";
const SYS_KILL: usize = 62;
const SIGCONT: usize = 18;
const SIGSTOP: usize = 19;

/// Starts this program as a worker on the container.
fn start(container: &Container, job: &str, number: usize) -> Child {
    let (_, handover) = common::pool();
    Command::new(std::env::current_exe().expect("own path"))
        .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
        .env(
            JOB,
            format!("{job};{number};{};{handover}", container.info.label),
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("worker")
}

/// What a worker does; no test of its own.
#[test]
fn worker() {
    let Ok(job) = std::env::var(JOB) else { return };
    let mut parts = job.splitn(4, ';');
    let mut part = || parts.next().expect("part of the job");
    let (job, number, label, handover) = (part(), part(), part(), part());
    let number: usize = number.parse().expect("number");
    if job == "write" || job == "read" {
        return survive(job, label, handover);
    }
    let pool = engine::testing::attach_from(handover);
    let info = pool.find_container(label).expect("container");
    let dfs = Dfs::mount(pool, &info).expect("mount");
    match job {
        "model" => follow_model(&dfs, number),
        "churn" => churn(&dfs, number),
        other => panic!("job {other}"),
    }
}

/// Random calls in a tree of its own, compared with a plain tree, and names in a shared directory.
fn follow_model(dfs: &Dfs, number: usize) {
    let root = dfs.root();
    let top = dfs
        .mkdir(&ROOT, root, format!("own{number}").as_bytes(), 0o755)
        .expect("own");
    let shared = dfs.lookup(&ROOT, root, b"shared").expect("shared");
    let mut tree = memory::Memory::new();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[number as u8 + 1; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let calls = op();
    for step in 0..4000 {
        let call = calls.new_tree(&mut runner).expect("call").current();
        let expected = tree.run(&call);
        let answer = ours::run_in(dfs, top, USERS[0], &call);
        if !matches!((&answer, &expected), (Answer::Failed(_), Answer::Failed(_))) {
            // Which of two errors comes first is compared elsewhere.
            assert_eq!(answer, expected, "process {number}, step {step}: {call:?}");
        }
        let name = format!("{number}-{}", step % 50);
        let other = format!("{}-{}", (number + 1) % 3, step % 50);
        dfs.create(&ROOT, shared, name.as_bytes(), 0o600, false)
            .expect("create");
        match step % 3 {
            0 => dfs
                .rename(&ROOT, shared, name.as_bytes(), shared, other.as_bytes(), 0)
                .ok(),
            1 => dfs
                .link(&ROOT, root, shared, name.as_bytes())
                .err()
                .map(drop),
            _ => dfs.unlink(&ROOT, shared, other.as_bytes()).ok(),
        };
    }
}

#[test]
fn processes_do_as_plain_trees_do() {
    let container = Container::new();
    container
        .dfs
        .mkdir(&ROOT, container.dfs.root(), b"shared", 0o777)
        .expect("shared");
    let workers: Vec<Child> = (0..3).map(|i| start(&container, "model", i)).collect();
    for worker in workers {
        let output = worker.wait_with_output().expect("worker");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    assert_eq!(container.dfs.check().expect("check").problems, []);
}

/// Names that a worker of the storm keeps at a time.
const KEPT: usize = 20;

/// Makes, moves and removes names until it is killed, and says after each step that it is done.
fn churn(dfs: &Dfs, number: usize) {
    let root = dfs.root();
    let mut out = std::io::stdout();
    for step in 0.. {
        turn(dfs, root, number, step).unwrap_or_else(|errno| panic!("step {step}: {errno:?}"));
        writeln!(out, "done {step}")
            .and_then(|()| out.flush())
            .expect("pipe");
    }
}

/// One step: a new file, linked; the one before renamed over; an old directory replaced.
fn turn(dfs: &Dfs, root: Ino, number: usize, step: usize) -> sys::Result<()> {
    let name = |kind: &str, step: usize| format!("{kind}{number}-{step}").into_bytes();
    let (file, _) = dfs.create(&ROOT, root, &name("new", step), 0o600, true)?;
    dfs.link(&ROOT, file, root, &name("link", step))?;
    dfs.setxattr(&ROOT, file, b"user.step", &step.to_le_bytes(), 0)?;
    dfs.mkdir(&ROOT, root, &name("dir", step), 0o700)?;
    let dir = dfs.lookup(&ROOT, root, &name("dir", step))?;
    dfs.rename(&ROOT, root, &name("new", step), dir, b"moved", 0)?;
    let target = [b'x'; 300];
    dfs.symlink(&ROOT, &target, dir, b"symlink")?;
    if let Some(old) = step.checked_sub(KEPT) {
        let dir = dfs.lookup(&ROOT, root, &name("dir", old))?;
        dfs.unlink(&ROOT, dir, b"symlink")?;
        dfs.unlink(&ROOT, dir, b"moved")?;
        dfs.rename(&ROOT, root, &name("link", old), root, &name("last", 0), 0)?;
        dfs.rmdir(&ROOT, root, &name("dir", old))?;
    }
    Ok(())
}

/// Last step a worker said it had completed.
fn last_step(output: BufReader<ChildStdout>) -> Option<usize> {
    let lines = output.lines().map_while(Result::ok);
    let steps = lines.filter_map(|line| line.rsplit_once("done ")?.1.parse().ok());
    steps.last()
}

/// Everything completed up to `last` is there.
fn verify(dfs: &Dfs, number: usize, last: usize) {
    let root = dfs.root();
    for step in (last + 1).saturating_sub(KEPT)..=last {
        let found = |name: String| dfs.lookup(&ROOT, root, name.as_bytes());
        // The step that was under way may have begun to remove the oldest.
        if step + KEPT == last + 1 {
            continue;
        }
        let link = found(format!("link{number}-{step}")).expect("link");
        let dir = found(format!("dir{number}-{step}")).expect("dir");
        assert_eq!(dfs.lookup(&ROOT, dir, b"moved"), Ok(link));
        let mut value = [0; 8];
        assert_eq!(dfs.getxattr(&ROOT, link, b"user.step", &mut value), Ok(8));
        assert_eq!(usize::from_le_bytes(value), step);
        assert_eq!(dfs.stat(link).expect("stat").nlink, 2);
        assert_eq!(found(format!("new{number}-{step}")), Err(Errno::ENOENT));
    }
}

#[test]
fn killed_processes_lose_nothing_and_leave_nothing_behind() {
    const WORKERS: usize = 4;
    let rounds: u64 = std::env::var("PIL4DFS_KILLS").map_or(15, |n| n.parse().expect("number"));
    let container = Container::new();
    for round in 0..rounds {
        let numbers = (0..WORKERS).map(|i| round as usize * WORKERS + i);
        let mut workers: Vec<_> = numbers
            .map(|number| {
                let mut worker = start(&container, "churn", number);
                let output = worker.stdout.take().expect("stdout");
                let reader = std::thread::spawn(|| last_step(BufReader::new(output)));
                (number, worker, reader)
            })
            .collect();
        for (i, (_, worker, _)) in workers.iter_mut().enumerate() {
            // When within its work a worker dies is left to chance; no step waits for this.
            let nanos = Instant::now().elapsed().as_nanos() as u64 * 7919 % 9_000_000;
            std::thread::sleep(Duration::from_millis(30 + round * 7 % 40 + i as u64));
            std::thread::sleep(Duration::from_nanos(nanos));
            worker.kill().expect("kill");
        }
        for (number, mut worker, reader) in workers {
            worker.wait().expect("reaped");
            let last = reader.join().expect("reader");
            container.dfs.pool().reap().expect("reap");
            if let Some(last) = last {
                verify(&container.dfs, number, last);
            }
        }
        let checked = container.dfs.check().expect("check");
        assert_eq!(checked.problems, [], "round {round}");
        assert_eq!(checked.orphans, 0);
    }
}

#[test]
fn readers_go_on_beside_a_stopped_writer() {
    let container = Container::new();
    let dfs = &container.dfs;
    let root = dfs.root();
    for i in 0..100 {
        dfs.create(&ROOT, root, format!("stays{i}").as_bytes(), 0o600, true)
            .expect("create");
    }
    let mut worker = start(&container, "churn", 0);
    let mut output = BufReader::new(worker.stdout.take().expect("stdout"));
    let mut line = String::new();
    while !line.contains("done") {
        line.clear();
        output.read_line(&mut line).expect("running");
    }
    let drain = std::thread::spawn(|| last_step(output));
    let pid = worker.id();
    for round in 0..200u64 {
        std::thread::sleep(Duration::from_micros(300 + round * 37 % 500));
        // SAFETY: stops the worker started above.
        unsafe { syscall!(SYS_KILL, pid, SIGSTOP).expect("stop") };
        // The signal is sent, not yet obeyed: until it is, names come and go.
        let (_, status) = waitpid(Some(Pid::from_child(&worker)), WaitOptions::UNTRACED)
            .expect("wait")
            .expect("a stop");
        assert!(status.stopped(), "{status:?}");
        let start = Instant::now();
        for i in 0..100 {
            let ino = dfs
                .lookup(&ROOT, root, format!("stays{i}").as_bytes())
                .expect("found");
            dfs.stat(ino).expect("stat");
        }
        let names = list(dfs, root).expect("list");
        assert_eq!(
            names
                .iter()
                .filter(|name| name.starts_with("stays"))
                .count(),
            100
        );
        for name in names {
            let cursor = &mut DirCursor::default();
            match dfs.lookup(&ROOT, root, name.as_bytes()) {
                Ok(ino) if name.starts_with("dir") => {
                    dfs.getdents(ino, cursor, &mut |_| true).expect("list");
                }
                Ok(ino) => drop(dfs.stat(ino)),
                Err(errno) => assert_eq!(errno, Errno::ENOENT),
            }
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "waited for a stopped writer"
        );
        // SAFETY: lets the worker go on.
        unsafe { syscall!(SYS_KILL, pid, SIGCONT).expect("continue") };
    }
    worker.kill().expect("kill");
    worker.wait().expect("reaped");
    drain.join().expect("reader");
    dfs.pool().reap().expect("reap");
    assert_eq!(dfs.check().expect("check").problems, []);
}

/// What is written before the arena is lost: a directory of one chunk, one of many, all kinds of
/// attributes, a file without a name.
fn write_all(dfs: &Dfs) -> sys::Result<()> {
    let root = dfs.root();
    for (dir, count) in [("few", 5), ("many", 500)] {
        let dir = dfs.mkdir(&ROOT, root, dir.as_bytes(), 0o2750)?;
        for i in 0..count {
            let name = format!("{i}-{}", "n".repeat(i % 90));
            dfs.create(&ROOT, dir, name.as_bytes(), 0o640, true)?;
        }
        for i in (0..count).step_by(3) {
            let name = format!("{i}-{}", "n".repeat(i % 90));
            dfs.unlink(&ROOT, dir, name.as_bytes())?;
        }
        dfs.symlink(&ROOT, &[b's'; 2500], dir, b"link")?;
        dfs.setxattr(&ROOT, dir, b"user.big", &[9; 60_000], 0)?;
    }
    dfs.tmpfile(&ROOT, root, 0o600)?;
    dfs.pool().sync()
}

/// Everything is there, can be found, and can be changed.
fn read_all(dfs: &Dfs) -> sys::Result<()> {
    assert_eq!(dfs.check()?.problems, []);
    for (dir, count) in [("few", 5), ("many", 500usize)] {
        let dir = dfs.lookup(&ROOT, dfs.root(), dir.as_bytes())?;
        for i in (0..count).filter(|i| i % 3 != 0) {
            let name = format!("{i}-{}", "n".repeat(i % 90));
            let file = dfs.lookup(&ROOT, dir, name.as_bytes())?;
            assert_eq!(dfs.stat(file)?.mode, 0o100640);
        }
        assert_eq!(list(dfs, dir)?.len(), count - count.div_ceil(3) + 1);
        let mut buf = vec![0; 65_536];
        assert_eq!(dfs.getxattr(&ROOT, dir, b"user.big", &mut buf)?, 60_000);
        assert!(buf[..60_000].iter().all(|byte| *byte == 9));
        let link = dfs.lookup(&ROOT, dir, b"link")?;
        assert_eq!(dfs.readlink(link, &mut buf)?, 2500);
        dfs.create(&ROOT, dir, &[b'z'; 255], 0o600, true)?;
        dfs.rename(&ROOT, dir, &[b'z'; 255], dfs.root(), b"out", 0)?;
    }
    dfs.empty(dfs.root(), &mut |_| ())?;
    let checked = dfs.check()?;
    assert_eq!(
        (checked.problems.len(), checked.orphans, checked.dirs),
        (0, 0, 1)
    );
    Ok(())
}

/// The workers of the test below, which make their pool themselves.
fn survive(job: &str, label: &str, dir: &str) {
    let spec = spec(dir);
    let pool = engine::Pool::attach(&spec).expect("attach");
    let container = if job == "write" {
        Container::in_pool(pool, label)
    } else {
        pool.find_container(label).expect("container")
    };
    let dfs = Dfs::mount(pool, &container).expect("mount");
    if job == "write" {
        write_all(&dfs)
    } else {
        read_all(&dfs)
    }
    .expect(job);
}

fn spec(dir: &str) -> engine::PoolSpec {
    let dir = std::path::Path::new(dir);
    engine::PoolSpec {
        uuid: uuid::Uuid::from_u128(u128::from(std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(dir).expect("directory"),
        ))),
        ranks: (0..4).map(|rank| dir.join(format!("rank{rank}"))).collect(),
        excluded: Vec::new(),
        targets_per_rank: 4,
        size_bytes: 1 << 30,
        runtime_dir: "/dev/shm".into(),
        home: engine::system::Home::default(),
    }
}

#[test]
fn names_outlive_the_shared_memory() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().to_str().expect("path");
    let spec = spec(path);
    for rank in &spec.ranks {
        std::fs::create_dir(rank).expect("rank");
    }
    engine::Pool::format(&spec).expect("format");
    for job in ["write", "read"] {
        let done = Command::new(std::env::current_exe().expect("own path"))
            .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
            .env(JOB, format!("{job};0;survivor;{path}"))
            .output()
            .expect("worker");
        assert!(
            done.status.success(),
            "{job}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        engine::Pool::remove_arena(&spec).expect("arena removed");
    }
}
