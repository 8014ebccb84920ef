//! Forks whose children never come. In a process of its own: the clock is stopped.

mod common;

use common::{Container, ROOT};
use engine::testing;
use sys::Errno;

const START: u64 = 1_700_000_000_000_000_000;

/// A child that was killed before it took over what it inherited is forgotten after some seconds, and
/// with the next fork so is that there was one: nothing is kept for it any more.
#[test]
fn a_child_that_never_came_is_forgotten() {
    testing::stop_clock(START);
    let container = Container::new();
    let dfs = &container.dfs;
    let open = |name: &[u8]| {
        let made = dfs.create(&ROOT, dfs.root(), name, 0o644, true);
        dfs.open(&ROOT, made.expect("create").0, 2).expect("open")
    };
    let (first, second) = (open(b"first"), open(b"second"));
    dfs.fork_prepare().expect("prepare").expect("held");
    dfs.ofd_release(first).expect("release");
    assert!(dfs.ofd_info(first).is_ok(), "kept for the child");
    testing::stop_clock(START + 11_000_000_000);
    let token = dfs.fork_prepare().expect("prepare").expect("held");
    assert_eq!(dfs.ofd_info(first).map(drop), Err(Errno::EBADF));
    dfs.fork_failed(token).expect("no child");
    dfs.ofd_release(second).expect("release");
    assert_eq!(dfs.ofd_info(second).map(drop), Err(Errno::EBADF));
}
