//! Checkpoints that are made in pieces while a pool is in use: killed anywhere, gone on with by others, and
//! by errors of the devices.

mod common;

use common::{after_restart, in_child};
use engine::testing::{Failure, RankFile, Step, TempPool, tape};
use engine::{LockId, PageLink, Pool, kind};
use shm::fault::{self, Action};
use std::os::unix::process::ExitStatusExt;
use sys::Errno;

/// There is one tape in a process.
static TAPE: std::sync::Mutex<()> = std::sync::Mutex::new(());

const RING: u64 = 1 << 20;
const WORDS: usize = 100;
/// Changes that fill the log twice.
const TWICE: u64 = 2 * RING / (WORDS as u64 * 8);

fn pool_with_page() -> (TempPool, PageLink) {
    let temp = TempPool::with_log(&std::env::temp_dir(), 2, 64, RING);
    let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
    let page = tx.alloc_page(kind::BLOB, 0, 2, true).expect("page");
    tx.commit().expect("commit");
    (temp, page)
}

fn change(pool: &Pool, page: PageLink, value: u64) {
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    tx.put(page.offset(), &[value; WORDS]).expect("put");
    tx.commit().expect("commit");
}

fn value(pool: &Pool, page: PageLink) -> u64 {
    let mut words = [0; WORDS];
    pool.words(page.offset(), &mut words).expect("words");
    assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
    words[0]
}

/// Makes changes until a checkpoint ends.
fn change_until_checkpointed(pool: &Pool, page: PageLink) {
    let first = value(pool, page);
    let mut used = 0;
    for i in 1..3 * TWICE {
        change(pool, page, first + i);
        let (now, _) = pool.log_fill().expect("fill");
        if now < used {
            return;
        }
        used = now;
    }
    panic!("no checkpoint ends");
}

fn link(numbers: &[u64]) -> PageLink {
    PageLink(numbers[0])
}

/// A process that dies at a named point while it makes changes.
#[test]
fn changer() {
    let Ok(point) = std::env::var("SLICES_POINT") else {
        return;
    };
    let (pool, numbers) = in_child().expect("a pool");
    fault::arm(point.leak(), Action::Kill, 1);
    let first = value(pool, link(&numbers));
    for i in 1..TWICE {
        change(pool, link(&numbers), first + i);
        if i == TWICE / 6 {
            // The first pieces are done: it is not new any more, and may have the kernel flush.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    panic!("the point is never reached");
}

/// After a restart: what was there last.
#[test]
fn reader() {
    if std::env::var("SLICES_POINT").is_ok() {
        return;
    }
    if let Some((pool, numbers)) = in_child() {
        assert_eq!(value(pool, link(&numbers)), numbers[1]);
        pool.leave().expect("leave");
    }
}

fn is_there_after_a_restart(temp: &TempPool, page: PageLink) {
    let last = value(temp.pool, page);
    temp.pool.leave().expect("leave");
    after_restart(temp, "reader", &format!("{},{last}", page.0));
}

#[test]
fn killed_anywhere_another_process_goes_on() {
    for point in [
        "checkpoint.begun",
        "checkpoint.copying",
        "checkpoint.written",
        "checkpoint.mirrored",
        "checkpoint.asked",
        "checkpoint.frames",
        "checkpoint.log",
        "checkpoint.told",
        "checkpoint.flushed",
        "checkpoint.ending",
        "checkpoint.finished",
    ] {
        for goes_on in ["yes", "no"] {
            // A process has only few pools.
            let status = std::process::Command::new(std::env::current_exe().expect("exe"))
                .args(["--exact", "killer", "--nocapture"])
                .env("SLICES_KILL", point)
                .env("SLICES_GOES_ON", goes_on)
                .status()
                .expect("child");
            assert!(status.success(), "{point}, goes on: {goes_on}");
        }
    }
}

/// Has another process killed at a point; this one goes on or not.
#[test]
fn killer() {
    let Ok(point) = std::env::var("SLICES_KILL") else {
        return;
    };
    let (temp, page) = pool_with_page();
    change(temp.pool, page, 1);
    let status = std::process::Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "changer", "--nocapture"])
        .env("REBUILD_HANDOVER", temp.handover())
        .env("REBUILD_ARGS", page.0.to_string())
        .env("SLICES_POINT", &point)
        .status()
        .expect("child");
    assert_eq!(status.signal(), Some(9), "{point}");
    temp.pool.reap().expect("reap");
    assert!(value(temp.pool, page) > 1, "{point}");
    if std::env::var("SLICES_GOES_ON").expect("whether") == "yes" {
        change_until_checkpointed(temp.pool, page);
    }
    is_there_after_a_restart(&temp, page);
}

/// Goes on after a loss of memory, until it is killed at a point or all is synced; prints how much of the
/// log is in use.
#[test]
fn settler() {
    let Ok(point) = std::env::var("SLICES_SETTLE") else {
        return;
    };
    let (pool, numbers) = in_child().expect("a pool");
    let page = link(&numbers);
    assert!(value(pool, page) >= numbers[1]);
    if !point.is_empty() {
        fault::arm(point.leak(), Action::Kill, 3);
    }
    let first = value(pool, page);
    for i in 1..200 {
        change(pool, page, first + i);
    }
    pool.sync().expect("sync");
    println!("used {}", pool.log_fill().expect("fill").0);
    pool.leave().expect("leave");
}

#[test]
fn what_recovery_has_left_to_do_is_gone_on_with_when_one_is_killed() {
    for point in ["settle.compared", "settle.stored"] {
        let temp = TempPool::new(2, 64);
        let class: daos_types::ObjectClass = "RP_2G1".parse().expect("class");
        let info = engine::ContainerInfo {
            file_class: class.id(),
            dir_class: class.id(),
            ..common::container("c")
        };
        temp.pool.create_container(&info).expect("container");
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        let page = tx.alloc_page(kind::BLOB, 0, 2, true).expect("page");
        tx.commit().expect("commit");
        // A part of it is on the other rank too.
        for i in 1..=2000 {
            change(temp.pool, page, i);
            if i == 1200 {
                temp.pool.sync().expect("sync");
            }
        }
        temp.pool.leave().expect("leave");
        std::fs::remove_file(temp.pool.arena_path()).expect("arena");
        let settle = |point: &str| {
            std::process::Command::new(std::env::current_exe().expect("exe"))
                .args(["--exact", "settler", "--nocapture"])
                .env("REBUILD_HANDOVER", temp.handover())
                .env("REBUILD_ARGS", format!("{},2000", page.0))
                .env("SLICES_SETTLE", point)
                .output()
                .expect("child")
        };
        assert_eq!(settle(point).status.signal(), Some(9), "{point}");
        let done = settle("");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{point}: {text}");
        let used = text.lines().find_map(|line| line.strip_prefix("used "));
        let used: usize = used.expect("used").parse().expect("bytes");
        assert!(used > 2000 * WORDS * 8, "{used}");
        let log = |rank: usize| {
            let log = std::fs::read(temp.pool.spec().ranks[rank].join("log")).expect("log");
            log[4096..4096 + used].to_vec()
        };
        assert!(log(0) == log(1), "{point}");
    }
}

#[test]
fn an_error_of_a_device_fails_a_checkpoint_and_no_change() {
    let _alone = TAPE.lock().expect("tape");
    for (step, file) in [
        (Step::Flush, RankFile::Meta),
        (Step::Write, RankFile::Meta),
        (Step::Flush, RankFile::Log),
    ] {
        let (temp, page) = pool_with_page();
        tape::start(&temp.pool.spec().ranks);
        tape::fail(Some(Failure {
            step,
            file,
            rank: None,
            after: 1,
            times: 5,
            errno: Errno::EIO,
        }));
        for i in 1..TWICE {
            change(temp.pool, page, i);
        }
        change_until_checkpointed(temp.pool, page);
        tape::stop();
        is_there_after_a_restart(&temp, page);
    }
}

/// While checkpoints fail the log fills; once it is full changes fail, and go on when checkpoints do.
#[test]
fn a_full_log_is_gone_on_with_once_the_device_is_well() {
    let _alone = TAPE.lock().expect("tape");
    let (temp, page) = pool_with_page();
    tape::start(&temp.pool.spec().ranks);
    tape::fail(Some(Failure {
        step: Step::Write,
        file: RankFile::Meta,
        rank: None,
        after: 0,
        times: u32::MAX,
        errno: Errno::ENOSPC,
    }));
    let try_change = |value| {
        let mut tx = temp.pool.tx(&[LockId::Target(0)])?;
        tx.put(page.offset(), &[value; WORDS])?;
        tx.commit()
    };
    // Some get through while there is room, others meet the error of the checkpoint.
    let mut last = 0;
    let mut failed = 0;
    for i in 1..4 * TWICE {
        match try_change(i) {
            Ok(_) => last = i,
            Err(Errno::ENOSPC) => failed += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(failed > TWICE, "{failed} failed");
    assert_eq!(value(temp.pool, page), last);
    tape::fail(None);
    change(temp.pool, page, last + 1);
    change_until_checkpointed(temp.pool, page);
    tape::stop();
    is_there_after_a_restart(&temp, page);
}
