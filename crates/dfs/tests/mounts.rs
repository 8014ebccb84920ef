//! The first mount after an arena was lost, killed at what it has to do.

mod common;

use common::{Container, ROOT};
use daos_types::{ObjectClass, Redundancy};
use dfs::Dfs;
use engine::testing::{TempPool, attach_from};
use shm::fault::{self, Action};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// Where a child finds the pool.
const POOL: &str = "PIL4DFS_TEST_MOUNTS";

fn in_child() -> Option<&'static engine::Pool> {
    Some(attach_from(&std::env::var(POOL).ok()?))
}

fn child(test: &str, temp: &TempPool) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().expect("exe"));
    command.args(["--exact", test, "--nocapture"]);
    let status = command.env(POOL, temp.handover()).status();
    status.expect("child")
}

fn mount(pool: &'static engine::Pool) -> Dfs {
    let info = pool.find_container("c").expect("container");
    Dfs::mount(pool, &info).expect("mount")
}

/// Is killed while it mounts; no test of its own.
#[test]
fn killed() {
    let Some(pool) = in_child() else { return };
    fault::arm("rebuilt.claimed", Action::Kill, 1);
    mount(pool);
    panic!("the point is never reached");
}

/// Mounts after that; no test of its own.
#[test]
fn next() {
    let Some(pool) = in_child() else { return };
    let dfs = mount(pool);
    assert_eq!(dfs.reclaim_orphans(), Ok(0), "left");
    let checked = dfs.check_with(true, &mut |_| ()).expect("check");
    assert_eq!(checked.problems, []);
    assert_eq!(pool.after_rebuild(|| Ok(())), Ok(false));
    pool.leave().expect("leave");
}

#[test]
fn what_a_mount_that_was_killed_has_left_the_next_does() {
    if std::env::var(POOL).is_ok() {
        return;
    }
    let temp = TempPool::new(2, 64);
    let class = ObjectClass::new(Redundancy::Replicas(1), 1).expect("class");
    Container::of_class(temp.pool, "c", class.id());
    let dfs = mount(temp.pool);
    let made = dfs.create(&ROOT, dfs.root(), b"gone", 0o644, false);
    let (ino, _) = made.expect("create");
    dfs.open(&ROOT, ino, 2).expect("open");
    dfs.unlink(&ROOT, dfs.root(), b"gone").expect("unlink");
    temp.pool.leave().expect("leave");
    std::fs::remove_file(temp.pool.arena_path()).expect("arena");
    assert_eq!(child("killed", &temp).signal(), Some(9));
    assert!(child("next", &temp).success());
}
