//! Signal handlers that walk paths while the thread they interrupt does.

mod support;

use core::ffi::{c_int, c_long};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use daos_types::ObjectClass;
use dfs::{Dfs, How, Walk};
use support::{Container, ROOT};

const SIGALRM: c_int = 14;
const ITIMER_REAL: c_int = 0;

#[repr(C)]
struct Interval {
    seconds: [c_long; 2],
    value: [c_long; 2],
}

unsafe extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn setitimer(which: c_int, new: *const Interval, old: *mut Interval) -> c_int;
}

static FS: AtomicPtr<Dfs> = AtomicPtr::new(core::ptr::null_mut());
static WALKS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

/// The directory of the last component is of its own for each path.
fn leads_right(dfs: &Dfs, which: usize) -> bool {
    let path = PATHS[which % PATHS.len()];
    let mut links = [0u8; 4096];
    match dfs.walk(&ROOT, dfs.root(), path, How::default(), &mut links) {
        Ok(Walk::Here(place)) => place.target.is_some_and(|ino| {
            dfs.stat(ino)
                .is_ok_and(|stat| stat.mode & 0o777 == 0o700 + which as u32)
        }),
        _ => false,
    }
}

const PATHS: [&[u8]; 3] = [
    b"aaaaaaaa/same-end/f",
    b"bbbbbbbb/same-end/f",
    b"cccccccc/same-end/f",
];

extern "C" fn walk(_: c_int) {
    // SAFETY: set before the timer, and valid until it is off.
    if let Some(dfs) = unsafe { FS.load(Ordering::Relaxed).as_ref() } {
        WALKS.fetch_add(1, Ordering::Relaxed);
        if !leads_right(dfs, 2) {
            WRONG.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn every(microseconds: c_long) {
    let interval = Interval {
        seconds: [0, microseconds],
        value: [0, microseconds],
    };
    // SAFETY: the interval is valid, the old one is not asked for.
    let set = unsafe { setitimer(ITIMER_REAL, &raw const interval, core::ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// Paths that share what a thread remembers lead where they should, whoever interrupts whom.
#[test]
fn an_interrupted_walk_confuses_no_paths() {
    let container = Container::new(ObjectClass::SX, 64);
    let dfs = &container.dfs;
    for (which, path) in PATHS.iter().enumerate() {
        let top = dfs
            .mkdir(&ROOT, dfs.root(), &path[..8], 0o755)
            .expect("top");
        let dir = dfs.mkdir(&ROOT, top, b"same-end", 0o755).expect("dir");
        let mode = 0o700 + which as u32;
        dfs.create(&ROOT, dir, b"f", mode, true).expect("file");
    }
    FS.store(core::ptr::from_ref(dfs).cast_mut(), Ordering::Relaxed);
    // SAFETY: the handler does what a system call of a handler would do here: it walks.
    unsafe { signal(SIGALRM, walk) };
    every(10);
    let mut wrong = 0;
    let start = std::time::Instant::now();
    while start.elapsed().as_secs() < 2 {
        for round in 0..1000 {
            wrong += u64::from(!leads_right(dfs, round % 2));
        }
    }
    every(0);
    FS.store(core::ptr::null_mut(), Ordering::Relaxed);
    assert!(WALKS.load(Ordering::Relaxed) > 100, "handlers ran");
    assert_eq!((wrong, WRONG.load(Ordering::Relaxed)), (0, 0));
}
