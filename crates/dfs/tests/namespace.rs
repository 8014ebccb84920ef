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

#[test]
fn attributes_of_all_sizes_are_kept() {
    let c = Container::new();
    let (file, _) = c
        .dfs
        .create(&ROOT, c.dfs.root(), b"f", 0o644, true)
        .expect("create");
    for len in [
        0, 1, 7, 8, 100, 900, 1000, 4096, 5000, 32_768, 32_769, 65_536,
    ] {
        for round in 0..2 {
            let value: Vec<u8> = (0..len).map(|i| (i * 7 + round) as u8).collect();
            let name = format!("user.a{len}");
            c.dfs
                .setxattr(&ROOT, file, name.as_bytes(), &value, 0)
                .expect("set");
            let mut out = vec![0; len + 1];
            assert_eq!(
                c.dfs.getxattr(&ROOT, file, name.as_bytes(), &mut out),
                Ok(len)
            );
            assert_eq!(out[..len], value);
            assert_eq!(
                c.dfs.getxattr(&ROOT, file, name.as_bytes(), &mut []),
                Ok(len)
            );
            if len > 1 {
                let short = &mut out[..len - 1];
                assert_eq!(
                    c.dfs.getxattr(&ROOT, file, name.as_bytes(), short),
                    Err(Errno::ERANGE)
                );
            }
        }
    }
    let big = vec![0; 65_537];
    assert_eq!(
        c.dfs.setxattr(&ROOT, file, b"user.x", &big, 0),
        Err(Errno::E2BIG)
    );
    let len = c.dfs.listxattr(&ROOT, file, &mut []).expect("size");
    let mut list = vec![0; len];
    assert_eq!(c.dfs.listxattr(&ROOT, file, &mut list), Ok(len));
    assert_eq!(
        list.split(|b| *b == 0)
            .filter(|name| name.starts_with(b"user.a"))
            .count(),
        12
    );
    c.dfs
        .removexattr(&ROOT, file, b"user.a4096")
        .expect("remove");
    assert_eq!(
        c.dfs.removexattr(&ROOT, file, b"user.a4096"),
        Err(Errno::ENODATA)
    );
    c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
    assert_eq!(
        c.dfs.getxattr(&ROOT, file, b"user.a1", &mut []),
        Err(Errno::ESTALE)
    );
}
