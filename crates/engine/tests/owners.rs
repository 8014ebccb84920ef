//! Owner slots: given out, inherited from the dead, never used up by them.

use engine::testing::{TempPool, attach_from, audit, owner_generation};
use engine::{LockId, Pool, Rec, kind};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use shm::fault::{self, Action};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
    let action = match variable("OWNERS_STOPS").as_str() {
        "1" => Action::Stop,
        _ => Action::Kill,
    };
    if reaper {
        // Joined before the other dies, lest its slot be inherited instead of recovered.
        drop(pool.tx(&[LockId::Target(3)]).expect("tx"));
        std::io::stdout().write_all(b"joined\n").expect("stdout");
        std::io::stdin()
            .read_to_end(&mut Vec::new())
            .expect("stdin");
        fault::arm(point, action, nth);
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
        .env("OWNERS_STOPS", "0")
        .stdout(Stdio::null());
    command
}

/// Starts a recoverer that has joined the pool and waits for the end of its input.
fn joined(command: &mut Command) -> Child {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut recoverer = piped.spawn().expect("child");
    let mut lines = BufReader::new(recoverer.stdout.take().expect("pipe")).lines();
    let joined = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("joined")));
    assert!(joined.is_some());
    recoverer
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
    for point in ["owner.claimed", "owner.settled", "pages.pushing"] {
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
        let mut recoverer = joined(&mut command(&temp, point, 1, true));
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

/// Whoever waits for a lock of a dead owner that somebody is recovering goes on waiting while that one
/// is stopped.
#[test]
fn a_recoverer_that_is_stopped_is_waited_for() {
    let temp = TempPool::new(1, 64);
    let pool = temp.pool;
    for signal in [Signal::CONT, Signal::KILL] {
        work(pool);
        let mut command = command(&temp, "owner.recovering", 1, true);
        let mut recoverer = joined(command.env("OWNERS_STOPS", "1"));
        // With the lock of target 0.
        assert!(killed(&temp, "tx.applying", 4, false));
        drop(recoverer.stdin.take());
        let pid = Pid::from_child(&recoverer);
        let stopped = waitpid(Some(pid), WaitOptions::UNTRACED).expect("wait");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
        let waiter = std::thread::spawn(move || {
            let locked = pool.tx(&[LockId::Target(0)]).map(drop);
            pool.leave().expect("leave");
            locked
        });
        std::thread::sleep(Duration::from_secs(1));
        assert!(!waiter.is_finished(), "{signal:?}");
        kill_process(pid, signal).expect("signal");
        assert_eq!(waiter.join().expect("thread"), Ok(()), "{signal:?}");
        recoverer.wait().expect("wait");
        pool.reap().expect("reap");
        pool.leave().expect("leave");
        audit(pool);
    }
}
