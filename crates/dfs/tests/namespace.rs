//! What each operation does and refuses, one claim a test.

mod common;

use common::{Container, ROOT, list, user, walk};
use dfs::{DirCursor, How, SetTime, Walk};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
            walk(&c.dfs, &ROOT, &name, true).expect("walk").is_some(),
            "{name}"
        );
        c.dfs
            .unlink(&ROOT, dir, format!("name{i}").as_bytes())
            .expect("unlink");
        assert!(
            walk(&c.dfs, &ROOT, &name, true).expect("walk").is_none(),
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

#[test]
fn hundred_thousand_names_in_one_directory() {
    const COUNT: usize = 100_000;
    let c = Container::new();
    let dir = c
        .dfs
        .mkdir(&ROOT, c.dfs.root(), b"big", 0o755)
        .expect("mkdir");
    let name = |i: usize| format!("{i:x}-{}", "y".repeat(i % 60));
    for i in 0..COUNT {
        c.dfs
            .create(&ROOT, dir, name(i).as_bytes(), 0o600, true)
            .expect("create");
    }
    let listed: HashSet<String> = list(&c.dfs, dir).expect("list").into_iter().collect();
    assert_eq!(listed.len(), COUNT);
    for i in (0..COUNT).step_by(37) {
        assert!(listed.contains(&name(i)));
        c.dfs
            .lookup(&ROOT, dir, name(i).as_bytes())
            .expect("lookup");
        let absent = format!("{}z", name(i));
        assert_eq!(
            c.dfs.lookup(&ROOT, dir, absent.as_bytes()),
            Err(Errno::ENOENT)
        );
    }
    for i in (0..COUNT).filter(|i| i % 3 != 0) {
        c.dfs
            .unlink(&ROOT, dir, name(i).as_bytes())
            .expect("unlink");
    }
    let left = list(&c.dfs, dir).expect("list").len();
    assert_eq!(left, COUNT.div_ceil(3));
    assert_eq!(c.dfs.check().expect("check").problems, []);
}

#[test]
fn a_million_names_if_asked_for() {
    let Ok(count) = std::env::var("PIL4DFS_TEST_NAMES").map(|n| n.parse().expect("number")) else {
        return;
    };
    let c = Container::new();
    let dir = c
        .dfs
        .mkdir(&ROOT, c.dfs.root(), b"big", 0o755)
        .expect("mkdir");
    for i in 0..count {
        c.dfs
            .create(&ROOT, dir, format!("{i}").as_bytes(), 0o600, true)
            .expect("create");
    }
    assert_eq!(list(&c.dfs, dir).expect("list").len(), count);
}

#[test]
fn names_that_stay_are_listed_once_beside_names_that_change() {
    let c = Container::new();
    let dir = c
        .dfs
        .mkdir(&ROOT, c.dfs.root(), b"d", 0o755)
        .expect("mkdir");
    for i in 0..300 {
        c.dfs
            .create(&ROOT, dir, format!("stays{i}").as_bytes(), 0o600, true)
            .expect("create");
        c.dfs
            .create(&ROOT, dir, format!("goes{i}").as_bytes(), 0o600, true)
            .expect("create");
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for part in 0..2 {
            let (c, stop) = (&c, &stop);
            scope.spawn(move || {
                let mut round = part;
                while !stop.load(Ordering::Relaxed) {
                    let i = round * 31 % 300;
                    let old = format!("goes{i}");
                    let new = format!("other{part}-{round}-{}", "w".repeat(round % 100));
                    c.dfs
                        .rename(&ROOT, dir, old.as_bytes(), dir, new.as_bytes(), 0)
                        .ok();
                    c.dfs.unlink(&ROOT, dir, new.as_bytes()).ok();
                    c.dfs
                        .create(&ROOT, dir, old.as_bytes(), 0o600, false)
                        .expect("create");
                    round += 2;
                }
            });
        }
        for _ in 0..300 {
            let mut seen = vec![0; 300];
            let mut cursor = DirCursor::default();
            loop {
                let mut room = 7;
                let before = cursor.cookie;
                c.dfs
                    .getdents(dir, &mut cursor, &mut |entry| {
                        let name = std::str::from_utf8(entry.name).expect("a name, whole");
                        if let (true, Some(i)) = (room > 0, name.strip_prefix("stays")) {
                            seen[i.parse::<usize>().expect("number")] += 1;
                        }
                        room -= 1;
                        room >= 0
                    })
                    .expect("getdents");
                if cursor.cookie == before {
                    break;
                }
                // As after seekdir: the hint is lost.
                cursor.hint = 0;
            }
            assert!(seen.iter().all(|times| *times == 1), "{seen:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(c.dfs.check().expect("check").problems, []);
}

#[test]
fn many_threads_make_names_in_one_directory() {
    let c = Container::new();
    let root = c.dfs.root();
    let won = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (c, won) = (&c, &won);
            scope.spawn(move || {
                for i in 0..2000 {
                    let own = format!("t{thread}-{i}");
                    c.dfs
                        .create(&ROOT, root, own.as_bytes(), 0o600, true)
                        .expect("own name");
                    let shared = format!("shared{i}");
                    match c.dfs.create(&ROOT, root, shared.as_bytes(), 0o600, true) {
                        Ok(_) => won.fetch_add(1, Ordering::Relaxed),
                        Err(errno) => {
                            assert_eq!(errno, Errno::EEXIST);
                            0
                        }
                    };
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 2000);
    assert_eq!(list(&c.dfs, root).expect("list").len(), 8 * 2000 + 2000);
    assert_eq!(c.dfs.check().expect("check").problems, []);
}

#[test]
fn renames_beside_renames_lose_nothing_and_make_no_loops() {
    let c = Container::new();
    let root = c.dfs.root();
    for i in 0..6 {
        let dir = c
            .dfs
            .mkdir(&ROOT, root, format!("d{i}").as_bytes(), 0o755)
            .expect("mkdir");
        for k in 0..20 {
            c.dfs
                .create(&ROOT, dir, format!("f{i}-{k}").as_bytes(), 0o600, true)
                .expect("create");
        }
    }
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let c = &c;
            scope.spawn(move || {
                let mut state = thread + 1;
                let mut next = move |bound: u64| {
                    state = state
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    (state >> 33) % bound
                };
                for _ in 0..4000 {
                    let from = format!("d{}", next(6));
                    let to = format!("d{}", next(6));
                    let (from, to) = (find(c, &from), find(c, &to));
                    let (Some((from_dir, from_name, from_ino)), Some((_, _, to_ino))) = (from, to)
                    else {
                        continue;
                    };
                    if next(4) == 0 {
                        // A directory into another one: never below itself.
                        c.dfs
                            .rename(&ROOT, from_dir, &from_name, to_ino, &from_name, 1)
                            .ok();
                    } else {
                        let file = format!("f{}-{}", next(6), next(20));
                        let flags = [0, 1, 2][next(3) as usize];
                        c.dfs
                            .rename(
                                &ROOT,
                                from_ino,
                                file.as_bytes(),
                                to_ino,
                                file.as_bytes(),
                                flags,
                            )
                            .ok();
                    }
                }
            });
        }
    });
    let checked = c.dfs.check().expect("check");
    assert_eq!(checked.problems, []);
    assert_eq!((checked.dirs, checked.files, checked.orphans), (7, 120, 0));
}

/// Finds a directory anywhere in the tree by its name: parent, name, inode.
fn find(c: &Container, name: &str) -> Option<(dfs::Ino, Vec<u8>, dfs::Ino)> {
    let mut dirs = vec![c.dfs.root()];
    while let Some(dir) = dirs.pop() {
        for i in 0..6 {
            let entry = format!("d{i}");
            if let Ok(child) = c.dfs.lookup(&ROOT, dir, entry.as_bytes()) {
                if entry == name {
                    return Some((dir, entry.into_bytes(), child));
                }
                dirs.push(child);
            }
        }
        if dirs.len() > 100 {
            return None;
        }
    }
    None
}

#[test]
fn positions_stay_valid_while_a_directory_changes() {
    let c = Container::new();
    let dir = c.dfs.root();
    for i in 0..200 {
        c.dfs
            .create(&ROOT, dir, format!("n{i:03}").as_bytes(), 0o600, true)
            .expect("create");
    }
    let mut all = Vec::new();
    c.dfs
        .getdents(dir, &mut DirCursor::default(), &mut |entry| {
            all.push((entry.name.to_vec(), entry.cookie));
            true
        })
        .expect("getdents");
    for i in (0..200).step_by(2) {
        c.dfs
            .unlink(&ROOT, dir, format!("n{i:03}").as_bytes())
            .expect("unlink");
    }
    for (at, (_, cookie)) in all.iter().enumerate() {
        let mut rest = Vec::new();
        let mut cursor = DirCursor {
            cookie: *cookie,
            hint: 0,
        };
        c.dfs
            .getdents(dir, &mut cursor, &mut |entry| {
                rest.push(entry.name.to_vec());
                true
            })
            .expect("getdents");
        let gone = |name: &Vec<u8>| name[0] == b'n' && (name[3] - b'0').is_multiple_of(2);
        let expected: Vec<_> = all[at + 1..]
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !gone(name))
            .collect();
        assert_eq!(rest.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn targets_of_all_lengths_are_kept() {
    let c = Container::new();
    let root = c.dfs.root();
    for len in [1, 8, 55, 56, 57, 248, 249, 1016, 1017, 4094, 4095] {
        let target: Vec<u8> = (0..len).map(|i| b'a' + (i % 26) as u8).collect();
        let name = format!("l{len}");
        let link = c
            .dfs
            .symlink(&ROOT, &target, root, name.as_bytes())
            .expect("symlink");
        let mut buf = [0; 5000];
        assert_eq!(c.dfs.readlink(link, &mut buf), Ok(len));
        assert_eq!(buf[..len], target);
        assert_eq!(c.dfs.readlink(link, &mut buf[..1]), Ok(1));
        let stat = c.dfs.stat(link).expect("stat");
        assert_eq!((stat.size, stat.mode), (len as u64, 0o120777));
        c.dfs.unlink(&ROOT, root, name.as_bytes()).expect("unlink");
    }
    assert_eq!(
        c.dfs.symlink(&ROOT, &[b'x'; 4096], root, b"l"),
        Err(Errno::ENAMETOOLONG)
    );
    assert_eq!(c.dfs.symlink(&ROOT, b"", root, b"l"), Err(Errno::ENOENT));
    assert_eq!(c.dfs.readlink(root, &mut [0; 10]), Err(Errno::EINVAL));
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let c = Container::new();
    let root = c.dfs.root();
    c.dfs
        .create(&ROOT, root, b"l0", 0o600, true)
        .expect("create");
    for i in 1..=41 {
        let target = format!("l{}", i - 1);
        c.dfs
            .symlink(&ROOT, target.as_bytes(), root, format!("l{i}").as_bytes())
            .expect("symlink");
    }
    let file = walk(&c.dfs, &ROOT, "l0", true).expect("walk");
    assert_eq!(walk(&c.dfs, &ROOT, "l40", true).expect("walk"), file);
    assert!(matches!(
        walk(&c.dfs, &ROOT, "l41", true),
        Err(Errno::ELOOP)
    ));
    assert!(walk(&c.dfs, &ROOT, "l41", false).expect("walk").is_some());
}

#[test]
fn remembered_directories_are_exact() {
    let c = Container::new();
    let (dfs, root) = (&c.dfs, c.dfs.root());
    let stranger = user(7, &[]);
    let a = dfs.mkdir(&ROOT, root, b"a", 0o755).expect("mkdir");
    let b = dfs.mkdir(&ROOT, a, b"b", 0o755).expect("mkdir");
    let (f, _) = dfs.create(&ROOT, b, b"f", 0o644, true).expect("create");
    let ask = |cred: &dfs::Cred<'_>| walk(dfs, cred, "a/b/f", true);
    for _ in 0..2 {
        assert_eq!(ask(&ROOT), Ok(Some(f)));
        assert_eq!(ask(&stranger), Ok(Some(f)));
    }
    // A right is taken and given back above the last directory.
    dfs.chmod(&ROOT, a, 0o700).expect("chmod");
    assert_eq!(ask(&stranger), Err(Errno::EACCES));
    assert_eq!(ask(&ROOT), Ok(Some(f)));
    dfs.chown(&ROOT, a, Some(7), None).expect("chown");
    assert_eq!(ask(&stranger), Ok(Some(f)));
    assert_eq!(ask(&user(8, &[])), Err(Errno::EACCES));
    dfs.chmod(&ROOT, a, 0o710).expect("chmod");
    assert_eq!(ask(&user(8, &[0])), Ok(Some(f)));
    assert_eq!(ask(&user(8, &[1])), Err(Errno::EACCES));
    // A directory above moves, within its parent and out of it, and another takes its place.
    dfs.rename(&ROOT, root, b"a", root, b"c", 0)
        .expect("rename");
    assert_eq!(ask(&ROOT), Err(Errno::ENOENT));
    dfs.rename(&ROOT, root, b"c", root, b"a", 0)
        .expect("rename");
    assert_eq!(ask(&ROOT), Ok(Some(f)));
    dfs.rename(&ROOT, a, b"b", root, b"b", 0).expect("rename");
    assert_eq!(ask(&ROOT), Err(Errno::ENOENT));
    let other = dfs.mkdir(&ROOT, a, b"b", 0o755).expect("mkdir");
    let (g, _) = dfs.create(&ROOT, other, b"f", 0o644, true).expect("create");
    assert_eq!(ask(&ROOT), Ok(Some(g)));
    dfs.rename(&ROOT, a, b"b", root, b"b", 2).expect("exchange");
    assert_eq!(ask(&ROOT), Ok(Some(f)));
    // A removed directory that somebody has open is not the one that has its name now.
    dfs.unlink(&ROOT, b, b"f").expect("unlink");
    assert_eq!(ask(&ROOT), Ok(None));
    let held = dfs.open(&ROOT, b, 0).expect("open");
    dfs.rmdir(&ROOT, a, b"b").expect("rmdir");
    assert_eq!(ask(&ROOT), Err(Errno::ENOENT));
    dfs.symlink(&ROOT, b"../b", a, b"b").expect("symlink");
    assert_eq!(ask(&ROOT), Ok(Some(g)));
    dfs.ofd_release(held).expect("release");
    // How far a walk may go is no part of what is remembered.
    let beneath = How {
        beneath: true,
        ..How::default()
    };
    for how in [How::default(), beneath] {
        let (path, mut buf) = (b"../a/../b/f", [0; 4096]);
        let walked = dfs
            .walk(&ROOT, a, path, how, &mut buf)
            .map(|end| match end {
                Walk::Here(place) => place.target,
                Walk::Leave { .. } => None,
            });
        let expected = if how.beneath {
            Err(Errno::EXDEV)
        } else {
            Ok(Some(g))
        };
        assert_eq!(walked, expected);
    }
}

#[test]
fn walks_leave_upwards_and_through_absolute_links() {
    let c = Container::new();
    let root = c.dfs.root();
    let dir = c.dfs.mkdir(&ROOT, root, b"d", 0o755).expect("mkdir");
    c.dfs
        .symlink(&ROOT, b"/etc/x", dir, b"abs")
        .expect("symlink");
    c.dfs
        .symlink(&ROOT, b"../../up", dir, b"rel")
        .expect("symlink");
    let leave = |path: &str, how: How| {
        let mut buf = [0; 4096];
        match c.dfs.walk(&ROOT, root, path.as_bytes(), how, &mut buf) {
            Ok(Walk::Leave { len, absolute }) => {
                Ok((String::from_utf8_lossy(&buf[..len]).into_owned(), absolute))
            }
            Ok(Walk::Here(_)) => panic!("{path} stayed inside"),
            Err(errno) => Err(errno),
        }
    };
    let follow = How {
        follow: true,
        ..How::default()
    };
    assert_eq!(leave("..", follow), Ok((".".into(), false)));
    assert_eq!(leave("d/../../a/b/", follow), Ok(("a/b/".into(), false)));
    assert_eq!(leave("d/abs/y", follow), Ok(("/etc/x/y".into(), true)));
    assert_eq!(leave("d/rel", follow), Ok(("up".into(), false)));
    assert_eq!(leave("d/rel/z", follow), Ok(("up/z".into(), false)));
    assert_eq!(
        leave(
            "..",
            How {
                beneath: true,
                ..follow
            }
        ),
        Err(Errno::EXDEV)
    );
    assert_eq!(
        leave(
            "d/abs",
            How {
                beneath: true,
                ..follow
            }
        ),
        Err(Errno::EXDEV)
    );
    assert_eq!(
        leave(
            "d/rel/z",
            How {
                no_symlinks: true,
                ..follow
            }
        ),
        Err(Errno::ELOOP)
    );
    assert_eq!(leave("missing/..", follow), Err(Errno::ENOENT));
}

#[test]
fn directories_know_their_path() {
    let c = Container::new();
    let root = c.dfs.root();
    let mut buf = [0; 4096];
    let mut path = |dir| {
        let len = c.dfs.path_of(dir, &mut buf)?;
        Ok::<_, Errno>(String::from_utf8_lossy(&buf[..len]).into_owned())
    };
    assert_eq!(path(root), Ok("/".into()));
    let a = c.dfs.mkdir(&ROOT, root, b"a", 0o755).expect("mkdir");
    let b = c.dfs.mkdir(&ROOT, a, b"bee", 0o755).expect("mkdir");
    assert_eq!(path(b), Ok("/a/bee".into()));
    c.dfs
        .rename(&ROOT, root, b"a", root, b"other", 0)
        .expect("rename");
    assert_eq!(path(b), Ok("/other/bee".into()));
    c.dfs
        .rename(&ROOT, a, b"bee", root, b"c", 0)
        .expect("rename");
    c.dfs
        .rename(&ROOT, root, b"c", root, b"other", 2)
        .expect("exchange");
    assert_eq!((path(a), path(b)), (Ok("/c".into()), Ok("/other".into())));
    assert_eq!(c.dfs.path_of(b, &mut [0; 3]), Err(Errno::ERANGE));
    c.dfs.rmdir(&ROOT, root, b"other").expect("rmdir");
    assert_eq!(c.dfs.path_of(b, &mut [0; 100]), Err(Errno::ENOENT));
    assert_eq!(
        c.dfs.create(&ROOT, b, b"x", 0o600, true),
        Err(Errno::ENOENT)
    );
}

#[test]
fn changes_of_a_directory_show_in_its_times() {
    let c = Container::new();
    let root = c.dfs.root();
    let past = SetTime::At(1_000_000_007);
    let changes: [&dyn Fn(); 6] = [
        &|| assert!(c.dfs.create(&ROOT, root, b"f", 0o600, true).is_ok()),
        &|| {
            c.dfs
                .rename(&ROOT, root, b"f", root, b"g", 0)
                .expect("rename")
        },
        &|| assert!(c.dfs.mkdir(&ROOT, root, b"d", 0o755).is_ok()),
        &|| {
            let file = c.dfs.lookup(&ROOT, root, b"g").expect("lookup");
            c.dfs.link(&ROOT, file, root, b"h").expect("link");
        },
        &|| c.dfs.unlink(&ROOT, root, b"g").expect("unlink"),
        &|| c.dfs.rmdir(&ROOT, root, b"d").expect("rmdir"),
    ];
    for change in changes {
        c.dfs.utimens(&ROOT, root, past, past).expect("utimens");
        change();
        let stat = c.dfs.stat(root).expect("stat");
        assert_eq!(stat.atime, 1_000_000_007);
        assert!(stat.mtime > 1_000_000_007 && stat.ctime == stat.mtime);
    }
}

#[test]
fn reading_is_recorded_as_relatime_does() {
    let c = Container::new();
    let (file, _) = c
        .dfs
        .create(&ROOT, c.dfs.root(), b"f", 0o600, true)
        .expect("create");
    let atime = || c.dfs.stat(file).expect("stat").atime;
    c.dfs
        .utimens(&ROOT, file, SetTime::At(5), SetTime::At(7))
        .expect("utimens");
    c.dfs.touch_atime(file);
    let first = atime();
    assert!(first > 7, "the last access was before the last change");
    let later = SetTime::At(c.dfs.stat(file).expect("stat").ctime + 1_000_000_000);
    c.dfs
        .utimens(&ROOT, file, later, SetTime::At(7))
        .expect("utimens");
    let set = atime();
    c.dfs.touch_atime(file);
    assert_eq!(atime(), set, "nothing changed since the last access");
}

#[test]
fn unnamed_files_can_be_given_a_first_name() {
    let c = Container::new();
    let root = c.dfs.root();
    let file = c.dfs.tmpfile(&ROOT, root, 0o600).expect("tmpfile");
    assert_eq!(c.dfs.stat(file).expect("stat").nlink, 0);
    assert_eq!(list(&c.dfs, root).expect("list"), Vec::<String>::new());
    c.dfs.link(&ROOT, file, root, b"named").expect("link");
    assert_eq!(c.dfs.stat(file).expect("stat").nlink, 1);
    c.dfs.unlink(&ROOT, root, b"named").expect("unlink");
    assert_eq!(c.dfs.stat(file), Err(Errno::ESTALE));
}

#[test]
fn others_may_not_link_what_they_could_not_have_made() {
    let c = Container::new();
    let root = c.dfs.root();
    c.dfs.chmod(&ROOT, root, 0o777).expect("chmod");
    let (file, _) = c
        .dfs
        .create(&ROOT, root, b"secret", 0o600, true)
        .expect("create");
    assert_eq!(
        c.dfs.link(&user(1000, &[]), file, root, b"mine"),
        Err(Errno::EPERM)
    );
    c.dfs.chmod(&ROOT, file, 0o666).expect("chmod");
    c.dfs
        .link(&user(1000, &[]), file, root, b"mine")
        .expect("link");
    c.dfs.chmod(&ROOT, file, 0o4666).expect("chmod");
    assert_eq!(
        c.dfs.link(&user(1000, &[]), file, root, b"again"),
        Err(Errno::EPERM)
    );
}
