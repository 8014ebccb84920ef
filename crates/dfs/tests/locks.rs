//! Advisory locks, between descriptions and between processes.

mod support;

use daos_types::ObjectClass;
use dfs::{Dfs, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, LockInfo, LockKind, LockReq, Ofd};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::time::{Duration, Instant};
use support::{Container, File, O_RDONLY, O_RDWR, O_WRONLY, go, heard, role, say, wait_for_go};
use sys::{Errno, Result};

const NEVER: &dyn Fn() -> bool = &|| false;

fn req(kind: LockKind, start: u64, len: u64) -> LockReq {
    LockReq {
        kind,
        start,
        len,
        ofd_owned: false,
        wait: false,
    }
}

fn owned(kind: LockKind, start: u64, len: u64) -> LockReq {
    LockReq {
        ofd_owned: true,
        ..req(kind, start, len)
    }
}

fn waiting(req: LockReq) -> LockReq {
    LockReq { wait: true, ..req }
}

fn lock(dfs: &Dfs, ofd: Ofd, req: LockReq) -> Result<()> {
    dfs.lock_posix(ofd, req, NEVER)
}

fn info(write: bool, start: u64, len: u64) -> LockInfo {
    LockInfo {
        write,
        start,
        len,
        pid: std::process::id() as i32,
    }
}

#[test]
fn ranges_are_cut_and_joined() {
    let c = Container::new(ObjectClass::S1, 64);
    let (a, b) = (c.file("f", O_RDWR), c.file("f", O_RDWR));
    let first = |from: u64| {
        c.dfs
            .getlk(b.ofd, owned(LockKind::Write, from, 0))
            .expect("getlk")
    };
    lock(&c.dfs, a.ofd, req(LockKind::Write, 10, 20)).expect("lock");
    lock(&c.dfs, a.ofd, req(LockKind::Write, 30, 10)).expect("lock");
    assert_eq!(first(0), Some(info(true, 10, 30)), "touching ranges join");
    lock(&c.dfs, a.ofd, req(LockKind::Read, 20, 5)).expect("lock");
    assert_eq!(first(0), Some(info(true, 10, 10)));
    assert_eq!(first(20), Some(info(false, 20, 5)));
    assert_eq!(first(25), Some(info(true, 25, 15)));
    lock(&c.dfs, a.ofd, req(LockKind::Unlock, 15, 20)).expect("unlock");
    assert_eq!(first(0), Some(info(true, 10, 5)));
    assert_eq!(first(15), Some(info(true, 35, 5)));
    assert_eq!(
        lock(&c.dfs, b.ofd, owned(LockKind::Read, 12, 1)),
        Err(Errno::EAGAIN)
    );
    assert_eq!(lock(&c.dfs, b.ofd, owned(LockKind::Write, 15, 20)), Ok(()));
    let ours = c
        .dfs
        .getlk(a.ofd, req(LockKind::Read, 0, 0))
        .expect("getlk")
        .expect("a lock");
    assert_eq!((ours.start, ours.len, ours.pid), (15, 20, -1));
    // Any close of the file by the process drops its record locks.
    c.dfs.posix_locks_drop(a.ino).expect("drop");
    assert_eq!(first(0), None);
    lock(&c.dfs, a.ofd, req(LockKind::Write, 100, 0)).expect("lock");
    assert_eq!(first(0), Some(info(true, 100, 0)));
}

/// One request changes more locks than a transaction holds.
#[test]
fn thousands_of_ranges_are_joined_changed_and_released() {
    const LOCKS: u64 = 2000;
    let c = Container::new(ObjectClass::S1, 64);
    let (a, b) = (c.file("f", O_RDWR), c.file("f", O_RDWR));
    let first = |kind| c.dfs.getlk(b.ofd, owned(kind, 0, 0)).expect("getlk");
    for kind in [LockKind::Unlock, LockKind::Write, LockKind::Read] {
        for at in 0..LOCKS {
            lock(&c.dfs, a.ofd, req(LockKind::Write, at * 2, 1)).expect("lock");
        }
        assert_eq!(lock(&c.dfs, a.ofd, req(kind, 0, 0)), Ok(()), "{kind:?}");
        let expected = match kind {
            LockKind::Unlock => None,
            _ => Some(info(kind == LockKind::Write, 0, 0)),
        };
        assert_eq!(first(LockKind::Write), expected, "{kind:?}");
        lock(&c.dfs, a.ofd, req(LockKind::Unlock, 0, 0)).expect("unlock");
        assert_eq!(first(LockKind::Write), None, "{kind:?}");
    }
}

#[test]
fn requests_are_checked() {
    let c = Container::new(ObjectClass::S1, 64);
    let (r, w) = (c.file("f", O_RDONLY), c.file("f", O_WRONLY));
    assert_eq!(
        lock(&c.dfs, r.ofd, req(LockKind::Write, 0, 0)),
        Err(Errno::EBADF)
    );
    assert_eq!(
        lock(&c.dfs, w.ofd, req(LockKind::Read, 0, 0)),
        Err(Errno::EBADF)
    );
    w.write(&[0; 100]).expect("write");
    assert_eq!(c.dfs.lock_range(w.ofd, 2, -10, 5), Ok((90, 5)));
    assert_eq!(c.dfs.lock_range(w.ofd, 1, 0, -10), Ok((90, 10)));
    assert_eq!(c.dfs.lock_range(w.ofd, 0, 5, -6), Err(Errno::EINVAL));
    assert_eq!(
        c.dfs.lock_range(w.ofd, 0, i64::MAX, 2),
        Err(Errno::EOVERFLOW)
    );
    assert_eq!(c.dfs.lock_range(w.ofd, 7, 0, 0), Err(Errno::EINVAL));
}

#[test]
fn flock_belongs_to_the_description() {
    let c = Container::new(ObjectClass::S1, 64);
    let (a, b) = (c.file("f", O_RDWR), c.file("f", O_RDONLY));
    let flock = |ofd, op| c.dfs.flock(ofd, op, NEVER);
    flock(a.ofd, LOCK_SH).expect("shared");
    flock(b.ofd, LOCK_SH | LOCK_NB).expect("shared");
    assert_eq!(flock(b.ofd, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
    // As on Linux, the failed conversion has lost the shared lock.
    flock(a.ofd, LOCK_EX | LOCK_NB).expect("exclusive");
    assert_eq!(flock(b.ofd, LOCK_SH | LOCK_NB), Err(Errno::EAGAIN));
    flock(a.ofd, LOCK_UN).expect("unlock");
    flock(b.ofd, LOCK_EX | LOCK_NB).expect("exclusive");
    drop(b);
    flock(a.ofd, LOCK_EX | LOCK_NB).expect("dropped by the close");
    assert_eq!(flock(a.ofd, 64), Err(Errno::EINVAL));
    let root = c.dfs.open(&support::ROOT, c.dfs.root(), 0).expect("open");
    flock(root, LOCK_EX | LOCK_NB).expect("directories too");
    c.dfs.ofd_release(root).expect("release");
}

#[test]
fn a_wait_can_be_interrupted() {
    let c = Container::new(ObjectClass::S1, 64);
    let (a, b) = (c.file("f", O_RDWR), c.file("f", O_RDWR));
    c.dfs.flock(a.ofd, LOCK_EX, NEVER).expect("lock");
    let asked = Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() == 3
    };
    assert_eq!(c.dfs.flock(b.ofd, LOCK_EX, &interrupted), Err(Errno::EINTR));
    assert_eq!(asked.get(), 3);
}

#[test]
fn the_dead_hold_nothing() {
    if let Some((_, dfs)) = role() {
        let f = File::open(&dfs, "f", O_RDWR);
        lock(&dfs, f.ofd, req(LockKind::Write, 0, 10)).expect("lock");
        lock(&dfs, f.ofd, owned(LockKind::Write, 10, 10)).expect("lock");
        dfs.flock(f.ofd, LOCK_EX, NEVER).expect("lock");
        say("locked");
        wait_for_go();
        unreachable!("killed while waiting");
    }
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    let mut child = c.spawn("the_dead_hold_nothing", "x");
    assert_eq!(heard(&mut child), "locked");
    assert_eq!(
        lock(&c.dfs, f.ofd, req(LockKind::Read, 5, 1)),
        Err(Errno::EAGAIN)
    );
    assert_eq!(
        lock(&c.dfs, f.ofd, req(LockKind::Read, 15, 1)),
        Err(Errno::EAGAIN)
    );
    let holder = c
        .dfs
        .getlk(f.ofd, req(LockKind::Read, 0, 0))
        .expect("getlk")
        .expect("a lock");
    assert_eq!(holder.pid, child.id() as i32);
    assert_eq!(
        c.dfs.flock(f.ofd, LOCK_SH | LOCK_NB, NEVER),
        Err(Errno::EAGAIN)
    );
    child.kill().expect("kill");
    let start = Instant::now();
    lock(&c.dfs, f.ofd, waiting(req(LockKind::Write, 0, 0))).expect("lock");
    c.dfs.flock(f.ofd, LOCK_EX, NEVER).expect("lock");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    child.wait().expect("wait");
}

#[test]
fn waiters_get_the_lock_and_circles_are_refused() {
    if let Some((_, dfs)) = role() {
        let f = File::open(&dfs, "f", O_RDWR);
        lock(&dfs, f.ofd, req(LockKind::Write, 0, 1)).expect("lock");
        say("locked");
        wait_for_go();
        // Whoever of the two begins to wait second is refused, and lets go of what it has.
        match lock(&dfs, f.ofd, waiting(req(LockKind::Write, 1, 1))) {
            Ok(()) => say("granted"),
            Err(errno) => {
                assert_eq!(errno, Errno::EDEADLK);
                lock(&dfs, f.ofd, req(LockKind::Unlock, 0, 0)).expect("unlock");
                say("refused");
            }
        }
        return;
    }
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    lock(&c.dfs, f.ofd, req(LockKind::Write, 1, 1)).expect("lock");
    let mut child = c.spawn("waiters_get_the_lock_and_circles_are_refused", "x");
    assert_eq!(heard(&mut child), "locked");
    go(&mut child);
    let ours = lock(&c.dfs, f.ofd, waiting(req(LockKind::Write, 0, 1)));
    if ours == Err(Errno::EDEADLK) {
        lock(&c.dfs, f.ofd, req(LockKind::Unlock, 0, 0)).expect("unlock");
    }
    let theirs = heard(&mut child);
    assert!(matches!(
        (ours, theirs.as_str()),
        (Ok(()), "refused") | (Err(_), "granted")
    ));
    assert!(child.wait().expect("wait").success());
    lock(&c.dfs, f.ofd, waiting(req(LockKind::Write, 0, 0))).expect("lock");
}

/// Locks of one owner as bytes: 0 none, 1 shared, 2 exclusive.
#[test]
fn random_ranges_behave_as_bytes() {
    let c = Container::new(ObjectClass::S1, 64);
    let (a, b, probe) = (
        c.file("f", O_RDWR),
        c.file("f", O_RDWR),
        c.file("f", O_RDWR),
    );
    let ops = proptest::collection::vec((any::<bool>(), 0..3u8, 0..60u64, 1..20u64), 1..60);
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&ops, |ops| {
        let mut model = [[0u8; 100]; 2];
        for f in [&a, &b] {
            lock(&c.dfs, f.ofd, owned(LockKind::Unlock, 0, 0)).expect("unlock");
        }
        for (second, kind, start, len) in ops {
            let me = usize::from(second);
            let range = start as usize..(start + len) as usize;
            let kind_of = [LockKind::Unlock, LockKind::Read, LockKind::Write][usize::from(kind)];
            let clash = range
                .clone()
                .any(|i| kind > 0 && model[1 - me][i] > 0 && (kind == 2 || model[1 - me][i] == 2));
            let f = if second { &b } else { &a };
            let locked = lock(&c.dfs, f.ofd, owned(kind_of, start, len));
            assert_eq!(locked.is_err(), clash);
            if !clash {
                model[me][range].fill(kind);
            }
        }
        for byte in 0..100 {
            let blocked = |kind| c.dfs.getlk(probe.ofd, owned(kind, byte, 1)).expect("getlk");
            let held = model[0][byte as usize].max(model[1][byte as usize]);
            assert_eq!(blocked(LockKind::Write).is_some(), held > 0);
            assert_eq!(blocked(LockKind::Read).is_some(), held == 2);
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
