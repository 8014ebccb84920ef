//! Inodes without a name that wait to be freed, when the one who was to free them is killed.

mod support;

use daos_types::ObjectClass;
use dfs::Dfs;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use shm::fault::{self, Action};
use std::process::Child;
use support::{Container, O_RDWR, ROOT, role};

const APART: u64 = 2 << 20;

fn wait(child: &Child) -> rustix::process::WaitStatus {
    let pid = Pid::from_raw(child.id() as i32).expect("pid");
    let status = waitpid(Some(pid), WaitOptions::UNTRACED);
    status.expect("wait").expect("a state").1
}

/// What a child does once it has mounted and is to go on; it is killed at it.
fn go_on(dfs: &Dfs, role: &str) {
    fault::arm("mounted", Action::Stop, 1);
    fault::reached("mounted");
    if role == "reclaim" {
        fault::arm("orphan.reclaimed", Action::Kill, 1);
        dfs.reclaim_orphans().expect("reclaim");
    } else {
        fault::arm("orphan.draining", Action::Kill, 1);
        let unlinked = dfs.unlink(&ROOT, dfs.root(), role.as_bytes());
        unlinked.expect("unlink");
    }
    panic!("not killed");
}

#[test]
fn what_another_has_queued_is_not_freed_beside_the_queue() {
    const TEST: &str = "what_another_has_queued_is_not_freed_beside_the_queue";
    if let Some((role, dfs)) = role() {
        return go_on(&dfs, &role);
    }
    let c = Container::new(ObjectClass::S1, 64);
    // Each block in a map of its own, of which a transaction frees only some.
    for (name, blocks) in [("few", 40), ("many", 400)] {
        let file = c.file(name, O_RDWR);
        for block in 0..blocks {
            file.pwrite(&[7; 100], block * APART).expect("write");
        }
    }
    let roles = ["many", "few", "reclaim"];
    let mut children = roles.map(|role| c.spawn(TEST, role));
    for child in &children {
        assert!(wait(child).stopped());
    }
    for (child, role) in children.iter_mut().zip(roles) {
        let pid = Pid::from_raw(child.id() as i32).expect("pid");
        kill_process(pid, Signal::CONT).expect("continue");
        assert_eq!(wait(child).terminating_signal(), Some(9), "{role}");
        // Reaped above.
        child.wait().expect_err("gone");
    }
    let pool = c.pool.pool;
    let info = pool.find_container(&c.label).expect("container");
    let dfs = Dfs::mount(pool, &info).expect("mount");
    let checked = dfs.check_with(true, &mut |_| ()).expect("check");
    assert_eq!((checked.problems.len(), checked.orphans), (0, 0));
}
