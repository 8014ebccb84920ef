//! Descriptions on their way in messages.

mod support;

use daos_types::ObjectClass;
use dfs::{LOCK_EX, LOCK_NB};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{MemfdFlags, memfd_create};
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Container, O_RDWR, ROOT};
use sys::Errno;

/// A kernel's description of its own, as is sent in a message.
fn carrier() -> OwnedFd {
    memfd_create(c"carrier", MemfdFlags::CLOEXEC).expect("memfd")
}

#[test]
fn sent_descriptions_wait_for_their_receiver() {
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(b"abc").expect("write");
    let ofd = f.ofd;
    let message = carrier();
    c.dfs.ofd_sent(ofd, message.as_raw_fd()).expect("sent");
    drop(f);
    assert_eq!(c.dfs.ofd_info(ofd).map(|info| info.offset), Ok(3));
    c.dfs.reap(usize::MAX).expect("reap");
    assert_eq!(c.dfs.ofd_info(ofd).map(|info| info.offset), Ok(3));
    c.dfs.ofd_hold(ofd, true).expect("received");
    c.dfs.ofd_release(ofd).expect("release");
    assert_eq!(c.dfs.ofd_info(ofd), Err(Errno::EBADF));
    c.dfs.reap(usize::MAX).expect("reap");
    // What comes back while a fork is under way is held once, as before.
    let f = c.file("f", O_RDWR);
    let ofd = f.ofd;
    c.dfs.ofd_sent(ofd, message.as_raw_fd()).expect("sent");
    let token = c.dfs.fork_prepare().expect("prepare").expect("held");
    drop(f);
    c.dfs.ofd_hold(ofd, true).expect("received");
    c.dfs.fork_failed(token).expect("failed");
    assert_eq!(c.dfs.ofd_is_held(ofd), Ok(true));
    c.dfs.ofd_release(ofd).expect("release");
    assert_eq!(c.dfs.ofd_info(ofd), Err(Errno::EBADF));
}

#[test]
fn what_is_never_received_is_let_go() {
    let c = Container::new(ObjectClass::S1, 64);
    // Lost before the last holder lets go, and after.
    for late in [false, true] {
        let (f, other) = (c.file("f", O_RDWR), c.file("f", O_RDWR));
        c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
        let (ino, ofd) = (f.ino, f.ofd);
        let (message, second) = (carrier(), carrier());
        c.dfs.ofd_sent(ofd, message.as_raw_fd()).expect("sent");
        c.dfs.ofd_sent(other.ofd, second.as_raw_fd()).expect("sent");
        let kept = late.then_some((message, second));
        drop((f, other));
        assert_eq!(c.dfs.ofd_info(ofd).is_ok(), late);
        drop(kept);
        c.dfs.reap(usize::MAX).expect("reap");
        assert_eq!(c.dfs.ofd_info(ofd), Err(Errno::EBADF));
        assert!(c.dfs.stat(ino).is_err(), "nobody holds the file any more");
    }
}

#[test]
fn what_was_not_sent_after_all_is_as_before() {
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    let (ofd, message) = (f.ofd, carrier());
    c.dfs.ofd_sent(ofd, message.as_raw_fd()).expect("sent");
    c.dfs.ofd_unsent(ofd).expect("not sent");
    drop(f);
    assert_eq!(c.dfs.ofd_info(ofd), Err(Errno::EBADF));
}

/// What the next image of a process may never come back for.
#[test]
fn an_exec_leaves_nothing_behind_that_holds_nothing() {
    let c = Container::new(ObjectClass::S1, 64);
    let pool = c.dfs.pool();
    let f = c.file("f", O_RDWR);
    assert_eq!(engine::process::count(pool), Ok(1));
    c.dfs.exec_prepare(&[f.ofd]).expect("prepare");
    c.dfs.exec_leave().expect("leave");
    assert_eq!(engine::process::count(pool), Ok(1));
    // So much in no time that it is not proven with the last close.
    for i in 0..64 {
        engine::testing::stop_clock(1_700_000_000_000_000_000);
        let other = c.file(&format!("{i}"), O_RDWR);
        assert_eq!(other.write(b"closed"), Ok(6));
    }
    assert_eq!(f.write(b"held"), Ok(4));
    drop(f);
    c.dfs.exec_prepare(&[]).expect("prepare");
    c.dfs.exec_leave().expect("leave");
    assert_eq!(
        engine::process::count(pool),
        Ok(1),
        "there is data to prove"
    );
    pool.prove().expect("prove");
    c.dfs.exec_leave().expect("leave");
    assert_eq!(engine::process::count(pool), Ok(0));
    // The exec failed: the process goes on, and is known again.
    let f = c.file("g", O_RDWR);
    assert_eq!(engine::process::count(pool), Ok(1));
    assert_eq!(c.dfs.ofd_is_held(f.ofd), Ok(true));
}

/// Several look for what was lost, and its number is another's by the time one of them acts.
#[test]
fn who_comes_late_lets_go_of_nothing_else() {
    let c = Container::new(ObjectClass::S1, 64);
    let dfs = &c.dfs;
    let lock = |ofd| dfs.flock(ofd, LOCK_EX | LOCK_NB, &|| false);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    dfs.reap(usize::MAX).expect("reap");
                }
            });
        }
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3_000 {
                let f = c.file("f", O_RDWR);
                assert_eq!(lock(f.ofd), Ok(()), "the last message is gone");
                let (ofd, message) = (f.ofd, carrier());
                dfs.ofd_sent(ofd, message.as_raw_fd()).expect("sent");
                drop(f);
                let other = c.file("f", O_RDWR);
                assert_eq!(lock(other.ofd), Err(Errno::EAGAIN), "under way");
                assert!(dfs.ofd_info(ofd).is_ok(), "under way");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        rounds.expect("rounds");
    });
}
