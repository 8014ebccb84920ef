//! Writers killed and stopped at random: every completed operation is there, the one that was
//! under way happened whole or not at all, nothing leaks, nobody waits long.
//!
//! Each worker owns a few files that wander between shared directories. Before an operation it
//! notes in its journal what the file is and what it will be; after it, that it is done.

mod support;

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, IoVec};
use engine::testing::audit;
use shm::fault::{self, Action};
use std::fs::File as StdFile;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};
use support::{Container, O_RDONLY, O_RDWR, ROOT};
use sys::{Errno, Result};

const WORKERS: usize = 8;
const FILES: usize = 6;
const DIRS: u8 = 4;
const CONTENT_BYTES: usize = 3000;

/// What a file is: nowhere, or in a directory with a content (0 = empty).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct State {
    dir: Option<u8>,
    version: u32,
}

impl State {
    fn pack(self) -> u64 {
        self.dir.map_or(0, |dir| u64::from(dir) + 1) << 32 | u64::from(self.version)
    }

    fn unpack(word: u64) -> State {
        let dir = (word >> 32) as u8;
        State {
            dir: dir.checked_sub(1),
            version: word as u32,
        }
    }
}

/// A worker's notes, three words per file: before, after, done.
struct Journal(StdFile);

impl Journal {
    fn at(worker: usize, file: usize) -> u64 {
        ((worker * FILES + file) * 24) as u64
    }

    fn note(&self, worker: usize, file: usize, before: State, after: State, done: bool) {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&before.pack().to_le_bytes());
        bytes[8..16].copy_from_slice(&after.pack().to_le_bytes());
        bytes[16] = u8::from(done);
        self.0
            .write_all_at(&bytes, Journal::at(worker, file))
            .expect("journal");
    }

    fn read(&self, worker: usize, file: usize) -> (State, State, bool) {
        let mut bytes = [0; 24];
        self.0
            .read_exact_at(&mut bytes, Journal::at(worker, file))
            .expect("journal");
        let word = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().expect("8 bytes"));
        (
            State::unpack(word(0)),
            State::unpack(word(8)),
            bytes[16] == 1,
        )
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn name(worker: usize, file: usize) -> Vec<u8> {
    format!("worker-{worker}-file-{file}").into_bytes()
}

fn dir(dfs: &Dfs, number: u8) -> Result<dfs::Ino> {
    dfs.lookup(&ROOT, dfs.root(), format!("d{number}").as_bytes())
}

fn content(version: u32, worker: usize, file: usize) -> Vec<u8> {
    let seed = version.wrapping_mul(31) ^ (worker * FILES + file) as u32;
    (0..CONTENT_BYTES)
        .map(|i| (seed.wrapping_add(i as u32) % 251) as u8)
        .collect()
}

/// What the file is now, found by looking; panics when it is in two places or neither old nor new.
fn observe(dfs: &Dfs, worker: usize, file: usize) -> State {
    let mut found = State::default();
    for number in 0..DIRS {
        let holder = dir(dfs, number).expect("directory");
        let ino = match dfs.lookup(&ROOT, holder, &name(worker, file)) {
            Ok(ino) => ino,
            Err(Errno::ENOENT) => continue,
            Err(errno) => panic!("lookup: {errno:?}"),
        };
        assert_eq!(
            found.dir, None,
            "worker {worker} file {file} is in two directories"
        );
        found.dir = Some(number);
        let ofd = dfs.open(&ROOT, ino, O_RDONLY).expect("open");
        let mut bytes = vec![0; CONTENT_BYTES + 1];
        let iov = [IoVec {
            base: bytes.as_mut_ptr(),
            len: bytes.len(),
        }];
        // SAFETY: the buffer is exclusively ours.
        let read = unsafe { dfs.pread(ofd, &iov, 0) }.expect("read");
        dfs.ofd_release(ofd).expect("release");
        if read > 0 {
            assert_eq!(read, CONTENT_BYTES);
            bytes.truncate(read);
            let (before, after, _) = EXPECTED.with(|e| e.borrow()[worker * FILES + file]);
            let version = [before.version, after.version]
                .into_iter()
                .find(|v| *v != 0 && content(*v, worker, file) == bytes);
            found.version = version.expect("the content is neither old nor new");
        }
    }
    found
}

thread_local! {
    static EXPECTED: std::cell::RefCell<Vec<(State, State, bool)>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

/// One random operation on one file; returns the state it leads to.
fn step(dfs: &Dfs, worker: usize, file: usize, now: State, next: State) -> Result<()> {
    let own = name(worker, file);
    match (now.dir, next.dir) {
        (None, Some(to)) => {
            dfs.create(&ROOT, dir(dfs, to)?, &own, 0o644, true)?;
        }
        (Some(from), None) => dfs.unlink(&ROOT, dir(dfs, from)?, &own)?,
        (Some(from), Some(to)) if from != to => {
            dfs.rename(&ROOT, dir(dfs, from)?, &own, dir(dfs, to)?, &own, 0)?;
        }
        (Some(at), Some(_)) => {
            let ino = dfs.lookup(&ROOT, dir(dfs, at)?, &own)?;
            if next.version == 0 {
                return dfs.truncate(&ROOT, ino, 0);
            }
            let ofd = dfs.open(&ROOT, ino, O_RDWR)?;
            let bytes = content(next.version, worker, file);
            let iov = [IoVec {
                base: bytes.as_ptr().cast_mut(),
                len: bytes.len(),
            }];
            // SAFETY: the buffer is only read.
            let wrote = unsafe { dfs.pwrite(ofd, &iov, 0, false) };
            dfs.ofd_release(ofd)?;
            assert_eq!(wrote?, CONTENT_BYTES);
        }
        (None, None) => {}
    }
    Ok(())
}

fn choose(now: State, random: &mut Random, serial: &mut u32) -> State {
    let Some(at) = now.dir else {
        return State {
            dir: Some(random.below(u64::from(DIRS)) as u8),
            version: 0,
        };
    };
    match random.below(8) {
        0 => State::default(),
        1 => State { version: 0, ..now },
        2..4 => State {
            dir: Some((at + 1 + random.below(3) as u8) % DIRS),
            ..now
        },
        _ => {
            *serial += 1;
            State {
                version: *serial,
                ..now
            }
        }
    }
}

fn number(name: &str) -> u64 {
    std::env::var(name).expect(name).parse().expect(name)
}

fn work(dfs: &Dfs) {
    let worker = number("STORM_WORKER") as usize;
    let path = std::env::var("STORM_JOURNAL").expect("journal");
    let journal = Journal(
        StdFile::options()
            .read(true)
            .write(true)
            .open(path)
            .expect("journal"),
    );
    if let Ok(point) = std::env::var("STORM_POINT") {
        let action = if number("STORM_STOP") == 1 {
            Action::Stop
        } else {
            Action::Kill
        };
        fault::arm(point.leak(), action, number("STORM_NTH"));
    }
    let mut random = Random(number("STORM_SEED"));
    let mut serial = random.below(1 << 28) as u32 + 1;
    let mut states = expected(&journal)[worker * FILES..][..FILES].to_vec();
    EXPECTED.with(|e| *e.borrow_mut() = expected(&journal));
    for (file, state) in states.iter_mut().enumerate() {
        let now = observe(dfs, worker, file);
        assert!(
            possible(now, *state),
            "worker {worker} file {file}: {now:?} of {state:?}"
        );
        *state = (now, now, true);
    }
    let end = Instant::now() + Duration::from_millis(number("STORM_MILLIS"));
    while Instant::now() < end {
        let file = random.below(FILES as u64) as usize;
        let now = states[file].0;
        let next = choose(now, &mut random, &mut serial);
        journal.note(worker, file, now, next, false);
        let (start, before) = (Instant::now(), held_up());
        step(dfs, worker, file, now, next).expect("an operation of a survivor");
        // What the machine gave to others is not waiting for a dead writer.
        let took = start.elapsed().saturating_sub(held_up() - before);
        assert!(took < Duration::from_secs(1), "an operation took {took:?}");
        journal.note(worker, file, next, next, true);
        states[file] = (next, next, true);
    }
    dfs.depart().expect("depart");
}

/// Time this thread was ready to run but had no processor (second number; the kernel documents it in sched-stats).
fn held_up() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let waited = text.split_whitespace().nth(1).expect("three numbers");
    Duration::from_nanos(waited.parse().expect("nanoseconds"))
}

fn expected(journal: &Journal) -> Vec<(State, State, bool)> {
    (0..WORKERS * FILES)
        .map(|i| journal.read(i / FILES, i % FILES))
        .collect()
}

/// A finished operation must have happened, an unfinished one may have.
fn possible(now: State, (before, after, done): (State, State, bool)) -> bool {
    now == after || !done && now == before
}

struct Storm {
    container: Container,
    journal: tempfile::NamedTempFile,
    empty: engine::testing::Audit,
}

impl Storm {
    fn new() -> Storm {
        let class = ObjectClass::new(Redundancy::Replicas(2), GROUPS_MAX).expect("class");
        let container = Container::new(class, 128);
        let journal = tempfile::NamedTempFile::new().expect("journal");
        journal
            .as_file()
            .set_len((WORKERS * FILES * 24) as u64)
            .expect("journal");
        for worker in 0..WORKERS {
            for file in 0..FILES {
                let notes = Journal(journal.as_file().try_clone().expect("journal"));
                notes.note(worker, file, State::default(), State::default(), true);
            }
        }
        // The root keeps its first chunk, and this process its list of open files.
        drop(container.file("first", O_RDWR));
        container
            .dfs
            .unlink(&ROOT, container.dfs.root(), b"first")
            .expect("unlink");
        container.dfs.depart().expect("depart");
        let empty = audit(container.dfs.pool());
        for number in 0..DIRS {
            let name = format!("d{number}");
            container
                .dfs
                .mkdir(&ROOT, container.dfs.root(), name.as_bytes(), 0o755)
                .expect("mkdir");
        }
        Storm {
            container,
            journal,
            empty,
        }
    }

    fn spawn(&self, worker: usize, seed: u64, point: Option<(&str, Action, u64)>) -> Child {
        self.container.spawn_with("worker", "storm", |command| {
            command
                .env("STORM_WORKER", worker.to_string())
                .env("STORM_JOURNAL", self.journal.path())
                .env("STORM_SEED", seed.to_string())
                .env(
                    "STORM_MILLIS",
                    if point.is_some() { "5000" } else { "600000" },
                )
                .stdout(std::process::Stdio::null());
            if let Some((name, action, nth)) = point {
                command
                    .env("STORM_POINT", name)
                    .env("STORM_STOP", if action == Action::Stop { "1" } else { "0" })
                    .env("STORM_NTH", nth.to_string());
            }
        })
    }

    /// Every file is what its journal allows.
    fn verify(&self) {
        let dfs = &self.container.dfs;
        dfs.pool().reap().expect("reap owners");
        dfs.reap(usize::MAX).expect("reap processes");
        let notes = Journal(self.journal.as_file().try_clone().expect("journal"));
        EXPECTED.with(|e| *e.borrow_mut() = expected(&notes));
        for (i, allowed) in expected(&notes).into_iter().enumerate() {
            let (worker, file) = (i / FILES, i % FILES);
            let now = observe(dfs, worker, file);
            assert!(
                possible(now, allowed),
                "worker {worker} file {file}: {now:?} of {allowed:?}"
            );
            notes.note(worker, file, now, now, true);
        }
    }

    /// Once everything is removed, nothing is left that was not there at the start.
    fn finish(self) {
        self.verify();
        let dfs = &self.container.dfs;
        for number in 0..DIRS {
            let holder = dir(dfs, number).expect("directory");
            for i in 0..WORKERS * FILES {
                match dfs.unlink(&ROOT, holder, &name(i / FILES, i % FILES)) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => panic!("unlink: {errno:?}"),
                }
            }
            let name = format!("d{number}");
            dfs.rmdir(&ROOT, dfs.root(), name.as_bytes())
                .expect("rmdir");
        }
        dfs.depart().expect("depart");
        assert_eq!(
            audit(dfs.pool()),
            self.empty,
            "left after everything was removed"
        );
    }
}

fn killed(child: &mut Child) {
    let status = child.wait().expect("wait");
    assert_eq!(status.signal(), Some(9), "{status}");
}

/// The body of the worker processes.
#[test]
fn worker() {
    if let Some((role, dfs)) = support::role() {
        assert_eq!(role, "storm");
        work(&dfs);
    }
}

#[test]
fn storm() {
    let seconds: u64 = std::env::var("PIL_STORM_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(10);
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock");
    let mut random = Random(clock.as_nanos() as u64 | 1);
    let storm = Storm::new();
    let mut children: Vec<Child> = (0..WORKERS)
        .map(|w| storm.spawn(w, random.below(1 << 30) + 1, None))
        .collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(random.below(60)));
        let victim = random.below(WORKERS as u64) as usize;
        children[victim].kill().expect("kill");
        killed(&mut children[victim]);
        children[victim] = storm.spawn(victim, random.below(1 << 30) + 1, None);
    }
    for child in &mut children {
        child.kill().expect("kill");
        killed(child);
    }
    storm.finish();
}

/// Where a process can be killed or stopped on its way through an operation.
const POINTS: [&str; 14] = [
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
];

#[test]
fn killed_at_every_crash_point() {
    let storm = Storm::new();
    for (i, point) in POINTS.into_iter().enumerate() {
        for nth in [1, 3, 9, 27] {
            let seed = i as u64 * 1000 + nth;
            let mut child = storm.spawn(i % WORKERS, seed, Some((point, Action::Kill, nth)));
            killed(&mut child);
            storm.verify();
        }
    }
    storm.finish();
}

#[test]
fn readers_go_on_while_a_writer_is_stopped() {
    let storm = Storm::new();
    for (i, point) in POINTS.into_iter().enumerate() {
        let mut child = storm.spawn(i % WORKERS, 77 + i as u64, Some((point, Action::Stop, 20)));
        let pid = rustix::process::Pid::from_child(&child);
        let options = rustix::process::WaitOptions::UNTRACED;
        let (_, status) = rustix::process::waitpid(Some(pid), options)
            .expect("wait")
            .expect("a stop");
        assert!(status.stopped(), "{point}: {status:?}");
        let start = Instant::now();
        let dfs = &storm.container.dfs;
        let notes = Journal(storm.journal.as_file().try_clone().expect("journal"));
        EXPECTED.with(|e| *e.borrow_mut() = expected(&notes));
        for number in 0..DIRS {
            let holder = dir(dfs, number).expect("directory");
            dfs.stat(holder).expect("stat");
            for file in 0..WORKERS * FILES {
                match dfs.lookup(&ROOT, holder, &name(file / FILES, file % FILES)) {
                    Ok(ino) => assert!(dfs.stat(ino).is_ok()),
                    Err(errno) => assert_eq!(errno, Errno::ENOENT, "{point}"),
                }
            }
        }
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{point}: {:?}",
            start.elapsed()
        );
        child.kill().expect("kill");
        killed(&mut child);
        storm.verify();
    }
    storm.finish();
}
