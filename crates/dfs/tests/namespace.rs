//! What each operation does and refuses, one claim a test.

mod common;

use common::{Container, ROOT, list, walk};
use sys::Errno;

#[test]
fn names_come_and_go() {
    let c = Container::new();
    let root = c.dfs.root();
    let (file, new) = c
        .dfs
        .create(&ROOT, root, b"file", 0o644, true)
        .expect("create");
    assert!(new);
    assert_eq!(
        c.dfs.create(&ROOT, root, b"file", 0o644, true),
        Err(Errno::EEXIST)
    );
    assert_eq!(
        c.dfs.create(&ROOT, root, b"file", 0o644, false),
        Ok((file, false))
    );
    let dir = c.dfs.mkdir(&ROOT, root, b"dir", 0o755).expect("mkdir");
    for i in 0..2000 {
        c.dfs
            .create(&ROOT, dir, format!("name{i}").as_bytes(), 0o600, true)
            .expect("create");
    }
    assert_eq!(list(&c.dfs, dir).expect("list").len(), 2000);
    assert_eq!(c.dfs.rmdir(&ROOT, root, b"dir"), Err(Errno::ENOTEMPTY));
    for i in 0..2000 {
        let name = format!("dir/name{i}");
        assert!(
            walk(&c.dfs, &ROOT, &name, true)
                .expect("walk")
                .target
                .is_some(),
            "{name}"
        );
        c.dfs
            .unlink(&ROOT, dir, format!("name{i}").as_bytes())
            .expect("unlink");
        assert!(
            walk(&c.dfs, &ROOT, &name, true)
                .expect("walk")
                .target
                .is_none(),
            "{name}"
        );
    }
    assert_eq!(list(&c.dfs, dir).expect("list").len(), 0);
    c.dfs.rmdir(&ROOT, root, b"dir").expect("rmdir");
    assert_eq!(list(&c.dfs, root).expect("list"), ["file"]);
    assert_eq!(c.dfs.stat(dir), Err(Errno::ESTALE));
}
