//! The kernel tells of an error of a device once. If whoever was told is killed or stopped before
//! others know, no sync of theirs takes that for a success.

mod common;

use common::{Container, ROOT};
use daos_types::{ObjectClass, Redundancy};
use dfs::{Dfs, IoVec, Ofd};
use engine::Pool;
use engine::testing::{self, Disk, Failure, Fate, RankFile, Step, TempPool, tape};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use shm::fault::{self, Action};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use sys::Errno;

const JOB: &str = "PIL4DFS_ERRORS_JOB";
const LEN: usize = 700_000;

fn mount(pool: &'static Pool) -> Dfs {
    let info = pool.find_container("c").expect("container");
    Dfs::mount(pool, &info).expect("mount")
}

fn open(dfs: &Dfs, name: &str) -> Ofd {
    let made = dfs.create(&ROOT, dfs.root(), name.as_bytes(), 0o644, false);
    dfs.open(&ROOT, made.expect("create").0, 2).expect("open")
}

fn store(dfs: &Dfs, ofd: Ofd) {
    let bytes = vec![7u8; LEN];
    let iov = [IoVec {
        base: bytes.as_ptr().cast_mut(),
        len: LEN,
    }];
    // SAFETY: the buffer is only read.
    let wrote = unsafe { dfs.pwrite(ofd, &iov, 0, false) };
    assert_eq!(wrote, Ok(LEN));
}

fn content(dfs: &Dfs, name: &str) -> Vec<u8> {
    let ino = dfs.lookup(&ROOT, dfs.root(), name.as_bytes());
    let ofd = dfs.open(&ROOT, ino.expect("name"), 0).expect("open");
    let mut bytes = vec![0; LEN];
    let iov = [IoVec {
        base: bytes.as_mut_ptr(),
        len: LEN,
    }];
    // SAFETY: the buffer is exclusively ours.
    let read = unsafe { dfs.pread(ofd, &iov, 0) };
    bytes.truncate(read.expect("read"));
    dfs.ofd_release(ofd).expect("release");
    bytes
}

fn fail(step: Step, file: RankFile, times: u32) {
    tape::fail(Some(Failure {
        step,
        file,
        rank: None,
        after: 0,
        times,
        errno: Errno::EIO,
    }));
}

/// Another process, which is told of an error, and killed or stopped before others know.
#[test]
fn other() {
    let Ok(job) = std::env::var(JOB) else { return };
    let (what, handover) = job.rsplit_once(' ').expect("job");
    let pool = testing::attach_from(handover);
    let dfs = mount(pool);
    let (step, file, point) = match what {
        "flush and die" => (Step::Flush, RankFile::Data, "flush.failed"),
        "ask for frames and die" => (Step::Queued, RankFile::Meta, "checkpoint.frames"),
        "ask for the log and die" => (Step::Queued, RankFile::Log, "checkpoint.log"),
        _ => (Step::Queued, RankFile::Data, "checkpoint.asked"),
    };
    fail(step, file, u32::MAX);
    let action = match what {
        "ask and stop" => Action::Stop,
        _ => Action::Kill,
    };
    fault::arm(point, action, 1);
    if step == Step::Flush {
        dfs.sync().expect_err("sync");
    }
    (0..100_000).for_each(|_| turn(&dfs).expect("turn"));
    panic!("not told");
}

/// Takes some of the log.
fn turn(dfs: &Dfs) -> sys::Result<()> {
    let name = std::process::id().to_string();
    dfs.create(&ROOT, dfs.root(), name.as_bytes(), 0o644, true)?;
    dfs.unlink(&ROOT, dfs.root(), name.as_bytes())
}

/// Goes on until the checkpoint in progress has ended, and what was in the log before is overwritten.
fn end_checkpoint(dfs: &Dfs, pool: &Pool) {
    let used = || pool.log_fill().expect("fill").0;
    let mut before = used();
    for _ in 0..100_000 {
        turn(dfs).expect("turn");
        let now = used();
        if now < before {
            fail(Step::Write, RankFile::Meta, u32::MAX);
            while turn(dfs).is_ok() {}
            pool.sync_names().expect("sync");
            tape::fail(None);
            return;
        }
        before = now;
    }
    panic!("no checkpoint ends");
}

fn start(what: &str, temp: &TempPool, tape: &Path) -> Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "other", "--nocapture"])
        .env(JOB, format!("{what} {}", temp.handover()))
        .env(tape::VARIABLE, tape)
        .spawn()
        .expect("other")
}

/// What a sync after that has brought to the device.
fn after(what: &str) {
    let temp = TempPool::with_log(Path::new("/dev/shm"), 1, 48, 1 << 20);
    let class = ObjectClass::new(Redundancy::Replicas(1), 1).expect("class");
    Container::of_class(temp.pool, "c", class.id());
    let dfs = mount(temp.pool);
    dfs.sync().expect("sync");
    let ranks = &temp.pool.spec().ranks;
    let scratch = PathBuf::from(format!("/dev/shm/pil4dfs-told-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("directory");
    let path = scratch.join("tape");
    tape::make(&path, ranks);
    let f = open(&dfs, "f");
    store(&dfs, f);
    // Frames of several pages: one that is stored to again is not lost.
    for i in 0..100 {
        let made = dfs.create(&ROOT, dfs.root(), format!("f{i}").as_bytes(), 0o644, true);
        made.expect("create");
    }
    let mut other = start(what, &temp, &path);
    let pid = Pid::from_raw(other.id() as i32).expect("pid");
    let state = waitpid(Some(pid), WaitOptions::UNTRACED);
    let (_, state) = state.expect("wait").expect("a state");
    let stops = what.ends_with("stop");
    assert_eq!(state.stopped(), stops, "{what}: {state:?}");
    if stops {
        assert_eq!(state.stopping_signal(), Some(Signal::STOP.as_raw()));
    } else {
        assert_eq!(state.terminating_signal(), Some(9), "{what}");
    }
    // If it is compared, it differs: only so long as it is not stored again.
    fail(Step::Compare, RankFile::Data, 1);
    dfs.fsync(f).expect("fsync");
    tape::fail(None);
    if what == "ask for frames and die" {
        end_checkpoint(&dfs, temp.pool);
    }
    let events = tape::stop();
    if stops {
        kill_process(pid, Signal::KILL).expect("kill");
    }
    // The others are gone.
    assert_eq!(other.wait().is_ok(), stops);
    let mut disk = Disk::empty(ranks);
    events.iter().for_each(|event| disk.step(event));
    let cut = scratch.join("cut");
    disk.fail(&cut, Fate::Lost, 1);
    testing::power_failed();
    let pool = testing::open_image(&cut, temp.pool.spec()).expect("recovered");
    assert!(content(&mount(pool), "f") == vec![7; LEN], "{what}");
    pool.leave().expect("leave");
    std::fs::remove_dir_all(&scratch).expect("scratch");
}

/// In a process of its own: the door has one tape, and a power failure is for all pools.
fn alone(test: &str, what: &str) {
    const ALONE: &str = "PIL4DFS_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|alone| alone == what) {
        return after(what);
    }
    let status = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, what)
        .status();
    assert!(status.expect("test").success(), "{what}");
}

#[test]
fn of_data_to_one_that_was_killed() {
    alone("of_data_to_one_that_was_killed", "flush and die");
}

#[test]
fn of_data_to_one_that_had_asked_and_was_killed() {
    alone(
        "of_data_to_one_that_had_asked_and_was_killed",
        "ask and die",
    );
}

#[test]
fn of_data_to_one_that_does_not_look() {
    alone("of_data_to_one_that_does_not_look", "ask and stop");
}

#[test]
fn of_the_log_to_one_that_had_asked_and_was_killed() {
    alone(
        "of_the_log_to_one_that_had_asked_and_was_killed",
        "ask for the log and die",
    );
}

#[test]
fn of_frames_to_one_that_had_asked_and_was_killed() {
    alone(
        "of_frames_to_one_that_had_asked_and_was_killed",
        "ask for frames and die",
    );
}
