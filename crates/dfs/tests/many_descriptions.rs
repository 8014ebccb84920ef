//! Very many descriptions at once.

mod support;

use daos_types::ObjectClass;
use support::{Container, O_RDWR, ROOT};

#[test]
fn fifteen_thousand_files_are_open_at_once() {
    let c = Container::new(ObjectClass::S1, 64);
    let (ino, _) = c
        .dfs
        .create(&ROOT, c.dfs.root(), b"f", 0o644, true)
        .expect("create");
    let mut open: Vec<_> = (0..15_000)
        .map(|_| c.dfs.open(&ROOT, ino, O_RDWR).expect("open"))
        .collect();
    // In another order than they came, and twice, so that the table meets its own leavings.
    for _ in 0..2 {
        let half: Vec<_> = open.iter().copied().step_by(2).collect();
        for ofd in half {
            c.dfs.ofd_release(ofd).expect("release");
        }
        open = open.into_iter().skip(1).step_by(2).collect();
        open.extend((0..7000).map(|_| c.dfs.open(&ROOT, ino, O_RDWR).expect("open")));
    }
    for ofd in &open {
        assert_eq!(c.dfs.ofd_info(*ofd).expect("info").ino, ino);
        c.dfs.ofd_release(*ofd).expect("release");
    }
    c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
    assert!(c.dfs.stat(ino).is_err());
}

#[test]
fn opening_and_closing_a_million_times_leaves_nothing() {
    let c = Container::new(ObjectClass::S1, 64);
    let (ino, _) = c
        .dfs
        .create(&ROOT, c.dfs.root(), b"f", 0o644, true)
        .expect("create");
    for _ in 0..300_000 {
        let ofd = c.dfs.open(&ROOT, ino, O_RDWR).expect("open");
        c.dfs.ofd_release(ofd).expect("release");
    }
    c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
    assert!(c.dfs.stat(ino).is_err());
}
