//! A vfork child killed inside an operation: its parent, on whose memory it ran, goes on at once,
//! and the operation has happened or has not.

mod common;

use common::{Container, ROOT};
use core::ffi::{c_int, c_void};
use dfs::{Dfs, vfork};
use shm::fault::{self, Action};
use std::sync::Mutex;
use sys::Errno;

const CLONE_VM: c_int = 0x100;
const CLONE_VFORK: c_int = 0x4000;
const SIGCHLD: c_int = 17;

unsafe extern "C" {
    fn clone(
        body: extern "C" fn(*mut c_void) -> c_int,
        stack: *mut c_void,
        flags: c_int,
        argument: *mut c_void,
    ) -> c_int;
}

/// Fault points are the process's.
static ONE: Mutex<()> = Mutex::new(());

struct Job<'a> {
    dfs: &'a Dfs,
    point: &'static str,
    nth: u64,
}

/// What the child does; 0 if it was not killed.
extern "C" fn body(argument: *mut c_void) -> c_int {
    // SAFETY: `in_child` passes a job and waits.
    let job = unsafe { &*argument.cast::<Job<'_>>() };
    vfork::begin();
    fault::arm(job.point, Action::Kill, job.nth);
    let root = job.dfs.root();
    let made = job.dfs.create(&ROOT, root, b"child", 0o644, false);
    let opened = made.and_then(|(ino, _)| job.dfs.open(&ROOT, ino, 2));
    let gone = opened.and_then(|_| job.dfs.unlink(&ROOT, root, b"child"));
    if gone.is_ok() && job.dfs.depart().is_ok() {
        0
    } else {
        1
    }
}

/// Runs the job in a child that shares memory and thread words; true if it was killed.
fn in_child(job: &mut Job<'_>) -> bool {
    let point = job.point;
    let status = status_of(body, core::ptr::from_mut(job).cast());
    assert!(
        status.terminating_signal() == Some(9) || status.exit_status() == Some(0),
        "{point}: {status:?}"
    );
    status.terminating_signal().is_some()
}

/// Runs `body` in such a child.
fn status_of(
    body: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> rustix::process::WaitStatus {
    vfork::prepare().expect("prepared");
    let mut stack = vec![0u128; 16 << 10];
    // SAFETY: the child has a stack of its own, and this thread waits until it has ended.
    let pid = unsafe {
        clone(
            body,
            stack.as_mut_ptr_range().end.cast(),
            CLONE_VM | CLONE_VFORK | SIGCHLD,
            argument,
        )
    };
    fault::arm("", Action::Kill, 0);
    vfork::end();
    vfork::end();
    let pid = rustix::process::Pid::from_raw(pid).expect("a child");
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
        .expect("wait")
        .expect("ended");
    status
}

#[test]
fn its_parent_goes_on() {
    let _one = ONE.lock();
    let container = Container::new();
    let dfs = &container.dfs;
    let root = dfs.root();
    let (before, _) = dfs
        .create(&ROOT, root, b"before", 0o644, true)
        .expect("create");
    let held = dfs.open(&ROOT, before, 2).expect("open");
    let points = [
        "none",
        "owner.claimed",
        "lock.noted",
        "lock.held",
        "tx.built",
        "log.published",
        "tx.published",
        "tx.applying",
        "tx.applied",
        "tx.closed",
    ];
    for point in points {
        let killed = in_child(&mut Job { dfs, point, nth: 1 });
        assert_eq!(killed, point != "none", "{point}");
        // The same directory, and so the same lock.
        dfs.create(&ROOT, root, b"parent", 0o644, true)
            .expect(point);
        dfs.unlink(&ROOT, root, b"parent").expect(point);
        match dfs.unlink(&ROOT, root, b"child") {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => panic!("{point}: {errno:?}"),
        }
        // Held by this process, not by the child that shared its memory.
        assert_eq!(dfs.ofd_is_held(held), Ok(true), "{point}");
    }
    dfs.reap(usize::MAX).expect("reap");
    dfs.pool().reap().expect("reap");
    let checked = dfs.check().expect("check");
    assert_eq!(checked.problems, []);
}

/// Its parent lets go of what it held, at once.
#[test]
fn what_it_held_goes_with_it() {
    let _one = ONE.lock();
    let container = Container::new();
    let dfs = &container.dfs;
    let (ino, _) = dfs
        .create(&ROOT, dfs.root(), b"child", 0o644, true)
        .expect("create");
    // The second record of the child: opened, and the name is gone.
    let mut job = Job {
        dfs,
        point: "tx.closed",
        nth: 2,
    };
    assert!(in_child(&mut job));
    assert_eq!(
        dfs.unlink(&ROOT, dfs.root(), b"child"),
        Err(Errno::ENOENT),
        "killed after it removed the name"
    );
    assert!(dfs.stat(ino).is_ok(), "the dead child has it open");
    dfs.vfork_child_ended().expect("settled");
    assert_eq!(dfs.stat(ino).map(drop), Err(Errno::ESTALE));
    // Nothing is left to do, and a child that held nothing changes nothing.
    dfs.vfork_child_ended().expect("nothing");
    let mut job = Job {
        dfs,
        point: "none",
        nth: 1,
    };
    assert!(!in_child(&mut job));
    dfs.vfork_child_ended().expect("nothing");
}

/// Takes a process slot, and ends as one does that goes on to another image: keeping it.
extern "C" fn keeps_its_slot(argument: *mut c_void) -> c_int {
    // SAFETY: `its_own_slot_stays` passes a mount and waits.
    let dfs = unsafe { &*argument.cast::<Dfs>() };
    vfork::begin();
    let found = dfs.lookup(&ROOT, dfs.root(), b"f");
    c_int::from(found.and_then(|ino| dfs.open(&ROOT, ino, 0)).is_err())
}

/// Has such a child of its own; 0 if it is the same process for the pool as before.
extern "C" fn has_a_child(argument: *mut c_void) -> c_int {
    // SAFETY: `its_own_slot_stays` passes a mount and waits.
    let dfs = unsafe { &*argument.cast::<Dfs>() };
    vfork::begin();
    let Ok(ino) = dfs.lookup(&ROOT, dfs.root(), b"f") else {
        return 2;
    };
    if dfs.open(&ROOT, ino, 0).is_err() {
        return 3;
    }
    let before = engine::process::known_slot(dfs.pool());
    let child = status_of(keeps_its_slot, argument);
    let after = engine::process::known_slot(dfs.pool());
    if child.exit_status() != Some(0) {
        return 4;
    }
    c_int::from(before.is_none() || before != after || dfs.depart().is_err())
}

/// A vfork child whose own vfork child has ended goes on as itself.
#[test]
fn its_own_slot_stays() {
    let _one = ONE.lock();
    let container = Container::new();
    let dfs = &container.dfs;
    dfs.create(&ROOT, dfs.root(), b"f", 0o644, true)
        .expect("create");
    let status = status_of(has_a_child, core::ptr::from_ref(dfs).cast_mut().cast());
    assert_eq!(status.exit_status(), Some(0));
}
