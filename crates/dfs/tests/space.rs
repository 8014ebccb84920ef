//! What is removed gives its memory back.

mod common;

use common::{Container, ROOT};
use sys::Result;

/// Makes and removes everything that takes memory.
fn cycle(c: &Container) -> Result<()> {
    let dfs = &c.dfs;
    let top = dfs.mkdir(&ROOT, dfs.root(), b"top", 0o755)?;
    for i in 0..200 {
        let name = format!("{i}-{}", "n".repeat(i % 200));
        let (file, _) = dfs.create(&ROOT, top, name.as_bytes(), 0o644, true)?;
        if i % 10 == 0 {
            dfs.setxattr(&ROOT, file, b"user.small", &[1; 50], 0)?;
            dfs.setxattr(&ROOT, file, b"user.big", &[1; 60_000], 0)?;
            dfs.setxattr(&ROOT, file, b"user.big", &[2; 50_000], 0)?;
            dfs.symlink(&ROOT, &[b't'; 3000], top, format!("link{i}").as_bytes())?;
            let sub = dfs.mkdir(&ROOT, top, format!("dir{i}").as_bytes(), 0o755)?;
            for k in 0..40 {
                dfs.create(&ROOT, sub, format!("{k}").as_bytes(), 0o600, true)?;
            }
        }
    }
    for i in (0..200).step_by(2) {
        let name = format!("{i}-{}", "n".repeat(i % 200));
        dfs.rename(&ROOT, top, name.as_bytes(), top, b"one", 0)?;
    }
    dfs.empty(dfs.root(), &mut |_| ())
}

#[test]
fn what_is_removed_gives_its_memory_back() {
    let container = Container::new();
    let arena = || container.dfs.pool().usage().expect("usage").arena_bytes;
    // Pages of records stay with their target, so each target has to see its share first. Tables
    // of more than one page are left out: their runs are not found again by the engine.
    for round in 0..100 {
        cycle(&container).unwrap_or_else(|errno| panic!("warming {round}: {errno:?}"));
    }
    let before = arena();
    for round in 0..100 {
        cycle(&container).unwrap_or_else(|errno| panic!("round {round}: {errno:?}"));
    }
    assert!(
        arena() <= before + (2 << 20),
        "{} bytes grew to {}",
        before,
        arena()
    );
    assert_eq!(container.dfs.check().expect("check").problems, []);
}
