//! Owner slots: given out, inherited from the dead, never used up by them.

use engine::testing::{TempPool, attach_from, audit, owner_generation};
use engine::{LockId, Pool, Rec, kind};
use shm::fault::{self, Action};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// One operation that leaves blocks and pages reserved.
fn work(pool: &Pool) {
    let mut stage = pool.stage().expect("stage");
    let run = stage.grab(0, 1).expect("grab");
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    let rec = tx.alloc(kind::MISC, 64, 0, 1).expect("alloc");
    let page = tx.alloc_page(kind::BLOB, 0, 1, true).expect("page");
    tx.consume(&stage).expect("consume");
    tx.commit().expect("commit");
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    tx.free(rec).expect("free");
    tx.free_page(page).expect("free");
    tx.free_run(run).expect("free");
    tx.commit().expect("commit");
}

#[test]
fn threads_that_end_do_not_use_up_the_slots() {
    let temp = TempPool::new(1, 64);
    let pool = temp.pool;
    for _ in 0..2200 {
        std::thread::spawn(move || work(pool))
            .join()
            .expect("thread");
    }
    pool.reap().expect("reap");
    pool.leave().expect("leave");
    assert_eq!(audit(pool).blocks, 0);
}

#[test]
fn child() {
    let Ok(handover) = std::env::var("OWNERS_HANDOVER") else {
        return;
    };
    let variable = |name: &str| std::env::var(name).expect(name);
    let pool = attach_from(&handover);
    let nth = variable("OWNERS_NTH").parse().expect("number");
    let reaper = variable("OWNERS_REAPS") == "1";
    let point: &'static str = variable("OWNERS_POINT").leak();
    if reaper {
        // Joined before the other dies, lest its slot be inherited instead of recovered.
        drop(pool.tx(&[LockId::Target(3)]).expect("tx"));
        std::io::stdout().write_all(b"joined\n").expect("stdout");
        std::io::stdin()
            .read_to_end(&mut Vec::new())
            .expect("stdin");
        fault::arm(point, Action::Kill, nth);
        pool.reap().expect("reap");
    } else {
        fault::arm(point, Action::Kill, nth);
        for _ in 0..3 {
            work(pool);
        }
    }
}

fn command(temp: &TempPool, point: &str, nth: u64, reaper: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("exe"));
    command
        .args(["--exact", "child", "--nocapture"])
        .env("OWNERS_HANDOVER", temp.handover())
        .env("OWNERS_POINT", point)
        .env("OWNERS_NTH", nth.to_string())
        .env("OWNERS_REAPS", if reaper { "1" } else { "0" })
        .stdout(Stdio::null());
    command
}

fn killed(temp: &TempPool, point: &str, nth: u64, reaper: bool) -> bool {
    let status = command(temp, point, nth, reaper).status().expect("child");
    status.signal() == Some(9)
}

#[test]
fn a_slot_claimed_by_a_process_that_died_is_found() {
    let temp = TempPool::new(1, 64);
    temp.pool.leave().expect("leave");
    assert!(killed(&temp, "owner.claimed", 1, false));
    temp.pool.reap().expect("reap");
    temp.pool.leave().expect("leave");
    audit(temp.pool);
}

#[test]
fn whoever_inherits_a_slot_may_die_of_it() {
    let temp = TempPool::new(1, 64);
    for point in [
        "owner.claimed",
        "owner.settled",
        "pages.pushing",
        "space.cleared",
    ] {
        temp.pool.leave().expect("leave");
        for dies_at in ["tx.applying", "tx.closed", "log.published", "pages.pushed"] {
            assert!(killed(&temp, dies_at, 2, false), "{dies_at}");
            assert!(killed(&temp, point, 1, false), "{dies_at} {point}");
        }
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        let rec: Rec = tx.alloc(kind::MISC, 64, 0, 1).expect("alloc");
        tx.commit().expect("commit");
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.free(rec).expect("free");
        tx.commit().expect("commit");
        temp.pool.reap().expect("reap");
        temp.pool.leave().expect("leave");
        audit(temp.pool);
    }
}

#[test]
fn a_recoverer_that_died_is_recovered_once() {
    for point in [
        "pages.pushing",
        "pages.pushed",
        "space.cleared",
        "space.returned",
    ] {
        let temp = TempPool::new(1, 64);
        let pool = temp.pool;
        // Slot 0 is this thread's, 1 the recoverer's, 2 the first victim's.
        work(pool);
        let mut recoverer = command(&temp, point, 1, true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let mut lines = BufReader::new(recoverer.stdout.take().expect("pipe")).lines();
        let joined = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("joined")));
        assert!(joined.is_some());
        assert!(killed(&temp, "tx.closed", 4, false));
        let generations = [1, 2].map(|owner| owner_generation(pool, owner));
        drop(recoverer.stdin.take());
        let status = recoverer.wait().expect("wait");
        assert_eq!(status.signal(), Some(9), "{point}");
        assert_eq!(pool.reap(), Ok(1), "the recoverer, and by that the victim");
        for (owner, before) in [1, 2].into_iter().zip(generations) {
            assert_eq!(
                owner_generation(pool, owner),
                before + 1,
                "{point}: slot {owner}"
            );
        }
        pool.leave().expect("leave");
        audit(pool);
    }
}
